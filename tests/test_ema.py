"""The moving average against diffusers' EMAModel."""

from __future__ import annotations

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from wassily.ema import Ema, NoEma, decay_at


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def _nudge(net: nn.Module, step: int) -> None:
    torch.manual_seed(100 + step)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_twenty_updates_equal_diffusers() -> None:
    """EMAModel with its defaults, as the guide's scripts make it; after every update."""
    net = _net()
    ours, theirs = Ema(dict(net.named_parameters())), EMAModel(net.parameters())
    for step in range(1, 21):
        _nudge(net, step)
        ours.update(step)
        theirs.step(net.parameters())
        for mine, shadow in zip(ours.averages.values(), theirs.shadow_params, strict=True):
            torch.testing.assert_close(mine, shadow, atol=1e-6, rtol=1e-5)
    moved = [
        (a - p).abs().max() for a, p in zip(ours.averages.values(), net.parameters(), strict=True)
    ]
    assert min(moved) > 0.01  # an average, not a copy


@pytest.mark.parametrize("step", [1, 2, 3, 10, 100, 89_990, 200_000])
def test_decay_equals_diffusers(step: int) -> None:
    """Also far along, where the most is reached."""
    assert decay_at(step) == pytest.approx(EMAModel([torch.zeros(1)]).get_decay(step), abs=1e-12)


def test_applied_swaps_and_restores_the_bits() -> None:
    """Averages inside, what was there after; also after an exception, and nested reads agree."""
    net = _net()
    ema = Ema(dict(net.named_parameters()))
    for step in range(1, 4):
        _nudge(net, step)
        ema.update(step)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    averages = {name: a.clone() for name, a in ema.averages.items()}
    with pytest.raises(RuntimeError, match="stop"), ema.applied():
        for name, parameter in net.named_parameters():
            assert torch.equal(parameter, averages[name])
        raise RuntimeError("stop")
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name])
        assert torch.equal(ema.averages[name], averages[name])


def test_load_takes_all_or_complains() -> None:
    """By name; a missing name is a KeyError; the loaded tensors are copied, not kept."""
    net = _net()
    ema = Ema(dict(net.named_parameters()))
    given = {name: torch.full_like(p, 3.0) for name, p in net.named_parameters()}
    ema.load(given)
    given["0.weight"].zero_()
    assert all((average == 3).all() for average in ema.averages.values())
    with pytest.raises(KeyError, match=r"1\.bias"):
        ema.load({name: value for name, value in given.items() if name != "1.bias"})


def test_no_ema_leaves_the_weights() -> None:
    """The null object."""
    net, ema = _net(), NoEma()
    before = [p.detach().clone() for p in net.parameters()]
    ema.update(1)
    with ema.applied():
        assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
