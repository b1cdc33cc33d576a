"""What several test files need: the command line in-process and as a process, pictures, photos."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("WASSILY_SHARED") or ROOT.parent / "shared")
REAL_PHOTOS = SHARED / "data" / "dreambooth"

# Launchers' and users' settings must not leak into a test.
_LEAKS = ("HF_", "HUGGING", "ACCELERATE_", "WANDB_", "MLFLOW_", "COMET_", "TRACKIO_")
_LEAK_NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
CLEAN = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "ACCELERATE_USE_CPU": "true",
    "WANDB_MODE": "offline",
    "PYTHONUNBUFFERED": "1",
}


def clean_environment(**more: str | None) -> dict[str, str]:
    """The environment without tokens and launcher settings, offline, on the CPU, one thread.

    `more` adds variables; None removes one. HF_HOME and XDG_CACHE_HOME are kept:
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
    timeout: float = 240,
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


def copy_photos(folder: Path, count: int) -> bool:
    """Fill a folder with `count` captioned photographs, of subjects spread over the whole set;
    with drawn pictures where the photographs are absent. Whether they are real.
    """
    if not (REAL_PHOTOS / "metadata.jsonl").is_file():
        write_folder(folder, [f"a picture of pattern {n}" for n in range(count)])
        return False
    rows = list(read_jsonl(REAL_PHOTOS / "metadata.jsonl"))
    chosen = [rows[i * len(rows) // count] for i in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    for row in chosen:
        shutil.copyfile(REAL_PHOTOS / row["file_name"], folder / row["file_name"])
    lines = [json.dumps({k: row[k] for k in ("file_name", "text")}) for row in chosen]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return True


# ---------------------------------------------------------------- checkpoints


def filler(text: str) -> Callable[[Path], None]:
    """What fills a checkpoint that is none of a network: a text and an empty state."""
    from wassily import outputs

    def write(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text(text)
        (folder / outputs.STATE).write_text("{}")

    return write


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def with_checkpoints(tmp_path: Path, *steps: int) -> Path:
    """A folder with such checkpoints of these steps."""
    from wassily import checkpoint

    for step in steps:
        checkpoint.write_whole(tmp_path / f"checkpoint-{step}", filler(str(step)))
    return tmp_path
