"""`wassily generate` and `wassily mix`: PNGs that carry what drew them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wassily.config import generation_checks
from wassily.config.generation import DrawConfig, GenerateConfig
from wassily.data import images, png, sheets
from wassily.errors import UserError
from wassily.generation import conditions, load, metadata, pipelines, sample
from wassily.generation.load import Networks
from wassily.maths import randomness
from wassily.runtime.accelerator import quiet_libraries
from wassily.runtime.progress import Progress

if TYPE_CHECKING:
    from wassily.generation.sample import KandinskyV22Pipeline, KandinskyV22PriorPipeline

NUMBERED = re.compile(r"([0-9]{1,9})-")  # the beginning of the name of an image in a folder


def generate(config: GenerateConfig) -> None:
    """Draw every prompt `num_images` times into `out`; or a picture again from its notes."""
    if config.from_picture is None:
        draw(config)
    else:
        generate_again(config)


def draw(config: DrawConfig) -> None:
    """Draw all that a config asks for, one seed after the other, and save it with its notes."""
    task = conditions.task(config)
    jobs = jobs_of(config, task)
    files, prior, decoder, device = ready(config, task)
    bar = Progress("drawing", len(jobs), unit="picture")
    drawing = drawing_of(config, task.canvas)
    pairs = [(subject, seed) for subject, _, seed in jobs]
    drawn = sample.draw(prior, decoder, pairs, drawing, device, bar.advance)
    bar.close()
    noted = provenance_of(config, task, jobs, decoder.unet.dtype, device)
    for (_, words, seed), picture, file, one in zip(jobs, drawn, files, noted, strict=True):
        saved = save(picture, file, metadata.png_chunks(one, words), config)
        print(f"{saved}  (seed {seed})")
    if config.grid:
        path = grid_file(config, len(drawn))
        rows = [drawn[i : i + config.num_images] for i in range(0, len(drawn), config.num_images)]
        headings = [f"seed {seed}" for _, _, seed in jobs[: config.num_images]]
        png.save_png(sheets.sheet(rows, headings, task.words), path, {})
        print(path)


def jobs_of(config: DrawConfig, task: conditions.Task) -> list[tuple[sample.Subject, str, int]]:
    """Subject, its words and the seed of each picture that a config asks for, in order."""
    first = randomness.fresh_seed() if config.seed is None else config.seed
    return [
        (subject, words, first + k)
        for subject, words in zip(task.subjects, task.words, strict=True)
        for k in range(config.num_images)
    ]


def provenance_of(
    config: DrawConfig,
    task: conditions.Task,
    jobs: list[tuple[sample.Subject, str, int]],
    dtype: torch.dtype,
    device: torch.device,
) -> list[metadata.Provenance]:
    """What draws each of these pictures again, in a batch like its own."""
    made_with, noted = metadata.made_with(device), []
    for number, (_, words, seed) in enumerate(jobs):
        begin = number - number % config.batch_size
        size = min(config.batch_size, len(jobs) - begin)
        one = alone(config, words, seed=seed, batch_size=size, dtype=load.DTYPE_NAMES[dtype])
        noted.append(metadata.Provenance(one, number - begin, task.digests, made_with))
    return noted


def generate_again(config: GenerateConfig) -> None:
    """Draw one picture as its notes tell, in a batch like its first one."""
    old = metadata.read_provenance(str(config.from_picture))
    asked = dataclasses.replace(
        old.config, out=config.out, offload=config.offload, cache_dir=config.cache_dir
    )
    task = conditions.task(asked)
    metadata.check_same(old, task.digests)
    print(f"prior {asked.prior}, decoder {asked.decoder}, seed {asked.seed}")
    (file,), prior, decoder, device = ready(asked, task)
    for line in metadata.differences(old, device):
        print(line)
    assert asked.seed is not None  # `read_provenance` saw to that
    jobs = [(task.subjects[0], asked.seed)] * asked.batch_size
    drawing = drawing_of(asked, task.canvas)
    picture = sample.draw(prior, decoder, jobs, drawing, device)[old.place]
    again = dataclasses.replace(old, made_with=metadata.made_with(device))
    saved = save(picture, file, metadata.png_chunks(again, task.words[0]), asked)
    print(f"{saved}  (seed {asked.seed})")


def destinations(config: DrawConfig, task: conditions.Task, networks: Networks) -> list[Path]:
    """Where the pictures go, once all that can be checked beforehand is. Raises UserError before
    the output folder is made and any weight is loaded.
    """
    load.check_decoder(config, networks, task.canvas)
    return output_files(config, task.words)


def ready(
    config: DrawConfig, task: conditions.Task
) -> tuple[list[Path], KandinskyV22PriorPipeline, KandinskyV22Pipeline, torch.device]:
    """`destinations`, both pipelines and the device. Raises UserError."""
    networks = load.find(config)
    files = destinations(config, task, networks)
    quiet_libraries()
    prior, decoder, device = load.pipelines(config, networks)
    for line in rounded_sizes(config, pipelines.rounded_to(decoder)):
        print(line)
    return files, prior, decoder, device


def alone(config: DrawConfig, words: str, **changes: Any) -> DrawConfig:
    """The config of one picture of those that a config asks for."""
    changes["steps"] = generation_checks.steps(config, config)
    if config.image is not None and config.mask is None:
        changes["strength"] = config.strength or generation_checks.STRENGTH
    if isinstance(config, GenerateConfig) and config.variations is None:
        changes |= {"prompts": (words,), "prompts_file": None}
    return dataclasses.replace(config, num_images=1, **changes)


def drawing_of(config: DrawConfig, canvas: sample.Canvas) -> sample.Drawing:
    """How a config says to draw on a canvas."""
    return sample.Drawing(
        config.steps,
        config.prior_steps,
        config.guidance_scale,
        config.prior_guidance_scale,
        config.negative_prompt,
        config.height,
        config.width,
        config.batch_size,
        canvas,
        config.scheduler,
    )


def output_files(config: DrawConfig, prompts: list[str]) -> list[Path]:
    """Where each picture goes: the one file asked for, or numbered files in a folder."""
    out = Path(config.out)
    count = len(prompts) * config.num_images
    _check_writable(out)
    if out.suffix.lower() == ".png" and count == 1:
        return [out]
    if out.suffix.lower() == ".png":
        if not config.grid:
            raise UserError(
                f"--out {out}: {count} pictures do not fit one file; name a folder, or add --grid "
                "for a sheet of them"
            )
        out = out.with_suffix("")
        _check_writable(out)
    first = _free_number(out)
    return [
        out / f"{first + i:03d}-{slug(prompts[i // config.num_images])}.png" for i in range(count)
    ]


def _free_number(folder: Path) -> int:
    """The number after the highest one that a file of a folder begins with."""
    used = [int(m[1]) for p in folder.glob("*.png") if (m := NUMBERED.match(p.name))]
    return max(used, default=-1) + 1


def save(
    image: images.Picture, file: Path, notes: Mapping[str, object], config: DrawConfig
) -> Path:
    """Save a generated image under its name, or under the next free number of its folder where
    another program took that meanwhile; where it is. The one file of --out is replaced.
    """
    if file == Path(config.out):
        png.save_png(image, file, notes)
        return file
    while True:
        with contextlib.suppress(FileExistsError):
            png.save_png(image, file, notes, new=True)
            return file
        words = NUMBERED.sub("", file.name, count=1)
        file = file.with_name(f"{_free_number(file.parent):03d}-{words}")


def _check_writable(out: Path) -> None:
    """Raise UserError if pictures cannot be put there: known before anything is drawn."""
    single = out.suffix.lower() == ".png"
    if single and out.is_dir():
        raise UserError(f"--out {out}: a folder; name a .png file, or a folder without .png")
    folder = out.parent if single else out
    if out.suffix.lower() in images.SUFFIXES and not single:
        raise UserError(
            f"--out {out}: pictures are saved as PNG; name {out.with_suffix('.png')}, or a folder"
        )
    if out.is_file() and not single:
        raise UserError(f"--out {out}: a file; name a folder or a .png")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror or error}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"--out {out}: no permission to write there")


def grid_file(config: DrawConfig, count: int) -> Path:
    """The sheet's name: inside a folder, beside the file of one picture, or the file itself."""
    out = Path(config.out)
    if out.suffix.lower() != ".png":
        return out / "sheet.png"
    return out if count > 1 else out.with_name(f"{out.stem}-sheet.png")


def rounded_sizes(config: DrawConfig, multiple: int) -> list[str]:
    """A line for each side that the pipeline rounds up to a multiple of so many pixels."""
    return [
        f"--{name} {side}: no multiple of {multiple}; drawn at {-side // multiple * -multiple}"
        for name in ("height", "width")
        if (side := getattr(config, name)) is not None and side % multiple
    ]


def slug(prompt: str) -> str:
    """A prompt as a short file name; letters of any script stay."""
    return re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:40].strip("-") or "picture"
