"""PNG files: atomic writing, metadata, thumbnails."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from wassily.data import images
from wassily.data.images import BadPicture


def save_png(picture: Image.Image, path: Path, notes: Mapping[str, object]) -> None:
    """Write a PNG, whole or not at all, with `notes` as text chunks (prompt, seed, model, ...)."""
    info = PngImagePlugin.PngInfo()
    for key, value in notes.items():
        info.add_itxt(key, str(value))
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.writing")  # whose ending is no picture's
    with aside.open("wb") as file:
        picture.save(file, format="PNG", pnginfo=info)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def png_notes(path: Path) -> dict[str, str]:
    """The text chunks of a PNG; none where it cannot be read as one."""
    try:
        with Image.open(path) as picture:
            return {key: str(value) for key, value in getattr(picture, "text", {}).items()}
    except (OSError, ValueError, SyntaxError):
        return {}


def read_notes(path: Path) -> dict[str, str]:
    """The text chunks of a PNG. Raises BadPicture for what is none."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            picture.load()  # chunks may stand behind the pixels
            return {key: str(value) for key, value in picture.text.items()}  # type: ignore[attr-defined]
    except UnidentifiedImageError:
        raise BadPicture("not a PNG") from None
    except Exception as error:
        raise BadPicture(images._reason(error)) from None


def thumbnail(path: Path, side: int) -> tuple[str, bytes, dict[str, str], int]:
    """A PNG of ours made small: its kind ("png" as it is, or "jpeg"), the file's bytes, its notes
    and the longer side of the original, in pixels. Raises OSError.
    """
    with Image.open(path) as picture:
        notes = {str(k): str(v) for k, v in getattr(picture, "text", {}).items()}
        longer = max(picture.size)
        small = picture.convert("RGB")
    small.thumbnail((side, side))
    kind = "jpeg" if longer > side // 2 else "png"
    buffer = io.BytesIO()
    small.save(buffer, kind, **({"quality": 88} if kind == "jpeg" else {}))
    return kind, buffer.getvalue(), notes, longer
