"""The best weights of a run by a measure taken at validation, and when to stop looking for better.

They lie beside the checkpoints as `best-<step>`, where rotation does not reach them. What is known
of them travels with each checkpoint, so a run that was cut off finds the same best and stops at the
same step as one that was not. Whatever the best of the last checkpoint was stays until the next
one stands: a kill in between loses neither.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from wassily.errors import UserError
from wassily.files import atomic, checksums, output_folder, run_state
from wassily.files.run_state import Saved
from wassily.maths.ema import Ema, NoEma
from wassily.reporting import run_log

NAME = re.compile(f"best-{output_folder.STEP}")


class Adaptation(Protocol):
    """What is used of `adapters.Whole` and `adapters.Lora`."""

    def save(self, net: nn.Module, folder: Path, averaged: bool = False) -> None:
        """Write the trained part of a network."""

    def load(self, net: nn.Module, folder: Path) -> None:
        """Take it back."""

    def averages(self, net: nn.Module, folder: Path) -> Mapping[str, Tensor]:
        """Its averages by parameter name."""


def step_of(folder: Path) -> int:
    """The step in the name of a folder of best weights."""
    return int(folder.name.partition("-")[2])


def write_weights(
    folder: Path, adaptation: Adaptation, net: nn.Module, ema: Ema | NoEma, state: Saved
) -> None:
    """The weights that were measured, averaged if there is an average; drawn with as a checkpoint.

    `state` tells which network they are of.
    """

    def write(aside: Path) -> None:
        with ema.applied():
            adaptation.save(net, aside, averaged=isinstance(ema, Ema))
        run_state.write(aside, state)

    atomic.write_whole(folder, write)


def take_weights(folder: Path, adaptation: Adaptation, net: nn.Module, ema: Ema | NoEma) -> None:
    """Put such weights where an export takes them from: into the average, or into the network."""
    if isinstance(ema, Ema):
        ema.load(adaptation.averages(net, folder))
    else:
        adaptation.load(net, folder)


@dataclass
class Standing:
    """The best value so far and its step (0: none yet), validations since, the last one judged."""

    metric: str
    step: int = 0
    value: float = 0.0
    misses: int = 0
    judged: int = 0


class Best:
    """Follows one metric; `write(folder)` puts the weights in training there, whole or not at all.

    `patience` is how many validations in a row may bring nothing better; None is no limit.
    """

    def __init__(
        self, metric: str, patience: int | None, home: Path, write: Callable[[Path], None]
    ):
        self.patience, self.home, self.write = patience, home, write
        self.words, self.more_is_better = run_log.METRICS[metric]
        self.standing, self.beside = Standing(metric), home

    def judge(self, step: int, values: Mapping[str, float]) -> bool:
        """Take a validation into account, once; whether the run should end here."""
        now = self.standing
        value = values[now.metric]
        if step > now.judged:
            now.judged = step
            if math.isfinite(value) and (now.step == 0 or self._better(value, now.value)):
                self.write(self.home / f"best-{step}")
                now.step, now.value, now.misses, self.beside = step, value, 0, self.home
            else:
                now.misses += 1
        return self.patience is not None and now.misses >= self.patience

    def _better(self, value: float, other: float) -> bool:
        return value > other if self.more_is_better else value < other

    def state(self) -> dict[str, object] | None:
        """What a checkpoint keeps."""
        return asdict(self.standing)

    def restore(self, saved: object, beside: Path) -> str | None:
        """Take back what a checkpoint kept; its best lies in the output folder, or `beside` it.

        A line to say if the best is looked for anew. Raises UserError for a state that is none.
        """
        if saved is None or (
            isinstance(saved, dict) and saved.get("metric") not in run_log.METRICS
        ):
            return f"the best {self.words} is looked for from here on"
        found = _checked(saved)
        if found.metric != self.standing.metric:
            return f"the best {self.words} is looked for from here on; it was by {found.metric}"
        folders = [home / f"best-{found.step}" for home in (self.home, beside)]
        places = [folder for folder in folders if folder.is_dir() and not folder.is_symlink()]
        if found.step and not places:
            return f"best-{found.step} is gone: the best is looked for from here on"
        if found.step and (reason := checksums.damage(places[0])):
            return f"best-{found.step} is damaged: {reason}; the best is looked for from here on"
        self.standing, self.beside = found, places[0].parent if places else self.home
        return None

    def folder(self) -> Path | None:
        """Where the best weights are, if there are any yet."""
        step = self.standing.step
        return self.beside / f"best-{step}" if step else None

    def described(self, base: Mapping[str, float]) -> str:
        """Step and value of the best, and whether the base's, at step 0, was better still."""
        now = self.standing
        if not now.step:
            return ""
        line = f"step {now.step}, {self.words} {now.value:.4f}"
        before = base.get(now.metric)
        if before is not None and self._better(before, now.value):
            line += f" (the base's was better: {before:.4f})"
        return line

    def prune(self) -> None:
        """Remove all others of the output folder: a checkpoint stands that knows this one."""
        for path in self.home.iterdir():
            named = NAME.fullmatch(path.name)
            if named and int(named[1]) != self.standing.step:
                # Out of the way in one rename first, as a checkpoint is removed.
                aside = self.home / f"{atomic.ASIDE}{path.name}"
                atomic.remove(aside)
                path.rename(aside)
                atomic.remove(aside)


class LastIsBest:
    """The same where no best is kept: the last weights are what the run gives."""

    def judge(self, step: int, values: Mapping[str, float]) -> bool:
        """Never a reason to end."""
        return False

    def state(self) -> dict[str, object] | None:
        """Nothing to keep."""
        return None

    def restore(self, saved: object, beside: Path) -> str | None:
        """Nothing to take back."""
        return None

    def folder(self) -> Path | None:
        """No folder."""
        return None

    def described(self, base: Mapping[str, float]) -> str:
        """No words."""
        return ""

    def prune(self) -> None:
        """Nothing to remove."""


def _checked(saved: Any) -> Standing:
    """The standing in a checkpoint's state. Raises UserError."""
    try:
        found = Standing(**saved)
        numbers = (found.step, found.misses, found.judged)
        if any(type(n) is not int or n < 0 for n in numbers):
            raise TypeError(f"{saved!r:.80}")
        if type(found.value) is not float or not math.isfinite(found.value):
            raise TypeError(f"{saved!r:.80}")
    except TypeError as error:
        raise UserError(f"the checkpoint's {output_folder.STATE}: wrong best ({error})") from None
    return found


def chosen_best(
    metric: str | None, patience: int | None, home: Path, write: Callable[[Path], None]
) -> Best | LastIsBest:
    """What --keep_best and --patience ask for."""
    return Best(metric, patience, home, write) if metric else LastIsBest()
