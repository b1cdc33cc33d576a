"""The frozen maps, as functions: captions and pictures to what the trained networks read.

No gradient, no state; each takes the frozen module and returns fp32 tensors on that module's
device.
"""

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def text(encoder: Any, ids: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Padded token ids (B, N) -> text embedding (B, D) and the first `length` text states (B,
    length, D).

    The tower is causal, so states behind a caption's end tell nothing of it and are dropped.
    """
    device = next(encoder.parameters()).device
    output = encoder(ids.to(device))
    return output.text_embeds.float(), output.last_hidden_state[:, :length].float()


@torch.no_grad()
def image(encoder: Any, pixels: Tensor) -> Tensor:
    """Pixels of the CLIP image processor (B, 3, S, S) -> image embedding (B, D), raw."""
    weight = next(encoder.parameters())
    return encoder(pixels.to(weight.device, weight.dtype)).image_embeds.float()


@torch.no_grad()
def latents(movq: Any, pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] (B, 3, H, W) -> MoVQ latents (B, C, H/f, W/f), unquantised, unscaled."""
    weight = next(movq.parameters())
    return movq.encode(pixels.to(weight.device, weight.dtype)).latents.float()


@torch.no_grad()
def zero_image(encoder: Any) -> Tensor:
    """The decoder's unconditional: the embedding of an all-zero pixel tensor, shape (1, D)."""
    size = encoder.config.image_size
    return image(encoder, torch.zeros(1, 3, size, size))
