"""How far something has moved from what it was in the base model: taken once, then compared."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wassily.config.training import DecoderConfig, TrainConfig
from wassily.errors import UserError
from wassily.maths.losses import Objective
from wassily.models import parts
from wassily.models.trainable import Trainable
from wassily.runtime.accelerator import Runtime
from wassily.training_data import training_set
from wassily.training_data.training_set import ExampleSet

PROBES, PROBED_STEP = 4, 2**32  # examples that are looked at, and a step that is never trained


class Drift:
    """`read` is called once here, with the base's objective, and again at each `measure`."""

    def __init__(self, name: str, read: Callable[[Objective], Tensor], base: Objective):
        self.name, self.read, self.base = name, read, read(base)

    def measure(self, objective: Objective) -> dict[str, float]:
        """{name: mean absolute change since then}, in the unit of what is read."""
        return {self.name: float((self.read(objective) - self.base).abs().mean())}


class NoDrift:
    """The same, where nothing is followed."""

    def measure(self, objective: Objective) -> dict[str, float]:
        """No number."""
        return {}


def learns_variance(repository: str, cache_dir: str | None) -> bool:
    """Whether a decoder's network gives 2C channels of which its scheduler reads half as variance.

    Told from the configurations, before the weights are loaded.
    """
    net = parts.load_config("unet", repository, cache_dir)
    kind = parts.load_config("scheduler", repository, cache_dir).get("variance_type")
    return kind == "learned_range" and net["out_channels"] == 2 * net["in_channels"]


def check_variance(config: TrainConfig, repository: str) -> None:
    """Raise UserError if a loss is asked for of a variance half that a decoder does not have."""
    if not isinstance(config, DecoderConfig) or not config.variance_loss:
        return
    if not learns_variance(repository, config.cache_dir):
        raise UserError(
            f"--variance_loss: {repository} has no learned variance (variance_type learned_range "
            "and twice as many channels out as in); leave the flag out"
        )


def drift_to_measure(
    config: TrainConfig,
    repository: str,
    runtime: Runtime,
    trainable: Trainable,
    reading: ExampleSet,
    seed: int,
) -> Drift | NoDrift:
    """A measure of a decoder's learned variance, where it has one without a loss.

    `trainable` is the base model's. On a few examples one by one, at timesteps spread over the
    schedule, with noise that no step of the training draws. The first process measures for all.
    """
    left_alone = isinstance(config, DecoderConfig) and not config.variance_loss
    if not runtime.main or not left_alone:
        return NoDrift()
    if not learns_variance(repository, config.cache_dir):
        return NoDrift()
    examples = training_set.make_examples(reading, trainable, seed)
    probed = enumerate(reading.first(PROBES))
    rows = [examples[(PROBED_STEP, n, which)] for n, which in probed]
    fixed = [runtime.to_device(reading.finish(reading.collate([row]))) for row in rows]
    spread = torch.arange(len(fixed), device=runtime.device) * 2 + 1
    times = spread * examples.timesteps // (2 * len(fixed))

    @torch.no_grad()
    def variance_half(objective: Objective) -> Tensor:
        objective.net.eval()
        with runtime.accelerator.autocast():
            found = [
                objective.output(batch, batch["noise"], t[None])[1].chunk(2, dim=1)[1]
                for batch, t in zip(fixed, times, strict=True)
            ]
        return torch.cat([half.float().flatten() for half in found])

    return Drift("variance_drift", variance_half, trainable.objective)
