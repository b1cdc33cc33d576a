"""log.jsonl of a run, line by line: what was measured at which step."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wassily.errors import without_secrets
from wassily.files import atomic

# What --keep_best takes -> its words, and whether more of it is better.
METRICS = {
    "loss": ("held-out loss", False),
    "learned": ("learned score", True),
    "kept": ("kept score", True),
    "both": ("learned + kept score", True),
}

LOG = "log.jsonl"
Row = dict[str, Any]


def read_log(folder: Path) -> list[Row]:
    """The whole lines of a run's log, in their order; a line that a kill cut is passed over."""
    path = folder / LOG
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [row for line in text.splitlines() if (row := _row(line)) is not None]


def _row(line: str) -> Row | None:
    try:
        row = json.loads(line)
        return row if type(row["step"]) is int else None
    except (ValueError, KeyError, TypeError):
        return None


def append(folder: Path, row: Row) -> None:
    """One more line."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(without_secrets(row)) + "\n")


def rewind(folder: Path, step: int) -> None:
    """Drop what was logged after `step`, and all at step 0: a run goes on from its checkpoint."""
    if (folder / LOG).exists():
        kept = [row for row in read_log(folder) if step > 0 and row["step"] <= step]
        atomic.write_text(folder / LOG, "".join(json.dumps(row) + "\n" for row in kept))


def measured(rows: Iterable[Row], step: int) -> dict[str, float]:
    """What the validations of a step found, by the names that --keep_best takes."""
    found: dict[str, float] = {}
    for row in rows:
        if row["step"] == step and row.get("event") == "held_out":
            found["loss"] = float(row["loss"])
        if row["step"] == step and row.get("event") == "scores":
            found |= {name: float(row[name]) for name in ("learned", "kept") if name in row}
    if {"learned", "kept"} <= found.keys():
        found["both"] = found["learned"] + found["kept"]
    return found
