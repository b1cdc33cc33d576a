"""What several test files need: the command line in-process and as a process, drawn images."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[1]

# Launchers' and users' settings must not leak into a test.
_LEAKS = ("HF_", "HUGGING", "ACCELERATE_", "WANDB_", "MLFLOW_", "COMET_", "TRACKIO_", "LC_", "XDG_")
_LEAK_NAMES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("LANGUAGE", "LINES", "NO_COLOR", "FORCE_COLOR", "PYTHONWARNINGS", "PYTHONOPTIMIZE"),
)
CLEAN = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",  # two workers on a busy machine do not spin
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # in the process itself: no others that import torch
    "COLUMNS": "100",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "ACCELERATE_USE_CPU": "true",
    "WANDB_MODE": "offline",
    "PYTHONUNBUFFERED": "1",
}


def clean_environment(**more: str | None) -> dict[str, str]:
    """The environment without tokens and launcher settings, offline, on the CPU, one thread.

    `more` adds variables; None removes one. HOME, HF_HOME and XDG_CACHE_HOME are kept:
    conftest points them at an empty folder.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if key in ("HF_HOME", "XDG_CACHE_HOME")
        or not (key.startswith(_LEAKS) or key in _LEAK_NAMES)
    }
    kept |= {**CLEAN, "PYTHONPATH": str(ROOT)}
    for key, value in more.items():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = value
    return kept


def run_command(
    *words: object,
    cwd: Path | None = None,
    timeout: float = 600,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program in a clean environment (plus `env`) and wait; output as text, never raises
    on a failure of the program.

    A first word of "python" is this interpreter; "accelerate" and "torchrun" are run as modules
    of it.
    """
    modules = {
        "accelerate": ["-m", "accelerate.commands.accelerate_cli"],
        "torchrun": ["-m", "torch.distributed.run"],
        "wassily": ["-m", "wassily"],
    }
    line = [str(word) for word in words]
    if line[0] == "python":
        line[0] = sys.executable
    elif line[0] in modules:
        line[:1] = [sys.executable, *modules[line[0]]]
    return subprocess.run(
        line,
        cwd=cwd or ROOT,
        env=clean_environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@dataclass(frozen=True)
class Outcome:
    """What a command in this process did."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams."""
        return self.out + self.err


def run_cli(*words: object) -> Outcome:
    """`wassily WORDS` in this process: exit code and what it wrote; a stack trace propagates."""
    from wassily import cli

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:  # tyro ends the program itself on an unknown flag and on --help
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Outcome(code, out.getvalue(), err.getvalue())


# ---------------------------------------------------------------- pictures


def draw_picture(number: int, width: int = 96, height: int = 80) -> Image.Image:
    """A picture with smooth parts and edges, different for each number."""
    y, x = np.mgrid[0:height, 0:width]
    a, b = 3 + number % 5, 2 + number % 7
    planes = [
        127.5 + 127.5 * np.sin(a * x / width * 3 + number),
        127.5 + 127.5 * np.cos(b * y / height * 4 - number),
        np.where((x // 8 + y // (5 + number % 4)) % 2, 220, 40),
    ]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def guide_pixels(img: Image.Image, side: int) -> torch.Tensor:
    """`center_crop` and `train_transforms` of the guide's decoder script."""
    import torch

    width, height = img.size
    new_size = min(width, height)
    left = (width - new_size) / 2
    top = (height - new_size) / 2
    right = (width + new_size) / 2
    bottom = (height + new_size) / 2
    img = img.crop((left, top, right, bottom))
    img = img.resize((side, side), resample=Image.BICUBIC, reducing_gap=1)
    arr = np.array(img.convert("RGB"))
    arr = arr.astype(np.float32) / 127.5 - 1
    return torch.from_numpy(np.transpose(arr, [2, 0, 1]))


def read_jsonl(path: Path) -> Iterator[dict]:
    """The objects of a JSON lines file."""
    for line in path.read_text("utf-8").splitlines():
        yield json.loads(line)


def write_folder(folder: Path, captions: list, column: str = "text") -> Path:
    """A folder of drawn pictures with metadata.jsonl, one a caption."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, caption in enumerate(captions):
        draw_picture(number).save(folder / f"{number:02d}.png")
        rows.append(json.dumps({"file_name": f"{number:02d}.png", column: caption}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    return folder


def draw_photo(number: int, width: int = 320, height: int = 256) -> Image.Image:
    """An image with the statistics of a photograph, different for each number and the same on each
    call: a slope of light, a round object with a hard edge, detail at every scale (its amplitude
    falls with the frequency) and the noise of a sensor.
    """
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    fall = np.maximum(np.hypot(down, across), 1 / width) ** -1.3
    detail = np.fft.ifft2(np.fft.fft2(rng.standard_normal((height, width))) * fall).real
    slope = rng.uniform(-80, 80, (2, 3))
    light = 128 + slope[0] * (x - 0.5)[..., None] + slope[1] * (y - 0.4)[..., None]
    centre, radius = rng.uniform(0.3, 0.5, 2), rng.uniform(0.15, 0.3)
    inside = np.hypot(x - centre[0], y - centre[1]) < radius
    light = np.where(inside[..., None], rng.uniform(30, 225, 3), light)
    grain = 25 * detail / detail.std() + rng.standard_normal((height, width))
    return Image.fromarray(np.clip(light + grain[..., None], 0, 255).astype(np.uint8))


SUBJECTS = ("red backpack", "bear plushie", "brown dog", "teapot", "tabby cat", "toy robot", "vase")
PLACES = ("on a wooden table", "in the grass", "on a beach at sunset")
FORMATS = (("jpg", 320, 256), ("jpeg", 256, 320), ("png", 288, 288), ("webp", 320, 200))


def write_photos(folder: Path, numbers: Iterable[int]) -> Path:
    """A folder of drawn photographs with metadata.jsonl, one a number: JPEG, PNG and WebP of
    several shapes, each of over 10 KB, so that half of the file is a broken image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for n in numbers:
        suffix, width, height = FORMATS[n % len(FORMATS)]
        subject, place = SUBJECTS[n % len(SUBJECTS)], PLACES[n % len(PLACES)]
        name = f"{n:02d}_{subject.replace(' ', '_')}.{suffix}"
        draw_photo(n, width, height).save(folder / name, quality=90)
        rows.append(json.dumps({"file_name": name, "text": f"a photo of a {subject} {place}"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    return folder


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, without its sub-folders, sorted by name."""
    suffixes = {".png", *(f".{suffix}" for suffix, *_ in FORMATS)}
    return sorted(path for path in folder.iterdir() if path.suffix in suffixes)


# ---------------------------------------------------------------- checkpoints


def filler(text: str) -> Callable[[Path], None]:
    """What fills a checkpoint that is none of a network: a text and an empty state."""
    from wassily.files import output_folder

    def write(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text(text)
        (folder / output_folder.STATE).write_text("{}")

    return write


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def with_checkpoints(tmp_path: Path, *steps: int) -> Path:
    """A folder with such checkpoints of these steps."""
    from wassily.files import atomic

    for step in steps:
        atomic.write_whole(tmp_path / f"checkpoint-{step}", filler(str(step)))
    return tmp_path
