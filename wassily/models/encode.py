"""The frozen maps, as functions: captions and pictures to what the trained networks read.

No gradient, no state; each takes the frozen module and returns fp32 tensors on that module's
device. After them, what the modules read: items made by the stock processor and tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from wassily.errors import UserError, printable

IMAGE_BATCH, CAPTION_BATCH = 4, 32  # of the encoders, whatever the batch of the training


class _Texts(Protocol):
    text_embeds: Tensor
    last_hidden_state: Tensor


class _Images(Protocol):
    image_embeds: Tensor


class _Latents(Protocol):
    latents: Tensor


class _Tokens(Protocol):
    input_ids: Tensor
    attention_mask: Tensor


class _Pixels(Protocol):
    pixel_values: Tensor


class _Sized(Protocol):
    image_size: int


class TextEncoder(Protocol):
    """What is used of transformers' CLIPTextModelWithProjection."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its weights."""

    def __call__(self, ids: Tensor) -> _Texts:
        """(B, N) -> (B, D) and (B, N, D)."""


class ImageEncoder(Protocol):
    """What is used of transformers' CLIPVisionModelWithProjection."""

    config: _Sized

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its weights."""

    def __call__(self, pixels: Tensor) -> _Images:
        """(B, 3, S, S) -> (B, D)."""


class Autoencoder(Protocol):
    """What is used of diffusers' VQModel."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its weights."""

    def encode(self, pixels: Tensor) -> _Latents:
        """(B, 3, H, W) -> (B, C, H/f, W/f)."""


class ImageProcessor(Protocol):
    """What is used of transformers' CLIPImageProcessor."""

    crop_size: Mapping[str, int]

    def __call__(self, images: object, *, return_tensors: str) -> _Pixels:
        """A PIL image -> (1, 3, S, S)."""


class Tokenizer(Protocol):
    """What is used of transformers' CLIPTokenizer."""

    def __call__(
        self, text: str, *, padding: str, truncation: bool, return_tensors: str
    ) -> _Tokens:
        """A caption -> (1, N) and (1, N)."""


@torch.no_grad()
def text(encoder: TextEncoder, ids: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Padded token ids (B, N) -> text embedding (B, D) and the first `length` text states (B,
    length, D).

    The tower is causal, so states behind a caption's end tell nothing of it and are dropped.
    """
    device = next(encoder.parameters()).device
    output = encoder(ids.to(device))
    return output.text_embeds.float(), output.last_hidden_state[:, :length].float()


@torch.no_grad()
def image(encoder: ImageEncoder, pixels: Tensor) -> Tensor:
    """Pixels of the CLIP image processor (B, 3, S, S) -> image embedding (B, D), raw."""
    weight = next(encoder.parameters())
    return encoder(pixels.to(weight.device, weight.dtype)).image_embeds.float()


@torch.no_grad()
def latents(movq: Autoencoder, pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] (B, 3, H, W) -> MoVQ latents (B, C, H/f, W/f), unquantised, unscaled."""
    weight = next(movq.parameters())
    return movq.encode(pixels.to(weight.device, weight.dtype)).latents.float()


@torch.no_grad()
def zero_image(encoder: ImageEncoder) -> Tensor:
    """The decoder's unconditional: the embedding of an all-zero pixel tensor, shape (1, D)."""
    size = encoder.config.image_size
    return image(encoder, torch.zeros(1, 3, size, size))


def zero_pixels(processor: ImageProcessor) -> Tensor:
    """An all-zero pixel tensor (3, S, S), as `zero_image` makes it: zeros *after* the image
    processor, so neither a black picture nor a grey one.
    """
    size = processor.crop_size
    return torch.zeros(3, size["height"], size["width"])


def clip_pixels(picture: object, *, processor: ImageProcessor) -> Tensor:
    """A picture as the CLIP image encoder's input, (3, S, S)."""
    return processor(picture, return_tensors="pt").pixel_values[0]


def check_text(text: str) -> None:
    """Raise UserError for half a character, which a tokenizer and a PNG refuse with an error of
    their own. Bytes of a command line that are no UTF-8 become that.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{printable(text)[:200]}: not UTF-8 text. Type it again.") from None


def tokens(caption: str, *, tokenizer: Tokenizer) -> Tensor:
    """A caption as the text encoder's input: ids and mask, (2, N). Raises UserError for a text
    that is no Unicode.
    """
    check_text(caption)
    found = tokenizer(caption, padding="max_length", truncation=True, return_tensors="pt")
    return torch.cat([found.input_ids, found.attention_mask])
