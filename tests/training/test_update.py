"""A step that went wrong is as one that never was; in the good case nobody waits for the device."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optimi
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from wassily.maths.ema import NoEma
from wassily.runtime.accelerator import Runtime
from wassily.training import optimizer_state
from wassily.training.checkpoints import all_finite
from wassily.training.loop import Events, Learner, Pending, Span, fit, update

NAN, INF = float("nan"), float("inf")
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "fused AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1, fused=False),
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.1),
    "Lion": lambda p: optimi.Lion(p, lr=0.1),
}


class Waits(TorchDispatchMode):
    """Counts how often the host looks at a tensor's value."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As without, but counted."""
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """One process on the CPU."""
    return Runtime(None, 1, str(tmp_path), "logs", "none")


def _run(
    name: str, runtime: Runtime, steps: list[tuple[float, float]], most: float
) -> list[Tensor]:
    """Two weights after steps of (loss, factor of the gradient), and the optimizer's state."""
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4))]
    optimizer = OPTIMIZERS[name](weights)
    for number, (loss, factor) in enumerate(steps):
        for weight in weights:
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
            weight.grad = noise
        if factor != 1:
            weights[0].grad[1, 2] = factor
        flag = update(optimizer, torch.tensor(loss), runtime.clip(weights, most), runtime)
        assert bool(flag) == (loss not in (1.0,) or factor != 1)
    state = [v for w in weights for v in optimizer.state[w].values() if torch.is_tensor(v)]
    return [*weights, *state]


@pytest.mark.parametrize("most", [0.0, 1.0])
@pytest.mark.parametrize("bad", [(NAN, NAN), (INF, 1.0), (1.0, NAN), (1.0, -INF)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bad_step_is_none(
    name: str, bad: tuple[float, float], most: float, runtime: Runtime
) -> None:
    """Weights and state, the count of steps too: as they would be without it, to the bit."""
    good = (1.0, 1.0)
    before = _run(name, runtime, [good, good], most)
    after = _run(name, runtime, [good, good, bad, bad], most)
    assert len(before) == len(after) > 2
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_good_case_is_the_plain_step(name: str, runtime: Runtime) -> None:
    """The same bits as of the optimizer alone."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4))
    twin = nn.Parameter(weight.detach().clone())
    one, two = OPTIMIZERS[name]([weight]), OPTIMIZERS[name]([twin])
    for _ in range(3):
        weight.grad = torch.randn(4)
        twin.grad = weight.grad.clone()
        assert not update(one, torch.tensor(1.0), runtime.clip([weight], 0.0), runtime)
        two.step()
    assert torch.equal(weight, twin)


def test_the_device_is_not_waited_for(runtime: Runtime) -> None:
    """By the optimizer of a usual run; where it has no such kernel, once a step."""
    waits = {}
    for name in ("fused AdamW", "SGD with momentum"):
        weight = nn.Parameter(torch.randn(4))
        optimizer = OPTIMIZERS[name]([weight])
        with Waits() as mode:
            for _ in range(5):
                weight.grad = torch.randn(4)
                update(optimizer, torch.tensor(1.0), runtime.clip([weight], 1.0), runtime)
        waits[name] = mode.count
    assert waits["fused AdamW"] == 0
    assert waits["SGD with momentum"] == 5  # the instrument works


def test_released_gradients_cannot_be_skipped(runtime: Runtime) -> None:
    """There is none left to look at: the loss tells, and the run has to end."""
    weight = nn.Parameter(torch.randn(4))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    norm = runtime.clip([weight], 0.0)
    assert norm is None
    assert update(optimizer, torch.tensor(NAN), norm, runtime)
    assert not update(optimizer, torch.tensor(1.0), norm, runtime)


def test_all_finite() -> None:
    """One value is enough."""
    good, bad = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.tensor([0.0, INF]))
    assert all_finite([good, good])
    assert not all_finite([good, bad])


# ---------------------------------------------------------------- fp16


class _Square(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))

    def forward(self, batch: dict[str, Tensor], noise: Tensor, t: Tensor) -> Tensor:
        return (batch["x"] * self.w).square().sum(1)


def _batch(step: int) -> dict[str, Tensor]:
    """At step 3 the scaled gradient overflows; the loss does not."""
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(step))
    x = x * (1e17 if step == 3 else 1.0)
    return {"x": x, "noise": x, "t": torch.zeros(2)}


def _scaled(
    folder: Path, span: tuple[int, int], start: tuple[Tensor, dict, Path] | None = None
) -> tuple[Tensor, dict, list[int]]:
    """Steps with a loss scaler that grows every two steps: weights, its state, skipped steps."""
    runtime = Runtime(None, 1, str(folder), "logs", "none")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=2)
    runtime.accelerator.scaler = scaler
    objective = _Square()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=0.1)
    prepared, wrapped = runtime.prepare(objective, optimizer)
    names = dict(objective.named_parameters())
    if start:
        objective.w.data.copy_(start[0])
        runtime.load_scaler(json.loads(json.dumps(start[1])))
        optimizer_state.load_optimizer(start[2], optimizer, names)
    skipped: list[int] = []
    never = lambda done: False  # noqa: E731
    events = Events(
        log_every=1,
        on_log=lambda done, values: None,
        save_at=never,
        on_save=lambda done, pending: None,
        stop_at=never,
        on_skipped=skipped.extend,
        validate_at=never,
        on_validate=lambda done: None,
    )
    fit(
        Learner(
            objective=prepared,
            trained=[objective.w],
            optimizer=wrapped,
            learning_rate=lambda step: 0.1,
            max_grad_norm=0.0,
            ema=NoEma(),
        ),
        map(_batch, range(*span)),
        span=Span(*span, 1, 5, 2),
        events=events,
        runtime=runtime,
        pending=Pending(torch.zeros(())),
    )
    folder.mkdir(exist_ok=True)
    optimizer_state.save_optimizer(folder, optimizer, names)
    state = runtime.scaler_state()
    assert state is not None
    return objective.w.detach().clone(), state, skipped


@pytest.mark.parametrize("cut", [1, 4, 5])
def test_the_loss_scaler_survives_a_resume(cut: int, tmp_path: Path) -> None:
    """Weights, scale and its count of good steps, through JSON, before and after an overflow: as of
    the run that was not stopped. An overflow is the scaler's own matter and not told as a fault.
    """
    whole, state, skipped = _scaled(tmp_path / "whole", (0, 8))
    assert skipped == []
    assert state["scale"] != 2.0**16
    half, then, _ = _scaled(tmp_path / "half", (0, cut))
    rest, after, _ = _scaled(tmp_path / "rest", (cut, 8), (half, then, tmp_path / "half"))
    assert torch.equal(rest, whole)
    assert after == state
    # Without its state the scale is another at the end: the test can fail.
    _, fresh, _ = _scaled(tmp_path / "fresh", (cut, 8))
    assert cut != 5 or fresh != state
