"""Which model an adapter belongs to: on the machine of its training, and on another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wassily.errors import UserError
from wassily.files import atomic, output_folder, reading, run_state
from wassily.files.run_state import Saved
from wassily.models import missing


def behind(file: Path, home: str) -> str | None:
    """The model of a home that an adapter was trained on or with: as the run that lies around its
    file knew it, if it is still there, else as its header names it. None where neither does.
    """
    for known in (_of_run(file.parent), _of_checkpoint(file.parent)):
        named = known.get(home)
        if isinstance(named, str) and (not Path(named).is_absolute() or Path(named).is_dir()):
            return named
    notes = atomic.read_notes(file)
    return notes.get("base" if notes.get("network") == home else home)


def check_recorded(named: str, file: Path) -> str:
    """A model that a file names, not a person: `mini`, owner/name on the hub, or a folder by its
    absolute name. Raises UserError for anything else, which would depend on the working folder.
    """
    if named == "mini" or missing.HUB.fullmatch(named):
        return named
    path = Path(named)
    if path.is_absolute() and ".." not in path.parts and path.is_dir():
        return named
    problem = f"names {named!r:.80} for its base model, which is no folder here and no hub name"
    raise UserError(f"{file}: {problem}. Name the base model yourself.")


def _of_run(folder: Path) -> dict[str, Any]:
    """The models by home in the facts of a run; none where there are no such facts."""
    try:
        found = reading.read_table(folder / output_folder.RUN, root=folder).get("repositories")
    except reading.BadFile:
        return {}
    return found if isinstance(found, dict) else {}


def _of_checkpoint(folder: Path) -> dict[str, str]:
    """The models by home in the state of a checkpoint; none where there is no such state."""
    try:
        return run_state.read(folder, Saved).repositories
    except UserError:
        return {}


def check_here(named: str, file: Path, flag: str) -> str:
    """A model's name; raises UserError for the folder of another machine that a header names."""
    elsewhere = Path(named).is_absolute() and not Path(named).is_dir()
    if elsewhere or not (named == "mini" or "/" in named):
        raise UserError(
            f"{file}: its base is the folder {Path(named).name!r} of the machine that it was "
            f"trained on, which is not here: name it with {flag}"
        )
    return named
