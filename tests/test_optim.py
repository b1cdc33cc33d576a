"""Schedules against diffusers' own stepped as the libraries step them; AdamW's settings."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
import torch
from diffusers.optimization import get_scheduler

from wassily import config as configs
from wassily import optim
from wassily.errors import UserError


def _config(folder: Path, **values: typing.Any) -> configs.DecoderConfig:
    return configs.DecoderConfig(train_data_dir=str(folder), **values)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("name", typing.get_args(configs.Schedule))
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
    ours = optim.learning_rate(given, steps)
    assert [ours(step) for step in range(steps)] == pytest.approx(expected, rel=1e-12, abs=1e-20)
    # A pure function: asking again, out of order, gives the same.
    assert ours(5) == pytest.approx(expected[5], rel=1e-12)


def test_there_are_six_schedules() -> None:
    """The guide's."""
    assert set(typing.get_args(configs.Schedule)) == {
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
    ours = optim.optimizer(given, [mine], torch.device("cpu"))
    stock = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1, eps=1e-6)
    for step in range(3):
        for parameter, optimizer in ((mine, ours), (theirs, stock)):
            parameter.grad = torch.tensor([0.5, -0.1]) * (step + 1)
            optimizer.step()
    assert torch.equal(mine, theirs)


def test_8bit_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the remedy."""
    monkeypatch.setattr(optim.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        optim.check_8bit()
