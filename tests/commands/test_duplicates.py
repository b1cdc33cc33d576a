"""Near-duplicates: against the definition, over all pairs."""

from __future__ import annotations

import numpy as np
from helpers import draw_picture
from PIL import Image

from wassily.commands import duplicates
from wassily.data import images


def _looks(drawn: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    greys = [images.small_pixels(p, duplicates.GREY_SIDE, "L") for p in drawn]
    hashes = np.array([duplicates.difference_hash(grey) for grey in greys], np.uint64)
    return hashes, np.stack([images.small_pixels(p, duplicates.THUMB_SIDE) for p in drawn])


def test_the_hash_is_the_sign_of_the_differences() -> None:
    """Bits in reading order: brighter to the right in the first word, to the foot in the second."""
    grey = np.random.default_rng(0).integers(0, 256, (9, 9), dtype=np.uint8)
    across = grey[:8, :8] < grey[:8, 1:]
    down = grey[:8, :8] < grey[1:, :8]
    words = [
        int("".join("01"[bit] for bit in bits.ravel().astype(int)), 2) for bits in (across, down)
    ]
    assert list(duplicates.difference_hash(grey)) == words


def test_groups_are_those_of_all_pairs() -> None:
    """Random hashes with planted neighbours, some of another colour: as a comparison of all."""
    random = np.random.default_rng(1)
    bits = random.integers(0, 2, (400, 128), dtype=np.uint8)
    thumbs = random.integers(0, 256, (400, 8, 8, 3), dtype=np.uint8)
    for old, new in zip(range(100), range(200, 300), strict=True):
        bits[new] = bits[old]
        bits[new, random.choice(128, random.integers(0, 25), replace=False)] ^= 1
        if old % 3:
            thumbs[new] = thumbs[old]
    hashes = np.packbits(bits, axis=1).view(">u8").astype(np.uint64)
    differ = (bits[:, None] != bits[None]).sum(-1)
    gaps = np.abs(thumbs[:, None].astype(int) - thumbs[None]).mean((2, 3, 4))
    near = (differ <= duplicates.BITS) & (gaps <= duplicates.COLOUR)
    wanted = {(a, b) for a, b in zip(*np.nonzero(np.triu(near, 1)), strict=True)}
    assert 20 < len(wanted) < 100
    groups = duplicates.members(duplicates.near(hashes, thumbs))
    assert {tuple(group.tolist()) for group in groups} == wanted


def test_many_that_are_alike_are_one_group() -> None:
    """More than the window, all the same; a chain is one group by its first member."""
    alike = duplicates.near(np.zeros((1000, 2), np.uint64), np.zeros((1000, 8, 8, 3), np.uint8))
    assert not alike.any()
    chain = np.array([[2 ** (k * 10) - 1, 0] for k in range(5)], np.uint64)
    assert duplicates.near(chain, np.zeros((5, 8, 8, 3), np.uint8)).tolist() == [0] * 5
    assert duplicates.near(np.zeros((0, 2), np.uint64), np.zeros((0, 8, 8, 3), np.uint8)).size == 0


def test_a_copy_is_near_and_another_picture_or_colour_is_not() -> None:
    """Scaled, and with red and blue exchanged."""
    drawn = [draw_picture(n, 96, 80) for n in range(6)]
    red, green, blue = drawn[0].split()
    drawn += [drawn[0].resize((48, 40)), Image.merge("RGB", (blue, green, red))]
    groups = duplicates.members(duplicates.near(*_looks(drawn)))
    assert [group.tolist() for group in groups] == [[0, 6]]
