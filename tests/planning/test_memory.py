"""The memory of a pass: fake tensors against real ones, counted in two ways; and by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import PriorTransformer, UNet2DConditionModel
from torch import nn
from torch.utils.checkpoint import checkpoint

from wassily.config.training import DECODER, PRIOR
from wassily.maths import losses
from wassily.mini import untrained
from wassily.models import adapters, parts
from wassily.planning import memory


def _mid_prior() -> PriorTransformer:
    return PriorTransformer(
        num_attention_heads=4,
        attention_head_dim=32,
        num_layers=6,
        embedding_dim=64,
        num_embeddings=24,
        additional_embeddings=4,
    )


def _mid_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        in_channels=4,
        out_channels=8,
        down_block_types=("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 2),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=(*["SimpleCrossAttnUpBlock2D"] * 2, "ResnetUpsampleBlock2D"),
        block_out_channels=(32, 64, 96),
        layers_per_block=2,
        cross_attention_dim=48,
        attention_head_dim=16,
        encoder_hid_dim=64,
        encoder_hid_dim_type="image_proj",
        addition_embed_type="image",
        resnet_time_scale_shift="scale_shift",
    )


def _case(make: Callable[[], Any], count: int = 2) -> tuple[nn.Module, tuple[Any, ...]]:
    """A network's objective and a batch for it, on real tensors or, inside of `fake`, on others."""
    net = make()
    if isinstance(net, PriorTransformer):
        nn.init.ones_(net.clip_std)
        width, tokens = net.config.embedding_dim, net.config.num_embeddings
        batch = {
            "image_embeds": torch.randn(count, width),
            "text_embeds": torch.randn(count, width),
            "text_states": torch.randn(count, tokens, width),
            "text_mask": torch.ones(count, tokens, dtype=torch.bool),
        }
        noise = torch.randn(count, width)
        objective: nn.Module = losses.Prior(net, torch.linspace(0.99, 0.01, 1000))
    else:
        noise = torch.randn(count, 4, 16, 16)
        batch = {
            "latents": noise + 1,
            "image_embeds": torch.randn(count, net.config.encoder_hid_dim),
        }
        objective = losses.Decoder(net, torch.linspace(0.99, 0.01, 1000))
    net.requires_grad_(False)
    adapters.trained_parameters(net)
    return objective.train(), (batch, noise, torch.zeros(count, dtype=torch.int64))


def _saved(objective: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Bytes that autograd saves for the backward pass, each storage once, without what is there."""
    found: dict[int, torch.UntypedStorage] = {}
    batch, noise, t = inputs
    there = [*objective.parameters(), *objective.buffers(), *batch.values(), noise, t]

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = objective(batch, noise, t).mean()
    known = {tensor.untyped_storage()._cdata for tensor in there}
    assert loss.requires_grad
    return sum(s.nbytes() for key, s in found.items() if key not in known)


def _kept(objective: nn.Module, inputs: tuple[Any, ...]) -> int:
    batch, noise, t = inputs
    live = memory.Live([*objective.parameters(), *objective.buffers(), *batch.values(), noise, t])
    with live:
        loss = objective(batch, noise, t).mean()
    assert loss.requires_grad
    return live.now.total()


CASES = {
    "tiny prior": untrained.prior,
    "prior": _mid_prior,
    "tiny decoder": untrained.unet,
    "decoder": _mid_unet,
}
cases = pytest.mark.parametrize("make", CASES.values(), ids=CASES)


@cases
def test_fake_tensors_keep_what_real_ones_keep(make: Callable[[], Any]) -> None:
    """To the byte, counted by saved-tensor hooks and by what lives; there the loss is one more."""
    real = _case(make)
    with memory.fake():
        fake = _case(make)
        counted = _saved(*fake), _kept(*fake)
    saved = _saved(*real)
    assert saved > 400_000
    assert counted == (saved, saved + 4)
    assert _kept(*real) == saved + 4


@cases
def test_a_whole_step_of_fake_tensors_is_a_real_one(make: Callable[[], Any]) -> None:
    """Forward and backward at their fullest; the largest gradients alone are a lower bound."""
    real = _case(make)
    with memory.fake():
        objective, inputs = _case(make)
        alone, held = memory.step(objective, *inputs), memory.step(objective, *inputs, held=True)
    assert alone == memory.step(real[0], *real[1])
    gradients = memory.bytes_of(p for p in real[0].parameters() if p.requires_grad)
    assert held["gradients"] == gradients
    assert alone.total() <= held.total() <= alone.total() + gradients
    assert all(p.grad is None for p in real[0].parameters())


@cases
@pytest.mark.parametrize("reduced", [False, True])
def test_a_bound_without_the_passes(make: Callable[[], Any], reduced: bool) -> None:
    """Above the count of a whole step with an average beside it, and within ten times that."""
    with torch.device("meta"):
        objective, inputs = _case(make, 8)
        most = memory.bound(objective.to("meta"), *inputs) - memory.overhead(0)
    with memory.fake():
        objective, inputs = _case(make, 8)
        passed = memory.step(objective, *inputs, held=True, reduced=reduced).total()
    standing = 4 * memory.bytes_of(p for p in objective.parameters())
    assert passed + standing < most < 10 * (passed + standing)


def test_recomputing_and_releasing_need_less() -> None:
    """Gradient checkpointing keeps less of the forward pass, release no gradients."""
    with memory.fake():
        objective, inputs = _case(_mid_prior, 16)
        plain = memory.step(objective, *inputs, held=True)
        released = memory.step(objective, *inputs, release=True)
        objective.recompute = functools.partial(checkpoint, use_reentrant=False)
        recomputed = memory.step(objective, *inputs, held=True)
    assert recomputed.total() < 0.5 * plain.total()
    assert released["gradients"] == 0 and released.total() < plain.total()


def test_autocast_halves_what_is_kept_and_copies_the_weights() -> None:
    """A large batch is about half as large in 16 bits; norms stay in fp32. A small one has the
    16-bit copies of the weights beside it.
    """
    with memory.fake():
        objective, inputs = _case(_mid_prior, 64)
        full = memory.step(objective, *inputs, held=True)
        half = memory.step(objective, *inputs, held=True, reduced=True)
        objective, inputs = _case(_mid_prior, 1)
        small = memory.step(objective, *inputs, held=True, reduced=True)
        matrices = sum(p.numel() for p in objective.parameters() if p.ndim == 2)
    assert 0.5 < half["activations"] / full["activations"] < 0.85
    assert small["activations"] + small["workspace"] > 1.9 * matrices


def test_the_released_model_has_the_sizes_it_has() -> None:
    """Numbers of parameters in millions, from the configurations that come with the package."""
    sizes = {"prior": 1026.2, "image_encoder": 1844.9, "text_encoder": 694.7}
    sizes |= {"unet": 1253.1, "movq": 67.8}
    with memory.fake():
        for role, millions in sizes.items():
            network = parts.skeleton(role, {"prior": PRIOR, "decoder": DECODER}[_home(role)])
            count = sum(p.numel() for p in network.parameters())
            assert round(count / 1e6, 1) == millions, role


def _home(role: str) -> str:
    return parts.PARTS[role].home


def test_a_frozen_pass_by_hand() -> None:
    """Two matrix products: the first's result is there while the second's is made."""
    with memory.fake():
        network = nn.Sequential(nn.Linear(10, 100, bias=False), nn.Linear(100, 7, bias=False))
        x = torch.zeros(3, 10)
        assert memory.forward(network, lambda: network(x)) == 4 * 3 * (100 + 7)


def test_states_by_hand() -> None:
    """Two fp32 moments; or two bytes and a scale for 256 numbers each."""
    trained = [torch.zeros(256, 4), torch.zeros(512)]
    assert memory.state_bytes("adamw", trained) == 8 * 1536
    assert memory.state_bytes("adamw8bit", trained) == 2 * (1536 + 4 * 1536 // 256)


def test_this_machine_has_memory() -> None:
    """Positive, and no more than there is."""
    free = memory.available()
    assert free is None or 0 < free < 2**50
