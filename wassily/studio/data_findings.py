"""The findings of a folder of pictures, each with the pictures that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wassily.commands import data_check
from wassily.commands.findings import GRAVITIES, Finding
from wassily.config.commands import DataCheckConfig
from wassily.data import images
from wassily.errors import printable
from wassily.studio.allowed_folders import AllowedFolders

SIDE = 160  # pixels of a thumbnail's longer side
SHOWN = 6  # thumbnails of one finding
LISTED = 10  # names of one finding


@dataclass(frozen=True)
class Looked:
    """The findings, the gravest first, and the summary by name."""

    findings: Sequence[Finding]
    summary: Mapping[str, object]


def look(
    allowed: AllowedFolders, folder: str | None, resolution: int, captions: bool, prior: str
) -> Looked:
    """What `wassily data check` finds in a folder. Raises UserError."""
    config = DataCheckConfig(
        folder=allowed.data_folder(folder),
        resolution=resolution,
        no_captions=not captions,
        pretrained_prior_model_name_or_path=prior,
    )
    findings, summary = data_check.findings_of(config)
    return Looked(sorted(findings, key=lambda f: GRAVITIES.index(f.gravity)), summary)


def files(item: str, allowed: AllowedFolders) -> list[Path]:
    """The pictures that an item of a finding names: "a.png = b.png (test)", "a.png: 32 x 32"."""
    parts = (re.sub(r" \(\w+\)$", "", part) for part in item.split(" = "))
    found = (_file(part) for part in parts)
    tops = [top.resolve() for top in allowed.data]
    return [f for f in found if f and any(f.resolve().is_relative_to(top) for top in tops)]


def _file(text: str) -> Path | None:
    """The longest beginning of a text, up to a colon, that is a file."""
    ends = [len(text), *(m.start() for m in re.finditer(": ", text))]
    for end in sorted(ends, reverse=True):
        path = Path(text[:end])
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):
            continue
    return None


def thumbnails(finding: Finding, allowed: AllowedFolders) -> list[tuple[images.Picture, str]]:
    """(PIL picture, file name) of the first few that can be opened."""
    named: Iterable[Path] = (f for item in finding.items[: 4 * SHOWN] for f in files(item, allowed))
    found: list[tuple[images.Picture, str]] = []
    for path in named:
        if len(found) == SHOWN:
            break
        try:
            picture = images.open_rgb(path)
        except images.BadPicture:
            continue
        picture.thumbnail((SIDE, SIDE))
        found.append((picture, printable(path.name)))
    return found
