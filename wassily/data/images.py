"""Images as RGB, cropped and resized for the encoders. `decoding` opens their files."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from wassily.data import colours
from wassily.data.decoding import BadPicture as BadPicture  # both known by this module's name
from wassily.data.decoding import decoded
from wassily.data.decoding import file_bytes as file_bytes

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
# Pixels that are converted at a time: a whole image in every step between would take three times
# the memory of its result.
BAND = 2**21


def open_rgb(source: str | os.PathLike[str] | bytes) -> Image.Image:
    """An image as RGB, (W, H): EXIF rotation applied, an embedded profile converted to sRGB,
    transparency laid on white, the first frame if animated.

    16-bit grey is scaled to 8 bits. Damage beside the pixels is passed over. Raises BadPicture for
    anything that is not a whole image.
    """
    return decoded(source, lambda picture: _upright(picture, _to_rgb))


def open_mask(source: str | os.PathLike[str] | bytes) -> Image.Image:
    """A mask as RGB: like `open_rgb`, but what is transparent in it could be meant either way.

    Raises BadPicture for that, too, and for a mask without white.
    """
    return decoded(source, lambda picture: _upright(picture, _to_mask))


def recoloured(source: str | os.PathLike[str] | bytes) -> bool:
    """Whether `open_rgb` converts the colours of an image; False for what is none."""
    try:
        return decoded(source, lambda picture: colours.of(picture) is not None, load=False)
    except BadPicture:
        return False


def _to_mask(picture: Image.Image) -> Image.Image:
    if _has_alpha(picture):
        least = min(_least_alpha(picture.crop(box)) for box in _bands(picture))
        if least < 255:
            raise BadPicture("transparent in parts: save it in black and white alone")
    mask = _to_rgb(picture)
    if max(np.asarray(mask.crop(box).convert("L")).max() for box in _bands(mask)) < 128:
        raise BadPicture("no white in it, so nothing would be painted anew")
    return mask


def _least_alpha(band: Image.Image) -> int:
    return int(np.asarray(band.convert("RGBA").getchannel("A")).min())


def _has_alpha(picture: Image.Image) -> bool:
    return "transparency" in picture.info or picture.mode in TRANSPARENT


def _upright(picture: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An image converted and turned as its camera was; not turned where its EXIF block cannot be
    read.
    """
    try:
        way = TURNS.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # as of pixels
        way = None
    made = convert(picture)
    if way is None:
        return made
    picture.close()  # its pixels, beside which two more images would be in memory
    # Not by ImageOps.exif_transpose, which writes the whole block anew, damage and all.
    return made.transpose(way)


def _bands(picture: Image.Image) -> list[tuple[int, int, int, int]]:
    """Boxes of whole rows that make up an image, each of about BAND pixels."""
    rows = max(1, BAND // picture.width)
    tops = range(0, picture.height, rows)
    return [(0, top, picture.width, min(top + rows, picture.height)) for top in tops]


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        raise BadPicture("values with a fraction, of which nobody knows the white: save 8 bits")
    profile = colours.of(picture)
    boxes = _bands(picture)
    if len(boxes) == 1:
        return _band_to_rgb(picture, profile)
    made = Image.new("RGB", picture.size)
    for box in boxes:
        made.paste(_band_to_rgb(picture.crop(box), profile), box)
    return made


def _band_to_rgb(picture: Image.Image, profile: colours.Profile | None) -> Image.Image:
    if picture.mode in SIXTEEN_BIT:
        values = np.asarray(picture).astype(np.float32)
        picture = Image.fromarray((values.clip(0, 65535) / 257.0).round().astype(np.uint8))
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
