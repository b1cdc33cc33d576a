"""Labelled sheets of images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import draw_picture
from PIL import Image

from wassily.data import sheets

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)


@pytest.mark.parametrize(("side", "scale"), [(32, 5), (64, 2), (160, 1), (512, 1)])
def test_sheet_layout(side: int, scale: int) -> None:
    """Each picture stands where the layout says, enlarged by whole pixels; the page holds all.

    Cell (r, c) begins at (left + c (edge + 10), top + r (edge + 10)), and left and top are what is
    left of the width and height.
    """
    rows = [
        [Image.new("RGB", (side, side), c) for c in pair] for pair in ((RED, GREEN), (BLUE, RED))
    ]
    page = sheets.sheet(rows, ["one", "two"], ["a", "b"], "title")
    edge = side * scale
    left, top = page.width - 2 * (edge + 10) - 10, page.height - 2 * (edge + 10)
    assert 20 < left < 40
    assert 0 < top < 120
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            x, y = left + c * (edge + 10), top + r * (edge + 10)
            block = np.asarray(page.crop((x, y, x + edge, y + edge)))
            assert (block == picture.getpixel((0, 0))).all()
            assert page.getpixel((x + edge + 5, y + edge // 2)) == WHITE


def test_sheet_takes_rows_of_different_lengths_and_sizes() -> None:
    """No title, no headings; empty and very long labels."""
    rows = [[draw_picture(0, 32, 32)], [draw_picture(1, 64, 48), draw_picture(2, 16, 16)]]
    page = sheets.sheet(rows, [], ["", "word " * 100 + "x" * 100])
    assert 200 + 2 * (64 * 2 + 10) + 10 < page.width <= 240 + 2 * (64 * 2 + 10) + 10


@pytest.mark.parametrize("label", ["", "a", "a red circle", "قطة", "a large red circle " * 9])
@pytest.mark.parametrize("size", [(32, 32), (32, 96), (96, 32), (600, 600)])
def test_no_column_of_a_sheet_is_empty(size: tuple[int, int], label: str) -> None:
    """What shows nothing is a margin: two gaps and the end of a line at most, however short the
    labels are and however tall the pictures; and what a heading needs beyond its picture.
    """
    picture = Image.new("RGB", size, BLUE)
    page = sheets.sheet([[picture, picture]], ["step 1500", "2"], [label])
    empty = (np.asarray(page) == 255).all(axis=(0, 2))
    runs = [len(run) for run in "".join(" x"[not one] for one in empty).split("x")]
    beyond = math.ceil(sheets._font(15).getlength("step 1500")) - size[0] * 2
    assert max(runs) <= 30 + (max(0, beyond) if size == (32, 96) else 0)


def _ink(text: str) -> np.ndarray:
    """Which pixels a label darkens: the left part of a sheet of one wide white picture."""
    page = sheets.sheet([[Image.new("RGB", (300, 160), "white")]], [], [text])
    return np.asarray(page.convert("L"))[:, :230] < 128


def test_arabic_labels_have_glyphs() -> None:
    """A font without a script draws the same box for each letter. Six letters, six shapes, none
    of them the box of a private-use character.
    """
    shapes = {letter: _ink(letter * 3).tobytes() for letter in "قطحمرش"}
    assert len(set(shapes.values())) == 6
    assert _ink("\ue123" * 3).tobytes() not in shapes.values()
    assert all(_ink(letter).any() for letter in shapes)


def test_labels_stay_in_their_column() -> None:
    """However long the word: no ink in the margin before the pictures."""
    for text in ("word " * 80, "ك" * 400, "x" * 400):
        page = sheets.sheet([[Image.new("RGB", (160, 160), BLUE)]], [], [text])
        left = page.width - 180
        assert left <= 240 and page.getpixel((left, 20)) == BLUE
        assert (np.asarray(page)[:, left - 8 : left] == 255).all(), text[:10]


def test_a_label_is_cut_with_an_ellipsis() -> None:
    """The cut text is a head of the whole."""
    font = sheets._font(15)
    lines = sheets._wrap("alpha beta gamma delta epsilon", font, 90, 2)
    assert len(lines) == 2
    assert lines[-1].endswith("…")
    assert "alpha beta gamma delta epsilon".startswith(" ".join(lines)[:-1])
    assert all(font.getlength(line) <= 90 for line in lines)
    assert sheets._wrap("short", font, 90, 2) == ["short"]


def test_a_label_that_just_fits_is_not_cut() -> None:
    """The room for an ellipsis is only needed where one is set."""
    font = sheets._font(15)
    width = math.ceil(font.getlength("دائرة حمراء"))
    assert sheets._wrap("دائرة حمراء", font, width, 3) == ["دائرة حمراء"]


def test_the_font_covers_what_labels_hold() -> None:
    """Latin with accents, Cyrillic, digits and the ellipsis: no two letters look alike."""
    letters = "aéЖя9…"
    assert len({_ink(letter).tobytes() for letter in letters}) == len(letters)
