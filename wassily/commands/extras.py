"""What installs an extra of this package, from where the package itself came."""

from __future__ import annotations

import shlex
from pathlib import Path

from wassily.files import reading
from wassily.files.reading import BadFile

ROOT = Path(__file__).resolve().parents[2]


def install(extra: str, root: Path = ROOT) -> str:
    """The line to type: by name, or from the clone `root` that the package is run out of; from the
    working folder, if that is one.
    """
    here = Path.cwd()
    if not _is_clone(root) and not _is_clone(here):
        return f"pip install {shlex.quote(f'wassily[{extra}]')}"
    folder = "." if root == here or not _is_clone(root) else root
    return f"pip install -e {shlex.quote(f'{folder}[{extra}]')}"


def _is_clone(root: Path) -> bool:
    """Whether the sources of this package, and not of another one, lie in a folder."""
    try:
        return 'name = "wassily"' in reading.read_text(root / "pyproject.toml").splitlines()
    except BadFile:
        return False
