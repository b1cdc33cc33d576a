"""The checkpoints of a run: written, read back, the oldest removed; its best weights, too."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from wassily.errors import UserError
from wassily.files import atomic, disk, run_state
from wassily.files.output_folder import checkpoints_in
from wassily.files.run_state import RunState, Saved
from wassily.maths.ema import Ema
from wassily.models.adapters import Lora, Whole
from wassily.planning import blank_batches
from wassily.runtime import fsdp
from wassily.training import best, optimizer_state
from wassily.training.best import Best, LastIsBest
from wassily.training.setup import Setup
from wassily.training.weights import Weights


class Saving:
    """The checkpoints of one run; all processes call each method, the first one writes."""

    def __init__(self, setup: Setup, adaptation: Whole | Lora, weights: Weights):
        self.output_dir, self.runtime = setup.output_dir, setup.runtime
        self.limit = setup.config.checkpoints_total_limit
        self.adaptation, self.weights = adaptation, weights
        trained = list(weights.trained.values())
        self.room = blank_batches.checkpoint_bytes(setup.config, weights.net, trained)

    def check_room(self) -> None:
        """Raise UserError if the disk has no room for a checkpoint."""
        self.runtime.shared(lambda: disk.check_room(self.output_dir, self.room, "a checkpoint"))

    def save(self, state: RunState, best: Best | LastIsBest, more: bool) -> None:
        """Write checkpoint-<step>, then remove what is beyond the limit; `more` steps are to come.

        Raises UserError.
        """
        done = state.step
        if self.runtime.most(not all_finite(self.weights.trained.values()))[0]:
            raise UserError(
                f"the weights are not finite after step {done}, nothing was saved: "
                f"{disk.checkpoint_remark(self.output_dir)}; go on from there with a lower "
                "--learning_rate"
            )
        with self.weights.to_write(state=True) as whole:
            self.runtime.shared(lambda: self._save(state, whole, best, more))

    def _save(self, state: RunState, whole: Weights, best: Best | LastIsBest, more: bool) -> None:
        folder = self.output_dir / f"checkpoint-{state.step}"
        with disk.disk(self.output_dir):
            disk.check_room(self.output_dir, self.room, folder.name)
            atomic.write_whole(folder, functools.partial(self._write, state=state, whole=whole))
            rotate(self.output_dir, self.limit)
            best.prune()
            line = disk.warning(self.output_dir, self.room, state.step)
        if line and more:
            self.runtime.say(line)

    def _write(self, folder: Path, state: RunState, whole: Weights) -> None:
        self.adaptation.save(whole.net, folder)
        if isinstance(whole.ema, Ema):
            with whole.ema.applied():
                self.adaptation.save(whole.net, folder, averaged=True)
        optimizer_state.save_optimizer(folder, whole.optimizer, whole.trained)
        run_state.write(folder, state)

    def write_best(self, folder: Path, state: Saved) -> None:
        """The weights that were measured, into a folder of their own."""
        with self.weights.to_write() as whole:
            of = (self.adaptation, whole.net, whole.ema, state)
            self.runtime.shared(lambda: best.write_weights(folder, *of))

    def take(self, folder: Path) -> None:
        """Put the optimizer's state and the averages of a checkpoint back; UserError if damaged."""
        weights = self.weights
        optimizer_state.load_optimizer(folder, weights.optimizer, weights.trained)
        if isinstance(weights.ema, Ema):
            averages = self.adaptation.averages(weights.net, folder)
            trained = weights.trained.items()
            weights.ema.load({name: fsdp.like(averages[name], p) for name, p in trained})


def all_finite(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether all values that this process has of all parameters are."""
    return bool(torch.stack([torch.isfinite(fsdp.own(p)).all() for p in parameters]).all())


def rotate(output_dir: Path, limit: int | None) -> list[Path]:
    """Remove the oldest checkpoints beyond `limit`; what was removed."""
    old = checkpoints_in(output_dir)[:-limit] if limit else []
    for _, path in old:
        # Out of the way in one rename first: a kill in between leaves no half checkpoint.
        aside = path.parent / f"{atomic.ASIDE}{path.name}"
        atomic.remove(aside)
        path.rename(aside)
        atomic.remove(aside)
    return [path for _, path in old]
