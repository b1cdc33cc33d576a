"""What was learned and what was kept, at each validation of a training: `evaluate`, cut short.

Each network is asked by what it makes itself, so that a prior is measured without painting:

- prior: *learned* is the cosine of the embedding that it draws for a held-out caption to that of
  the caption's picture; *kept* the cosine of what it draws for generic prompts to their texts.
- decoder: *learned* is the cosine of a held-out picture to its redrawing, *kept* that of generic
  prompts to the pictures drawn for them, with the prior that belongs to it.

Prompts, pictures and seeds are the same each time, and the same as the base's at step 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wassily import encode, lists, measures, sample
from wassily.config import TrainConfig
from wassily.heldout import HeldOutLoss
from wassily.measures import Estimate

PRIOR_STEPS, STEPS, BATCH = 25, 20, 8


@dataclass(frozen=True)
class Gauge:
    """`pictures` are the embeddings (N, D) of held-out pictures and `captions` theirs, which a
    decoder does not read; both may be empty. At least 2 `prompts`.
    """

    role: str
    captions: list[str]
    pictures: Tensor
    prompts: list[str]
    seed: int
    side: int

    def measure(
        self, prior: Any, decoder: Any, device: torch.device, on_done: Callable[[int], Any]
    ) -> dict[str, Estimate]:
        """The scores of the networks in both pipelines, by name."""
        drawing = sample.Drawing(
            STEPS,
            PRIOR_STEPS,
            height=self.side,
            width=self.side,
            batch_size=BATCH,
            scheduler="stock",
        )
        texts = sample.embed_texts(prior, self.prompts, BATCH, device)
        generators = self._generators(len(self.prompts))
        embeds = sample.embed_all(prior, self.prompts, generators, drawing, device)

        def painted(pair: tuple[Tensor, Tensor], each: list[torch.Generator]) -> Tensor:
            drawn = sample.paint(decoder, pair, each, drawing, device, on_done)
            return sample.embed_images(prior, drawn, BATCH, device)

        own = self._generators(len(self.pictures))
        if self.role == "prior":
            kept = embeds[0]
            learned = (
                sample.embed_all(prior, self.captions, own, drawing, device)[0] if own else None
            )
            on_done(self.count())
        else:
            kept = painted(embeds, generators)
            learned = painted(self._true(prior, device), own) if own else None
        found = {"kept": _mean(texts, kept, self.seed)}
        if learned is not None:
            found = {"learned": _mean(self.pictures, learned, self.seed), **found}
        return found

    def count(self) -> int:
        """How many pictures or embeddings a measure draws."""
        return len(self.prompts) + len(self.pictures)

    def _true(self, prior: Any, device: torch.device) -> tuple[Tensor, Tensor]:
        """The pictures' own embeddings and the unconditional one, as the decoder is given them."""
        own = self.pictures.to(device, prior.image_encoder.dtype)
        with sample.on(prior, device):
            nothing = encode.zero_image(prior.image_encoder).to(own)
        return own, nothing.expand_as(own)

    def _generators(self, count: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(self.seed + n) for n in range(count)]


def _mean(one: Tensor, other: Tensor, seed: int) -> Estimate:
    return measures.mean(measures.cosine(_array(one), _array(other)), seed)


def _array(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def chosen(config: TrainConfig, probe: HeldOutLoss | None, prior: str, seed: int) -> Gauge | None:
    """What --validation_scores asks for; `prior` is resolved, its name tells which prompts."""
    most = config.validation_scores
    if not most:
        return None
    batches, captions = (probe.batches[:most], probe.captions[:most]) if probe else ([], ())
    pictures = [batch["image_embeds"].float().cpu() for batch in batches]
    return Gauge(
        config.role,
        list(captions),
        torch.cat(pictures) if pictures else torch.zeros(0, 0),
        lists.generic(prior, most),
        seed,
        config.resolution,
    )


def as_row(step: int, found: dict[str, Estimate]) -> dict[str, Any]:
    """The scores of a step as a line of the log: each with its interval and its sample size."""
    row: dict[str, Any] = {"step": step, "event": "scores"}
    for name, score in found.items():
        row |= {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}
        row |= {f"{name}_n": score.n}
    return row
