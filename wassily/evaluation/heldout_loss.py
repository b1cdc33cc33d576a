"""The loss on held-out images.

Its noise and its timesteps are the same each time, so that two networks, or one network at two
steps, differ by their weights only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from wassily.data.datasets import Pictures
from wassily.encodings import lookup
from wassily.encodings.fill import Row
from wassily.maths import randomness
from wassily.maths.losses import Objective
from wassily.runtime.accelerator import Runtime

BANDS = 10  # equal stretches of the noise schedule
MOST = 64  # pictures that the loss is measured on during a training


@dataclass(frozen=True)
class Losses:
    """Loss of each held-out picture in each band of timesteps, (N, BANDS); lowest noise first."""

    values: np.ndarray

    def summary(self) -> dict[str, float]:
        """Mean over all, its standard error over the pictures, and the mean of each band."""
        each = self.values.mean(1)
        spread = float(each.std(ddof=1) / len(each) ** 0.5) if len(each) > 1 else 0.0
        bands = {f"band_{n}": float(v) for n, v in enumerate(self.values.mean(0))}
        return {"loss": float(each.mean()), "standard_error": spread, **bands}


def plain(objective: Objective) -> Objective:
    """The same network under its plain loss: no weights of timesteps, nothing added or dropped.

    So runs with other settings of the training loss can be compared.
    """
    return type(objective)(objective.net, objective.alpha_bars, objective.prediction)


@dataclass(frozen=True)
class HeldOutLoss:
    """Held-out examples to measure losses on, each a batch of one, on the CPU.

    `chunk` bands of one example are computed at once. `captions`: one of each, where they are read.
    """

    batches: list[dict[str, Tensor]]
    seed: int
    chunk: int = BANDS
    captions: tuple[str, ...] = ()

    def losses(self, objective: Objective, runtime: Runtime) -> Losses:
        """The plain loss of an objective's network, each process doing its share."""
        measured = plain(objective).eval()
        mine = range(runtime.rank, len(self.batches), runtime.world)
        with torch.no_grad(), runtime.accelerator.autocast():
            own: dict[int, list[float]] = {
                number: self._one(measured, number, runtime) for number in mine
            }
        found = runtime.gathered(own)
        return Losses(np.array([found[number] for number in sorted(found)]))

    def _one(self, objective: Objective, number: int, runtime: Runtime) -> list[float]:
        """The losses of one example in all bands."""
        batch = self.batches[number]
        shape = tuple(batch.get("latents", batch["image_embeds"]).shape[1:])
        steps = len(objective.alpha_bars)
        losses: list[float] = []
        for start in range(0, BANDS, self.chunk):
            bands = range(start, min(start + self.chunk, BANDS))
            noise = [randomness.probe_noise(self.seed, number, b, shape) for b in bands]
            t = [randomness.probe_timestep(self.seed, number, b, BANDS, steps) for b in bands]
            inputs = {k: v.expand(len(bands), *v.shape[1:]) for k, v in batch.items()}
            inputs |= {"noise": torch.stack(noise), "t": torch.tensor(t)}
            inputs = runtime.to_device(inputs)
            noises, ts = inputs.pop("noise"), inputs.pop("t")
            losses += objective(inputs, noises, ts).float().tolist()
        return losses


class Encoded(Protocol):
    """What is used of a `Reading`: its images, and one example after another as a batch."""

    @property
    def source(self) -> Pictures:
        """The images."""

    @property
    def fetch(self) -> Callable[[int, int, int], Row]:
        """Index, step and slot -> an example."""

    @property
    def collate(self) -> Callable[[list[Row]], Any]:
        """Examples -> what a reader's process hands over."""

    @property
    def finish(self) -> Callable[[Any], dict[str, Tensor]]:
        """That -> a batch."""


def held_out_loss(reading: Encoded, seed: int, chunk: int = BANDS) -> HeldOutLoss:
    """The loss over all examples of a held-out reading, which are encoded here, once."""
    numbers = range(len(reading.source))
    rows = (reading.fetch(number, 0, number) for number in numbers)
    batches = [reading.finish(reading.collate([row])) for row in rows]
    choice, source = lookup.ExampleDraws(seed, False), reading.source
    told = [choice.caption(source[n], 0, n) for n in numbers if source[n].captions]
    return HeldOutLoss(batches, seed, chunk, tuple(told))


def small_held_out_loss(
    held: Pictures | None, make_reading: Callable[[Pictures], Encoded], seed: int, chunk: int
) -> HeldOutLoss | None:
    """The loss of a training: over at most MOST held-out pictures; none if none are held out."""
    if held is None:
        return None
    few = held.select(list(range(min(MOST, len(held)))))
    return held_out_loss(make_reading(few), seed, min(BANDS, chunk))
