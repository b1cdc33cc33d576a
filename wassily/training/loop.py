"""The training loop: an objective, its batches, a list of parameters. It would train anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wassily.maths import randomness
from wassily.maths.ema import Ema, NoEma
from wassily.maths.losses import Batch
from wassily.runtime.accelerator import Runtime
from wassily.runtime.progress import Progress

Pass = Callable[[Batch, Tensor, Tensor], Tensor]  # (batch, noise, t) -> mean loss, ()


@dataclass(frozen=True)
class Learner:
    """What is trained, and how a step moves it.

    `objective` and `optimizer` are prepared for the run. `learning_rate` maps a step (from 0) to a
    rate. `max_grad_norm` of 0 does not clip. `recorded` takes a micro-batch forward and backward in
    another way than the loop does, to the same gradients: as a CUDA graph.
    """

    objective: nn.Module
    trained: list[nn.Parameter]
    optimizer: Any
    learning_rate: Callable[[int], float]
    max_grad_norm: float
    ema: Ema | NoEma
    recorded: Pass | None = None


@dataclass(frozen=True)
class Span:
    """Which optimizer steps are run, of how many micro-batches, and with which seed."""

    start: int
    stop: int
    accumulation: int
    seed: int
    images_per_step: int


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

    def take_mean(self, runtime: Runtime) -> dict[str, float]:
        """The mean loss since the last call, if a step was taken since. The host waits here."""
        total, steps = float(runtime.mean(self.total)), self.steps
        self.total.zero_()
        self.steps = 0
        return {"train_loss": total / steps} if steps else {}


@dataclass(frozen=True)
class Events:
    """What happens besides the steps: each is called with the number of steps done.

    `on_validate` tells whether the run should end there, and leaves the objective in training mode.
    """

    log_every: int
    on_log: Callable[[int, dict[str, float]], None]
    save_at: Callable[[int], bool]
    on_save: Callable[[int, Pending], None]
    stop_at: Callable[[int], bool]
    on_skipped: Callable[[list[int]], None]
    validate_at: Callable[[int], bool]
    on_validate: Callable[[int], bool]


# ---------------------------------------------------------------- the loop


def fit(
    learner: Learner,
    batches: Iterator[Batch],
    *,
    span: Span,
    events: Events,
    runtime: Runtime,
    pending: Pending,
) -> int:
    """Run the steps of `span`: forward, backward, clip, update, average; log, save and validate.

    `batches` yields `span.accumulation` micro-batches a step, each with its `noise` and `t`. A step
    whose loss or gradient is not finite changes nothing, and is told by `on_skipped` at the next
    log or save. Returns how many steps are done: fewer than `span.stop` where an event ended the
    run, which was saved then.
    """
    objective, optimizer = learner.objective.train(), learner.optimizer
    done = span.start
    diary = _Diary(events, span, runtime, pending)
    for step in range(span.start, span.stop):
        # A function of the step alone, so that a checkpoint has no state of a scheduler.
        rate = learner.learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        # On the device, as all numbers of a step: the host would wait for each that it reads.
        mean = torch.zeros_like(pending.total)
        for micro in range(span.accumulation):
            # A copy: two fields are taken out of it.
            batch = dict(next(batches))
            noise, t = batch.pop("noise"), batch.pop("t")
            # Modules that draw inside forward (dropout) draw the same after a resume.
            place = micro * runtime.world + runtime.rank
            torch.manual_seed(randomness.module_seed(span.seed, step, place))
            with runtime.accumulate(objective):
                if learner.recorded:
                    loss = learner.recorded(batch, noise, t)
                else:
                    loss = objective(batch, noise, t).mean()
                    runtime.backward(loss)
                mean += loss.detach().float() / span.accumulation
        norm = runtime.clip(learner.trained, learner.max_grad_norm)
        # Whether it was skipped is read at the next log or save.
        pending.add(mean, update(optimizer, mean, norm, runtime))
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        learner.ema.update(done)
        if diary.ends_after(done, rate):
            break
    diary.bar.close()
    return done


def update(optimizer: Any, loss: Tensor, norm: Tensor | None, runtime: Runtime) -> Tensor:
    """Take the step, unless the loss or the gradient's norm is not finite; then weights and state
    stay as they are. Whether that was so, () bool.
    """
    bad = ~torch.isfinite(loss)
    if norm is not None:
        bad |= ~torch.isfinite(norm.to(bad.device))
    # The same on all processes: one that skipped alone would train other weights.
    flag = runtime.mean(bad.float()) > 0
    # accelerate wraps the optimizer, and a fused kernel reads its two fields from the inner one.
    inner = getattr(optimizer, "optimizer", optimizer)
    if norm is None:
        # In fp16 the loss scaler judges the gradient, which overflows now and then; with gradient
        # release the weights have moved already.
        optimizer.step()
    elif getattr(inner, "_step_supports_amp_scaling", False):
        # A fused optimizer skips the step on the device, and the host does not wait.
        inner.grad_scale, inner.found_inf = None, flag.float()
        optimizer.step()
        del inner.grad_scale, inner.found_inf
    elif not flag:  # which the host waits for
        optimizer.step()
    return flag


# ---------------------------------------------------------------- beside the steps


class _Diary:
    """Logs, saves and validates after the steps where it is time for that."""

    def __init__(self, events: Events, span: Span, runtime: Runtime, pending: Pending):
        self.events, self.span, self.runtime, self.pending = events, span, runtime, pending
        self.bar = Progress("training", span.stop, span.start, runtime.main)
        self.since = (span.start, self.bar.worked())

    def ends_after(self, done: int, rate: float) -> bool:
        """Do what is due after so many steps; whether the run ends there."""
        self.bar.advance()
        events, last = self.events, done == self.span.stop
        logs = done % events.log_every == 0 or last
        stops = events.stop_at(done) or last
        saves = events.save_at(done) or stops
        if logs:
            self._log(done, rate)
        validates = not stops and events.validate_at(done)
        if saves or validates:
            events.on_skipped(self.pending.settle(done))  # the host waits: the steps end here
            with self.bar.resting():
                if saves:
                    self._save(done)
                if validates:
                    stops = events.on_validate(done)
        if stops and not saves:  # it was that validation which ended the run
            self._save(done)
        return stops

    def _log(self, done: int, rate: float) -> None:
        self.events.on_skipped(self.pending.settle(done))
        values = self.pending.take_mean(self.runtime)
        now = (done, self.bar.worked())
        # `worked` leaves out the time of saving and validating.
        pictures = (now[0] - self.since[0]) * self.span.images_per_step
        values["pictures_per_second"] = pictures / max(now[1] - self.since[1], 1e-9)
        self.since = now
        self.events.on_log(done, values | {"lr": rate})
        self.bar.note(**{name: f"{value:.4g}" for name, value in values.items()})

    def _save(self, done: int) -> None:
        """Settle what is pending, and save."""
        self.events.on_skipped(self.pending.settle(done))
        # Each process has the sum of its own examples; a checkpoint holds one number.
        self.pending.total.copy_(self.runtime.mean(self.pending.total))
        self.events.on_save(done, self.pending)
