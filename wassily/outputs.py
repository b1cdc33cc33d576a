"""An output folder from outside: its checkpoints, and whether its training came to its end.

Imports nothing heavy, so that a folder with nothing to draw with is refused at once.
"""

from __future__ import annotations

import re
from pathlib import Path

NAME = re.compile(r"checkpoint-(\d+)")
STATE = "state.json"


def found(output_dir: Path) -> list[tuple[int, Path]]:
    """(step, folder) of the checkpoints in a folder, oldest first."""
    return [(step, folder) for step, folder in named(output_dir) if (folder / STATE).is_file()]


def named(output_dir: Path) -> list[tuple[int, Path]]:
    """The same, with folders that are called so and have lost what tells their step."""
    if not output_dir.is_dir():
        return []
    matches = [(NAME.fullmatch(p.name), p) for p in output_dir.iterdir()]
    return sorted((int(m[1]), p) for m, p in matches if m and p.is_dir())


def unfinished(folder: Path) -> str | None:
    """What to say of the folder of a run that has not come to its end; None of any other."""
    saved, file = found(folder), folder / "run.toml"
    if not (saved or file.is_file()) or _drawable(folder):
        return None
    ways = [f"go on with {_again(file)}"] if file.is_file() else []
    ways += [f"draw with {saved[-1][1]}"] if saved else []
    return f"{folder}: its training did not finish; {', or '.join(ways)}"


def _drawable(folder: Path) -> bool:
    """Whether a part of a model, an adapter or a checkpoint's state lies there."""
    files = (folder / STATE, *folder.glob("*.safetensors"), *folder.glob("*/config.json"))
    return any(file.is_file() for file in files)


def _again(file: Path) -> str:
    kind = file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    role = "prior" if "PriorConfig" in kind else "decoder"
    return f"wassily train {role} --config {file} --resume_from_checkpoint latest"
