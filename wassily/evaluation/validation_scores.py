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

from wassily.config.training import TrainConfig
from wassily.evaluation import metrics
from wassily.evaluation.heldout_loss import HeldOutLoss
from wassily.evaluation.metrics import Estimate
from wassily.generation import pipelines, sample
from wassily.models import encode
from wassily.training_data import generic_prompts

PRIOR_STEPS, STEPS, BATCH = 25, 20, 8


@dataclass(frozen=True)
class Embedded:
    """Image embeddings and their negatives, each (N, D), and the generator of each image."""

    pair: tuple[Tensor, Tensor]
    generators: list[torch.Generator]

    def values(self) -> np.ndarray:
        """The embeddings as numbers, (N, D) fp32."""
        return as_array(self.pair[0])


@dataclass(frozen=True)
class SeededPipelines:
    """Both pipelines, where the n-th of several prompts or images has the seed `seed` + n.

    Numbers are in the space of the prior pipeline's image encoder, on the CPU.
    """

    prior: Any
    decoder: Any
    device: torch.device
    drawing: sample.Drawing
    seed: int

    def of_prompts(self, prompts: list[str]) -> Embedded:
        """What the prior makes of prompts."""
        generators = self._generators(len(prompts))
        pair = sample.embed_all(self.prior, prompts, generators, self.drawing, self.device)
        return Embedded(pair, generators)

    def of_images(self, own: Tensor) -> Embedded:
        """The embeddings of images (N, D), beside the unconditional one."""
        own = own.to(self.device, self.prior.image_encoder.dtype)
        with pipelines.on(self.prior, self.device):
            nothing = encode.zero_image(self.prior.image_encoder).to(own)
        return Embedded((own, nothing.expand_as(own)), self._generators(len(own)))

    def paint(self, given: Embedded, on_done: Callable[[int], Any]) -> list[Any]:
        """The decoder's PIL images of embeddings; `on_done` is told how many are finished."""
        return sample.paint(
            self.decoder, given.pair, given.generators, self.drawing, self.device, on_done
        )

    def look(self, images: list[Any]) -> np.ndarray:
        """PIL images as numbers, (N, D)."""
        return as_array(
            sample.embed_images(self.prior, images, self.drawing.batch_size, self.device)
        )

    def read(self, prompts: list[str]) -> np.ndarray:
        """Prompts as numbers, (N, D)."""
        return as_array(
            sample.embed_texts(self.prior, prompts, self.drawing.batch_size, self.device)
        )

    def _generators(self, count: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(self.seed + n) for n in range(count)]


def as_array(values: Tensor) -> np.ndarray:
    """A tensor as fp32 numbers on the CPU."""
    return values.float().cpu().numpy()


@dataclass(frozen=True)
class ValidationScores:
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
        size = sample.Drawing(STEPS, PRIOR_STEPS, batch_size=BATCH, scheduler="stock")
        pipes = SeededPipelines(prior, decoder, device, sample.at(size, self.side), self.seed)
        texts, embedded = pipes.read(self.prompts), pipes.of_prompts(self.prompts)
        learned = None
        if self.role == "prior":
            kept = embedded.values()
            if self.captions:
                learned = pipes.of_prompts(self.captions).values()
            on_done(self.count())
        else:
            kept = pipes.look(pipes.paint(embedded, on_done))
            if len(self.pictures):
                redrawn = pipes.paint(pipes.of_images(self.pictures), on_done)
                learned = pipes.look(redrawn)
        found = {"kept": _mean(texts, kept, self.seed)}
        if learned is not None:
            found = {"learned": _mean(as_array(self.pictures), learned, self.seed), **found}
        return found

    def count(self) -> int:
        """How many pictures or embeddings a measure draws."""
        return len(self.prompts) + len(self.pictures)


def _mean(one: np.ndarray, other: np.ndarray, seed: int) -> Estimate:
    return metrics.mean(metrics.cosine(one, other), seed)


def scores_asked_for(
    config: TrainConfig, probe: HeldOutLoss | None, prior: str, seed: int
) -> ValidationScores | None:
    """What --validation_scores asks for; `prior` is resolved, its name tells which prompts."""
    most = config.validation_scores
    if not most:
        return None
    batches, captions = (probe.batches[:most], probe.captions[:most]) if probe else ([], ())
    pictures = [batch["image_embeds"].float().cpu() for batch in batches]
    return ValidationScores(
        config.role,
        list(captions),
        torch.cat(pictures) if pictures else torch.zeros(0, 0),
        generic_prompts.generic(prior, most),
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
