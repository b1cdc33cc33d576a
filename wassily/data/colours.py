"""Embedded colour profiles: an image in another colour space becomes sRGB, as the networks know it.

Beside `images`, `png` and `sheets` the only file that knows PIL.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms

VERSION = "colours 1"  # of what is made of a profile: encodings of such images depend on it
# A profile's colour space -> PIL's mode of it, and the modes of images whose values it can mean.
SPACES = {
    "RGB ": ("RGB", {"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "YCbCr"}),
    "GRAY": ("L", {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}),
    "CMYK": ("CMYK", {"CMYK"}),
    "Lab ": ("LAB", {"LAB"}),
}
# Levels of 255 by which the many profiles of sRGB differ from one another. Grey of gamma 2.2 is 8
# from it, the wider spaces 20 and more.
ALIKE = 3


@dataclass(frozen=True)
class Profile:
    """A colour space other than sRGB: PIL's mode of it, and the way from it to sRGB."""

    mode: str
    images: frozenset[str]
    transform: Any


def of(picture: Image.Image) -> Profile | None:
    """The embedded profile of an image.

    None without one, and for sRGB's, an unreadable one and one of another kind of values.
    """
    raw = picture.info.get("icc_profile")
    found = _profile(raw) if isinstance(raw, bytes) and raw else None
    return found if found and picture.mode in found.images else None


def converted(picture: Image.Image, profile: Profile) -> Image.Image:
    """An image as sRGB: mode RGB, or RGBA with the alpha that it has."""
    try:
        made = ImageCms.applyTransform(picture.convert(profile.mode), profile.transform)
    except ImageCms.PyCMSError:  # what nobody can follow is ignored
        return picture
    assert made is not None  # only of an image that is changed in place
    if picture.mode == "RGBA":
        made.putalpha(picture.getchannel("A"))
    return made


@functools.lru_cache(maxsize=32)
def _profile(raw: bytes) -> Profile | None:
    try:
        read = ImageCms.ImageCmsProfile(io.BytesIO(raw))
        mode, images = SPACES[read.profile.xcolor_space]
        transform = ImageCms.buildTransform(
            read,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        alike = mode in ("RGB", "L") and _changes(mode, transform) <= ALIKE
    except Exception:  # of damaged bytes, or no littleCMS in this PIL: many kinds
        return None
    return None if alike else Profile(mode, frozenset(images), transform)


def _changes(mode: str, transform: Any) -> int:
    """The most that a transform to sRGB changes in a channel of RGB or grey values, of 255."""
    greys = np.arange(256, dtype=np.uint8)
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    values = np.concatenate([colours, np.stack([greys] * 3, -1)]) if mode == "RGB" else greys
    image = Image.fromarray(values[None])
    made = np.asarray(ImageCms.applyTransform(image, transform)).astype(int)
    return int(np.abs(made - np.asarray(image.convert("RGB")).astype(int)).max())
