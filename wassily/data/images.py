"""Pictures: opened safely, and turned into what the encoders read.

Beside `colours` and `sheets` the only file that knows PIL.
"""

from __future__ import annotations

import functools
import io
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from wassily.data import colours, containers

Picture = Image.Image  # an open one
SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".avif",
        ".jp2",
    ]
)
# What is read at all. PIL knows more kinds; of PostScript it would start another program.
KINDS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
READ_AS = colours.VERSION  # how colours are converted
TRANSPARENT = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})
SIXTEEN_BIT = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


Result = TypeVar("Result")


class BadPicture(Exception):
    """A picture that cannot be read; the message says why, without its name."""


def open_rgb(source: str | os.PathLike[str] | bytes) -> Image.Image:
    """An image as RGB, (W, H): EXIF rotation applied, an embedded profile converted to sRGB,
    transparency laid on white, the first frame if animated.

    16-bit grey is scaled to 8 bits. Damage beside the pixels is passed over. Raises BadPicture for
    anything that is not a whole image.
    """
    return _opened(source, lambda picture: _to_rgb(_upright(picture)))


def open_mask(source: str | os.PathLike[str] | bytes) -> Image.Image:
    """A mask as RGB: like `open_rgb`, but what is transparent in it could be meant either way.

    Raises BadPicture for that, too, and for a mask without white.
    """
    return _opened(source, lambda picture: _to_mask(_upright(picture)))


def recoloured(source: str | os.PathLike[str] | bytes) -> bool:
    """Whether `open_rgb` converts the colours of an image; False for what is none."""
    try:
        return _opened(source, lambda picture: colours.of(picture) is not None, load=False)
    except BadPicture:
        return False


def _to_mask(picture: Image.Image) -> Image.Image:
    if _has_alpha(picture) and np.asarray(picture.convert("RGBA"))[..., 3].min() < 255:
        raise BadPicture("transparent in parts: save it in black and white alone")
    mask = _to_rgb(picture)
    if np.asarray(mask.convert("L")).max() < 128:
        raise BadPicture("no white in it, so nothing would be painted anew")
    return mask


def _has_alpha(picture: Image.Image) -> bool:
    return "transparency" in picture.info or picture.mode in TRANSPARENT


def _opened(
    source: str | os.PathLike[str] | bytes,
    convert: Callable[[Image.Image], Result],
    load: bool = True,
) -> Result:
    """A whole image, converted; without `load` its pixels are not decoded. Raises BadPicture."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        return _read(file, {}, convert, load)
    except (BadPicture, Image.DecompressionBombError, MemoryError) as error:
        raise BadPicture(_reason(error)) from None
    except Exception as error:  # a decoder of damaged bytes raises whatever it likes
        refusal = error
    # It may be for what stands beside the pixels alone: without that once more.
    try:
        raw = _to_take_apart(source)
        if raw is None:
            raise refusal
        pixels, beside = containers.pixels_alone(raw)
        return _read(io.BytesIO(pixels), beside, convert, load)
    except Exception as error:
        raise BadPicture(_reason(error)) from None


def _read(
    file: str | os.PathLike[str] | io.BytesIO,
    beside: dict[str, bytes],
    convert: Callable[[Image.Image], Result],
    load: bool,
) -> Result:
    with Image.open(file, formats=_kinds()) as picture:
        for name, value in beside.items():
            picture.info[name] = value
        if load:
            picture.load()
        return convert(picture)


def _to_take_apart(source: str | os.PathLike[str] | bytes) -> bytes | None:
    """The bytes of a file that `containers` knows; None of any other. Raises OSError."""
    if isinstance(source, bytes):
        return source if containers.is_known(source[: containers.LEAST]) else None
    with open(source, "rb") as file:
        head = file.read(containers.LEAST)
        return head + file.read() if containers.is_known(head) else None


def _reason(error: Exception) -> str:
    """Why an image is not read, in words of ours: PIL's are for programmers."""
    if isinstance(error, BadPicture):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not a picture of a known kind"
    if isinstance(error, Image.DecompressionBombError):
        counts = [int(count) / 1e6 for count in re.findall(r"\d+", str(error))[:2]]
        size = "too large ({:.1f} megapixels, the limit is {:.0f})".format(*counts)
        return f"{size}: make it smaller"
    if isinstance(error, MemoryError):
        return "too large for the memory of this machine: make it smaller"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "truncated" in str(error).lower():
        return "cut short: the file ends before the image does"
    return "damaged: its pixels cannot be decoded"


def _upright(picture: Image.Image) -> Image.Image:
    """An image turned as its camera was; as it is where its EXIF block cannot be read."""
    try:
        way = TURNS.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # as of pixels
        way = None
    # Not by ImageOps.exif_transpose, which writes the whole block anew, damage and all.
    return picture if way is None else picture.transpose(way)


@functools.cache
def _kinds() -> tuple[str, ...]:
    """Those of KINDS that this PIL can read."""
    Image.init()
    # It warns of what it can read nevertheless; what it cannot is an error of its own, as are more
    # than 179 megapixels.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return tuple(kind for kind in KINDS if kind in Image.OPEN)


def file_bytes(path: str) -> bytes:
    """The bytes of a picture's file. Raises BadPicture."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise BadPicture("no such file") from None
    except OSError as error:
        raise BadPicture(error.strerror or type(error).__name__) from None


def _to_rgb(picture: Image.Image) -> Image.Image:
    profile = colours.of(picture)
    if picture.mode in SIXTEEN_BIT:
        values = np.asarray(picture).astype(np.float32)
        picture = Image.fromarray((values.clip(0, 65535) / 257.0).round().astype(np.uint8))
    if picture.mode == "F":
        raise BadPicture("values with a fraction, of which nobody knows the white: save 8 bits")
    if _has_alpha(picture):
        picture = picture.convert("RGBA")
    if profile:
        picture = colours.converted(picture, profile)
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def mirror(picture: Image.Image) -> Image.Image:
    """Left and right exchanged."""
    return ImageOps.mirror(picture)


def cropped(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The largest centre crop of a shape, resized bicubically to that width and height."""
    whole, tall = picture.size
    across = min(whole, tall * width / height)
    down = min(tall, whole * height / width)
    box = ((whole - across) / 2, (tall - down) / 2, (whole + across) / 2, (tall + down) / 2)
    # crop() rounds the box itself; reducing_gap=1 lets large pictures shrink in two cheap steps.
    return picture.crop(box).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=1)


def centre_pixels(picture: Image.Image, width: int, height: int) -> Tensor:
    """`cropped` as (3, height, width) fp32 in [-1, 1].

    For a square, crop box and resampling are those of the training guide's decoder, to the last
    bit.
    """
    values = np.asarray(cropped(picture, width, height)).astype(np.float32) / 127.5 - 1
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


def unit_pixels(picture: Image.Image) -> Tensor:
    """A picture as (3, H, W) fp32 in [0, 1]."""
    values = np.asarray(picture.convert("RGB")).astype(np.float32) / 255
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture at another width and height, each pixel one of its own."""
    return picture.resize(size, Image.Resampling.NEAREST)


def small_pixels(picture: Image.Image, side: int, mode: str = "RGB") -> np.ndarray:
    """The whole picture averaged down to a square: (side, side, 3) uint8; "L": (side, side)."""
    size = (side, side)
    return np.asarray(picture.resize(size, Image.Resampling.BOX, reducing_gap=3).convert(mode))


def sharpness(picture: Image.Image, side: int) -> float:
    """How much the finest detail of a picture says, at the size that a training sees; about 0 to 1.

    The picture is shrunk so that its shorter edge is `side` (never enlarged). What a halving loses
    of it is its finest octave; what a second and a third halving lose are the next two. In cells of
    32 x 32 pixels the strength (root mean square) of the finest is divided by that of the stronger
    of the other two. The value is the 90th percentile over the quarter of the cells with most
    detail, so that a soft background does not count. A picture that was enlarged or blurred has
    next to nothing in its finest octave. NaN if there is nothing to see: an edge below 32 pixels,
    or one colour.
    """
    scale = side / min(picture.size)
    if scale < 1:
        smaller = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(smaller, Image.Resampling.BICUBIC, reducing_gap=2)
    if min(picture.size) < 32:
        return float("nan")
    grey = picture.convert("F")
    energies = []
    for cell in (32, 16, 8):
        grey, lost = _halved(grey)
        energies.append(_in_cells(lost**2, cell))
    rows, columns = np.min([e.shape for e in energies], axis=0)
    fine, *coarse = (e[:rows, :columns] for e in energies)
    strongest = np.maximum(*coarse)
    # Less than a hundredth of a grey level is rounding, not detail.
    most = (strongest >= np.quantile(strongest, 0.75)) & (strongest > 1e-4)
    ratios = np.sqrt(fine[most] / strongest[most])
    return float(np.quantile(ratios, 0.9)) if ratios.size else float("nan")


def _halved(grey: Image.Image) -> tuple[Image.Image, np.ndarray]:
    """A picture at half its size, and what is lost when that is enlarged again."""
    half = (grey.width // 2, grey.height // 2)
    even = grey.crop((0, 0, 2 * half[0], 2 * half[1]))
    small = even.resize(half, Image.Resampling.BOX)
    return small, np.asarray(even) - np.asarray(small.resize(even.size, Image.Resampling.BICUBIC))


def _in_cells(values: np.ndarray, cell: int) -> np.ndarray:
    """The mean over each whole square cell: (H, W) -> (H // cell, W // cell)."""
    rows, columns = values.shape[0] // cell, values.shape[1] // cell
    cut = values[: rows * cell, : columns * cell]
    return cut.reshape(rows, cell, columns, cell).mean(axis=(1, 3))
