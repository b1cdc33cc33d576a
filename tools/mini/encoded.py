"""The training set as the two trained networks see it: encoded once by the frozen parts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import VQModel
from transformers import (
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from tools.mini import bank, clip, movq
from wassily.models import encode

BATCH = 200


@dataclass(frozen=True)
class Texts:
    """embeds (M, D) float32, states (M, L, D) float16, mask (M, L) bool; row 0: the empty text."""

    embeds: torch.Tensor
    states: torch.Tensor
    mask: torch.Tensor


def load(work, *roles):
    """Frozen parts of work/parts by role."""
    kinds = {
        "text_encoder": CLIPTextModelWithProjection,
        "image_encoder": CLIPVisionModelWithProjection,
        "tokenizer": CLIPTokenizer,
        "movq": VQModel,
    }
    parts = [kinds[role].from_pretrained(f"{work}/parts/{role}") for role in roles]
    return [part.eval() if hasattr(part, "eval") else part for part in parts]


def embeddings(work, name, pictures):
    """Raw image embeddings (N, D) of uint8 pictures; row N is that of an all-zero tensor."""
    (encoder,) = load(work, "image_encoder")

    def make():
        chunks = range(0, len(pictures), BATCH)
        parts = [encode.image(encoder, clip.pixels(pictures[i : i + BATCH])) for i in chunks]
        return torch.cat([*parts, encode.zero_image(encoder)])

    return _kept(work, f"embeds_{name}", make)


def latents(work, name, pictures):
    """MoVQ latents (N, 4, 8, 8) of uint8 pictures."""
    (net,) = load(work, "movq")
    return _kept(work, f"latents_{name}", lambda: movq.encode(net, pictures, BATCH))


def texts(work, name, captions):
    """The captions, after an empty one, as the prior reads them."""
    tokenizer, encoder = load(work, "tokenizer", "text_encoder")
    ids = clip.tokens(tokenizer, ["", *captions])
    length = ids.shape[1]
    ends = (ids == tokenizer.eos_token_id).int().argmax(1)
    mask = torch.arange(length)[None] <= ends[:, None]

    def make():
        chunks = [encode.text(encoder, part, length) for part in ids.split(BATCH)]
        states = torch.cat([s.half() for _, s in chunks])
        return torch.cat([e for e, _ in chunks]), states

    embeds, states = _kept(work, f"texts_{name}", make)
    return Texts(embeds, states, mask)


def _kept(work, name, make):
    path = Path(work) / f"{name}.pt"
    if not path.exists():
        torch.save(make(), path)
    return torch.load(path, weights_only=True)


def captions_of(data: bank.Bank, each=2):
    """`each` captions of every picture in a row, English and Arabic in turn: N * each texts."""
    return [text for texts_ in data.texts for text in texts_[:each]]


def distinct(captions):
    """The distinct captions, and the row (from 1) of each: (list, (M,) int64)."""
    found, rows = np.unique(np.array(captions), return_inverse=True)
    return found.tolist(), rows.reshape(-1) + 1
