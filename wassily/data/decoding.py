"""Image files decoded: the only place that opens one, whoever asks and wherever it comes from.

Of the listed formats alone, so many pixels at a time, and each failure is one error, `BadPicture`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from PIL import Image, UnidentifiedImageError

from wassily.data import containers
from wassily.files import reading

Source = str | os.PathLike[str] | bytes
Result = TypeVar("Result")
# What is read at all. PIL knows more kinds; of PostScript it would start another program.
KINDS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
PNG = ("PNG",)
FILE_LIMIT = 2**30  # bytes; 179 megapixels come to half of it without any compression
# Pixels that the readers' threads decode at the same time, at 8 to 12 bytes each. A larger image
# waits until it is alone.
AT_A_TIME = 2**26


class BadPicture(Exception):
    """A picture that cannot be read; the message says why, without its name."""


def decoded(
    source: Source,
    convert: Callable[[Image.Image], Result],
    load: bool = True,
    kinds: tuple[str, ...] = KINDS,
    mend: bool = True,
    root: Path | None = None,
) -> Result:
    """A whole image, converted; without `load` its pixels are not decoded.

    With `mend` damage beside the pixels is passed over. With `root` the file has to be inside of
    that folder. Raises BadPicture for anything that is not a whole image of these kinds.
    """
    try:
        with _file(source, root) as file:
            return _read(file, {}, convert, load, kinds)
    except (BadPicture, Image.DecompressionBombError, MemoryError) as error:
        raise BadPicture(_reason(error, kinds)) from None
    except Exception as error:  # a decoder of damaged bytes raises whatever it likes
        refusal = error
    # It may be for what stands beside the pixels alone: without that once more.
    try:
        raw = _to_take_apart(source, root) if mend else None
        if raw is None:
            raise refusal
        pixels, beside = containers.pixels_alone(raw)
        return _read(io.BytesIO(pixels), beside, convert, load, kinds)
    except Exception as error:
        raise BadPicture(_reason(error, kinds)) from None


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image's file. Raises BadPicture."""
    with _file(path) as file:
        return file.read()


@contextlib.contextmanager
def _file(source: Source, root: Path | None = None) -> Iterator[BinaryIO]:
    """The bytes, or a regular file, to read from. Raises BadPicture."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        with reading.opened(Path(source), root, FILE_LIMIT) as file:
            yield file
    except reading.BadFile as error:
        why = str(error).partition(f"{Path(source)}: ")[2]
        raise BadPicture(why.partition(". ")[0]) from None
    except OSError as error:
        if error.strerror is None:  # a decoder's
            raise
        raise BadPicture(error.strerror) from None


def _read(
    file: BinaryIO,
    beside: dict[str, bytes],
    convert: Callable[[Image.Image], Result],
    load: bool,
    kinds: tuple[str, ...],
) -> Result:
    known = _known()
    with Image.open(file, formats=[kind for kind in kinds if kind in known]) as picture:
        for name, value in beside.items():
            picture.info[name] = value
        if not load:
            return convert(picture)
        with _in_flight.taking(picture.width * picture.height):
            picture.load()
            return convert(picture)


class _InFlight:
    """The pixels that are being decoded, over all threads."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.pixels = 0

    @contextlib.contextmanager
    def taking(self, pixels: int) -> Iterator[None]:
        """Within, so many more are decoded; waits until there is room for them."""
        with self.changed:
            self.changed.wait_for(lambda: not self.pixels or self.pixels + pixels <= AT_A_TIME)
            self.pixels += pixels
        try:
            yield
        finally:
            with self.changed:
                self.pixels -= pixels
                self.changed.notify_all()


_in_flight = _InFlight()

if hasattr(os, "register_at_fork"):  # Windows has no fork
    # The threads that would give back their share are not in a forked reader.
    os.register_at_fork(after_in_child=lambda: _in_flight.__init__())  # type: ignore[misc]


@functools.cache
def _known() -> frozenset[str]:
    """The kinds that this PIL can read."""
    Image.init()
    # It warns of what it can read nevertheless; what it cannot is an error of its own, as are more
    # than 179 megapixels.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return frozenset(Image.OPEN)


def _to_take_apart(source: Source, root: Path | None) -> bytes | None:
    """The bytes of a file that `containers` knows; None of any other. Raises BadPicture."""
    with _file(source, root) as file:
        head = file.read(containers.LEAST)
        return head + file.read() if containers.is_known(head) else None


def _reason(error: Exception, kinds: tuple[str, ...]) -> str:
    """Why an image is not read, in words of ours: PIL's are for programmers."""
    if isinstance(error, BadPicture):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not a PNG" if kinds == PNG else "not a picture of a known kind"
    if isinstance(error, Image.DecompressionBombError):
        counts = [int(count) / 1e6 for count in re.findall(r"\d+", str(error))[:2]]
        size = "too large ({:.1f} megapixels, the limit is {:.0f})".format(*counts)
        return f"{size}: make it smaller"
    if isinstance(error, MemoryError):
        return "too large for the memory of this machine: make it smaller"
    if "truncated" in str(error).lower():
        return "cut short: the file ends before the image does"
    return "damaged: its pixels cannot be decoded"
