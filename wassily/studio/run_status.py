"""What a training's folder tells while it runs: how far it is, its losses, its samples."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wassily.files import lock, reading
from wassily.files.reading import BadFile
from wassily.models import names as model_names
from wassily.reporting import charts, run_facts, run_log
from wassily.reporting.charts import Series
from wassily.reporting.run_log import Row
from wassily.studio import process
from wassily.studio.allowed_folders import OWN, AllowedFolders

BLUE, ORANGE = 212, 28
DEPTH = 3  # folders below --runs
State = Literal["none", "starting", "running", "stopping", "elsewhere", "stopped", "finished"]


@dataclass(frozen=True)
class Seen:
    """A training at a moment; `left` in seconds, `line` is the last that it printed."""

    state: State
    step: int = 0
    steps: int | None = None
    left: float | None = None
    line: str = ""


def trainings(allowed: AllowedFolders) -> list[str]:
    """The places below --runs where a training was begun: those that run, then the others, each
    the newest first.
    """
    found: dict[str, tuple[bool, float]] = {}
    for where, names, files in os.walk(allowed.runs):
        folder = Path(where)
        depth = len(folder.relative_to(allowed.runs).parts)
        names[:] = [n for n in names if depth < DEPTH and n[0] != "." and (depth or n != OWN)]
        if depth and "run.toml" in files:
            rests = not (process.runs(process.process_of(allowed, folder)) or lock.is_held(folder))
            place = folder.relative_to(allowed.runs).as_posix()
            found[place] = (rests, -(folder / "run.toml").stat().st_mtime)
            names.clear()
    return sorted(found, key=lambda place: found[place])


def look(allowed: AllowedFolders, folder: Path) -> Seen:
    """How a training stands. Raises nothing for a folder that is not there yet."""
    own = process.process_of(allowed, folder)
    rows, facts = logged(folder), run_facts.read_summary(folder)
    step = max((row["step"] for row in rows), default=0)
    steps = facts.get("steps") if isinstance(facts.get("steps"), int) else None
    alive = process.runs(own)
    line = process.last_line(own)
    if alive:
        state: State = "stopping" if process.record_of(own).get("stopping") else "running"
        if state == "running" and not rows:
            state = "starting"
        return Seen(state, step, steps, time_left(rows, facts.get("global_batch"), steps), line)
    if lock.is_held(folder):
        left = time_left(rows, facts.get("global_batch"), steps)
        return Seen("elsewhere", step, steps, left, line)
    if not folder.is_dir():
        return Seen("stopped" if line else "none", line=line)
    whole = (folder / "model_index.json").is_file() or (folder / model_names.ADAPTER).is_file()
    finished = whole and steps is not None and step >= steps
    return Seen("finished" if finished else "stopped", step, steps, None, line)


def logged(folder: Path) -> list[Row]:
    """The log of a training; nothing where it cannot be read."""
    try:
        return run_log.read_log(folder)
    except BadFile:
        return []


def time_left(rows: Sequence[Row], batch: object, steps: int | None) -> float | None:
    """Seconds to the last step at the pace of the latest rows; None where it is not known."""
    known = [row.get("pictures_per_second", 0) for row in rows]
    paces = [pace for pace in known if pace > 0][-5:]  # NaN is no pace
    if not paces or steps is None or not isinstance(batch, int):
        return None
    step = max(row["step"] for row in rows)
    return max(0, steps - step) * batch * len(paces) / sum(paces)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def chart(rows: Sequence[Row], titles: tuple[str, str, str, str]) -> str:
    """The losses as SVG; `titles` are those of the chart, of its two axes are step and loss, and of
    the lines for training and held-out pictures. "" where nothing was logged.
    """
    title, step, training, held_out = titles
    learnt = [(row["step"], row["train_loss"]) for row in rows if "train_loss" in row]
    judged = [(row["step"], row["loss"]) for row in rows if row.get("event") == "held_out"]
    lines = [Series(training, learnt, BLUE), Series(held_out, judged, ORANGE)]
    return charts.line_chart([line for line in lines if line.points], title, step, title)


def samples(folder: Path, most: int = 12) -> tuple[int, list[Path]]:
    """The step of the latest validation and its pictures; (0, []) where there is none."""
    found = [
        (int(number), path)
        for path in (folder / "validation").glob("step-*")
        if (number := path.name.removeprefix("step-")).isdigit()
        and (path / "sheet.png").is_file()
        and reading.is_inside(path, folder)
    ]
    step, latest = max(found, default=(0, None))
    if latest is None:
        return 0, []
    images = (path for path in sorted(latest.glob("[0-9]*.png")) if reading.is_inside(path, folder))
    return step, list(itertools.islice(images, most))
