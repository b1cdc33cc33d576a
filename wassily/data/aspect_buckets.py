"""Aspect-ratio buckets: which shape a picture is cropped to, so that the fewest pixels are lost.

Pure functions of numbers; a size or shape is (width, height) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Size = tuple[int, int]


def shapes(side: int, step: int) -> list[Size]:
    """The buckets for a square of `side` pixels, itself a multiple of `step`: widest last.

    For each width from half to twice the side the tallest height that keeps the area at most
    `side` squared, both multiples of `step`; and each of these turned by 90 degrees.
    """
    cells = (side // step) ** 2
    widths = range(-(-side // (2 * step)), 2 * side // step + 1)
    found = {(a, cells // a) for a in widths if cells // a >= widths[0]}
    turned = found | {(b, a) for a, b in found}
    return sorted(((a * step, b * step) for a, b in turned), key=lambda s: (s[0] / s[1], s))


def retained_share(sizes: np.ndarray, shape: Size | np.ndarray) -> np.ndarray:
    """Sizes (N, 2) -> the fraction of each picture's pixels that a crop to `shape` keeps, (N,).

    `shape` is one for all, or (N, 2). The largest box of ratio r = w / h inside a picture of ratio
    R holds min(r, R) / max(r, R) of it.
    """
    width, height = np.asarray(shape, np.int64).T
    across, down = sizes[:, 0] * height, sizes[:, 1] * width
    return np.minimum(across, down) / np.maximum(across, down)


def nearest(sizes: np.ndarray, shapes: Sequence[Size]) -> np.ndarray:
    """Sizes (N, 2) -> index of the shape that keeps the most of each, (N,).

    Of two that keep the same, the one of the larger area; then the first.
    """
    order = sorted(range(len(shapes)), key=lambda i: -shapes[i][0] * shapes[i][1])
    best, most = np.zeros(len(sizes), np.int64), np.full(len(sizes), -1.0)
    for number in order:
        fraction = retained_share(sizes, shapes[number])
        better = fraction > most
        best[better], most[better] = number, fraction[better]
    return best


@dataclass(frozen=True)
class Buckets:
    """The pictures of a run by shape: `of` (N,) is each one's index into `shapes`.

    `keeps` and `square_keeps` are the mean fractions of pixels that stay, here and in squares.
    """

    shapes: list[Size]
    of: np.ndarray
    keeps: float = 1.0
    square_keeps: float = 1.0

    def shape(self, index: int) -> Size:
        """The shape of a picture's crop."""
        return self.shapes[self.of[index]]

    def members(self) -> list[np.ndarray]:
        """Indices of the pictures of each shape; together every picture once."""
        return [np.flatnonzero(self.of == number) for number in range(len(self.shapes))]

    def described(self, batch: int) -> list[str]:
        """Lines for the user: who is where, what it gains. Nothing where all have one shape.

        `batch` is the global batch, which one bucket fills.
        """
        if len(self.shapes) == 1:
            return []
        counts = np.bincount(self.of, minlength=len(self.shapes))
        used = [(w, h, n) for (w, h), n in zip(self.shapes, counts.tolist(), strict=True) if n]
        lines = [f"{len(used)} of {len(self.shapes)} buckets hold pictures:"]
        lines += [f"  {w} x {h}: {n}" for w, h, n in used]
        lines.append(
            f"cropped away: {1 - self.keeps:.1%} of the pixels, "
            f"with squares {1 - self.square_keeps:.1%}"
        )
        small = [n for _, _, n in used if n < batch]
        if small:
            lines.append(
                f"buckets of less than a global batch ({batch}): {len(small)}, with {sum(small)} "
                "pictures; such a bucket has a step once in several epochs, for all of them"
            )
        return lines


def sorted_into(sizes: np.ndarray, shapes: list[Size]) -> Buckets:
    """Pictures of sizes (N, 2), each into the shape that loses the fewest of its pixels."""
    of = nearest(sizes, shapes)
    own = retained_share(sizes, np.array(shapes)[of])
    return Buckets(shapes, of, float(own.mean()), float(retained_share(sizes, (1, 1)).mean()))
