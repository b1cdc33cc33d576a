"""The maths of the evaluation: cosines, kernel distances of two sets, and how sure of them one is.

A score is the mean of one number for each example, or a distance that is a mean over all pairs of
examples (a U-statistic). Both are resampled alike, and the difference of two models on the same
examples is a score of the same kind, so it has an interval of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0  # arXiv 2401.09603, section 4 and its code

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A score over `n` examples, and the interval that holds it in 95 % of resamples."""

    value: float
    low: float
    high: float
    n: int


def unit(x: np.ndarray) -> np.ndarray:
    """Rows (N, D) -> the same rows at length 1, in fp64."""
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosine of each row of x (N, D) with the same row of y: (N,) in [-1, 1]."""
    return (unit(x) * unit(y)).sum(1)


def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """KID's kernel (x.y / D + 1)^3 (arXiv 1801.01401, section 4): (N, D), (M, D) -> (N, M).

    The rows are brought to length sqrt(D) first, so that x.y / D is their cosine and the distance
    does not depend on the scale of the space.
    """
    return (unit(x) @ unit(y).T + 1) ** 3


def gaussian(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """CMMD's kernel exp(-|x - y|^2 / (2 sigma^2)) on rows of length 1, times its 1000."""
    squared = 2 - 2 * unit(x) @ unit(y).T
    return CMMD_SCALE * np.exp(-squared / (2 * CMMD_SIGMA**2))


def mmd_terms(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> np.ndarray:
    """h(i, j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i), shape (N, N).

    Its mean over i != j is the unbiased squared maximum mean discrepancy (Gretton et al., JMLR 13,
    2012, eq. 4). It stays unbiased where y_i was made from x_i, because the two are never compared.
    """
    cross = kernel(x, y)
    return kernel(x, x) + kernel(y, y) - cross - cross.T


def mean(values: np.ndarray, seed: int = 0) -> Estimate:
    """The mean of (N,), N at least 2, with its bootstrap interval."""
    weights = _resamples(len(values), seed)
    return _estimate(float(values.mean()), weights @ values / len(values), len(values))


def pair_mean(terms: np.ndarray, seed: int = 0) -> Estimate:
    """The mean of a symmetric (N, N) off its diagonal, N at least 2, with its bootstrap interval.

    In a resample an example may stand several times; it is not paired with itself there either,
    which keeps the resampled distance from being pulled up.
    """
    count = len(terms)
    apart = terms * (1 - np.eye(count))
    weights = _resamples(count, seed)
    pairs = weights.sum(1) ** 2 - (weights**2).sum(1)
    kept = pairs > 0  # a resample of one example alone has no pair
    found = ((weights @ apart) * weights).sum(1)[kept] / pairs[kept]
    return _estimate(float(apart.sum() / (count * (count - 1))), found, count)


def estimate(values: np.ndarray, seed: int = 0) -> Estimate:
    """The score of (N,) values or of (N, N) terms."""
    return mean(values, seed) if values.ndim == 1 else pair_mean(values, seed)


def _resamples(count: int, seed: int) -> np.ndarray:
    """How often each example stands in each resample, (RESAMPLES, count)."""
    if count < 2:
        raise ValueError(f"a spread needs at least 2 examples, not {count}")
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)


def _estimate(value: float, resampled: np.ndarray, count: int) -> Estimate:
    """With the percentile interval of the resampled scores."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return Estimate(value, low, high, count)
