"""The moving average of the weights (EMA), and a silent stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

DECAY = 0.9999


def decay_at(step: int, most: float = DECAY) -> float:
    """The decay of update `step` (from 1): 0 first, then (1 + n) / (10 + n), at most `most`.

    n = step - 1 earlier updates; so a short run averages over about its last tenth. The values are
    those of diffusers' EMAModel with its defaults, which the training guide uses.
    """
    n = step - 1
    # The first update takes the weights as they are.
    return min(most, (1 + n) / (10 + n)) if n > 0 else 0.0


def gamma_of(sigma_rel: float) -> float:
    """The exponent of a power profile whose standard deviation is `sigma_rel` of the run so far.

    The largest root of (gamma + 2)^2 (gamma + 3) = (gamma + 1) / sigma_rel^2 (arXiv 2312.02696,
    section 3.1 and its appendix); sigma_rel in (0, 12^-1/2), which is gamma = 0, the plain mean.
    """
    t = sigma_rel**-2
    # (g + 2)^2 (g + 3) = g^3 + 7 g^2 + 16 g + 12, less t (g + 1).
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


def power_decay(sigma_rel: float) -> Callable[[int], float]:
    """Update (from 1) -> decay beta(t) = (1 - 1/t)^(gamma + 1) (arXiv 2312.02696, section 3.1).

    The average weighs step tau as tau^gamma, however long the run is.
    """
    gamma = gamma_of(sigma_rel)
    # 0 at the first update: the weights before it have no part in the average.
    return lambda step: (1 - 1 / step) ** (gamma + 1)


class Ema:
    """Averages of named parameters, on their device and in fp32; `decay` by update (from 1).

    Without `averages` to begin with they are the parameters.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        decay: Callable[[int], float] = decay_at,
        averages: Mapping[str, Tensor] | None = None,
    ):
        self.parameters, self.decay = dict(parameters), decay
        if averages is None:
            own = self.parameters.items()
            # A bf16 average would not move: an update is a ten-thousandth, bf16 holds three digits.
            averages = {name: p.detach().to(torch.float32, copy=True) for name, p in own}
        self.averages = dict(averages)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the parameters after optimizer step `step` (from 1)."""
        weight = 1 - self.decay(step)
        values = [p.detach() for p in self.parameters.values()]
        if all(value.dtype == torch.float32 for value in values):
            # A few kernels for all weights, instead of one for each.
            torch._foreach_lerp_(list(self.averages.values()), values, weight)
        else:  # one after the other, so that only one fp32 copy is there at a time
            for average, value in zip(self.averages.values(), values, strict=True):
                average.lerp_(value.float(), weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters are the averages; after it, what they were before, to the bit."""
        kept = {name: p.data for name, p in self.parameters.items()}
        self._set(self.averages)
        try:
            yield
        finally:
            self._set(kept)

    def load(self, averages: Mapping[str, Tensor]) -> None:
        """Take averages from a checkpoint; raises KeyError for a missing name."""
        for name, average in self.averages.items():
            average.copy_(averages[name])

    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            # The memory is exchanged, not copied: the weights come back to the bit.
            parameter.data = values[name]


class NoEma:
    """The same, when no average is kept."""

    def update(self, step: int) -> None:
        """Nothing to do."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters as they are."""
        yield


def average(parameters: Mapping[str, nn.Parameter], kept: bool, width: float | None) -> Ema | NoEma:
    """An average, if one is kept: of the power profile with that `sigma_rel`, or the guide's."""
    if not kept:
        return NoEma()
    return Ema(parameters, decay_at if width is None else power_decay(width))
