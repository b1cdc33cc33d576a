"""Which images are held out: it follows from the bytes of an image alone.

So equal images are on one side, and neither the order nor the names of the others matter.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from wassily.data.datasets import Pictures
from wassily.encodings import fill
from wassily.errors import UserError
from wassily.runtime.accelerator import Runtime


def split(
    source: Pictures, share: float, root: Path, runtime: Runtime, cached: bool
) -> tuple[Pictures, Pictures | None]:
    """The source without its held-out pictures, and these, in the order of their contents.

    `share` of 0 holds nothing out. Raises UserError if nothing is left to train on.
    """
    if not share:
        return source, None
    if cached:
        contents, _ = fill.image_contents(source, root, runtime)
    else:
        contents = runtime.shared(lambda: contents_of(source))
    out = held_out(contents, share)
    kept = sorted(set(range(len(source))) - set(out))
    if not kept:
        raise UserError(f"--holdout {share:g}: none of {len(source)} pictures is left to train on")
    return source.select(kept), source.select(out)


def contents_of(source: Pictures) -> np.ndarray:
    """The digest of every picture's bytes, (N, 16) uint8, without a cache; zeros if unreadable."""
    found = np.zeros((len(source), 16), np.uint8)
    for index in range(len(source)):
        image = source[index].image
        with contextlib.suppress(OSError):  # it is named when the pictures are checked
            found[index] = np.frombuffer(fill.content_key(image), np.uint8)
    return found


def held_out(contents: np.ndarray, share: float) -> list[int]:
    """Indices of the held-out pictures by their digests (N, 16), in the order of these.

    A picture is held out if its digest, read as a fraction of all digests, is below `share`; the
    two lowest always are, because a spread needs two. A picture stays on its side when others come
    or go, but for these, and a larger share only adds to a smaller one.
    """
    keys = [row.tobytes() for row in contents]
    known = sorted(index for index, key in enumerate(keys) if any(key))
    if not known:
        return []
    bound = int(share * 2**64)
    lowest = sorted({keys[index] for index in known})[:2]
    out = [
        index
        for index in known
        if int.from_bytes(keys[index][:8], "big") < bound or keys[index] in lowest
    ]
    return sorted(out, key=lambda index: (keys[index], index))


def about(count: int, share: float) -> int:
    """How many of so many pictures `held_out` is likely to take: which ones is not known yet.

    Raises UserError if that leaves none.
    """
    held = max(2, round(share * count)) if share else 0
    if held >= count:
        raise UserError(f"--holdout {share:g}: none of {count} pictures is left to train on")
    return held
