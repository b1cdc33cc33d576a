"""Captions in numbers: against what was put in."""

from __future__ import annotations

import pytest

from wassily.data import captions


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("a fox, asleep", "latin"),
        ("ثعلب نائم", "arabic"),
        ("рыжая лиса", "cyrillic"),
        ("雪中的狐狸", "han"),
        ("きつねです", "hiragana"),
        ("ＡＢＣ", "latin"),
        ("여우", "hangul"),
        ("ثعلب كبير fox", "arabic"),
        ("123 !? 🦊", captions.NO_LETTERS),
    ],
)
def test_the_script_of_most_letters(text: str, script: str) -> None:
    assert captions.script(text) == script


def test_counts_lengths_and_repeats() -> None:
    """Lists count each of their texts; empty ones, and what is no text, count as none."""
    rows = [("a fox",), ("a fox ", "ثعلب"), (), (" ",), ("a fox",), ("two", "two")]
    found = captions.count(rows)
    assert found.repeated(2) == [("a fox", 3)]
    assert found.summary() == {
        "captions": 6,
        "different": 3,
        "pictures_without": 2,
        "characters": {"least": 3.0, "median": 4.5, "mean": 4.17, "most": 5.0},
        "words": {"least": 1.0, "median": 1.5, "mean": 1.5, "most": 2.0},
        "scripts": {"latin": 5, "arabic": 1},
    }
    assert captions.spread([]) == {}
