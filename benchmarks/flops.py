"""How much of the machine a training uses: model FLOP utilisation.

FLOPs of the trained network as it is executed (the prior without its padding), forward and
backward, without recomputation, over the time of a picture, over the rate of a matrix product
measured on the same device in the same precision.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import models
from benchmarks.models import Size
from wassily.maths import losses

ALPHA_BARS = torch.linspace(0.99, 0.01, 1000)


def _counted(objective: nn.Module, batch: dict[str, torch.Tensor], noise: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        t = torch.zeros(len(noise), dtype=torch.long, device=noise.device)
        objective(batch, noise, t).mean().backward()
    return int(counter.get_total_flops())


def prior(size: Size, tokens: int, batch: int = 1) -> int:
    """FLOPs of one micro-batch of the prior whose longest caption has so many tokens."""
    with torch.device("meta"):
        objective = losses.Prior(models.prior(size), ALPHA_BARS).to("meta")
        width, text = size.embedding, size.text[0]
        given = {
            "image_embeds": torch.randn(batch, width),
            "text_embeds": torch.randn(batch, width),
            "text_states": torch.randn(batch, tokens, text),
            "text_mask": torch.ones(batch, tokens, dtype=torch.bool),
        }
        return _counted(objective, given, torch.randn(batch, width))


def decoder(size: Size, resolution: int, batch: int = 1) -> int:
    """FLOPs of one micro-batch of the decoder at a resolution in pixels."""
    side = resolution // 2 ** (len(size.movq) - 1)
    with torch.device("meta"):
        objective = losses.Decoder(models.unet(size), ALPHA_BARS).to("meta")
        given = {
            "latents": torch.randn(batch, 4, side, side),
            "image_embeds": torch.randn(batch, size.embedding),
        }
        return _counted(objective, given, torch.randn(batch, 4, side, side))


def longest(lengths: list[int], batch: int) -> int:
    """The mean, over random micro-batches, of the length of the longest caption."""
    drawn = np.random.default_rng(0).choice(lengths, (1000, batch))
    return round(float(drawn.max(1).mean()))


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product, the best of a few."""
    side, best = (8192 if device.type == "cuda" else 1024), 0.0
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    for _ in range(10):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(5):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 5 * 2 * side**3 / (time.perf_counter() - began))
    return best
