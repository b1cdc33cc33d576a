"""The one loop: an objective, its batches, a list of parameters. It would train anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wassily import draws
from wassily.ema import Ema, NoEma
from wassily.runtime import Progress, Runtime

Batch = dict[str, Tensor]


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
    """The summed loss of the steps not logged yet; it travels with a checkpoint."""

    total: Tensor
    steps: int = 0


@dataclass(frozen=True)
class Events:
    """What happens besides the steps: each is called with the number of steps done."""

    log_every: int
    on_log: Callable[[int, dict[str, float]], None]
    save_at: Callable[[int], bool]
    on_save: Callable[[int, Pending], None]
    validate_at: Callable[[int], bool]
    on_validate: Callable[[int], None]


def fit(
    objective: nn.Module,
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
) -> None:
    """Run the steps of `span`: forward, backward, clip, update, average; log, save and validate.

    `objective` maps (batch, noise, t) to a loss per example and is already prepared, like
    `optimizer`; `batches` yields `span.accumulation` micro-batches a step, each with its `noise`
    and `t`. `learning_rate` maps a step (from 0) to a rate.
    """
    objective.train()
    bar = Progress("training", span.stop, span.start, runtime.main)
    clock = time.monotonic()
    for step in range(span.start, span.stop):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        for micro in range(span.accumulation):
            batch = dict(next(batches))
            noise, t = batch.pop("noise"), batch.pop("t")
            # Modules that draw inside forward (dropout) draw the same after a resume.
            torch.manual_seed(
                draws.module_seed(span.seed, step, micro * runtime.world + runtime.rank)
            )
            with runtime.accumulate(objective):
                loss = objective(batch, noise, t).mean()
                runtime.backward(loss)
            pending.total += loss.detach().float() / span.accumulation
        runtime.clip(trained, max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        pending.steps += 1
        ema.update(done)
        bar.advance()
        if done % events.log_every == 0 or done == span.stop:
            values = _flush(pending, runtime, span, time.monotonic() - clock)
            clock = time.monotonic()
            events.on_log(done, values | {"lr": learning_rate(step)})
            bar.note(
                loss=f"{values['train_loss']:.4f}",
                pictures_s=f"{values['pictures_per_second']:.2f}",
            )
        if events.save_at(done) or done == span.stop:
            pending.total.copy_(runtime.mean(pending.total))
            events.on_save(done, pending)
        if done != span.stop and events.validate_at(done):
            events.on_validate(done)
            objective.train()
            clock = time.monotonic()
    bar.close()


def _flush(pending: Pending, runtime: Runtime, span: Span, seconds: float) -> dict[str, float]:
    """The mean loss and the rate since the last call. The only place where the host waits."""
    values = {
        "train_loss": float(runtime.mean(pending.total)) / pending.steps,
        "pictures_per_second": pending.steps * span.pictures_per_step / max(seconds, 1e-9),
    }
    pending.total.zero_()
    pending.steps = 0
    return values
