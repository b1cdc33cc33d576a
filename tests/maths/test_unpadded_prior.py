"""The unpadded forward pass against the stock module's, values and gradients."""

from __future__ import annotations

import functools
from typing import Any

import diffusers
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from wassily.maths import unpadded_prior
from wassily.mini import untrained as models
from wassily.models.adapters import trained_parameters

RECOMPUTE = functools.partial(checkpoint, use_reentrant=False)
LENGTHS = {"mixed": [3, 11, 7, 1], "one": [5], "full": [models.TOKENS, 4], "alike": [6, 6]}


@pytest.fixture(scope="module")
def net() -> diffusers.PriorTransformer:
    """A prior whose positional embedding is not zero."""
    torch.manual_seed(0)
    return models.prior()


def _inputs(lengths: list[int]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    count, width = len(lengths), models.EMBEDDING
    mask = torch.arange(models.TOKENS)[None] < torch.tensor(lengths)[:, None]
    return {
        "noisy": torch.randn(count, width, generator=generator),
        "t": torch.randint(1000, (count,), generator=generator),
        "text_embeds": torch.randn(count, width, generator=generator),
        "text_states": torch.randn(count, models.TOKENS, width, generator=generator),
        "mask": mask,
    }


def _stock(net: diffusers.PriorTransformer, given: dict[str, torch.Tensor]) -> torch.Tensor:
    return net(
        given["noisy"],
        timestep=given["t"],
        proj_embedding=given["text_embeds"],
        encoder_hidden_states=given["text_states"],
        attention_mask=given["mask"],
    ).predicted_image_embedding


def _ours(
    net: diffusers.PriorTransformer, given: dict[str, torch.Tensor], recompute: Any = None
) -> torch.Tensor:
    longest = int(given["mask"].sum(1).max())
    cut = {"text_states": given["text_states"][:, :longest], "mask": given["mask"][:, :longest]}
    return unpadded_prior.predict(net, **(given | cut), recompute=recompute)


def _gradients(net: diffusers.PriorTransformer, output: torch.Tensor) -> dict[str, torch.Tensor]:
    parameters = trained_parameters(net)
    found = torch.autograd.grad(output.square().sum(), list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize("name", LENGTHS)
def test_equals_the_stock_forward(net: diffusers.PriorTransformer, name: str) -> None:
    """To 1e-5 in fp32, and not by being constant: the rows differ."""
    given = _inputs(LENGTHS[name])
    expected = _stock(net, given)
    torch.testing.assert_close(_ours(net, given), expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.01


@pytest.mark.parametrize("name", LENGTHS)
def test_gradients_equal(net: diffusers.PriorTransformer, name: str) -> None:
    """Of every trained parameter; the positional rows of the left-out padding get exactly none."""
    given = _inputs(LENGTHS[name])
    ours, stock = _gradients(net, _ours(net, given)), _gradients(net, _stock(net, given))
    for key, expected in stock.items():
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(ours[key], expected, atol=1e-5 * scale, rtol=0, msg=key)
        assert expected.abs().max() > 0, key


@pytest.mark.parametrize("name", LENGTHS)
def test_recompute_changes_nothing(net: diffusers.PriorTransformer, name: str) -> None:
    """Values and gradients to the bit: the same operations, run twice."""
    given = _inputs(LENGTHS[name])
    plain, again = (
        _ours(net, given),
        _ours(net, given, functools.partial(checkpoint, use_reentrant=False)),
    )
    assert torch.equal(plain, again)
    one, two = _gradients(net, plain), _gradients(net, again)
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_recompute_keeps_fewer_activations(net: diffusers.PriorTransformer) -> None:
    """Else the flag would be declared and ignored: fewer bytes are saved for the backward pass."""

    def saved(recompute: Any) -> int:
        sizes: list[int] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            _ours(net, _inputs(LENGTHS["mixed"]), recompute)
        return sum(sizes)

    trained_parameters(net)
    assert saved(RECOMPUTE) < 0.5 * saved(None)


def test_padding_has_no_influence(net: diffusers.PriorTransformer) -> None:
    """Invariant: what stands in masked text states cannot matter."""
    given = _inputs(LENGTHS["mixed"])
    other = dict(given)
    noise = torch.randn_like(given["text_states"])
    other["text_states"] = torch.where(given["mask"][..., None], given["text_states"], noise)
    torch.testing.assert_close(_ours(net, given), _ours(net, other), atol=1e-6, rtol=0)


def test_examples_do_not_see_each_other(net: diffusers.PriorTransformer) -> None:
    """Invariant: an example of a batch alone gives what it gives beside longer ones."""
    given = _inputs(LENGTHS["mixed"])
    together = _ours(net, given)
    for i in range(len(together)):
        alone = _ours(net, {key: value[i : i + 1] for key, value in given.items()})
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("length", "padded"), [(1, 16), (16, 16), (17, 32), (70, 77), (77, 77)])
def test_evened(length: int, padded: int) -> None:
    """To the next multiple of 16, at most the tokens there are; what is added is masked."""
    states, mask = torch.randn(2, length, 4), torch.ones(2, length, dtype=torch.bool)
    batch = unpadded_prior.evened({"text_states": states, "text_mask": mask, "t": states}, 77)
    assert batch["text_states"].shape == (2, padded, 4) and batch["t"] is states
    assert torch.equal(batch["text_states"][:, :length], states)
    assert batch["text_mask"].sum(1).tolist() == [length] * 2


@pytest.mark.parametrize("name", LENGTHS)
def test_evened_is_the_same(net: diffusers.PriorTransformer, name: str) -> None:
    """What the network gives, to rounding."""
    given = _inputs(LENGTHS[name])
    longest = int(given["mask"].sum(1).max())
    cut = {
        "text_states": given["text_states"][:, :longest],
        "text_mask": given["mask"][:, :longest],
    }
    even = unpadded_prior.evened(cut, models.TOKENS)
    more = {"text_states": even["text_states"], "mask": even["text_mask"]}
    found = unpadded_prior.predict(net, **(given | more))
    torch.testing.assert_close(found, _ours(net, given), atol=1e-5, rtol=0)
