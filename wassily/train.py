"""The one loop: an objective, its batches, a list of parameters. It would train anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wassily import draws
from wassily.ema import Ema, NoEma
from wassily.graphs import Batch, Ordinary, Recorded
from wassily.progress import Progress
from wassily.runtime import Runtime
from wassily.update import update


@dataclass(frozen=True)
class Span:
    """Which optimizer steps are run, of how many micro-batches, and with which seed."""

    start: int
    stop: int
    accumulation: int
    seed: int
    pictures_per_step: int


@dataclass
class Pending:
    """The loss of the steps not logged yet; it travels with a checkpoint.

    `total` is summed over the steps that were taken, and `steps` counts them, but for those in
    `skipped`, which nobody has looked at yet: one flag each, () bool.
    """

    total: Tensor
    steps: int = 0
    skipped: list[Tensor] = field(default_factory=list)

    def add(self, loss: Tensor, skipped: Tensor) -> None:
        """One more step."""
        self.total += loss.masked_fill(skipped, 0.0)
        self.skipped.append(skipped)

    def settle(self, done: int) -> list[int]:
        """Look at the flags, the last of which is of the step before `done`: the steps, from 0,
        that were skipped. The host waits here.
        """
        flags = torch.stack(self.skipped).tolist() if self.skipped else []
        first = done - len(flags)
        self.steps += flags.count(False)
        self.skipped.clear()
        return [first + number for number, flag in enumerate(flags) if flag]


@dataclass(frozen=True)
class Events:
    """What happens besides the steps: each is called with the number of steps done.

    `on_validate` tells whether the run should end there.
    """

    log_every: int
    on_log: Callable[[int, dict[str, float]], None]
    save_at: Callable[[int], bool]
    on_save: Callable[[int, Pending], None]
    stop_at: Callable[[int], bool]
    on_skipped: Callable[[list[int]], None]
    validate_at: Callable[[int], bool]
    on_validate: Callable[[int], bool]


def fit(
    objective: nn.Module,
    passes: Ordinary | Recorded,
    trained: list[nn.Parameter],
    optimizer: Any,
    batches: Iterator[Batch],
    *,
    span: Span,
    learning_rate: Callable[[int], float],
    max_grad_norm: float,
    ema: Ema | NoEma,
    events: Events,
    runtime: Runtime,
    pending: Pending,
) -> int:
    """Run the steps of `span`: forward, backward, clip, update, average; log, save and validate.

    `objective` is already prepared, like `optimizer`, and `passes` runs it forward and backward: it
    maps (batch, noise, t) to the mean loss, (). `batches` yields `span.accumulation` micro-batches
    a step, each with its `noise` and `t`. `learning_rate` maps a step (from 0) to a rate. A step
    whose loss or gradient is not finite changes nothing, and is told by `on_skipped` at the next
    log or save. Returns how many steps are done: fewer than `span.stop` where an event ended the
    run, which was saved then.
    """
    objective.train()
    done, saves = span.start, True
    bar = Progress("training", span.stop, span.start, runtime.main)
    since = (span.start, bar.worked())
    for step in range(span.start, span.stop):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        mean = torch.zeros_like(pending.total)
        for micro in range(span.accumulation):
            batch = dict(next(batches))
            noise, t = batch.pop("noise"), batch.pop("t")
            # Modules that draw inside forward (dropout) draw the same after a resume.
            torch.manual_seed(
                draws.module_seed(span.seed, step, micro * runtime.world + runtime.rank)
            )
            with runtime.accumulate(objective):
                mean += passes(batch, noise, t).float() / span.accumulation
        pending.add(mean, update(optimizer, trained, mean, max_grad_norm, runtime))
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        ema.update(done)
        bar.advance()
        logs = done % events.log_every == 0 or done == span.stop
        stops = events.stop_at(done) or done == span.stop
        saves = events.save_at(done) or stops
        if logs:
            events.on_skipped(pending.settle(done))
            values = _flush(pending, runtime)
            now = (done, bar.worked())
            values |= _rate(span, since, now)
            since = now
            events.on_log(done, values | {"lr": learning_rate(step)})
            bar.note(**{name: f"{value:.4g}" for name, value in values.items()})
        validates = not stops and events.validate_at(done)
        if saves or validates:
            events.on_skipped(pending.settle(done))  # the host waits: the steps end here
            with bar.resting():
                if saves:
                    _save(pending, events, runtime, done)
                if validates:
                    passes.let_go()
                    stops = events.on_validate(done)
                    objective.train()
        if stops:
            break
    if not saves:  # it was that validation which ended the run
        _save(pending, events, runtime, done)
    bar.close()
    return done


def _save(pending: Pending, events: Events, runtime: Runtime, done: int) -> None:
    """Settle what is pending, and save."""
    events.on_skipped(pending.settle(done))
    pending.total.copy_(runtime.mean(pending.total))
    events.on_save(done, pending)


def _flush(pending: Pending, runtime: Runtime) -> dict[str, float]:
    """The mean loss since the last call, if a step was taken since. The host waits here."""
    total, steps = float(runtime.mean(pending.total)), pending.steps
    pending.total.zero_()
    pending.steps = 0
    return {"train_loss": total / steps} if steps else {}


def _rate(span: Span, since: tuple[int, float], now: tuple[int, float]) -> dict[str, float]:
    """Pictures a second between two (steps done, seconds worked)."""
    pictures = (now[0] - since[0]) * span.pictures_per_step
    return {"pictures_per_second": pictures / max(now[1] - since[1], 1e-9)}
