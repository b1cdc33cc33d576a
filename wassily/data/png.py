"""PNG files: atomic writing, metadata, thumbnails."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from wassily.data import images
from wassily.data.images import BadPicture
from wassily.files import atomic, reading
from wassily.files.reading import BadFile


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
        with reading.opened(path) as file, Image.open(file, formats=("PNG",)) as picture:
            return {key: str(value) for key, value in getattr(picture, "text", {}).items()}
    except Exception:  # of damaged bytes a decoder raises whatever it likes
        return {}


def read_notes(path: Path) -> dict[str, str]:
    """The text chunks of a PNG. Raises BadPicture for what is none."""
    try:
        with reading.opened(path) as file, Image.open(file, formats=("PNG",)) as picture:
            picture.load()  # chunks may stand behind the pixels
            return {key: str(value) for key, value in picture.text.items()}  # type: ignore[attr-defined]
    except UnidentifiedImageError:
        raise BadPicture("not a PNG") from None
    except BadFile as error:
        raise BadPicture(str(error).removeprefix(f"{path}: ")) from None
    except Exception as error:
        raise BadPicture(images._reason(error)) from None


def thumbnail(path: Path, side: int, root: Path) -> tuple[str, bytes, dict[str, str], int]:
    """A PNG of ours made small: its kind ("png" as it is, or "jpeg"), the file's bytes, its notes
    and the longer side of the original, in pixels.

    Raises BadPicture for what is no image, and for a file that is not inside of `root`.
    """
    try:
        with (
            reading.opened(path, root) as file,
            Image.open(file, formats=("PNG",)) as picture,
        ):
            notes = {str(k): str(v) for k, v in getattr(picture, "text", {}).items()}
            longer = max(picture.size)
            small = picture.convert("RGB")
    except Exception as error:  # a decoder of damaged bytes raises whatever it likes
        raise BadPicture(images._reason(error)) from None
    small.thumbnail((side, side))
    kind = "jpeg" if longer > side // 2 else "png"
    buffer = io.BytesIO()
    small.save(buffer, kind, **({"quality": 88} if kind == "jpeg" else {}))
    return kind, buffer.getvalue(), notes, longer
