"""Which model an adapter belongs to: on the machine of its training, and on another one."""

from __future__ import annotations

from pathlib import Path

from wassily.errors import UserError
from wassily.files import atomic, output_folder, reading
from wassily.files.reading import BadFile


def behind(file: Path, home: str) -> str | None:
    """The model of a home that an adapter was trained on or with: as the run that lies around its
    file knew it, if it is still there, else as its header names it. None where neither does.
    """
    for near in (output_folder.RUN, output_folder.STATE):
        try:
            found = reading.read_table(file.parent / near, root=file.parent)
            named = str(found["repositories"][home])
        except (BadFile, KeyError, TypeError):
            continue
        if not Path(named).is_absolute() or Path(named).is_dir():
            return named
    notes = atomic.read_notes(file)
    return notes.get("base" if notes.get("network") == home else home)


def check_here(named: str, file: Path, flag: str) -> str:
    """A model's name; raises UserError for the folder of another machine that a header names."""
    elsewhere = Path(named).is_absolute() and not Path(named).is_dir()
    if elsewhere or not (named == "mini" or "/" in named):
        raise UserError(
            f"{file}: its base is the folder {Path(named).name!r} of the machine that it was "
            f"trained on, which is not here: name it with {flag}"
        )
    return named
