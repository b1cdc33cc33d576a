"""The explicit list of what is trained."""

from __future__ import annotations

from wassily.adapt import trained_parameters
from wassily.mini import untrained as models


def test_all_of_the_prior_but_its_statistics() -> None:
    """In the order of the network, switched to training; the statistics stay frozen."""
    net = models.prior().requires_grad_(False)
    chosen = trained_parameters(net)
    every = [name for name, _ in net.named_parameters()]
    assert list(chosen) == [name for name in every if name not in ("clip_mean", "clip_std")]
    assert all(p.requires_grad for p in chosen.values())
    assert not net.clip_mean.requires_grad
    assert not net.clip_std.requires_grad


def test_all_of_the_decoder() -> None:
    """Every tensor, the very objects of the network."""
    net = models.unet().requires_grad_(False)
    chosen = trained_parameters(net)
    assert [id(p) for p in chosen.values()] == [id(p) for p in net.parameters()]
    assert all(p.requires_grad for p in net.parameters())
