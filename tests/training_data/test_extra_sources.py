"""Examples of other sources beside the own: their order, their draws and what they count."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from wassily.data import example_order
from wassily.data.example_order import Examples, ExtraExamples, Split
from wassily.encodings.lookup import collate
from wassily.maths import losses, randomness
from wassily.training_data import extra_sources

OWN, OTHER, THIRD = 3, 11, 12  # seeds


def _examples(seed: int, offset: int) -> Examples:
    """Example i is the number offset + i."""
    return Examples(lambda i, step, slot: {"x": torch.tensor(float(offset + i))}, seed, _shape, 9)


def _shape(index: int) -> tuple[int, ...]:
    return (2,)


SIDES = [
    ExtraExamples("class pictures", _examples(OTHER, 100), 5, 4, 0.5),
    ExtraExamples("old ones", _examples(THIRD, 1000), 3, 1, 2.0),
]


def _batches(split: Split, start: int, found: list[ExtraExamples]) -> Any:
    own = _examples(OWN, 0)
    keys = example_order.keys(OWN, [range(7)], split, start)
    examples, order = example_order.beside(own, keys, found, split, start)
    return (collate([examples[key] for key in batch]) for batch in order)


def test_without_another_source_nothing_is_touched() -> None:
    """The same objects go on: no weight, no other draw."""
    own, keys = _examples(OWN, 0), iter([[(0, 0, 0)]])
    assert example_order.beside(own, keys, [], Split(1, 1, 1, 0), 0) == (own, keys)


@pytest.mark.parametrize("cut", [(4, 1, 1), (2, 2, 1), (1, 2, 2), (1, 1, 4)])
def test_the_weights_make_a_sum_of_means(cut: tuple[int, int, int]) -> None:
    """By hand: the loop's mean of means of weight times loss is the mean over the own + 0.5 times
    that over the class pictures + 2 times the one old one, however the step is cut. An old one
    comes with one micro-batch of several, so these have unequal sizes.
    """
    loss = {float(n): 1.0 + n * n for n in (*range(7), *range(100, 105), *range(1000, 1003))}
    per_process, accumulation, world = cut
    ranks = [_batches(Split(per_process, accumulation, world, r), 0, SIDES) for r in range(world)]
    for step in range(6):
        found, seen = [], []
        for _, rank in itertools.product(range(accumulation), ranks):
            batch = next(rank)
            values = torch.tensor([loss[x] for x in batch["x"].tolist()])
            found.append(float((values * batch["weight"]).mean()))
            seen += batch["x"].tolist()
        parts = [[x for x in seen if a <= x < b] for a, b in ((0, 99), (99, 999), (999, 2000))]
        assert [len(part) for part in parts] == [4, 4, 1], step
        means = [sum(loss[x] for x in part) / len(part) for part in parts]
        by_hand = means[0] + 0.5 * means[1] + 2.0 * means[2]
        assert sum(found) / len(found) == pytest.approx(by_hand, rel=1e-5), step


def test_equal_parts_have_the_plain_weights() -> None:
    """B own and K others in each micro-batch: (B + K) / B and w (B + K) / K."""
    found = [
        ExtraExamples("c", _examples(OTHER, 100), 5, 6, 0.25)
    ]  # 2 micro-batches of 2 own and 3 others
    batch = next(_batches(Split(2, 2, 1, 0), 0, found))
    assert batch["weight"].tolist() == pytest.approx([5 / 2] * 2 + [0.25 * 5 / 3] * 3)


@pytest.mark.parametrize("cut", [(2, 2, 1), (1, 2, 2), (1, 1, 4)])
def test_however_it_is_cut_the_same_examples_with_the_same_draws(cut: tuple[int, int, int]) -> None:
    """And wherever it starts: x, noise and t of each step, whole and in pieces."""
    per_process, accumulation, world = cut
    whole = list(itertools.islice(_batches(Split(4, 1, 1, 0), 0, SIDES), 12))
    for start in (0, 5):
        cuts = [Split(per_process, accumulation, world, rank) for rank in range(world)]
        ranks = [_batches(split, start, SIDES) for split in cuts]
        for expected in whole[start:]:
            parts = [next(rank) for _ in range(accumulation) for rank in ranks]
            assert _rows(parts) == _rows([expected])


def _rows(batches: list[Any]) -> list[tuple[float, ...]]:
    return sorted(
        (float(x), *noise.tolist(), int(t))
        for batch in batches
        for x, noise, t in zip(batch["x"], batch["noise"], batch["t"], strict=True)
    )


def test_each_source_is_walked_through_and_the_own_stays_as_it_was() -> None:
    """Permutations of 5 joined; the own part of each batch is that of a run without others."""
    split = Split(4, 1, 1, 0)
    mixed = list(itertools.islice(_batches(split, 0, SIDES), 10))
    alone = list(itertools.islice(_batches(split, 0, []), 10))
    for one, other in zip(mixed, alone, strict=True):
        for name in ("x", "noise", "t"):
            assert torch.equal(one[name][:4], other[name])
    line = [float(x) for batch in mixed for x in batch["x"][4:8]]
    for epoch in range(8):
        assert sorted(line[epoch * 5 : epoch * 5 + 5]) == [100, 101, 102, 103, 104]
    assert line[:5] != line[5:10]


def test_seeds_of_sides_are_their_own() -> None:
    """Of one run, and of runs with neighbouring seeds."""
    seeds = {randomness.side_seed(seed, number) for seed in range(20) for number in range(3)}
    assert len(seeds) == 60 and not seeds & set(range(1000))


def test_a_source_may_bring_its_noise_its_time_and_more() -> None:
    """What it brings is taken; a field that the own have not is zero for them."""
    given = {"x": torch.tensor(1.0), "noise": torch.ones(2), "t": torch.tensor(5)}
    given["answer"] = torch.tensor([3.0, 4.0])
    found = [ExtraExamples("s", Examples(lambda *key: dict(given), OTHER, _shape, 9), 1, 1, 1.0)]
    batch = next(_batches(Split(2, 1, 1, 0), 0, found))
    assert batch["noise"][2].tolist() == [1, 1] and int(batch["t"][2]) == 5
    assert torch.equal(batch["noise"][1], randomness.noise(OWN, 0, 1, (2,)))
    assert batch["answer"].tolist() == [[0, 0], [0, 0], [3, 4]]


def test_the_loss_is_weighted_where_there_is_a_weight() -> None:
    """Example by example."""
    loss, weight = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])
    assert losses.times_weight(loss, {"weight": weight}).tolist() == [0.5, 6.0]
    assert losses.times_weight(loss, {}) is loss


def test_a_source_has_one_example_at_least() -> None:
    """Of any share of a batch."""
    assert [extra_sources.counted(ratio, 4) for ratio in (0.01, 0.5, 1.0, 1.2)] == [1, 2, 4, 5]
