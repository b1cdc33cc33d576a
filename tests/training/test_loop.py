"""The loop, on a regression of three weights, against the same steps written out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wassily.maths.ema import Ema, NoEma
from wassily.maths.losses import Batch
from wassily.runtime import progress
from wassily.runtime.accelerator import Runtime
from wassily.training.loop import Events, Learner, Pending, Span, fit


class Objective(nn.Module):
    """(w . (x + noise) - y)^2 per example, scaled by t; with dropout if asked for."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.dropout = nn.Dropout(dropout)
        self.seen: list[int] = []

    def forward(self, batch: Batch, noise: Tensor, t: Tensor) -> Tensor:
        """Loss per example."""
        assert set(batch) == {"x", "y"}
        assert self.training
        self.seen.append(len(t))
        return (self.dropout(batch["x"] + noise) @ self.w - batch["y"]).square() * t


def _data(steps: int, size: int, parts: int = 1) -> Iterator[Batch]:
    """The same examples however a step's batch is cut."""
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        whole = {
            "x": torch.randn(size, 3, generator=generator),
            "y": torch.randn(size, generator=generator),
            "noise": 0.1 * torch.randn(size, 3, generator=generator),
            "t": torch.randint(1, 5, (size,), generator=generator),
        }
        for part in range(parts):
            cut = slice(part * size // parts, (part + 1) * size // parts)
            yield {key: value[cut] for key, value in whole.items()}


@dataclass
class Log:
    """What the loop told."""

    logs: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    saves: list[tuple[int, float, int]] = field(default_factory=list)
    validations: list[int] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    stop: int = 1000
    end: int = 1000  # at this validation

    def events(self, every: int = 1, save: int = 1000, validate: int = 1000) -> Events:
        """Hooks that note."""
        return Events(
            log_every=every,
            on_log=lambda done, values: self.logs.append((done, values)),
            save_at=lambda done: done % save == 0,
            on_save=lambda done, p: self.saves.append((done, float(p.total), p.steps)),
            stop_at=lambda done: done == self.stop,
            on_skipped=self.skipped.extend,
            validate_at=lambda done: done % validate == 0,
            on_validate=self.validated,
        )

    def validated(self, done: int) -> bool:
        """Note it; whether the run should end."""
        self.validations.append(done)
        return done == self.end


@dataclass
class Outcome:
    """A run's weights, log and average."""

    objective: Objective
    log: Log
    ema: Ema | NoEma
    optimizer: torch.optim.Optimizer


def _fit(
    folder: Path,
    steps: int = 6,
    start: int = 0,
    accumulation: int = 1,
    size: int = 4,
    clip: float = 1e9,
    objective: Objective | None = None,
    use_ema: bool = False,
    pending: Pending | None = None,
    log: Log | None = None,
    **hooks: int,
) -> Outcome:
    runtime = Runtime(None, accumulation, str(folder), "logs", "none")
    objective = objective or Objective()
    optimizer = torch.optim.SGD(objective.parameters(), lr=99.0)
    ema = Ema(dict(objective.named_parameters())) if use_ema else NoEma()
    log = log or Log()
    prepared, wrapped = runtime.prepare(objective, optimizer)
    batches = _data(steps, size, accumulation)
    for _ in range(start * accumulation):
        next(batches)
    fit(
        Learner(
            objective=prepared,
            trained=[objective.w],
            optimizer=wrapped,
            learning_rate=lambda step: 0.01 / (step + 1),
            max_grad_norm=clip,
            ema=ema,
        ),
        batches,
        span=Span(start, steps, accumulation, 5, size),
        events=log.events(**hooks),
        runtime=runtime,
        pending=pending or Pending(torch.zeros(())),
    )
    return Outcome(objective, log, ema, optimizer)


def _by_hand(steps: int, size: int = 4, clip: float = 1e9) -> tuple[Tensor, list[float]]:
    """w <- w - 0.01 / (step + 1) g, g the gradient of the batch's mean loss, cut to a norm."""
    w, losses = torch.tensor([0.5, -1.0, 2.0]), []
    for step, batch in enumerate(_data(steps, size)):
        x = batch["x"] + batch["noise"]
        residual = x @ w - batch["y"]
        losses.append(float((residual.square() * batch["t"]).mean()))
        gradient = (2 * residual * batch["t"])[:, None] * x
        gradient = gradient.mean(0)
        gradient = gradient * min(1.0, clip / (float(gradient.norm()) + 1e-6))
        w = w - 0.01 / (step + 1) * gradient
    return w, losses


@pytest.mark.parametrize("clip", [1e9, 0.5])
def test_the_steps_written_out(clip: float, tmp_path: Path) -> None:
    """Weights, losses and rates; the rate is that of the step, from 0; the gradient is cut."""
    done = _fit(tmp_path, clip=clip)
    w, losses = _by_hand(6, clip=clip)
    torch.testing.assert_close(done.objective.w.detach(), w, atol=1e-5, rtol=1e-5)
    assert [step for step, _ in done.log.logs] == [1, 2, 3, 4, 5, 6]
    assert [v["train_loss"] for _, v in done.log.logs] == pytest.approx(losses, rel=1e-4)
    assert [v["lr"] for _, v in done.log.logs] == pytest.approx([0.01 / k for k in range(1, 7)])
    assert all(v["pictures_per_second"] > 0 for _, v in done.log.logs)
    assert done.objective.w.grad is None


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulation_is_one_larger_batch(accumulation: int, tmp_path: Path) -> None:
    """2 x 2 and 4 x 1 end where 1 x 4 does, with the same logged losses, rates and clipping."""
    done = _fit(tmp_path, accumulation=accumulation, clip=0.5)
    w, losses = _by_hand(6, clip=0.5)
    torch.testing.assert_close(done.objective.w.detach(), w, atol=1e-5, rtol=1e-5)
    assert [v["train_loss"] for _, v in done.log.logs] == pytest.approx(losses, rel=1e-4)
    assert done.objective.seen == [4 // accumulation] * 6 * accumulation


def test_log_save_and_validate_when_asked(tmp_path: Path) -> None:
    """Also at the last step, where validation is left to the end of the run; a logged loss is the
    mean since the last line.
    """
    done = _fit(tmp_path, steps=7, every=3, save=4, validate=2)
    _, losses = _by_hand(7)
    means = [sum(losses[:3]) / 3, sum(losses[3:6]) / 3, losses[6]]
    assert [step for step, _ in done.log.logs] == [3, 6, 7]
    assert [v["train_loss"] for _, v in done.log.logs] == pytest.approx(means, rel=1e-4)
    assert [save[0] for save in done.log.saves] == [4, 7]
    # The loss of step 4 is not logged yet: it travels with the checkpoint.
    assert done.log.saves[0][1:] == (pytest.approx(losses[3], rel=1e-4), 1)
    assert done.log.saves[1][1:] == (0.0, 0)
    assert done.log.validations == [2, 4, 6]


def test_the_rate_is_of_the_steps_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four pictures in a second, however long it takes to save and to validate in between."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    objective, log = Objective(), Log()
    objective.register_forward_hook(lambda *_: clock.__setitem__(0, clock[0] + 1))
    saved, validated = log.saves, log.validated

    class Slow(list):
        def append(self, save: tuple[int, float, int]) -> None:
            clock[0] += 50
            super().append(save)

    def slow(done: int) -> bool:
        clock[0] += 100
        return validated(done)

    log.saves, log.validated = Slow(saved), slow
    _fit(tmp_path, steps=12, every=3, save=4, validate=2, objective=objective, log=log)
    assert len(log.saves) == 3 and log.validations == [2, 4, 6, 8, 10]
    assert [values["pictures_per_second"] for _, values in log.logs] == [4.0] * 4
    assert clock[0] == 12 + 3 * 50 + 5 * 100


def test_going_on_is_never_having_stopped(tmp_path: Path) -> None:
    """Bit for bit, dropout included: from step 4 with the weights and the pending loss."""
    whole = _fit(tmp_path, steps=7, every=3, save=4, objective=Objective(0.5))
    first = Objective(0.5)
    _fit(tmp_path, steps=4, objective=first, every=1000)
    _, total, steps = whole.log.saves[0]
    torch.manual_seed(999)  # whatever torch's own generator holds
    rest = _fit(
        tmp_path,
        steps=7,
        start=4,
        every=3,
        objective=first,
        pending=Pending(torch.tensor(total), steps),
    )
    assert torch.equal(rest.objective.w, whole.objective.w)
    assert [step for step, _ in rest.log.logs] == [6, 7]
    for (_, a), (_, b) in zip(rest.log.logs, whole.log.logs[1:], strict=True):
        assert a["train_loss"] == b["train_loss"]


def test_dropout_differs_from_step_to_step(tmp_path: Path) -> None:
    """Seeded for each step, not the same mask each time: losses of equal data differ."""
    objective = Objective(0.5)
    masks = []
    objective.dropout.register_forward_hook(lambda m, given, out: masks.append(out == 0))
    _fit(tmp_path, steps=4, accumulation=2, objective=objective)
    assert len(masks) == 8
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 4


def test_the_average_follows_every_step(tmp_path: Path) -> None:
    """As the class alone, fed with the weights after each step."""
    done = _fit(tmp_path, use_ema=True)
    shadow = Objective()
    expected = Ema(dict(shadow.named_parameters()))
    for steps in range(1, 7):
        with torch.no_grad():
            shadow.w.copy_(_by_hand(steps)[0])
        expected.update(steps)
    assert isinstance(done.ema, Ema)
    torch.testing.assert_close(done.ema.averages["w"], expected.averages["w"], atol=1e-5, rtol=1e-5)
    assert (done.ema.averages["w"] - done.objective.w).abs().max() > 1e-4


def test_nothing_left_to_do(tmp_path: Path) -> None:
    """A run that is resumed at its end changes nothing and saves nothing."""
    done = _fit(tmp_path, steps=3, start=3)
    assert torch.equal(done.objective.w, Objective().w)
    assert (done.log.logs, done.log.saves) == ([], [])


# ---------------------------------------------------------------- stopped, and skipped


def test_told_to_stop(tmp_path: Path) -> None:
    """After the step: saved with its pending loss, not logged, not validated; the rest is the
    uninterrupted run's.
    """
    whole = _fit(tmp_path, steps=7, every=3)
    log, objective = Log(stop=4), Objective()
    _fit(tmp_path, steps=7, every=3, validate=4, objective=objective, log=log)
    assert [step for step, _ in log.logs] == [3]
    ((step, total, steps),) = log.saves
    assert (step, steps, log.validations) == (4, 1, [])
    pending = Pending(torch.tensor(total), steps)
    rest = _fit(tmp_path, steps=7, start=4, every=3, objective=objective, pending=pending)
    assert torch.equal(rest.objective.w, whole.objective.w)
    assert [v["train_loss"] for _, v in rest.log.logs] == [
        v["train_loss"] for _, v in whole.log.logs[1:]
    ]


@pytest.mark.parametrize("save", [2, 3])
def test_a_validation_that_ends_the_run(save: int, tmp_path: Path) -> None:
    """Its step is saved once, whether it was to be saved anyway or not; with more patience the rest
    is the uninterrupted run's.
    """
    whole = _fit(tmp_path, steps=7, every=3)
    log, objective = Log(end=4), Objective()
    _fit(tmp_path, steps=7, every=3, save=save, validate=2, objective=objective, log=log)
    assert [step for step, _, _ in log.saves] == [*range(save, 4, save), 4]
    assert log.validations == [2, 4]
    _, total, steps = log.saves[-1]
    pending = Pending(torch.tensor(total), steps)
    rest = _fit(tmp_path, steps=7, start=4, every=3, objective=objective, pending=pending)
    assert torch.equal(rest.objective.w, whole.objective.w)
    assert [v["train_loss"] for _, v in rest.log.logs] == [
        v["train_loss"] for _, v in whole.log.logs[1:]
    ]


class _Poisoned(Objective):
    """Not finite at these steps, in the loss or in the gradient alone."""

    def __init__(self, at: tuple[int, ...], where: str):
        super().__init__()
        self.at, self.where = at, where

    def forward(self, batch: Batch, noise: Tensor, t: Tensor) -> Tensor:
        loss = super().forward(batch, noise, t)
        if len(self.seen) - 1 in self.at:
            if self.where == "gradient":
                loss.register_hook(lambda gradient: gradient * float("inf"))
            else:
                loss = loss * float(self.where)
        return loss


@pytest.mark.parametrize("where", ["nan", "inf", "gradient"])
def test_a_bad_step_is_skipped_and_told(where: str, tmp_path: Path) -> None:
    """The weights move by the other steps alone; the logged mean is theirs; it is told with the
    line or checkpoint after it, which does not forget those before.
    """
    objective = _Poisoned((1, 3, 4, 5), where)
    done = _fit(tmp_path, steps=7, every=3, save=4, objective=objective)
    assert done.log.skipped == [1, 3, 4, 5]
    w, losses = torch.tensor([0.5, -1.0, 2.0]), []
    for step, batch in enumerate(_data(7, 4)):
        x = batch["x"] + batch["noise"]
        residual = x @ w - batch["y"]
        if step in objective.at:
            continue
        losses.append(float((residual.square() * batch["t"]).mean()))
        w = w - 0.01 / (step + 1) * ((2 * residual * batch["t"])[:, None] * x).mean(0)
    torch.testing.assert_close(done.objective.w.detach(), w, atol=1e-5, rtol=1e-5)
    logs = dict(done.log.logs)
    assert logs[3]["train_loss"] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-4)
    assert "train_loss" not in logs[6]  # there is none to speak of
    assert logs[7]["train_loss"] == pytest.approx(losses[2], rel=1e-4)
    assert done.log.saves[0] == (4, 0.0, 0)
