"""Everything random: pure functions of (seed, step, slot), in streams that do not touch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from wassily.maths import randomness


def test_the_same_key_gives_the_same_draw() -> None:
    """Whatever was drawn before, and whatever the global generators hold."""
    first = (
        randomness.noise(3, 10, 2, (4, 5)),
        randomness.timestep(3, 10, 2, 1000),
        randomness.order(3, 1, 9),
    )
    torch.manual_seed(0)
    np.random.seed(0)
    randomness.noise(3, 9, 2, (4, 5))
    again = (
        randomness.noise(3, 10, 2, (4, 5)),
        randomness.timestep(3, 10, 2, 1000),
        randomness.order(3, 1, 9),
    )
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]
    assert (first[2] == again[2]).all()


def test_nothing_touches_the_global_generators() -> None:
    """Modules that draw inside `forward` rely on torch's."""
    torch.manual_seed(7)
    np.random.seed(7)
    expected = torch.rand(3), np.random.rand()
    torch.manual_seed(7)
    np.random.seed(7)
    randomness.noise(0, 0, 0, (3,))
    randomness.order(0, 0, 5)
    randomness.flip(0, 0, 0)
    randomness.fresh_seed()
    assert torch.equal(torch.rand(3), expected[0])
    assert np.random.rand() == expected[1]


def test_every_part_of_the_key_matters() -> None:
    """Noise of neighbouring seeds, steps and slots is uncorrelated: |r| < 5 / sqrt(n)."""
    n = 4000
    fields = [
        randomness.noise(seed, step, slot, (n,))
        for seed, step, slot in itertools.product((0, 1), repeat=3)
    ]
    for a, b in itertools.combinations(fields, 2):
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 5 / n**0.5


def test_streams_are_independent() -> None:
    """Each purpose has its own: no pair of streams starts alike, and flips tell nothing of t."""
    keys = [
        randomness.ORDER,
        randomness.NOISE,
        randomness.TIMESTEP,
        randomness.FLIP,
        randomness.CAPTION,
    ]
    assert len({*keys, randomness.MODULES, randomness.TURNS, randomness.CONDITION}) == 8
    t = np.array([randomness.timestep(0, step, 0, 1000) for step in range(2000)])
    flips = np.array([randomness.flip(0, step, 0) for step in range(2000)])
    chosen = np.array([randomness.choice(0, step, 0, 1000) for step in range(2000)])
    assert abs(np.corrcoef(t, flips)[0, 1]) < 5 / 2000**0.5
    assert abs(np.corrcoef(t, chosen)[0, 1]) < 5 / 2000**0.5


def test_noise_is_standard_normal() -> None:
    """Mean 0, variance 1 and kurtosis 3 within five standard errors; fp32."""
    values = randomness.noise(5, 0, 0, (4, 100, 100))
    assert values.dtype == torch.float32
    assert values.shape == (4, 100, 100)
    n = values.numel()
    assert abs(values.mean()) < 5 / n**0.5
    assert abs(values.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs((values**4).mean() - 3) < 5 * (96 / n) ** 0.5


@pytest.mark.parametrize("kind", ["timestep", "choice"])
def test_integers_are_uniform(kind: str) -> None:
    """Chi-squared over 10 bins of 5000 draws: mean 9, standard deviation sqrt(18); in [0, n)."""
    drawn = [
        getattr(randomness, kind)(1, step, slot, 10) for step in range(1000) for slot in range(5)
    ]
    counts = np.bincount(drawn, minlength=10)
    assert len(counts) == 10
    assert ((counts - 500) ** 2 / 500).sum() < 9 + 5 * 18**0.5


def test_flips_are_a_fair_coin() -> None:
    """4000 throws: 2000 within five standard deviations of sqrt(1000)."""
    heads = sum(randomness.flip(0, step, slot) for step in range(1000) for slot in range(4))
    assert abs(heads - 2000) < 5 * 1000**0.5


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.9])
def test_conditions_are_dropped_as_often_as_asked(probability: float) -> None:
    """4000 examples: within five standard deviations, sqrt(4000 p (1 - p)); never at 0. A larger
    probability drops what a smaller one does, and more.
    """
    keys = [(step, slot) for step in range(1000) for slot in range(4)]
    dropped = {key for key in keys if randomness.drops(0, *key, probability)}
    deviation = (4000 * probability * (1 - probability)) ** 0.5
    assert abs(len(dropped) - 4000 * probability) <= 5 * deviation
    assert dropped <= {key for key in keys if randomness.drops(0, *key, 0.95)}


def test_order_is_a_permutation_of_its_own_in_each_epoch() -> None:
    """All examples once; another order in another epoch."""
    orders = [randomness.order(0, epoch, 50) for epoch in range(4)]
    for order in orders:
        assert sorted(order) == list(range(50))
    for a, b in itertools.combinations(orders, 2):
        assert (a != b).any()


def test_buckets_have_orders_of_their_own() -> None:
    """And their turns are none of these orders."""
    orders = [
        *(randomness.order(0, 1, 50, bucket) for bucket in range(3)),
        randomness.turns(0, 1, 50),
    ]
    for a, b in itertools.combinations(orders, 2):
        assert sorted(a) == sorted(b) == list(range(50))
        assert (a != b).any()


def test_subset_is_sorted_without_repetition() -> None:
    """It is not the head of the list, nor an epoch's order."""
    kept = randomness.subset(0, 100, 10)
    assert kept == sorted(set(kept))
    assert len(kept) == 10
    assert kept != list(range(10))
    assert set(kept) != set(randomness.order(0, 0, 100)[:10].tolist())
    assert randomness.subset(0, 5, 5) == [0, 1, 2, 3, 4]


def test_fresh_seeds_differ_and_fit() -> None:
    """In [0, 2**31): what `--seed` takes."""
    seeds = {randomness.fresh_seed() for _ in range(20)}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_streams_stay_as_they_are() -> None:
    """Values written down from version 0.1.0: a run that was begun then goes on alike."""
    assert randomness.order(3, 1, 6).tolist() == [3, 1, 4, 0, 2, 5]
    assert randomness.noise(3, 10, 2, (2,)).tolist() == pytest.approx(
        [-1.64478719, -0.48001468], abs=1e-7
    )
    assert randomness.timestep(3, 10, 2, 1000) == 732
    assert [randomness.flip(3, step, 2) for step in range(6)] == [
        False,
        True,
        True,
        True,
        False,
        True,
    ]
    assert randomness.choice(3, 10, 2, 1000) == 974
    assert randomness.module_seed(3, 10, 2) == 1433581251


def test_the_draws_of_the_held_out_loss_are_streams_of_their_own() -> None:
    """Not those of the training at any step; a timestep for every band, over all of it."""
    n = 4000
    fields = [
        randomness.probe_noise(seed, number, band, (n,))
        for seed, number, band in itertools.product((0, 1), repeat=3)
    ]
    fields += [randomness.noise(seed, 0, slot, (n,)) for seed, slot in ((0, 0), (0, 1), (1, 0))]
    for a, b in itertools.combinations(fields, 2):
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 5 / n**0.5
    for band in (0, 4, 9):
        found = [randomness.probe_timestep(0, number, band, 10, 1000) for number in range(2000)]
        assert set(found) == set(range(100 * band, 100 * band + 100))
    assert [randomness.probe_timestep(0, 0, band, 3, 7) in range(7) for band in range(3)] == [
        True
    ] * 3
