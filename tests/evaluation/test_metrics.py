"""The maths of the evaluation against loops, closed forms and repeated draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wassily.evaluation import metrics


def _rows(seed: int, count: int, width: int = 6, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)) + shift


def test_cosine_by_hand() -> None:
    """45 degrees, opposite, at right angles; lengths do not matter."""
    x = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    y = np.array([[5.0, 5.0], [-1.0, 0.0], [7.0, 0.0]])
    np.testing.assert_allclose(metrics.cosine(x, y), [math.sqrt(0.5), -1, 0], atol=1e-12)


def test_kernels_by_hand() -> None:
    """KID: (x.y / D + 1)^3 of rows of length sqrt(D), at 0, 90 and 180 degrees 8, 1 and 0. CMMD:
    1000 exp(-|x - y|^2 / 200), where unit vectors at right angles are sqrt(2) apart.
    """
    x, y = np.array([[2.0, 0.0]]), np.array([[3.0, 0.0], [0.0, 1.0], [-4.0, 0.0]])
    np.testing.assert_allclose(metrics.polynomial(x, y), [[8, 1, 0]], atol=1e-12)
    scaled = np.sqrt(2) * np.array([1.0, 0.0])  # length sqrt(D) with D = 2
    assert metrics.polynomial(x, y)[0, 0] == pytest.approx((scaled @ scaled / 2 + 1) ** 3)
    wanted = [1000, 1000 * math.exp(-2 / 200), 1000 * math.exp(-4 / 200)]
    np.testing.assert_allclose(metrics.gaussian(x, y)[0], wanted)


@pytest.mark.parametrize("kernel", [metrics.polynomial, metrics.gaussian])
def test_the_distance_is_the_double_loop(kernel: metrics.Kernel) -> None:
    """Gretton et al. 2012, eq. 4, term by term."""
    x, y = _rows(0, 7), _rows(1, 7, shift=0.5)
    total = 0.0
    for i in range(7):
        for j in range(7):
            if i != j:
                a, b, c, d = x[i : i + 1], x[j : j + 1], y[i : i + 1], y[j : j + 1]
                pairs = kernel(a, b) + kernel(c, d) - kernel(a, d) - kernel(b, c)
                total += float(pairs[0, 0])
    found = metrics.pair_mean(metrics.mmd_terms(x, y, kernel))
    assert found.value == pytest.approx(total / (7 * 6))
    assert found.n == 7


def test_the_distance_has_a_closed_form() -> None:
    """All x alike and all y alike, at right angles: k(x, x) + k(y, y) - 2 k(x, y) = 8 + 8 - 2."""
    x, y = np.tile([[1.0, 0.0]], (5, 1)), np.tile([[0.0, 1.0]], (5, 1))
    found = metrics.pair_mean(metrics.mmd_terms(x, y, metrics.polynomial))
    assert (found.value, found.low, found.high) == pytest.approx((14, 14, 14))


def test_the_distance_of_equal_distributions_is_unbiased() -> None:
    """Its mean over 300 pairs of samples is 0 within 4 standard errors; with the diagonal, which
    the biased estimate keeps, it would be far above. Shifted samples are found to differ.
    """
    found, biased = [], []
    for seed in range(300):
        x, y = _rows(2 * seed, 12), _rows(2 * seed + 1, 12)
        terms = metrics.mmd_terms(x, y, metrics.polynomial)
        biased.append(terms.mean())
        found.append((terms.sum() - np.trace(terms)) / (12 * 11))
    error = np.std(found) / math.sqrt(300)
    assert abs(np.mean(found)) < 4 * error
    assert np.mean(biased) > 20 * error
    apart = metrics.mmd_terms(_rows(0, 40), _rows(1, 40, shift=1.0), metrics.polynomial)
    assert metrics.pair_mean(apart).low > 0


def test_pairs_made_of_one_another_do_not_pull_the_distance() -> None:
    """x_i and y_i alike, as a picture and what was drawn from it, of equal distributions: still 0
    on average, where comparing each with its own partner too is clearly below.
    """
    found, with_partners = [], []
    off = ~np.eye(10, dtype=bool)
    for seed in range(300):
        shared = 2 * _rows(seed, 10)
        x, y = shared + _rows(10_000 + seed, 10), shared + _rows(20_000 + seed, 10)
        found.append(metrics.mmd_terms(x, y, metrics.polynomial)[off].mean())
        within = metrics.polynomial(x, x)[off].mean() + metrics.polynomial(y, y)[off].mean()
        with_partners.append(within - 2 * metrics.polynomial(x, y).mean())
    error = np.std(found) / math.sqrt(300)
    assert abs(np.mean(found)) < 4 * error
    assert np.mean(with_partners) < -10 * np.std(with_partners) / math.sqrt(300)


def test_the_interval_of_a_mean_is_that_of_the_normal() -> None:
    """mean +- 1.96 standard deviation / sqrt(n), within a tenth of its width, on 400 values."""
    values = _rows(3, 400, 1)[:, 0]
    found = metrics.mean(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.2 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.2 * half)


def test_the_interval_of_a_distance_holds_its_value() -> None:
    """In about 95 of 100 experiments whose true distance is known from a large sample."""
    large = metrics.mmd_terms(_rows(98, 3000), _rows(99, 3000, shift=0.6), metrics.polynomial)
    true = (large.sum() - np.trace(large)) / (3000 * 2999)
    held = 0
    for seed in range(100):
        terms = metrics.mmd_terms(
            _rows(2 * seed, 60), _rows(2 * seed + 1, 60, shift=0.6), metrics.polynomial
        )
        found = metrics.pair_mean(terms)
        held += found.low <= true <= found.high
    assert held >= 85


def test_a_change_is_surer_than_what_it_is_between() -> None:
    """Paired: a difference of 0.1 is seen through values that spread by 1."""
    base = _rows(5, 50, 1)[:, 0]
    tuned = base + 0.1 + 0.01 * _rows(6, 50, 1)[:, 0]
    change = metrics.estimate(tuned - base)
    assert 0.09 < change.low < 0.1 < change.high < 0.11
    assert metrics.estimate(tuned).low < metrics.estimate(base).high


def test_resamples_follow_the_seed_and_need_two() -> None:
    """Equal seeds, equal intervals; one example has no spread."""
    values = _rows(7, 9, 1)[:, 0]
    assert metrics.mean(values, 1) == metrics.mean(values, 1)
    assert metrics.mean(values, 1) != metrics.mean(values, 2)
    for lonely in (np.ones(1), np.ones((1, 1))):
        with pytest.raises(ValueError, match="at least 2"):
            metrics.estimate(lonely)
    two = metrics.pair_mean(np.array([[9.0, 3.0], [3.0, 9.0]]))
    assert (two.value, two.low, two.high) == (3, 3, 3)
