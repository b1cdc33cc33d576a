"""The parts of the models: their classes, their precision, and one-line errors."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import diffusers
import pytest
import torch
from torch import nn

from wassily.errors import UserError
from wassily.mini.untrained import Tiny
from wassily.models import parts


@pytest.mark.parametrize("role", parts.PARTS)
def test_every_part_loads_as_its_class(role: str, tiny: Tiny) -> None:
    """On the CPU; networks in eval mode and frozen; the bits are those in the folder."""
    part = parts.PARTS[role]
    loaded = parts.load(role, str(getattr(tiny, part.home)))
    assert isinstance(loaded, part.kind)
    if isinstance(loaded, nn.Module):
        assert not loaded.training
        assert all(not p.requires_grad and p.dtype == torch.float32 for p in loaded.parameters())
        again = part.kind.from_pretrained(getattr(tiny, part.home) / part.folder)
        assert parts.fingerprint(loaded) == parts.fingerprint(again)


@pytest.mark.parametrize("role", ["prior", "image_encoder", "text_encoder", "unet", "movq"])
def test_dtype_reaches_both_libraries(role: str, tiny: Tiny) -> None:
    """diffusers and transformers call it differently."""
    part = parts.PARTS[role]
    loaded = parts.load(role, str(getattr(tiny, part.home)), torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(("home", "role"), [("prior", "prior"), ("decoder", "movq")])
@pytest.mark.parametrize("damage", ["cut", "gone", "config", "pickle"])
def test_a_damaged_part_is_one_line(
    damage: str, home: str, role: str, tiny: Tiny, tmp_path: Path
) -> None:
    """Cut weights, no weights, a torn config; a pickle is never opened."""
    folder = tmp_path / home
    shutil.copytree(getattr(tiny, home), folder)
    weights = next((folder / role).glob("*.safetensors"))
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "gone":
        weights.unlink()
    elif damage == "config":
        (folder / role / "config.json").write_text("{")
    else:
        weights.unlink()
        torch.save({}, folder / role / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match=f"cannot load its {role}") as caught:
        parts.load(role, str(folder))
    assert len(str(caught.value).splitlines()) == 1


def test_a_hub_name_offline_is_one_line() -> None:
    """No network: the message names the repository and the part."""
    with pytest.raises(UserError, match="nobody/nothing: cannot load its prior") as caught:
        parts.load("prior", "nobody/nothing")
    assert len(str(caught.value).splitlines()) == 1


def test_a_hub_name_brings_no_warning_of_the_libraries() -> None:
    """diffusers hands the hub an argument that this warns of, which no user can change."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for load in (parts.load, parts.load_config):
            with pytest.raises(UserError, match="nobody/nothing"):
                load("unet", "nobody/nothing")
    assert not [str(w.message) for w in found if "symlinks" in str(w.message)]


def test_the_name_of_a_dtype_is_the_one_that_a_version_takes(tiny: Tiny) -> None:
    """At both ends of the supported versions; the installed ones take it, for the dtype is so."""
    for library, version, name in (
        ("transformers", "4.56.2", "dtype"),
        ("transformers", "5.23.0", "dtype"),
        ("diffusers", "0.35.2", "torch_dtype"),
        ("diffusers", "0.40.0", "dtype"),
        ("diffusers", "1.0.0.dev0", "dtype"),
    ):
        assert parts.dtype_name(library, version) == name, (library, version)
    for role in ("prior", "text_encoder", "unet"):
        repository = str(getattr(tiny, parts.PARTS[role].home))
        assert parts.load(role, repository, torch.bfloat16).dtype == torch.bfloat16


def test_load_network_takes_a_checkpoints_folder(tiny: Tiny, tmp_path: Path) -> None:
    """The same bits as the part; a missing folder is one line."""
    found = parts.load_network(tiny.decoder / "unet", "unet")
    assert isinstance(found, diffusers.UNet2DConditionModel)
    assert parts.fingerprint(found) == parts.fingerprint(parts.load("unet", str(tiny.decoder)))
    with pytest.raises(UserError, match="no such network"):
        parts.load_network(tmp_path / "none", "prior")


def test_prior_alpha_bars_are_the_squared_cosine() -> None:
    """betas_t = 1 - f(t + 1) / f(t), at most 0.999, f(s) = cos^2((s + 0.008) / 1.008 pi / 2)
    (arXiv 2102.09672, eq. 17), as the prior's own UnCLIPScheduler.
    """
    s = torch.arange(1001, dtype=torch.float64) / 1000
    f = torch.cos((s + 0.008) / 1.008 * torch.pi / 2) ** 2
    expected = torch.cumprod(1 - (1 - f[1:] / f[:-1]).clamp(max=0.999), 0)
    ours = parts.prior_alpha_bars()
    torch.testing.assert_close(ours.double(), expected, atol=1e-5, rtol=0)
    stock = diffusers.UnCLIPScheduler(num_train_timesteps=1000).alphas_cumprod
    torch.testing.assert_close(ours, stock, atol=1e-6, rtol=0)


# ---------------------------------------------------------------- fingerprint


class _Net(nn.Module):
    def __init__(self, *values: torch.Tensor, names: str = "abc"):
        super().__init__()
        for name, value in zip(names, values, strict=False):
            self.register_buffer(name, value.clone())


def test_fingerprint_sees_one_bit() -> None:
    """In any byte of a tensor, the last of an odd number of bf16 values too."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        base = torch.arange(7, dtype=dtype)
        first = parts.fingerprint(_Net(base))
        assert parts.fingerprint(_Net(base)) == first
        for byte in range(base.numel() * base.element_size()):
            raw = base.clone().view(torch.uint8)
            raw[byte] ^= 1
            assert parts.fingerprint(_Net(raw.view(dtype))) != first, (dtype, byte)


def test_fingerprint_sees_names_shapes_and_types() -> None:
    """The same numbers under another name, in another shape or type; not the order of members."""
    a, b = torch.arange(4.0), torch.ones(2, 2)
    prints = [
        parts.fingerprint(_Net(a, b)),
        parts.fingerprint(_Net(a, b, names="xb")),
        parts.fingerprint(_Net(a.reshape(2, 2), b)),
        parts.fingerprint(_Net(a.view(torch.int32), b)),
        parts.fingerprint(_Net(a)),
    ]
    assert len(set(prints)) == len(prints)
    assert parts.fingerprint(_Net(b, a, names="ba")) == prints[0]
