"""log.jsonl of a run, line by line: what was measured at which step."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wassily.files import atomic, reading

# What --keep_best takes -> its words, and whether more of it is better.
METRICS = {
    "loss": ("held-out loss", False),
    "learned": ("learned score", True),
    "kept": ("kept score", True),
    "both": ("learned + kept score", True),
}

LOG = "log.jsonl"
LIMIT = 128 * 2**20  # bytes of a log: a million lines
MOST_STEPS, LARGEST = 2**53, 1e100  # of the numbers in it
Row = dict[str, Any]


def read_log(folder: Path) -> list[Row]:
    """The whole lines of a run's log, in their order; a line that a kill cut is passed over.

    Raises BadFile for a log that is a link out of the folder, or no file.
    """
    path = folder / LOG
    if not os.path.lexists(path):
        return []
    with reading.opened(path, folder, LIMIT) as file:
        return [row for line in reading.lines(file) if (row := _row(line)) is not None]


def _row(line: bytes) -> Row | None:
    """A line with its event, its list of images and its numbers; None for no line of a log."""
    try:
        row = json.loads(line.decode("utf-8", "replace"))
        if type(row["step"]) is not int or not 0 <= row["step"] < MOST_STEPS:
            return None
        found = {name: kept for name, value in row.items() if (kept := _value(name, value)) != ""}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    # Whoever reads the measure of a line asks for this value first.
    return None if found.get("event") == "held_out" and "loss" not in found else found


def _value(name: str, value: object) -> Any:
    """A value of a line; "" for one that does not belong there. A number that is not finite, or so
    large that a sum of several would not be, is NaN.
    """
    if name == "event":
        return value if type(value) is str else ""
    if name == "pictures":
        return value if type(value) is list else ""
    if type(value) is int or type(value) is float:
        return value if abs(value) < LARGEST else math.nan
    return ""


def append(folder: Path, row: Row) -> None:
    """One more line."""
    atomic.append_text(folder / LOG, json.dumps(row) + "\n")


def rewind(folder: Path, step: int) -> None:
    """Drop what was logged after `step`, and all at step 0: a run goes on from its checkpoint."""
    if os.path.lexists(folder / LOG):
        kept = [row for row in read_log(folder) if row["step"] <= step] if step else []
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
