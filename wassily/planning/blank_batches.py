"""Batches of zeros for both networks and for the encoders: what `plan` takes their measure with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wassily.config import training
from wassily.config.training import TrainConfig
from wassily.maths.losses import Batch
from wassily.models import encode
from wassily.models.encode import CAPTION_BATCH, IMAGE_BATCH
from wassily.models.trainable import Load, Trainable
from wassily.planning import memory


def blank_batch(
    config: TrainConfig, trainable: Trainable, count: int
) -> tuple[Batch, Tensor, Tensor]:
    """A batch, noise and timesteps of `count` examples, of the right shapes; captions are long."""
    net: Any = trainable.net.config
    shape = trainable.noise_shape((config.resolution, config.resolution))
    noise, t = torch.zeros(count, *shape), torch.zeros(count, dtype=torch.int64)
    if isinstance(config, training.DecoderConfig):
        embeds = torch.zeros(count, net.encoder_hid_dim)
        return {"latents": torch.zeros_like(noise), "image_embeds": embeds}, noise, t
    width, tokens = net.embedding_dim, net.num_embeddings
    batch = {
        "image_embeds": torch.zeros(count, width),
        "text_embeds": torch.zeros(count, width),
        "text_states": torch.zeros(count, tokens, width),
        "text_mask": torch.ones(count, tokens, dtype=torch.bool),
    }
    return batch, noise, t


Pass = tuple[nn.Module, Callable[[], object]]  # a frozen network, and one batch through it


def blank_passes(config: TrainConfig, repositories: dict[str, str], load: Load) -> list[list[Pass]]:
    """The frozen networks that encode, those together that are in memory together."""
    image = load("image_encoder", repositories["prior"])
    side = image.config.image_size
    first = (image, lambda: encode.image(image, torch.zeros(IMAGE_BATCH, 3, side, side)))
    if isinstance(config, training.DecoderConfig):
        movq, side_in = load("movq", repositories["decoder"]), config.resolution
        pixels = (IMAGE_BATCH, 3, side_in, side_in)
        return [[first, (movq, lambda: encode.latents(movq, torch.zeros(pixels)))]]
    text = load("text_encoder", repositories["prior"])
    tokens = text.config.max_position_embeddings
    ids = (CAPTION_BATCH, tokens)
    run = (text, lambda: encode.text(text, torch.zeros(ids, dtype=torch.int64), tokens))
    return [[first], [run]]


def state_bytes(config: TrainConfig, trained: list[nn.Parameter]) -> int:
    """What the optimizer keeps for a trained list."""
    return memory.state_bytes(training.name(config), trained)


def checkpoint_bytes(config: TrainConfig, net: nn.Module, trained: list[nn.Parameter]) -> int:
    """What a checkpoint takes on the disk: the network or the adapter, its state, its average."""
    weights = memory.bytes_of(trained if config.lora else net.parameters())
    average = 4 * sum(p.numel() for p in trained) if config.use_ema else 0
    return weights + state_bytes(config, trained) + average


def bytes_per_example(config: TrainConfig, trainable: Trainable, tokens: int, size: int) -> int:
    """What the cache keeps of one example, in numbers of `size` bytes; a caption has `tokens`."""
    shape = trainable.noise_shape((config.resolution, config.resolution))
    if isinstance(config, training.DecoderConfig):
        net: Any = trainable.net.config
        return int(size * (math.prod(shape) + net.encoder_hid_dim))
    return size * (2 + tokens) * shape[0]
