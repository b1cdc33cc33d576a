"""Captions in numbers: how many, how long, in which script, which of them come again and again."""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

NO_LETTERS = "no letters"
MARKS = 2  # tokens around a caption: its beginning and its end
# The first word of a letter's Unicode name is its script, but for these.
SCRIPTS = {"cjk": "han", "fullwidth": "latin", "halfwidth": "katakana", "hangul": "hangul"}


class _Ids(Protocol):
    input_ids: list[list[int]]


class Tokenizer(Protocol):
    """What is used of transformers' CLIPTokenizer."""

    model_max_length: int

    def __call__(self, text: list[str], *, truncation: bool, verbose: bool) -> _Ids:
        """Texts -> the ids of their tokens."""


@functools.lru_cache(maxsize=20_000)
def _script_of_letter(letter: str) -> str | None:
    if not letter.isalpha():
        return None
    name = unicodedata.name(letter, "").lower().split(" ")[0].split("-")[0]
    return SCRIPTS.get(name, name) or None


def script(caption: str) -> str:
    """The script of most of a caption's letters ("latin", "arabic", "han", ...), by Unicode.

    A script is not a language: nothing tells English from French here.
    """
    found = Counter(s for s in map(_script_of_letter, caption) if s)
    return found.most_common(1)[0][0] if found else NO_LETTERS


@dataclass
class Captions:
    """Captions as they were counted, each in characters and words; `texts` holds how often each."""

    bare: int = 0  # examples without a caption
    lengths: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    scripts: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)

    def repeated(self, least: int) -> list[tuple[str, int]]:
        """The captions of `least` examples or more, and of how many; the commonest first."""
        return [(text, n) for text, n in self.texts.most_common() if n >= least]

    def summary(self) -> dict[str, object]:
        """Plain values for the report."""
        return {
            "captions": len(self.lengths),
            "different": len(self.texts),
            "pictures_without": self.bare,
            "characters": spread(self.lengths),
            "words": spread(self.words),
            "scripts": dict(self.scripts.most_common()),
        }


def count(examples: Iterable[tuple[str, ...]]) -> Captions:
    """Count the captions of each example; white space around them is no part of them."""
    found = Captions()
    for captions in examples:
        texts = [c.strip() for c in captions if isinstance(c, str) and c.strip()]
        found.bare += not texts
        found.texts.update(set(texts))
        for text in texts:
            found.lengths.append(len(text))
            found.words.append(len(text.split()))
            found.scripts[script(text)] += 1
    return found


def spread(values: Sequence[int]) -> dict[str, float]:
    """Least, median, mean and most; nothing of nothing."""
    if not len(values):
        return {}
    row = np.asarray(values, np.float64)
    found = (row.min(), np.median(row), row.mean(), row.max())
    names = ("least", "median", "mean", "most")
    return {name: round(float(value), 2) for name, value in zip(names, found, strict=True)}


def count_cut(captions: Iterable[str], tokenizer: Tokenizer) -> tuple[int, int]:
    """How many captions are longer than the tokenizer's limit, of how many."""
    limit, total = tokenizer.model_max_length, 0

    def doubtful() -> Iterator[str]:
        nonlocal total
        for caption in captions:
            total += 1
            # A token is one letter at least; other scripts may grow when they are normalised.
            if len(caption) + MARKS > limit or not caption.isascii():
                yield caption

    cut = sum(length > limit for length in token_counts(doubtful(), tokenizer))
    return cut, total


def token_counts(captions: Iterable[str], tokenizer: Tokenizer) -> Iterator[int]:
    """The length of each caption in tokens, both ends included, before anything is cut."""
    left = iter(captions)
    while batch := list(itertools.islice(left, 1000)):
        yield from map(len, tokenizer(batch, truncation=False, verbose=False).input_ids)
