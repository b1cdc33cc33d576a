"""The folders that the studio was given, and the refusal of every other path."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

from wassily.errors import UserError
from wassily.files.reading import NONSENSE

OWN = "studio"  # the folder below --runs that holds what the studio makes
LONGEST = 64  # letters of a training's name


@dataclass(frozen=True)
class AllowedFolders:
    """`runs` and `data` as they were named; what a page asks for has to lie in them."""

    runs: Path
    data: tuple[Path, ...] = ()

    @property
    def own(self) -> Path:
        """What the studio itself makes."""
        return self.runs / OWN

    @property
    def images(self) -> tuple[Path, ...]:
        """The folders of the images that the studio generates."""
        return self.own / "pictures", self.own / "compared"

    @property
    def trainings(self) -> Path:
        """The folder of the records and outputs of the trainings that the studio started."""
        return self.own / "trainings"

    def make_own(self) -> None:
        """Make the folders that the studio writes into. Raises UserError, also for one that is a
        link: it would lead the files elsewhere.
        """
        for folder in (self.own, *self.images, self.trainings):
            if folder.is_symlink():
                raise UserError(f"{folder}: a link, and the studio writes into it. Remove it.")
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                why = error.strerror or error
                raise UserError(f"--runs {self.runs}: cannot make {folder} ({why}).") from None

    def folders(self) -> list[str]:
        """The data folders and the folders in them, by name: what a page offers. What cannot be
        looked at or shown is left out.
        """
        found: list[str] = []
        for top in self.data:
            with contextlib.suppress(*NONSENSE):
                found.append(shown(top))
                found += sorted(filter(None, map(_data_folder_in, top.iterdir())))
        return found

    def data_folder(self, name: str | None) -> str:
        """A folder of pictures. Raises UserError for one outside of --data."""
        if not name:
            raise UserError("no folder of pictures: start the studio with --data FOLDER")
        if not self.has_data(name):
            raise UserError(f"{name}: not in a folder that the studio was given by --data")
        return name

    def has_data(self, name: str) -> bool:
        """Whether a path, links followed, lies in one of the data folders."""
        return _within(Path(name), self.data)

    def new_run(self, name: str | None) -> Path:
        """The output folder of a training of this name. Raises UserError for what is no name, and
        for that of a training that is there.
        """
        name = (name or "").strip()
        if not re.fullmatch(rf"\w[\w.-]{{0,{LONGEST - 1}}}", name) or name == OWN:
            raise UserError(
                f"{name!r}: no name for a training: letters, digits, - and _, at most {LONGEST}"
            )
        folder = self.run(name)
        if os.path.lexists(folder / "run.toml"):
            raise UserError(
                f"{folder}: there is a training already; go on with it, or name another"
            )
        return folder

    def unused(self, name: str) -> str:
        """This name, or with the first number after it that no folder below --runs has."""
        names = (name if n == 1 else f"{name}-{n}" for n in itertools.count(1))
        return next(name for name in names if not (self.runs / name).exists())

    def run(self, name: str | None) -> Path:
        """A training's output folder by its place below --runs. Raises UserError for others."""
        if not name:
            raise UserError("no training is chosen")
        folder = self.runs / name
        if folder == self.runs or not _within(folder, (self.runs,)):
            raise UserError(f"{name}: not below {self.runs}, the folder that the studio was given")
        return folder


def shown(path: Path) -> str:
    """A path as text. Raises ValueError for a name that is no UTF-8: a page cannot show it."""
    text = str(path)
    text.encode("utf-8")
    return text


def _data_folder_in(path: Path) -> str | None:
    """A folder in a data folder, None for what is not offered."""
    try:
        plain = path.is_dir() and not path.is_symlink() and path.name[0] != "."
        return shown(path) if plain else None
    except NONSENSE:
        return None


def _within(path: Path, tops: tuple[Path, ...]) -> bool:
    """Whether a path, links followed, lies in one of these folders; not one that is no UTF-8."""
    try:
        shown(path)
        real = path.resolve()
    except (OSError, ValueError, RuntimeError):
        return False
    return any(real.is_relative_to(top.resolve()) for top in tops)
