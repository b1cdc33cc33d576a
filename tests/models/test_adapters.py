"""The explicit list of what is trained; adapters against peft, diffusers and their formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from wassily.errors import UserError
from wassily.maths import unpadded_prior
from wassily.mini import untrained as models
from wassily.models import adapters
from wassily.models.adapters import Lora, trained_parameters
from wassily.models.names import ADAPTER as FILE


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


# ---------------------------------------------------------------- adapters

NETS = {"prior": models.prior, "unet": models.unet}
FORMS = {"lora": {}, "dora": {"use_dora": True}, "rank 2": {"rank": 2, "alpha": 6}}


@pytest.fixture(params=NETS)
def role(request: pytest.FixtureRequest) -> str:
    """Both networks, one after the other."""
    return request.param


def _net(role: str) -> Any:
    torch.manual_seed(0)
    return NETS[role]().eval().requires_grad_(False)


def _adapted(role: str, dtype: torch.dtype = torch.float32, seed: int = 3, **form: Any) -> Any:
    net, lora = _net(role), Lora(role, **form)
    lora.attach(net, dtype, seed)
    return net


def _trained(net: Any) -> Any:
    """As after some steps: no adapter's value is where it began."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained_parameters(net).values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net


def _output(net: Any, role: str) -> torch.Tensor:
    """What a network makes of fixed inputs; the prior without its padding, as it is trained."""
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    width = models.EMBEDDING
    with torch.no_grad():
        if role == "prior":
            mask = torch.arange(9)[None] < torch.tensor([4, 9])[:, None]
            given = (draw(2, width), torch.tensor([5, 700]), draw(2, width), draw(2, 9, width))
            return unpadded_prior.predict(net, *given, mask)
        condition = {"image_embeds": draw(2, width)}
        noisy, t = draw(2, 4, 8, 8), torch.tensor([5, 700])
        return net(noisy, t, None, added_cond_kwargs=condition).sample


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_at_first_nothing_has_changed(role: str, form: str, dtype: torch.dtype) -> None:
    """To the bit, also where the base is kept in the dtype in which autocast multiplies."""
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        before = _output(_net(role), role)
        assert torch.equal(_output(_adapted(role, dtype, **FORMS[form]), role), before)
        assert not torch.equal(
            _output(_trained(_adapted(role, dtype, **FORMS[form])), role), before
        )


def test_the_adapter_is_the_list_and_the_base_is_frozen(role: str) -> None:
    """A and B of each attention layer, of the added keys and values too, in fp32 whatever the
    base is kept in; the statistics and norms stay in fp32 as well.
    """
    net = _adapted(role, torch.bfloat16)
    chosen = trained_parameters(net)
    layers = {name.partition(".lora_")[0] for name in chosen}
    plain = {n for n, m in _net(role).named_modules() if isinstance(m, torch.nn.Linear)}
    assert layers == {
        n for n in plain if any(f".{n}".endswith(f".{t}") for t in adapters.ATTENTION)
    }
    assert any(name.endswith("add_k_proj") for name in layers) == (role == "unet")
    assert len(chosen) == 2 * len(layers)
    assert all(p.dtype == torch.float32 and p.requires_grad for p in chosen.values())
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad == (name in chosen), name
        short = parameter.dtype == torch.bfloat16
        module = net.get_submodule(name.rpartition(".")[0])
        plain_layer = isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and name not in chosen
        assert short == plain_layer, name


def test_the_first_values_follow_from_the_seed(role: str) -> None:
    """And torch's own generator is where it was."""
    one, two, other = (trained_parameters(_adapted(role, seed=seed)) for seed in (3, 3, 4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    net = _net(role)
    state = torch.random.get_rng_state()
    Lora(role).attach(net, torch.float32, 3)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("form", FORMS)
def test_the_file_is_pefts(role: str, form: str, tmp_path: Path) -> None:
    """The tensors are those of peft's own function, by its names."""
    from peft import get_peft_model_state_dict

    net = _trained(_adapted(role, **FORMS[form]))
    Lora(role, **FORMS[form]).save(net, tmp_path)
    saved, expected = load_file(tmp_path / FILE), get_peft_model_state_dict(net)
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in saved)


@pytest.mark.parametrize("form", FORMS)
def test_it_loads_in_plain_diffusers(role: str, form: str, tmp_path: Path) -> None:
    """Without our code, from the folder and from the file: the same output to the bit."""
    net = _trained(_adapted(role, **FORMS[form]))
    Lora(role, **FORMS[form]).save(net, tmp_path)
    expected = _output(net.eval(), role)
    plain = _net(role)
    plain.load_lora_adapter(tmp_path, weight_name=FILE, prefix=None)
    assert torch.equal(_output(plain.eval(), role), expected)
    plain = _net(role)
    plain.load_lora_adapter(tmp_path / FILE, weight_name=FILE, use_safetensors=True, prefix=None)
    assert torch.equal(_output(plain.eval(), role), expected)


def test_the_header_tells(role: str, tmp_path: Path) -> None:
    """Rank, alpha, the notes, and what diffusers reads."""
    lora = Lora(role, rank=2, alpha=6, dropout=0.5, notes={"base": "me/base"})
    net = _net(role)
    lora.attach(net, torch.float32, 0)
    lora.save(net, tmp_path)
    with safe_open(tmp_path / FILE, "pt") as file:
        notes = file.metadata()
    assert (notes["rank"], notes["alpha"], notes["base"]) == ("2", "6", "me/base")
    assert json.loads(notes["lora_adapter_metadata"])["lora_dropout"] == 0.5


def test_it_comes_back(role: str, tmp_path: Path) -> None:
    """Into a network whose adapter began elsewhere: the same bits; averages likewise."""
    lora, net = Lora(role), _trained(_adapted(role))
    lora.save(net, tmp_path)
    lora.save(net, tmp_path, averaged=True)
    other = _adapted(role, seed=99)
    lora.load(other, tmp_path)
    averages = lora.averages(other, tmp_path)
    for name, parameter in trained_parameters(net).items():
        assert torch.equal(trained_parameters(other)[name], parameter)
        assert torch.equal(averages[name], parameter)


def test_a_file_that_does_not_fit_is_refused(role: str, tmp_path: Path) -> None:
    """Cut, of another rank, of other layers, of the other network."""
    Lora(role).save(_adapted(role), tmp_path)
    for form, message in (
        ({"rank": 2}, "has shape"),
        ({"targets": ("to_q",)}, "has an unknown"),
    ):
        with pytest.raises(UserError, match=message):
            Lora(role, **form).load(_adapted(role, **form), tmp_path)
    few, more = Lora(role, targets=("to_q",)), Lora(role, targets=("to_q", "to_k"))
    (tmp_path / "few").mkdir()
    few.save(_adapted(role, targets=few.targets), tmp_path / "few")
    with pytest.raises(UserError, match=r"lacks .*to_k"):
        more.load(_adapted(role, targets=more.targets), tmp_path / "few")
    with pytest.raises(UserError, match="no adapter for this network"):
        adapters.fold(_net("unet" if role == "prior" else "prior"), tmp_path / FILE)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:100])
    for read in (lambda: Lora(role).load(_adapted(role), tmp_path), lambda: _fold(role, tmp_path)):
        with pytest.raises(UserError, match=FILE):
            read()


def _fold(role: str, folder: Path, scale: float = 1.0) -> Any:
    net = _net(role)
    adapters.fold(net, folder / FILE, scale)
    return net


def test_an_adapter_of_the_convolutions(tmp_path: Path) -> None:
    """The decoder's own, where a style is: plain diffusers reads it, and folding does the same."""
    form = {"targets": ("to_q", "conv2", "conv_in", "conv_out", "conv_shortcut")}
    net = _trained(_adapted("unet", **form))
    Lora("unet", **form).save(net, tmp_path)
    layers = {name.partition(".lora_")[0].rpartition(".")[2] for name in load_file(tmp_path / FILE)}
    assert {"conv2", "conv_in", "conv_out"} <= layers
    expected = _output(net.eval(), "unet")
    assert (expected - _output(_net("unet"), "unet")).abs().mean() > 0.01
    plain = _net("unet")
    plain.load_lora_adapter(tmp_path, weight_name=FILE, prefix=None)
    assert torch.equal(_output(plain.eval(), "unet"), expected)
    folded = _output(_fold("unet", tmp_path), "unet")
    torch.testing.assert_close(folded, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_folding_is_what_the_adapter_does(role: str, form: str, tmp_path: Path) -> None:
    """W + scale * alpha / rank * B A, by hand; the network is a stock one again."""
    lora, net = Lora(role, **FORMS[form]), _trained(_adapted(role, **FORMS[form]))
    lora.save(net, tmp_path)
    base, tensors = _net(role).state_dict(), load_file(tmp_path / FILE)
    for scale in (1.0, 0.7, 0.0):
        folded = _fold(role, tmp_path, scale).state_dict()
        assert folded.keys() == base.keys()
        for name, weight in base.items():
            layer = name.removesuffix(".weight")
            expected = weight
            if f"{layer}.lora_A.weight" in tensors:
                a, b = tensors[f"{layer}.lora_A.weight"], tensors[f"{layer}.lora_B.weight"]
                expected = weight + scale * lora.alpha / lora.rank * b @ a
                if lora.use_dora:
                    length = expected.norm(dim=1, keepdim=True)
                    expected = (
                        tensors[f"{layer}.lora_magnitude_vector"][:, None] * expected / length
                    )
            torch.testing.assert_close(folded[name], expected, atol=1e-6, rtol=1e-5)
    expected = _output(net.eval(), role)
    torch.testing.assert_close(_output(_fold(role, tmp_path), role), expected, atol=1e-5, rtol=1e-5)


def test_targets_that_are_not_there_are_named(role: str) -> None:
    """With those that are; a part of a name is not its end."""
    for target in ("to_x", "o_q", "lora"):
        with pytest.raises(UserError, match=f"--lora_targets {target}: .*to_out.0, to_q"):
            adapters.check_targets(_net(role), ("to_q", target))
    adapters.check_targets(_net(role), ("to_q", "to_out.0"))
