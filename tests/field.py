"""Folders as people bring them, made and read: what the tests of field cases share."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from helpers import draw_picture

from wassily.data import datasets
from wassily.errors import UserError

FORK = bytes.fromhex("00051607") + bytes(99)  # what macOS leaves on other file systems
COMPOSED, APART = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


def fill(root: Path, *names: str) -> Path:
    """Files by their names: images, captions that are the name without ending, folders (`x/`)."""
    for number, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        end = file.suffix.strip().lower()
        if name.endswith("/"):
            file.mkdir()
        elif end in (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".webp"):
            kind = {".png": "PNG", ".gif": "GIF", ".webp": "WEBP"}.get(end, "JPEG")
            draw_picture(number, 16, 12).save(file, kind)
        else:
            file.write_text(file.stem, "utf-8")
    return root


def lines(file: Path, *names: str, **more: str) -> None:
    """A metadata.jsonl whose captions are the names."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"file_name": name, "text": name, **more} for name in names]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")


def read(root: Path, column: str | None = "text") -> dict[str, tuple[str, ...]]:
    """Captions by the image's path below the root."""
    found = [datasets.read_folder(str(root), "image", column)[n] for n in range(size(root, column))]
    return {os.path.relpath(record.name, root): record.captions for record in found}


def size(root: Path, column: str | None = "text") -> int:
    """How many images are read."""
    return len(datasets.read_folder(str(root), "image", column))


def fault(root: Path, column: str | None = "text") -> str:
    """The line with which a folder is refused."""
    with pytest.raises(UserError) as caught:
        datasets.read_folder(str(root), "image", column)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def told(root: Path, column: str | None = "text") -> list[str]:
    """The warnings of a run."""
    return [remark.message for remark in datasets.read_folder(str(root), "image", column).remarks]
