"""The error for a name that is no model, folder or repository. Imports nothing heavy."""

from __future__ import annotations

import os
import re
from pathlib import Path

from wassily.files import output_folder, reading
from wassily.files.reading import BadFile

HUB = re.compile(r"[A-Za-z0-9][\w.-]*/\w[\w.-]*", re.ASCII)  # owner/name
RELEASED = "kandinsky-community/"  # the owner of the released models, whose names are much alike
NEAR = 0.75  # as difflib counts: prior and priro are at 0.8


def unfinished(folder: Path) -> str | None:
    """What to say of the folder of a run that has not come to its end; None of any other."""
    saved, file = output_folder.checkpoints_in(folder), folder / "run.toml"
    if not (saved or file.is_file()) or _drawable(folder):
        return None
    ways = [f"go on with {_again(file)}"] if file.is_file() else []
    ways += [f"draw with {saved[-1][1]}"] if saved else []
    return f"{folder}: its training did not finish; {', or '.join(ways)}"


def absent(name: str, what: str = "folder") -> str | None:
    """What to say of a model name that is nothing here and no name on the hub; None of any other.

    A name that might be on the hub is taken for a mistyped folder where one nearly like it is here.
    """
    path = Path(os.path.expanduser(name))
    if os.path.lexists(path):
        return None
    may_be = HUB.fullmatch(name) is not None
    near = None if name.startswith(RELEASED) else _nearest(path)
    if may_be and near is None:
        return None
    if may_be:
        return f"{name}: no such {what}; did you mean {near}?"
    hint = f"; did you mean {near}?" if near else ""
    return f"{name}: no such {what} (and not a hub name, which reads owner/name){hint}"


def _nearest(path: Path) -> Path | None:
    """The folder whose name is nearest to a path's last part, the one above it likewise."""
    above = path.parent
    if not above.is_dir():
        above = _likest(above.parent, above.name) or above
    return _likest(above, path.name)


def _likest(folder: Path, name: str) -> Path | None:
    from difflib import get_close_matches

    try:
        inside = {p.name: p for p in folder.iterdir() if p.is_dir()}
    except OSError:
        return None
    near = get_close_matches(name, list(inside), n=1, cutoff=NEAR)
    return inside[near[0]] if near else None


def _drawable(folder: Path) -> bool:
    """Whether a part of a model, an adapter or a checkpoint's state lies there."""
    files = (
        folder / output_folder.STATE,
        *folder.glob("*.safetensors"),
        *folder.glob("*/config.json"),
    )
    return any(file.is_file() for file in files)


def _again(file: Path) -> str:
    try:
        kind = reading.read_bytes(file).decode("utf-8", "replace").partition("\n")[0]
    except BadFile:
        kind = ""
    role = "prior" if "PriorConfig" in kind else "decoder"
    return f"wassily train {role} --config {file} --resume_from_checkpoint latest"
