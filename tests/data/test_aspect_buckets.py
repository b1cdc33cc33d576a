"""Which shape a picture is cropped to: against searching through all of them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from wassily.data import aspect_buckets

SIZES = np.array(
    [(w, h) for w in (1, 2, 30, 333, 512, 640, 1000) for h in (1, 7, 99, 480, 512, 777, 4000)]
)


@pytest.mark.parametrize(
    ("side", "step"), [(512, 64), (768, 64), (1024, 64), (320, 64), (64, 64), (32, 8), (48, 8)]
)
def test_shapes_against_a_search(side: int, step: int) -> None:
    """Of all shapes of multiples of the step with sides from half to twice the square's and no
    larger area: those that are the tallest of their width or the widest of their height.
    """
    sides = [n for n in range(step, 4 * side + 1, step) if side <= 2 * n and n <= 2 * side]
    fitting = {(w, h) for w in sides for h in sides if w * h <= side * side}
    tallest = {(w, max(h for v, h in fitting if v == w)) for w in {w for w, _ in fitting}}
    widest = {(h, w) for w, h in tallest}
    found = aspect_buckets.shapes(side, step)
    assert set(found) == tallest | widest
    assert len(found) == len(set(found))
    assert (side, side) in found
    ratios = [w / h for w, h in found]
    assert ratios == sorted(ratios)


def test_shapes_of_the_usual_resolution() -> None:
    """Written out: 512 px in steps of 64, from the tallest to the square."""
    found = aspect_buckets.shapes(512, 64)
    assert found[: len(found) // 2 + 1] == [
        *((256, 1024), (256, 960), (256, 896), (256, 832)),
        *((320, 768), (320, 704), (384, 640), (448, 576), (512, 512)),
    ]


def test_kept_against_counting() -> None:
    """The largest box of a shape's ratio inside of a picture, by rational numbers."""
    for shape in aspect_buckets.shapes(512, 64):
        ratio = Fraction(*shape)
        expected = []
        for width, height in SIZES.tolist():
            across = min(Fraction(width), height * ratio)
            expected.append(float(across * (across / ratio) / (width * height)))
        assert aspect_buckets.retained_share(SIZES, shape) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("side", "step"), [(512, 64), (768, 64), (32, 8)])
def test_nearest_against_a_search(side: int, step: int) -> None:
    """No shape keeps more of a picture than its own; among equals it is the largest."""
    shapes = aspect_buckets.shapes(side, step)
    chosen = aspect_buckets.nearest(SIZES, shapes)
    for (width, height), number in zip(SIZES.tolist(), chosen.tolist(), strict=True):
        by_shape = []
        for w, h in shapes:
            r, whole = Fraction(w, h), Fraction(width, height)
            by_shape.append((min(r, whole) / max(r, whole), w * h))
        assert by_shape[number] == max(by_shape), (width, height)


def test_a_picture_of_a_shape_loses_nothing() -> None:
    """Whatever its scale; and turned by 90 degrees it is in the turned shape."""
    shapes = aspect_buckets.shapes(768, 64)
    sizes = np.array(shapes)
    assert [shapes[n] for n in aspect_buckets.nearest(3 * sizes, shapes)] == shapes
    turned = [shapes[n] for n in aspect_buckets.nearest(sizes[:, ::-1], shapes)]
    assert turned == [(h, w) for w, h in shapes]


def test_buckets_hold_every_picture_once() -> None:
    """And say how many, and what is lost: here 100 x 50 and 50 x 100 fit, and squares halve."""
    found = aspect_buckets.sorted_into(
        np.array([(100, 50), (50, 100), (100, 50)]), aspect_buckets.shapes(64, 8)
    )
    members = [part.tolist() for part in found.members()]
    assert sorted(index for part in members for index in part) == [0, 1, 2]
    assert found.shape(0) == found.shape(2) != found.shape(1)
    lines = found.described(batch=2)
    assert lines[0].startswith("2 of ")
    w, h = found.shape(0)
    assert f"  {w} x {h}: 2" in lines
    assert found.square_keeps == 0.5
    assert found.keeps == pytest.approx(min(w / h, 2) / max(w / h, 2))
    assert f"with squares {0.5:.1%}" in lines[-2]
    assert lines[-1].startswith("buckets of less than a global batch (2): 1, with 1 pictures")


def test_one_shape_is_not_worth_a_word() -> None:
    """The square crop has no buckets to speak of, and all pictures in one."""
    square = aspect_buckets.Buckets([(512, 512)], np.zeros(5, np.int64))
    assert square.described(4) == []
    assert [part.tolist() for part in square.members()] == [[0, 1, 2, 3, 4]]
