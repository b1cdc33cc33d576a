"""`report.html` of a run: one file that opens offline, rewritten at each validation.

It is made of what lies in the output folder and of nothing else, so `wassily report` makes it anew.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

from wassily.config.commands import ReportConfig
from wassily.data import png
from wassily.data.images import BadPicture
from wassily.errors import UserError
from wassily.files import atomic, output_folder, reading
from wassily.reporting import report_page, run_facts, run_log
from wassily.reporting.report_page import ReportContents, Shown
from wassily.reporting.run_log import Row

FILE = "report.html"
SIDE = 256  # pixels of a picture's longer side; larger ones are made smaller
COLUMNS, PROMPTS = 8, 16  # at most
NAME = re.compile(f"step-{output_folder.STEP}")  # of the folder of a validation


def report(config: ReportConfig) -> None:
    """Write the report of an output folder. Raises UserError if it is none."""
    folder = Path(config.folder)
    if not (folder / run_log.LOG).is_file():
        raise UserError(f"{folder}: no output folder of a training (no {run_log.LOG})")
    try:
        print(write(folder))
    except OSError as error:
        raise UserError(f"{folder / FILE}: {error.strerror or error}") from None


def write(folder: Path) -> Path:
    """Put the report of a run into its folder, whole or not at all. Raises OSError."""
    atomic.write_text(folder / FILE, report_page.page(contents_of(folder)))
    return folder / FILE


def refresh(folder: Path, say: Callable[[str], None]) -> None:
    """The same during a training, where a report is no reason to stop."""
    try:
        write(folder)
    except Exception as error:  # whatever a file of the folder holds
        say(f"{FILE} was not written: {getattr(error, 'strerror', None) or error}")


def contents_of(folder: Path) -> ReportContents:
    """What an output folder tells."""
    facts, rows = run_facts.read_summary(folder), run_log.read_log(folder)
    exported = exported_step(rows, facts.get("keep_best"))
    strips = _strips(folder / "validation", exported)
    shown = dict(list(strips.items())[:PROMPTS])
    return ReportContents(
        folder.resolve().name, facts, rows, exported, shown, max(0, len(strips) - PROMPTS)
    )


def exported_step(rows: list[Row], metric: str | None) -> int | None:
    """The step that is best by the metric of --keep_best; without one the last that was measured.

    None where nothing was, but the base.
    """
    kinds = ("held_out", "scores")
    steps = sorted({row["step"] for row in rows if row.get("event") in kinds and row["step"]})
    if not steps or not isinstance(metric, str) or metric not in run_log.METRICS:
        return steps[-1] if steps else None
    values = {step: run_log.measured(rows, step).get(metric) for step in steps}
    known = {step: value for step, value in values.items() if value is not None}
    sign = 1 if run_log.METRICS[metric][1] else -1
    return max(known, key=lambda step: sign * known[step]) if known else steps[-1]


def chosen_steps(steps: list[int], exported: int | None, most: int = COLUMNS) -> list[int]:
    """At most so many of the steps in order: the base's, the exported, the last, others evenly."""
    ordered = sorted(steps)
    if len(ordered) <= most:
        return ordered
    needed = {ordered[0], ordered[-1]} | ({exported} & set(ordered) if exported else set())
    others = [step for step in ordered if step not in needed]
    room = most - len(needed)
    spread = {others[(2 * n + 1) * len(others) // (2 * room)] for n in range(room)}
    return sorted(needed | spread)


def _strips(folder: Path, exported: int | None) -> dict[str, list[Shown]]:
    """Prompt -> its pictures at the chosen validations, in order."""
    found = {}
    for path in folder.glob("step-*") if folder.is_dir() else ():
        named = NAME.fullmatch(path.name)
        if named and (path / "sheet.png").is_file() and reading.is_inside(path, folder.parent):
            found[int(named[1])] = path
    strips: dict[str, list[Shown]] = {}
    for step in chosen_steps(list(found), exported):
        for path in sorted(found[step].glob("[0-9]*.png")):
            prompt, shown = _shown(path, step, folder.parent)
            if shown is not None:
                strips.setdefault(prompt, []).append(shown)
    return strips


def _shown(path: Path, step: int, root: Path) -> tuple[str, Shown | None]:
    """A sample's prompt and the picture, as small as it is looked at; None if it cannot be read."""
    try:
        kind, content, notes, side = png.thumbnail(path, SIDE, root)
    except BadPicture:
        return "", None
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return notes.get("prompt", path.stem), Shown(step, uri, side < SIDE // 2)
