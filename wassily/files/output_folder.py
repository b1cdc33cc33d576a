"""An output folder from outside: its checkpoints, and whether its training came to its end.

Imports nothing heavy, so that a folder with nothing to draw with is refused at once.
"""

from __future__ import annotations

import re
from pathlib import Path

STEP = r"(0|[1-9][0-9]{0,17})"  # one step has one name: no zeros in front, no other digits
NAME = re.compile(f"checkpoint-{STEP}")
STATE, RUN = "state.json", "run.json"


def checkpoints_in(output_dir: Path) -> list[tuple[int, Path]]:
    """(step, folder) of the checkpoints in a folder, oldest first."""
    return [(step, folder) for step, folder in named(output_dir) if (folder / STATE).is_file()]


def named(output_dir: Path) -> list[tuple[int, Path]]:
    """The same, with folders that are called so and have lost what tells their step. No links:
    they are moved and removed, too.
    """
    if not output_dir.is_dir():
        return []
    matches = [(NAME.fullmatch(p.name), p) for p in output_dir.iterdir()]
    return sorted((int(m[1]), p) for m, p in matches if m and p.is_dir() and not p.is_symlink())
