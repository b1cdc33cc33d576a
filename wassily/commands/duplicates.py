"""Pictures that look alike: a perceptual hash of each, and groups of those that are close.

The only file that knows the `dhash` library.
"""

from __future__ import annotations

import dhash
import numpy as np

# Of photographs that were saved again as JPEG (quality 40), scaled to a quarter or blurred, no hash
# moved by more than 6 of its 128 bits; different photographs differ in 63 of them, and in 9 at
# the least. Drawings of one shape in two colours share a hash: so colours have to be close, too.
BITS = 12  # hashes that differ in so many bits are near
COLOUR = 5.0  # thumbnails whose values differ by so much on average, of 255, are near
WINDOW = 64  # places in the sorted hashes over which neighbours are compared
GREY_SIDE, THUMB_SIDE = 9, 8  # pixels


def difference_hash(grey: np.ndarray) -> tuple[int, int]:
    """A picture of (9, 9) grey values -> two words of 64 bits: brighter to the right, to the foot.

    The library's own code is given numbers, so nothing depends on its way to open a picture.
    """
    row, column = dhash.dhash_row_col(grey.ravel().tolist(), size=GREY_SIDE - 1)
    return int(row), int(column)


def near(hashes: np.ndarray, thumbs: np.ndarray) -> np.ndarray:
    """Hashes (N, 2) uint64 and thumbnails (N, 8, 8, 3) uint8 -> a group number for each, (N,).

    Two pictures are near if both their hashes (`BITS`) and their colours (`COLOUR`) are; a group
    is what hangs together by such pairs. Its number is the index of its first member.

    Not every pair is compared. As with simhashes (Manku et al. 2007, "Detecting near-duplicates
    for web crawling"), hashes that differ in few bits agree in a long run of bits somewhere: the
    hashes are sorted 16 times, each time turned by a byte, and each is compared with the next
    `WINDOW` in that order. That is 16 N (log N + WINDOW) steps and memory for N, however many
    pictures are alike.
    """
    octets = hashes.astype(">u8").view(np.uint8).reshape(len(hashes), 16)
    group = np.arange(len(hashes))
    for turn in range(octets.shape[1]):
        turned = np.ascontiguousarray(np.roll(octets, turn, axis=1)).view(">u8")
        order = np.lexsort((turned[:, 1], turned[:, 0]))
        for step in range(1, min(WINDOW, len(order) - 1) + 1):
            pairs = np.stack([order[:-step], order[step:]], axis=1)
            pairs = pairs[group[pairs[:, 0]] != group[pairs[:, 1]]]
            pairs = pairs[_close(hashes, thumbs, pairs)]
            group = _joined(group, pairs)
    return group


def _close(hashes: np.ndarray, thumbs: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Which of the pairs (P, 2) of indices are near, (P,)."""
    first, second = pairs[:, 0], pairs[:, 1]
    close = np.bitwise_count(hashes[first] ^ hashes[second]).sum(axis=1) <= BITS
    for at in np.array_split(np.flatnonzero(close), 1 + np.count_nonzero(close) // 10_000):
        gap = thumbs[first[at]].astype(np.int16) - thumbs[second[at]]
        close[at] = np.abs(gap).mean(axis=(1, 2, 3)) <= COLOUR
    return close


def _joined(group: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The groups after the two members of each pair came into one; the lower number stays."""
    if not len(pairs):
        return group
    group = group.copy()

    def root(index: int) -> int:
        while group[index] != index:
            group[index] = group[group[index]]
            index = int(group[index])
        return index

    for first, second in pairs.tolist():
        low, high = sorted((root(first), root(second)))
        group[high] = low
    while (group[group] != group).any():
        group = group[group]
    return group


def members(group: np.ndarray) -> list[np.ndarray]:
    """Group numbers (N,) -> the indices of each group of two or more, by their first index."""
    order = np.argsort(group, kind="stable")
    cuts = np.flatnonzero(np.diff(group[order])) + 1
    return [part for part in np.split(order, cuts) if len(part) > 1]
