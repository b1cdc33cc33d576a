"""A network with its loss, as a config asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from wassily.config.training import DecoderConfig, PriorConfig, TrainConfig
from wassily.errors import UserError
from wassily.mini.untrained import SIDE, Tiny
from wassily.models.trainable import Trainable, make_trainable


def _config(cls: type, tiny: Tiny, folder: Path, **values: Any) -> Any:
    base = {
        "pretrained_prior_model_name_or_path": str(tiny.prior),
        "pretrained_decoder_model_name_or_path": str(tiny.decoder),
        "train_data_dir": str(folder),
        "resolution": SIDE,
    }
    return cls(**(base | values))


def _trainable(config: TrainConfig, tiny: Tiny) -> Trainable:
    return make_trainable(config, {"prior": str(tiny.prior), "decoder": str(tiny.decoder)})


@pytest.mark.parametrize("cls", [PriorConfig, DecoderConfig])
def test_settings_reach_the_kit(cls: type, tiny: Tiny, photos: Path) -> None:
    """Min-SNR, and gradient checkpointing of both networks."""
    given = {"snr_gamma": 5.0, "gradient_checkpointing": True}
    trainable = _trainable(_config(cls, tiny, photos, **given), tiny)
    assert trainable.objective.snr_gamma == 5.0
    if cls is PriorConfig:
        assert trainable.objective.recompute is not None
    else:
        assert trainable.net.is_gradient_checkpointing
    plain = _trainable(_config(cls, tiny, photos), tiny)
    assert plain.objective.snr_gamma is None
    assert not getattr(plain.objective, "recompute", False)
    assert not plain.net.is_gradient_checkpointing


def test_a_resolution_that_the_model_cannot(tiny: Tiny, photos: Path) -> None:
    """The MoVQ's factor is known only when it is loaded; 8 and 40 are multiples of 4."""
    _trainable(_config(DecoderConfig, tiny, photos, resolution=40), tiny)
    trainable = _config(DecoderConfig, tiny, photos)
    object.__setattr__(trainable, "resolution", 42)
    with pytest.raises(UserError, match="--resolution: 42 is not a multiple of 4"):
        _trainable(trainable, tiny)


def test_the_decoder_lies_in_memory_as_its_convolutions_read(tiny: Tiny, tmp_path: Path) -> None:
    """channels_last, with the loss and the gradients of the usual order; a file of it is the same
    to the byte.
    """
    config = _config(DecoderConfig, tiny, tmp_path)
    trainable, usual = _trainable(config, tiny), _trainable(config, tiny)
    usual.net.to(memory_format=torch.contiguous_format)
    kernel = trainable.net.conv_in.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous()
    latents = torch.randn(2, *trainable.noise_shape((SIDE, SIDE)))
    batch = {
        "latents": latents,
        "image_embeds": torch.randn(2, trainable.net.config.encoder_hid_dim),
    }
    given = (batch, torch.randn_like(latents), torch.tensor([10, 900]))
    losses = []
    for one in (trainable, usual):
        one.net.requires_grad_(True)
        losses.append(one.objective(*given))
        losses[-1].sum().backward()
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)
    for (name, p), q in zip(trainable.net.named_parameters(), usual.net.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5, msg=name)
    for number, one in enumerate((trainable, usual)):
        one.net.save_pretrained(tmp_path / str(number))
    name = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()
