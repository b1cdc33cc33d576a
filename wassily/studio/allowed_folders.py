"""The folders that the studio was given, and the refusal of every other path."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from wassily.errors import UserError

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

    def folders(self) -> list[str]:
        """The data folders and the folders in them, by name: what a page offers."""
        found = []
        for top in self.data:
            inner = sorted(p for p in top.iterdir() if p.is_dir() and p.name[0] != ".")
            found += [top, *(path for path in inner if not path.is_symlink())]
        return [str(path) for path in found]

    def data_folder(self, name: str | None) -> str:
        """A folder of pictures. Raises UserError for one outside of --data."""
        if not name:
            raise UserError("no folder of pictures: start the studio with --data FOLDER")
        if not _within(Path(name), self.data):
            raise UserError(f"{name}: not in a folder that the studio was given by --data")
        return name

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
        if (folder / "run.toml").exists():
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


def _within(path: Path, tops: tuple[Path, ...]) -> bool:
    """Whether a path, links followed, lies in one of these folders."""
    try:
        real = path.resolve()
    except (OSError, ValueError, RuntimeError):
        return False
    return any(real.is_relative_to(top.resolve()) for top in tops)
