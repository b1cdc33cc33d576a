"""What there is to draw with: `mini`, the released model, and all that lies below --runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wassily.config.generation import DrawConfig
from wassily.config.training import DECODER, PRIOR
from wassily.errors import UserError
from wassily.files import atomic, output_folder, reading, run_state
from wassily.files.reading import BadFile
from wassily.files.run_state import Saved
from wassily.models import names as model_names
from wassily.models import parts
from wassily.studio.allowed_folders import OWN
from wassily.studio.texts import Say

DEPTH = 4  # folders below --runs
RELEASED = {"prior": PRIOR, "decoder": DECODER}
NONE = ""  # no adapter
USUAL = {"prior": DrawConfig.prior_guidance_scale, "decoder": DrawConfig.guidance_scale}


@dataclass(frozen=True)
class ModelChoice:
    """A network or adapter to choose.

    `name` is for the command line, `place` below --runs, `home` the network that it is of, `time`
    that of its last change. `checkpoint`: saved by a training on its way, not at its end.
    """

    name: str
    place: str
    home: str
    adapter: bool
    time: float
    checkpoint: bool

    def shown(self, say: Say, *more: str) -> str:
        """Its place with what it is."""
        kind = say("of_checkpoint" if self.checkpoint else "of_finished")
        return f"{self.place} ({', '.join([*more, kind])})"


def model_choices(runs: Path) -> list[ModelChoice]:
    """All below a folder, what is finished before the checkpoints, each the newest first; links are
    not followed.
    """
    everything = [one for folder in _folders(runs) for one in _in(folder, runs)]
    return sorted(everything, key=lambda one: (one.checkpoint, -one.time, one.place))


def _folders(runs: Path) -> Iterator[Path]:
    for where, names, _ in os.walk(runs):
        folder = Path(where)
        depth = len(folder.relative_to(runs).parts)
        names[:] = [n for n in names if depth < DEPTH and n[0] != "." and (depth or n != OWN)]
        yield folder


def _in(folder: Path, runs: Path) -> Iterator[ModelChoice]:
    file = next((folder / n for n in model_names.ADAPTERS if (folder / n).is_file()), None)
    homes = [h for h, part in parts.TRAINED.items() if (folder / part / "config.json").is_file()]
    place, saved = folder.relative_to(runs).as_posix(), (folder / output_folder.STATE).is_file()
    if file is not None and (home := _of_adapter(file)):
        yield ModelChoice(str(folder), place, home, True, file.stat().st_mtime, saved)
    elif file is None and folder != runs:
        role = _of_checkpoint(folder)
        for home in homes:
            if role in (None, home):
                config = folder / parts.TRAINED[home] / "config.json"
                yield ModelChoice(str(folder), place, home, False, config.stat().st_mtime, saved)


def _of_adapter(file: Path) -> str | None:
    """The network that an adapter is of, if it says so and names a base."""
    try:
        notes = atomic.read_notes(file)
    except UserError:
        return None
    home = notes.get("network")
    return home if home in parts.TRAINED else None


def _of_checkpoint(folder: Path) -> str | None:
    """The network that a checkpoint is of; None for what is no checkpoint."""
    try:
        return run_state.read(folder, Saved).role
    except UserError:
        return None


def networks(runs: Path, home: str, say: Say) -> list[tuple[str, str]]:
    """(what is shown, name) of each prior or decoder: the found ones that are finished, `mini`, the
    released one, and what trainings saved on their way.
    """
    own = [one for one in model_choices(runs) if one.home == home]
    finished = [(one.shown(say), one.name) for one in own if not one.checkpoint]
    saved = [(one.shown(say), one.name) for one in own if one.checkpoint]
    return [*finished, *((name, name) for name in _elsewhere(home)), *saved]


def _elsewhere(home: str) -> list[str]:
    return [*(["mini"] if model_names.has_mini(home) else []), RELEASED[home]]


def adapters(runs: Path, home: str, say: Say) -> list[tuple[str, str]]:
    """(what is shown, name) of each adapter of a network, in the order of `model_choices`."""
    every = model_choices(runs)
    return [(one.shown(say), one.name) for one in every if one.home == home and one.adapter]


def checked(runs: Path, home: str, name: str | None) -> str:
    """A prior or decoder that was offered. Raises UserError for any other name."""
    if name not in [
        *(one.name for one in model_choices(runs) if one.home == home),
        *_elsewhere(home),
    ]:
        raise UserError(f"{name}: no {home} that the studio found below {runs}")
    return str(name)


def guidance(runs: Path, home: str, name: str | None) -> float:
    """What suits a prior or decoder that was offered: that of the bundled one for it and for what
    was tuned from it, else the command line's.
    """
    try:
        trained = model_names.locate(checked(runs, home, name), home)
    except UserError:
        return USUAL[home]
    own = trained.network or Path(trained.repository) / parts.TRAINED[home]
    mini = _alike(own, parts.MINI / home / parts.TRAINED[home])
    return model_names.GUIDANCE[home] if mini else USUAL[home]


def _alike(one: Path, other: Path) -> bool:
    """Whether two networks are built alike."""
    try:
        built = [reading.read_table(folder / "config.json", root=folder) for folder in (one, other)]
    except BadFile:
        return False
    return all(built[0].get(k) == value for k, value in built[1].items() if k[:1] != "_")


def checked_adapter(runs: Path, home: str, name: str | None) -> str | None:
    """An adapter that was offered, or None for none. Raises UserError for any other name."""
    if not name:
        return None
    if name not in [one.name for one in model_choices(runs) if one.home == home and one.adapter]:
        raise UserError(f"{name}: no adapter of a {home} that the studio found below {runs}")
    return name
