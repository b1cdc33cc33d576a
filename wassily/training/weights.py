"""The weights in training, with their average and their state: as one process can use them alone.

With FSDP2 each process has a part only, and a forward pass needs all processes. What measures,
generates or writes asks for whole ones first, on all processes. Between them none stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wassily.maths.ema import Ema, NoEma
from wassily.maths.losses import Objective
from wassily.runtime import fsdp
from wassily.runtime.accelerator import Runtime


@dataclass(frozen=True)
class Weights:
    """What every process has whole. `trained` are those parameters of `net` that are trained."""

    objective: Objective
    trained: Mapping[str, nn.Parameter]
    ema: Ema | NoEma
    optimizer: Optimizer | SimpleNamespace | None = None

    @property
    def net(self) -> nn.Module:
        """The network in training."""
        return self.objective.net

    def everywhere(self) -> AbstractContextManager[Weights]:
        """To compute with, on each process."""
        return nullcontext(self)

    def to_write(self, state: bool = False) -> AbstractContextManager[Weights]:
        """To write to the disk, on the first process; with the optimizer's `state` if asked for."""
        return nullcontext(self)


@dataclass(frozen=True)
class Spread(Weights):
    """What is spread over the processes; `outline` has the form of the objective."""

    outline: fsdp.Outline[Objective] = dataclasses.field(kw_only=True)
    runtime: Runtime = dataclasses.field(kw_only=True)

    def everywhere(self) -> AbstractContextManager[Weights]:
        """Gathered on each process's device."""
        return self._gathered(self.runtime.device, True, False)

    def to_write(self, state: bool = False) -> AbstractContextManager[Weights]:
        """Gathered in the first process's own memory; the others get a form without content."""
        return self._gathered(torch.device("cpu"), self.runtime.main, state)

    @contextmanager
    def _gathered(self, device: torch.device, wanted: bool, state: bool) -> Iterator[Weights]:
        values: dict[str, Tensor] = dict(self.objective.named_parameters())
        self.outline.fill(fsdp.gathered(values, device, wanted))
        objective = self.outline.module
        here = dict(objective.net.named_parameters())
        trained = {name: here[name] for name in self.trained}
        ema = self.ema
        if isinstance(ema, Ema):
            averages = fsdp.gathered(ema.averages, device, wanted)
            ema = Ema(trained if wanted else {}, ema.decay, averages)
        optimizer = None
        if state:
            places = {self.trained[name]: trained[name] for name in trained}
            assert isinstance(self.optimizer, Optimizer)
            optimizer = fsdp.gathered_state(self.optimizer, places, wanted)
        try:
            yield Weights(objective, trained, ema, optimizer)
        finally:
            self.outline.clear()


def weights_of(
    objective: Objective,
    trained: Mapping[str, nn.Parameter],
    ema: Ema | NoEma,
    optimizer: Optimizer,
    outline: fsdp.Outline[Objective] | None,
    runtime: Runtime,
) -> Weights:
    """The weights of a run, whose objective was spread if there is an `outline` of it."""
    if outline is None:
        return Weights(objective, trained, ema, optimizer)
    return Spread(objective, trained, ema, optimizer, outline=outline, runtime=runtime)


def spread(objective: Objective, runtime: Runtime) -> fsdp.Outline[Objective] | None:
    """Spread an objective, if the launcher wants that; its outline then. Its parameters are others
    afterwards.
    """
    if not runtime.sharded:
        return None
    outline = fsdp.Outline(objective)
    fsdp.spread(objective, runtime.device, runtime.world, runtime.reshards)
    return outline
