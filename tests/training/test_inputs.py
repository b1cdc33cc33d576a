"""Counts of what a run reads, in words."""

from __future__ import annotations

from wassily.training.inputs import count_lines


def test_lines_of_the_counts() -> None:
    """Copies and cut captions; nothing of a stream, and nothing where all are different."""
    assert count_lines({"shards": 4}) == []
    assert count_lines({"pictures": 5, "duplicates": 0}) == []
    found = {"pictures": 5, "duplicates": 2, "captions": 6, "different_captions": 6}
    found |= {"cut_captions": 1, "longest_caption_in_tokens": 77}
    assert count_lines(found) == [
        "2 of 5 pictures are copies of others",
        "1 of 6 captions are longer than 77 tokens and are cut there",
    ]
