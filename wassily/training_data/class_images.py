"""Pictures of the class that a thing belongs to: what is missing of them, drawn by the base model.

The pictures are data, not a part of one run: the number of each is its seed, so that any run with
this model and this prompt draws the same.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path

import torch

from wassily.config.training import TrainConfig
from wassily.data import datasets, entries, folders, png
from wassily.data.datasets import Pictures
from wassily.errors import UserError
from wassily.files import atomic
from wassily.generation import pipelines, sample
from wassily.runtime.accelerator import Runtime
from wassily.runtime.progress import progress

DRAWN = re.compile(r"class-(\d{5,})\.png")


def gather(config: TrainConfig, repositories: dict[str, str], runtime: Runtime) -> Pictures:
    """The class pictures of a config, drawn first where they are missing. Raises UserError."""
    generate_missing(config, repositories, runtime)
    prompt = config.class_prompt if config.role == "prior" else None
    found = datasets.read_prompted(str(config.class_data_dir), prompt)
    entries.tell(found.remarks, found.root, runtime.say)
    return found.select(list(range(min(len(found), config.num_class_images))))


def file_of(folder: Path, number: int) -> Path:
    """Where the drawn picture of this number is."""
    return folder / f"class-{number:05d}.png"


def missing(folder: Path, wanted: int, batch: int, prompt: str) -> list[list[int]]:
    """Numbers of the pictures to draw, batch by batch, so that `wanted` are there with those that
    others put there.

    A batch of which one is missing is drawn as a whole: the last bits of a picture depend on how
    many are drawn at once. Raises UserError if the first one was drawn from another prompt.
    """
    there = folders.pictures_in(entries.scan(folder))
    drawn = [path for path in there if path.parent == folder and DRAWN.fullmatch(path.name)]
    for path in drawn[:1]:
        before = png.png_notes(path).get("prompt", prompt)
        if before != prompt:
            raise UserError(
                f"--class_data_dir {folder}: {path.name} was drawn from {before!r}, not from "
                f"{prompt!r}; name another folder"
            )
    numbers = range(wanted - (len(there) - len(drawn)))
    batches = [list(numbers[i : i + batch]) for i in range(0, len(numbers), batch)]
    return [some for some in batches if not all(file_of(folder, n).is_file() for n in some)]


def generate_missing(config: TrainConfig, repositories: dict[str, str], runtime: Runtime) -> None:
    """Fill the folder of class pictures; the first process draws, and all wait for each batch."""
    folder = Path(str(config.class_data_dir))
    wanted = (folder, config.num_class_images, config.sample_batch_size, str(config.class_prompt))
    batches = runtime.shared(lambda: missing(*wanted))
    total = sum(map(len, batches))
    if not total:
        return
    runtime.shared(lambda: _made(folder))
    runtime.say(f"drawing {total} class pictures into {folder}")
    work = _drawn(config, repositories, runtime, folder, batches)
    with progress("drawing class pictures", total, runtime.main, "picture") as bar:
        for _ in batches:
            bar.advance(runtime.shared(lambda: next(work)))
    work.close()
    runtime.let_go()


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.sweep(folder)
    except OSError as error:
        raise UserError(f"--class_data_dir {folder}: {error.strerror or error}") from None


def _drawn(
    config: TrainConfig,
    repositories: dict[str, str],
    runtime: Runtime,
    folder: Path,
    batches: list[list[int]],
) -> Generator[int, None, None]:
    """Draw and write one batch at each turn; how many it has. Nothing is loaded before the first.

    Raises UserError if a picture cannot be written.
    """
    where = (runtime.weight_dtype, config.cache_dir)
    prior = pipelines.prior_pipeline(repositories["prior"], *where)
    decoder = pipelines.decoder_pipeline(repositories["decoder"], *where)
    side, prompt = config.resolution, str(config.class_prompt)
    drawing = sample.Drawing(height=side, width=side, batch_size=config.sample_batch_size)
    generators = [torch.Generator().manual_seed(n) for some in batches for n in some]
    prompts = [prompt] * len(generators)
    embeds = sample.embed_all(prior, prompts, generators, drawing, runtime.device)
    done = 0
    with pipelines.on(decoder, runtime.device):
        for numbers in batches:
            part = slice(done, done + len(numbers))
            given = (embeds[0][part], embeds[1][part])
            made = sample.paint(decoder, given, generators[part], drawing, runtime.device)
            for number, picture in zip(numbers, made, strict=True):
                notes = {"prompt": prompt, "seed": number, **repositories}
                try:
                    png.save_png(picture, file_of(folder, number), notes)
                except OSError as error:
                    raise UserError(f"--class_data_dir {folder}: {error.strerror}") from None
            done += len(numbers)
            yield len(numbers)
