"""The frozen maps, as functions: captions and pictures to what the trained networks read.

No gradient, no state; each takes the frozen module and returns fp32 tensors on that module's
device. After them, what the modules read: items made by the stock processor and tokenizer.
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


def zero_pixels(processor: Any) -> Tensor:
    """An all-zero pixel tensor (3, S, S), as `zero_image` makes it: zeros *after* the image
    processor, so neither a black picture nor a grey one.
    """
    size = processor.crop_size
    return torch.zeros(3, size["height"], size["width"])


def clip_pixels(picture: Any, *, processor: Any) -> Tensor:
    """A picture as the CLIP image encoder's input, (3, S, S)."""
    return processor(picture, return_tensors="pt").pixel_values[0]


def tokens(caption: str, *, tokenizer: Any) -> Tensor:
    """A caption as the text encoder's input: ids and mask, (2, N)."""
    found = tokenizer(caption, padding="max_length", truncation=True, return_tensors="pt")
    return torch.cat([found.input_ids, found.attention_mask])
