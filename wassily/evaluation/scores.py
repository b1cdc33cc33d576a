"""From what two pairs of networks drew to scores: pure functions of arrays.

Two pairs are compared on the same prompts, pictures and seeds, so each change is a mean of
differences and mostly surer than the two scores that it is between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from wassily.evaluation import metrics
from wassily.evaluation.metrics import Estimate


@dataclass(frozen=True)
class Truth:
    """The held-out pictures: embeddings of pictures and captions, (N, D), and which caption of
    another picture stands for an unrelated one, (N,), -1 where there is none.
    """

    pictures: np.ndarray
    texts: np.ndarray
    others: np.ndarray


@dataclass(frozen=True)
class GeneratedEmbeddings:
    """What one pair of networks made of N prompts: embeddings of its prior, and those of its
    pictures in the space of the image encoder, both (N, D).
    """

    embeds: np.ndarray
    pictures: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """What one pair of networks made of everything that was asked.

    `redrawn` (N, D): held-out pictures painted from their own embeddings; `losses` of each trained
    network on them, (N, bands). Without held-out pictures the first three are None and empty.
    """

    held_out: GeneratedEmbeddings | None = None
    redrawn: np.ndarray | None = None
    losses: dict[str, np.ndarray] = field(default_factory=dict)
    lists: dict[str, GeneratedEmbeddings] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """One line of the report; `base` and `change` are None where nothing is compared."""

    group: str
    name: str
    what: str
    tuned: Estimate
    base: Estimate | None = None
    change: Estimate | None = None

    def plain(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self)


Row = tuple[str, str, np.ndarray]  # name, words, (N,) values or (N, N) terms


def other_texts(captions: Sequence[str]) -> np.ndarray:
    """For each caption the index of one that says something else, half-way round the list; -1 if
    all are alike.
    """
    count = len(captions)
    found = np.full(count, -1)
    for index, caption in enumerate(captions):
        for step in range(count):
            other = (index + count // 2 + step) % count
            if captions[other] != caption:
                found[index] = other
                break
    return found


def all_scores(
    tuned: Outcome,
    base: Outcome | None,
    truth: Truth | None,
    texts: dict[str, np.ndarray],
    seed: int,
) -> list[Score]:
    """Every line of the report. `texts` holds the text embeddings of each list of prompts."""
    groups: list[tuple[str, list[Row], list[Row] | None]] = []
    if truth is not None:
        for group, rows in (("prior", _prior), ("decoder", _decoder), ("both", _both)):
            theirs = list(rows(base, truth)) if base else None
            groups.append((group, list(rows(tuned, truth)), theirs))
        ceiling = metrics.cosine(truth.texts, truth.pictures)
        groups.append(("both", [("ceiling", "text to its true picture", ceiling)], None))
        for role, losses in tuned.losses.items():
            theirs = list(_losses(base.losses[role])) if base else None
            groups.append((f"{role} loss", list(_losses(losses)), theirs))
    for name, drawn in tuned.lists.items():
        theirs = list(_prompts(base.lists[name], texts[name])) if base else None
        groups.append((name, list(_prompts(drawn, texts[name])), theirs))
        if base:
            groups.append((name, list(_drift(drawn, base.lists[name])), None))
    return [
        _score(group, row, theirs[number] if theirs else None, seed)
        for group, rows, theirs in groups
        for number, row in enumerate(rows)
    ]


def _score(group: str, row: Row, base: Row | None, seed: int) -> Score:
    name, what, values = row
    own = metrics.estimate(values, seed)
    if base is None:
        return Score(group, name, what, own)
    other, change = metrics.estimate(base[2], seed), metrics.estimate(values - base[2], seed)
    return Score(group, name, what, own, other, change)


def _prior(side: Outcome, truth: Truth) -> Iterator[Row]:
    assert side.held_out is not None
    drawn = side.held_out.embeds
    yield "picture", "drawn embedding to its picture", metrics.cosine(drawn, truth.pictures)
    yield "text", "drawn embedding to its text", metrics.cosine(drawn, truth.texts)
    known = truth.others >= 0
    if known.sum() > 1:
        unrelated = truth.texts[truth.others[known]]
        yield "other", "drawn embedding to another text", metrics.cosine(drawn[known], unrelated)


def _decoder(side: Outcome, truth: Truth) -> Iterator[Row]:
    assert side.redrawn is not None
    same = metrics.cosine(side.redrawn, truth.pictures)
    yield "source", "redrawn picture to its source", same
    yield from _distances(side.redrawn, truth.pictures, "redrawn to true pictures")


def _both(side: Outcome, truth: Truth) -> Iterator[Row]:
    assert side.held_out is not None
    drawn = side.held_out.pictures
    yield "clip", "text to its drawn picture", metrics.cosine(truth.texts, drawn)
    yield from _distances(drawn, truth.pictures, "drawn to true pictures")


def _prompts(drawn: GeneratedEmbeddings, texts: np.ndarray) -> Iterator[Row]:
    yield "clip", "text to its drawn picture", metrics.cosine(texts, drawn.pictures)
    yield "text", "drawn embedding to its text", metrics.cosine(texts, drawn.embeds)


def _drift(drawn: GeneratedEmbeddings, base: GeneratedEmbeddings) -> Iterator[Row]:
    embeds = metrics.cosine(drawn.embeds, base.embeds)
    yield "drift", "drawn embedding to the base's", embeds
    pictures = metrics.cosine(drawn.pictures, base.pictures)
    yield "picture_drift", "drawn picture to the base's", pictures
    yield from _distances(drawn.pictures, base.pictures, "drawn to the base's pictures")


def _distances(drawn: np.ndarray, true: np.ndarray, what: str) -> Iterator[Row]:
    yield "kid", f"KID, {what}", metrics.mmd_terms(drawn, true, metrics.polynomial)
    yield "cmmd", f"CMMD, {what}", metrics.mmd_terms(drawn, true, metrics.gaussian)


def _losses(values: np.ndarray) -> Iterator[Row]:
    yield "loss", "loss, all timesteps", values.mean(1)
    count = values.shape[1]
    for band in range(count):
        low, high = 100 * band // count, 100 * (band + 1) // count
        yield f"band_{band}", f"  {low} to {high} % of the schedule", values[:, band]
