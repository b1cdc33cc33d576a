"""Schedules against diffusers' own stepped as the libraries step them; AdamW's settings."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
import torch
from diffusers.optimization import get_scheduler

from wassily.config import launch_checks, schema, training
from wassily.errors import UserError
from wassily.models import adapters
from wassily.training import optimizers


def _config(folder: Path, **values: typing.Any) -> training.DecoderConfig:
    return training.DecoderConfig(train_data_dir=str(folder), **values)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("name", typing.get_args(training.Schedule))
def test_schedule_equals_the_stepped_library(name: str, warmup: int, tmp_path: Path) -> None:
    """A LambdaLR stepped once an optimizer step: the rate in effect at each of 12 steps."""
    steps, peak = 12, 3e-4
    stock = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=peak)
    schedule = get_scheduler(name, stock, num_warmup_steps=warmup, num_training_steps=steps)
    expected = []
    for _ in range(steps):
        expected.append(stock.param_groups[0]["lr"])
        stock.step()
        schedule.step()
    given = _config(tmp_path, lr_scheduler=name, lr_warmup_steps=warmup, learning_rate=peak)
    ours = optimizers.learning_rate(given, steps)
    assert [ours(step) for step in range(steps)] == pytest.approx(expected, rel=1e-12, abs=1e-20)
    # A pure function: asking again, out of order, gives the same.
    assert ours(5) == pytest.approx(expected[5], rel=1e-12)


def test_there_are_six_schedules() -> None:
    """The guide's."""
    assert set(typing.get_args(training.Schedule)) == {
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
    }


def test_adamw_takes_every_setting(tmp_path: Path) -> None:
    """None declared and ignored; three steps equal torch's AdamW with the same numbers."""
    given = _config(
        tmp_path,
        learning_rate=1e-2,
        adam_beta1=0.8,
        adam_beta2=0.95,
        adam_weight_decay=0.1,
        adam_epsilon=1e-6,
    )
    mine, theirs = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    ours = optimizers.optimizer(given, [mine], torch.device("cpu"))
    stock = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1, eps=1e-6)
    for step in range(3):
        for parameter, optimizer in ((mine, ours), (theirs, stock)):
            parameter.grad = torch.tensor([0.5, -0.1]) * (step + 1)
            optimizer.step()
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"use_8bit_adam": True}, "--use_8bit_adam needs bitsandbytes: pip install bitsandbytes"),
        ({"optimizer": "adamw8bit"}, "--optimizer adamw8bit needs bitsandbytes"),
        ({"optimizer": "lion"}, "--optimizer lion needs torch-optimi: pip install torch-optimi"),
        ({"weights_dtype": "bf16", "adam_beta2": 0.99}, "--weights_dtype bf16 needs torch-optimi"),
        ({"gradient_release": True, "max_grad_norm": 0.0}, "--gradient_release needs torch-optimi"),
    ],
)
def test_a_missing_package_is_one_line(
    values: dict[str, typing.Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the flag and the remedy; those that torch itself has need nothing."""
    monkeypatch.setattr(
        optimizers.importlib.util, "find_spec", lambda name: name == "torch" or None
    )
    with pytest.raises(UserError, match=words):
        optimizers.check(_config(tmp_path, **values))
    for name in ("adamw", "adafactor"):
        optimizers.check(_config(tmp_path, optimizer=name))


@pytest.mark.parametrize(
    ("values", "precision", "processes", "words"),
    [
        ({"weights_dtype": "bf16", "adam_beta2": 0.99}, "no", 1, "add --mixed_precision bf16"),
        ({"gradient_release": True, "max_grad_norm": 0.0}, "fp16", 1, "precision fp16"),
        ({"gradient_release": True, "max_grad_norm": 0.0}, "no", 2, "on 2 processes"),
    ],
)
def test_the_launchers_choice_is_checked(
    values: dict[str, typing.Any], precision: str, processes: int, words: str, tmp_path: Path
) -> None:
    """What the flags alone do not show."""
    given = _config(tmp_path, **values)
    with pytest.raises(UserError, match=words):
        launch_checks.check_launch(given, precision, processes)
    launch_checks.check_launch(given, "bf16", 1)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_other_adamw_is_the_same(decay: float, tmp_path: Path) -> None:
    """torch-optimi's in fp32, each weight updated in the backward pass, against torch's."""
    values = {"learning_rate": 1e-2, "adam_weight_decay": decay, "max_grad_norm": 0.0}
    mine, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 12)) for _ in range(2))
    plain = optimizers.optimizer(_config(tmp_path, **values), [theirs], torch.device("cpu"))
    config = _config(tmp_path, gradient_release=True, **values)
    ours = optimizers.optimizer(config, [mine], torch.device("cpu"))
    module = torch.nn.Module()
    module.weight = mine
    optimizers.release_gradients(module, ours)
    for step in range(5):
        torch.manual_seed(step)
        slope = torch.randn(12)
        (mine * slope).sum().backward()
        assert mine.grad is None
        theirs.grad = slope
        plain.step()
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_kahan_keeps_what_bf16_loses(tmp_path: Path) -> None:
    """Two thousand updates, each a four-hundredth of the last digit: rounded away one by one,
    they are all there with the compensation.
    """
    start = torch.ones(4)
    ends = {}
    for dtype, weights in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        given = _config(tmp_path, weights_dtype=dtype, learning_rate=1e-5, adam_beta2=0.99)
        weight = torch.nn.Parameter(start.to(weights))
        optimizer = optimizers.optimizer(given, [weight], torch.device("cpu"))
        for _ in range(2000):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        ends[dtype] = weight.detach().float()
    assert (1 - ends["fp32"]).min() > 0.019
    torch.testing.assert_close(ends["bf16"], ends["fp32"], rtol=0, atol=2**-8)
    # What plain rounding would do: one update is below half of the last digit.
    assert torch.equal(start.bfloat16() - 1e-5, start.bfloat16())


def test_the_second_decay_is_one_that_moves(tmp_path: Path) -> None:
    """The guide's 0.999; 0.99 for weights in bf16, which is told; the one that was named wins."""
    half = {"weights_dtype": "bf16"}
    cases = [({}, 0.999), (half, 0.99), (half | {"adam_beta2": 0.995}, 0.995)]
    for values, beta in cases:
        given = _config(tmp_path, **values)
        weight = torch.nn.Parameter(torch.zeros(2, dtype=adapters.DTYPES[given.weights_dtype]))
        made = optimizers.optimizer(given, [weight], torch.device("cpu"))
        assert (made.defaults.get("beta2") or made.defaults["betas"][1]) == beta
        assert bool(optimizers.beta2_lines(given)) == (values == half)
    assert not optimizers.beta2_lines(_config(tmp_path, weights_dtype="bf16", optimizer="lion"))


@pytest.mark.parametrize(
    ("values", "used"),
    [
        ({}, 0.999),
        ({"adam_beta2": 0.9}, 0.9),
        ({"weights_dtype": "bf16"}, 0.99),
        ({"use_8bit_adam": True}, 0.999),
        ({"optimizer": "lion"}, None),
        ({"optimizer": "adafactor"}, None),
    ],
)
def test_what_is_in_force_is_told_of_an_unset_second_decay(
    values: dict[str, typing.Any], used: float | None, tmp_path: Path
) -> None:
    """The number that is used, so that naming it is no change; none with an optimizer that has
    none, whatever an older checkpoint says of it.
    """
    plain = schema.public(_config(tmp_path, **values))
    assert optimizers.in_force(plain) == plain | {"adam_beta2": used}
    if not values.get("adam_beta2"):
        assert optimizers.in_force(plain | {"adam_beta2": used or 0.999}) == optimizers.in_force(
            plain
        )


@pytest.mark.parametrize(("beta", "falls"), [(0.99, True), (0.995, True), (0.999, False)])
def test_a_slow_second_moment_does_not_fall_in_bf16(beta: float, falls: bool) -> None:
    """Why --adam_beta2 above 0.995 is refused there: gradients become ten times smaller, the mean
    of their squares should become a hundred times smaller.
    """
    import optimi

    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(256, dtype=torch.bfloat16))
    made = optimi.AdamW([weight], lr=1e-4, betas=(0.9, beta), kahan_sum=True, triton=False)
    ends = []
    for size in (1.0, 0.1):
        for _ in range(1200):
            weight.grad = (size * torch.randn(256)).bfloat16()
            made.step()
        ends.append(made.state[weight]["exp_avg_sq"].float().mean().item())
    assert (ends[1] < 0.02 * ends[0]) == falls
    assert falls or ends[1] >= ends[0]
