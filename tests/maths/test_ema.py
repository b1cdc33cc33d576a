"""The moving average against diffusers' EMAModel."""

from __future__ import annotations

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from wassily.maths.ema import Ema, NoEma, decay_at, gamma_of, power_decay


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


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.2, 0.25])
def test_the_power_profile_in_closed_form(sigma_rel: float) -> None:
    """The products of beta(t) telescope: after T updates step tau weighs (tau^g - (tau - 1)^g) /
    T^g with g = gamma + 1, so no part of the start is left; their standard deviation is sigma_rel
    of T.
    """
    g, last = gamma_of(sigma_rel) + 1, 40
    weights = [(tau**g - (tau - 1) ** g) / last**g for tau in range(1, last + 1)]
    assert sum(weights) == pytest.approx(1)
    net = _net()
    ema = Ema(dict(net.named_parameters()), power_decay(sigma_rel))
    expected = {
        name: torch.zeros_like(p, dtype=torch.float64) for name, p in net.named_parameters()
    }
    for step in range(1, last + 1):
        _nudge(net, step)
        ema.update(step)
        for name, parameter in net.named_parameters():
            expected[name] += weights[step - 1] * parameter.detach()
    for name, average in ema.averages.items():
        torch.testing.assert_close(average.double(), expected[name], atol=1e-5, rtol=1e-5)
    many = torch.arange(1, 2001, dtype=torch.float64)
    share = many**g - (many - 1) ** g
    share /= share.sum()
    mean = (share * many).sum()
    width = (share * (many - mean) ** 2).sum().sqrt() / len(many)
    assert width == pytest.approx(sigma_rel, rel=0.01)


def test_gamma_by_hand_and_by_the_paper() -> None:
    """sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)): 1/12 at 0; and the two widths that
    the paper pairs with exponents, 6.94 for 0.10 and 16.97 for 0.05.
    """
    assert gamma_of(12**-0.5) == pytest.approx(0, abs=1e-6)
    assert gamma_of(0.10) == pytest.approx(6.94, abs=0.005)
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005)


def test_the_guides_decay_is_about_nine_hundredths_wide() -> None:
    """(1 + n) / (10 + n) is (1 - 1/t)^9 up to O(1/t^2): gamma = 8, sigma_rel = 3 / (10 sqrt 11)."""
    wide = power_decay(3 / (10 * 11**0.5))
    for step in (100, 1000, 10_000):
        assert 1 - decay_at(step) == pytest.approx(1 - wide(step), rel=6 / step)


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
