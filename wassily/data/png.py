"""PNG files: atomic writing, metadata, thumbnails."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, PngImagePlugin

from wassily.data import decoding
from wassily.data.decoding import BadPicture
from wassily.files import atomic


def save_png(
    picture: Image.Image, path: Path, notes: Mapping[str, object], new: bool = False
) -> None:
    """Write a PNG, whole or not at all, with `notes` as text chunks (prompt, seed, model, ...).

    With `new` raises FileExistsError for a name that is taken. Raises OSError.
    """
    info = PngImagePlugin.PngInfo()
    for key, value in notes.items():
        info.add_itxt(key, str(value))
    with atomic.writing(path, new) as file:
        picture.save(file, format="PNG", pnginfo=info)


def png_notes(path: Path) -> dict[str, str]:
    """The text chunks of a PNG; none where it cannot be read as one."""
    try:
        return decoding.decoded(path, _texts, load=False, kinds=decoding.PNG)
    except BadPicture:
        return {}


def read_notes(path: Path) -> dict[str, str]:
    """The text chunks of a PNG. Raises BadPicture for what is none."""
    # Loaded, as chunks may stand behind the pixels.
    return decoding.decoded(path, _texts, kinds=decoding.PNG, mend=False)


def thumbnail(path: Path, side: int, root: Path) -> tuple[str, bytes, dict[str, str], int]:
    """A PNG of ours made small: its kind ("png" as it is, or "jpeg"), the file's bytes, its notes
    and the longer side of the original, in pixels.

    Raises BadPicture for what is no image, and for a file that is not inside of `root`.
    """
    return decoding.decoded(
        path, lambda picture: _small(picture, side), kinds=decoding.PNG, root=root
    )


def _texts(picture: Image.Image) -> dict[str, str]:
    return {str(key): str(value) for key, value in getattr(picture, "text", {}).items()}


def _small(picture: Image.Image, side: int) -> tuple[str, bytes, dict[str, str], int]:
    notes, longer = _texts(picture), max(picture.size)
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    kind = "jpeg" if longer > side // 2 else "png"
    buffer = io.BytesIO()
    small.save(buffer, kind, **({"quality": 88} if kind == "jpeg" else {}))
    return kind, buffer.getvalue(), notes, longer
