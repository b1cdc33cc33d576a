"""Peak memory of a training, measured, beside the estimate of `wassily plan` where there is one.

python -m benchmarks.memory --size small

On a GPU it is the peak of PyTorch's allocator; on a CPU that of the resident memory, less what the
process had before it loaded anything.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks import models, report, runs
from benchmarks.runs import Job
from wassily import cli, plan, run, start
from wassily.config import TrainConfig

HEAD = ("", "measured, MB", "estimated, MB", "estimated / measured")
CLASSES = {"prior": "PriorConfig", "decoder": "DecoderConfig"}


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--size", choices=models.SIZES, default="small")
    add("--networks", choices=("prior", "decoder"), default=["prior", "decoder"], nargs="+")
    add("--resolution", type=int, default=256)
    add("--batch", type=int, default=1)
    add("--precision", choices=("no", "fp16", "bf16"), default="no")
    add("--more", default="", help="more flags for wassily, in one word")
    add("--work", type=Path, metavar="FOLDER", help="keeps models and cache; else they are removed")
    add("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    return parser.parse_args(words)


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def child(words: list[str]) -> None:
    """Train in this process, and write the peak in bytes into the file named last."""
    *flags, file = words
    config = cli.parse(flags.pop(0), flags, "wassily train")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    run.train(config)
    gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if gpu else resident("VmHWM") - before
    Path(file).write_text(str(peak))


def estimated(config: TrainConfig) -> int:
    """Bytes of the tensors at the fullest moment after the encoding."""
    precision = config.mixed_precision or "no"
    found = plan.estimate(config, start.check_surroundings(config), precision)
    return max(kinds.total() for name, kinds in found.moments.items() if name != "encoding")


def row(name: str, job: Job, work: Path) -> list[str]:
    """Measure one training whose encodings are there."""
    out, file = work / "out", work / "peak"
    words = [*job.words(out), f"--cache_dir={work / 'cache'}", *job.more]
    if job.recompute:
        words.append("--gradient_checkpointing")
    begin = "from benchmarks.memory import child; import sys; child(sys.argv[1:])"
    runs.encode(job, work)
    runs.launch(["-c", begin, CLASSES[job.role], *words, file], work)
    measured = int(file.read_text())
    guess = estimated(cli.parse(CLASSES[job.role], words, "wassily train"))
    if guess is None:
        return [name, f"{measured / 1e6:.0f}", "", ""]
    return [name, f"{measured / 1e6:.0f}", f"{guess / 1e6:.0f}", f"{guess / measured:.2f}"]


def main(words: list[str] | None = None) -> Path:
    """Each network, the decoder with and without gradient checkpointing."""
    args = options(words)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        folders = models.make(work / args.size, args.size)
        pictures = models.draw_pictures(work / "pictures", 16, 512)
        for role in args.networks:
            for recompute in (False, True) if role == "decoder" else (False,):
                job = Job(
                    role=role,
                    models=folders,
                    pictures=pictures,
                    resolution=args.resolution,
                    batch=args.batch,
                    accumulation=1,
                    steps=3,
                    precision=args.precision,
                    recompute=recompute,
                    more=tuple(args.more.split()),
                )
                name = f"{role}{', gradient checkpointing' if recompute else ''}"
                rows.append(row(name, job, work))
    about = (
        f"Size `{args.size}`, batch {args.batch}, {args.resolution} px, precision "
        f"{args.precision}, 3 steps. Measured: the allocator's peak on a GPU; on a CPU the growth "
        "of resident memory. Estimated: the tensors at the fullest moment."
    )
    parts = [about, report.table(HEAD, rows)]
    path = report.write("memory", "Memory of a training", parts, args.results)
    print(path)
    return path


if __name__ == "__main__":
    main()
