"""From embeddings to the lines of the report."""

from __future__ import annotations

import numpy as np
import pytest

from wassily.evaluation import metrics, scores
from wassily.evaluation.scores import GeneratedEmbeddings, Outcome, Truth


def _rows(seed: int, count: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 5))


def _side(seed: int) -> Outcome:
    losses = {"prior": _rows(seed + 4)[:, :2] ** 2, "decoder": _rows(seed + 5)[:, :2] ** 2}
    lists = {"english": GeneratedEmbeddings(_rows(seed + 6, 4), _rows(seed + 7, 4))}
    return Outcome(
        GeneratedEmbeddings(_rows(seed), _rows(seed + 1)), _rows(seed + 2), losses, lists
    )


TRUTH = Truth(_rows(91), _rows(92), np.array([3, 4, 5, 0, 1, 2]))
TEXTS = {"english": _rows(93, 4)}


def test_every_line_by_hand() -> None:
    """Which embedding is compared with which; means of bands; changes are paired."""
    tuned, base = _side(0), _side(20)
    found = {(s.group, s.name): s for s in scores.all_scores(tuned, base, TRUTH, TEXTS, 0)}
    assert tuned.held_out is not None
    assert base.held_out is not None
    cos = metrics.cosine
    wanted = {
        ("prior", "picture"): cos(tuned.held_out.embeds, TRUTH.pictures),
        ("prior", "text"): cos(tuned.held_out.embeds, TRUTH.texts),
        ("prior", "other"): cos(tuned.held_out.embeds, TRUTH.texts[[3, 4, 5, 0, 1, 2]]),
        ("decoder", "source"): cos(tuned.redrawn, TRUTH.pictures),
        ("both", "clip"): cos(tuned.held_out.pictures, TRUTH.texts),
        ("both", "ceiling"): cos(TRUTH.pictures, TRUTH.texts),
        ("prior loss", "loss"): tuned.losses["prior"].mean(1),
        ("decoder loss", "band_1"): tuned.losses["decoder"][:, 1],
        ("english", "clip"): cos(tuned.lists["english"].pictures, TEXTS["english"]),
        ("english", "text"): cos(tuned.lists["english"].embeds, TEXTS["english"]),
        ("english", "drift"): cos(tuned.lists["english"].embeds, base.lists["english"].embeds),
        ("english", "picture_drift"): cos(
            tuned.lists["english"].pictures, base.lists["english"].pictures
        ),
    }
    for key, values in wanted.items():
        assert found[key].tuned.value == pytest.approx(values.mean()), key
        assert found[key].tuned.n == len(values), key
    kid = metrics.mmd_terms(tuned.redrawn, TRUTH.pictures, metrics.polynomial)
    assert found["decoder", "kid"].tuned == metrics.pair_mean(kid)
    cmmd = metrics.mmd_terms(tuned.held_out.pictures, TRUTH.pictures, metrics.gaussian)
    assert found["both", "cmmd"].tuned == metrics.pair_mean(cmmd)
    alone = {key for key, score in found.items() if score.change is None}
    drifts = {("english", n) for n in ("drift", "picture_drift", "kid", "cmmd")}
    assert alone == {("both", "ceiling"), *drifts}
    for score in found.values():
        if score.base and score.change:
            assert score.change.value == pytest.approx(score.tuned.value - score.base.value)
            assert score.change.low <= score.change.high


def test_a_model_against_itself_has_changed_nothing() -> None:
    """Exactly: every change and its interval is 0, every drift is 1 or 0."""
    for score in scores.all_scores(_side(0), _side(0), TRUTH, TEXTS, 0):
        if score.change:
            assert (score.change.value, score.change.low, score.change.high) == (0, 0, 0)
    found = {(s.group, s.name): s for s in scores.all_scores(_side(0), _side(0), TRUTH, TEXTS, 0)}
    assert found["english", "drift"].tuned.value == pytest.approx(1)
    assert found["english", "kid"].tuned.value == pytest.approx(0, abs=1e-12)


def test_without_pictures_and_without_a_base() -> None:
    """Only what the prompts tell."""
    alone = Outcome(lists=_side(0).lists)
    found = scores.all_scores(alone, None, None, TEXTS, 0)
    assert [(s.group, s.name) for s in found] == [("english", "clip"), ("english", "text")]
    assert all(s.base is None and s.change is None for s in found)
    both = scores.all_scores(alone, Outcome(lists=_side(20).lists), None, TEXTS, 0)
    assert {s.name for s in both} == {"clip", "text", "drift", "picture_drift", "kid", "cmmd"}


def test_another_text_says_something_else() -> None:
    """Half-way round the list, on from there past equal captions; none if all are alike."""
    assert scores.other_texts(["a", "b", "c", "d"]).tolist() == [2, 3, 0, 1]
    assert scores.other_texts(["a", "b", "a", "b"]).tolist() == [3, 0, 1, 2]
    assert scores.other_texts(["a", "a", "a"]).tolist() == [-1, -1, -1]
    same = Truth(_rows(1), _rows(2), np.full(6, -1))
    names = {s.name for s in scores.all_scores(_side(0), None, same, TEXTS, 0)}
    assert "other" not in names
