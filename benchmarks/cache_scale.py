"""What the cache costs as it grows: the start of a run on it, memory, and reading.

python -m benchmarks.cache_scale --entries 10000 100000 1000000

Pictures, captions and encodings are made up: small files that are never opened as pictures, and
entries of the shapes of a tiny model, in as many shards as the real model's would fill. Then a real
training of the prior starts on them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import models, report, runs
from benchmarks.runs import Job, Timed
from wassily.config.training import PriorConfig
from wassily.data.datasets import Pictures
from wassily.encodings import cache, definitions, lookup
from wassily.encodings.definitions import EncoderContext
from wassily.encodings.fill import Encoding, caption_key, image_contents
from wassily.runtime.accelerator import Runtime
from wassily.training.setup import check_surroundings
from wassily.training_data import training_set

PER_SHARD = 7000  # of the real model's captions: 14 tokens of 1280 values in bf16 make 36 kB
TOKENS, READS, STEPS = 14, 5000, 2
HEAD = (
    "entries",
    "start to first step, s",
    "processor s",
    "peak of the run, MB",
    "bytes an entry more",
    "open the stores, s",
    "random reads/s",
)


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="kept; else removed")
    parser.add_argument("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    return parser.parse_args(words)


def invent(folder: Path, count: int) -> list[str]:
    """A folder of `count` small files with a caption each, unless it is there; their paths."""
    names = [f"{number:07d}.jpg" for number in range(count)]
    if not (folder / "metadata.jsonl").is_file():
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text(name)
        lines = (
            json.dumps({"file_name": name, "text": f"a photo of thing number {name[:-4]}"})
            for name in names
        )
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return [str(folder / name) for name in names]


def frozen_parts(job: Job, work: Path) -> tuple[PriorConfig, EncoderContext]:
    """The encoders of a training, as a run would find them."""
    config = PriorConfig(
        pretrained_prior_model_name_or_path=str(job.models.prior),
        pretrained_decoder_model_name_or_path=str(job.models.decoder),
        train_data_dir=str(job.pictures),
        cache_dir=str(work / "cache"),
        output_dir=str(work / "out"),
        mixed_precision="no",
        report_to="none",
    )
    runtime = Runtime("no", 1, config.output_dir, config.logging_dir, "none")
    root = cache.default_folder(config.cache_dir)
    return config, definitions.of_training(config, check_surroundings(config), runtime, root)


def fill(paths: list[str], wanted: list[Encoding], root: Path, width: int) -> None:
    """An entry for every file and caption, of random values."""
    contents, (image, text) = cache.Contents(root), wanted
    writers = cache.Writer(image.folder(root)), cache.Writer(text.folder(root), text.ragged)
    states = torch.randn(PER_SHARD, TOKENS, width)
    for number, path in enumerate(paths):
        row = states[number % PER_SHARD]
        writers[0].add(contents.read(path, path), {"image_embeds": row[0]})
        key = caption_key(f"a photo of thing number {Path(path).stem}")
        writers[1].add(key, {"text_embeds": row[1], "text_states": row})
        if (number + 1) % PER_SHARD == 0:
            for writer in writers:
                writer.flush()
    for writer in (*writers, contents.writer):
        writer.flush()


def reading(
    wanted: list[Encoding], source: Pictures, context: EncoderContext
) -> tuple[float, float]:
    """Seconds to open the stores, and examples read per second in random order."""
    began = time.perf_counter()
    contents, _ = image_contents(source, context.root, context.runtime)
    choice = lookup.ExampleDraws(0, False)
    cached = lookup.Cached(wanted, source, contents, context.root, choice)
    opened = time.perf_counter() - began
    order = np.random.default_rng(0).integers(0, len(source), READS).tolist()
    began = time.perf_counter()
    for index in order:
        cached(index, 0, 0)
    return opened, READS / (time.perf_counter() - began)


def measure(count: int, work: Path) -> tuple[Timed, float, float]:
    """A run on `count` entries, and what `reading` gives."""
    folder = work / f"{count}"
    paths = invent(folder / "pictures", count)
    job = Job("prior", models.make(work / "tiny", "tiny"), folder / "pictures", steps=STEPS)
    config, context = frozen_parts(job, folder)
    wanted = definitions.make_encodings(context)
    if not wanted[1].folder(context.root).is_dir():
        fill(paths, wanted, context.root, models.SIZES["tiny"].embedding)
    del paths
    started = runs.ours(job, folder, 1)
    source = training_set.chosen_images(config, 0, context.runtime)
    return started, *reading(wanted, source, context)


def main(words: list[str] | None = None) -> Path:
    """Measure every size, from the smallest."""
    args = options(words)
    rows: list[list[object]] = []
    least = (0, 0)
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        for count in sorted(args.entries):
            run, opened, rate = measure(count, work)
            peak = run.usage.peak
            least = least if rows else (count, peak)
            more = (peak - least[1]) / (count - least[0]) if rows else None
            shown = f"{more:.0f}" if more is not None else ""
            cells = [f"{run.start:.1f}", f"{run.start_processor:.1f}", f"{peak / 1e6:.0f}", shown]
            rows.append([f"{count:,}", *cells, f"{opened:.1f}", f"{rate:.0f}"])
    about = (
        f"A training of the tiny prior on a complete cache, batch 1 x {Job.accumulation}. Entries "
        f"of {TOKENS} tokens, {PER_SHARD} a shard; one distinct caption a picture. Memory is "
        "resident memory, with the libraries and what is mapped of the files; an entry's growth is "
        "against the first row. Reads are whole examples, picture and caption, in random order."
    )
    parts = [about, report.table(HEAD, rows)]
    path = report.write("cache-scale", "The cache as it grows", parts, args.results)
    print(path)
    return path


if __name__ == "__main__":
    main()
