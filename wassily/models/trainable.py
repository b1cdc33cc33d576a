"""A network with its loss: the prior and the decoder."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from wassily.config import training
from wassily.config.training import TrainConfig
from wassily.errors import UserError
from wassily.maths import losses, unpadded_prior
from wassily.maths.losses import Batch
from wassily.models import parts

Load = Callable[..., Any]  # as models.load


@dataclass(frozen=True)
class Trainable:
    """What one network brings to the loop; `noise_shape` is of a picture of (width, height)."""

    net: nn.Module
    objective: losses.Objective
    noise_shape: Callable[[tuple[int, int]], tuple[int, ...]]
    even: Callable[[Batch], Batch] = dict  # to one of fewer shapes, with the same loss


def prior_trainable(
    config: training.PriorConfig, repositories: dict[str, str], load: Load
) -> Trainable:
    """The prior and its objective."""
    net = load("prior", repositories["prior"], cache_dir=config.cache_dir)
    alpha_bars, recompute = parts.prior_alpha_bars(), _recompute(config, net)
    objective = losses.Prior(net, alpha_bars, "sample", config.snr_gamma, recompute)
    even = functools.partial(unpadded_prior.evened, most=net.config.num_embeddings)
    return Trainable(net, objective, lambda size: (net.config.embedding_dim,), even)


def decoder_trainable(
    config: training.DecoderConfig, repositories: dict[str, str], load: Load
) -> Trainable:
    """The decoder and its objective, on the noise schedule of its repository."""
    repository = repositories["decoder"]
    net = load("unet", repository, cache_dir=config.cache_dir)
    scheduler = load("scheduler", repository, cache_dir=config.cache_dir)
    if training.name(config) != "adamw8bit":  # turns them back: a resume would begin otherwise
        _channels_last(net)
    factor = latent_factor(config, repository)
    if recompute := _recompute(config, net):
        net.enable_gradient_checkpointing(recompute)
    schedule, weights = scheduler.alphas_cumprod, (config.snr_gamma, config.variance_loss)
    objective = losses.Decoder(net, schedule, scheduler.config.prediction_type, *weights)
    channels = net.config.in_channels
    return Trainable(net, objective, lambda size: (channels, size[1] // factor, size[0] // factor))


def _recompute(config: TrainConfig, net: nn.Module) -> Callable[..., Any] | None:
    """Calls a block for gradient checkpointing, if that is wished; with the same dropout twice."""
    if not config.gradient_checkpointing:
        return None
    drops = has_dropout(net) or bool(config.lora and config.lora_dropout)
    return functools.partial(checkpoint, use_reentrant=False, preserve_rng_state=drops)


def _channels_last(net: nn.Module) -> None:
    """Weights as convolutions read them; the same numbers."""
    for weight in net.parameters():
        if weight.ndim == 4:  # one by one: as a whole, a fake network cannot be moved
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def make_trainable(
    config: TrainConfig, repositories: dict[str, str], load: Load = parts.load
) -> Trainable:
    """The network that a config trains with its loss, parts by `load` (or `parts.skeleton`)."""
    if isinstance(config, training.PriorConfig):
        return prior_trainable(config, repositories, load)
    assert isinstance(config, training.DecoderConfig)
    return decoder_trainable(config, repositories, load)


def latent_factor(config: TrainConfig, repository: str) -> int:
    """Pixels to a latent. Raises UserError if the configured resolution is no multiple of it."""
    factor = parts.halved("movq", repository, config.cache_dir)
    if config.resolution % factor:
        raise UserError(f"--resolution: {config.resolution} is not a multiple of {factor}")
    return factor


def has_dropout(net: nn.Module) -> bool:
    """Whether a network draws at random in training."""
    return any(isinstance(m, nn.Dropout) and m.p > 0 for m in net.modules())
