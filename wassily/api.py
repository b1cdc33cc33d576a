"""The Python API: pipelines to generate with, both trainings, the evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from wassily.config.evaluation import EvaluateConfig
from wassily.config.generation import DrawConfig
from wassily.config.training import DECODER, PRIOR, DecoderConfig, PriorConfig, TrainConfig
from wassily.data import images
from wassily.errors import UserError
from wassily.evaluation.evaluate import scored
from wassily.evaluation.scores import Score
from wassily.generation import load, sample
from wassily.generation.sample import Drawing, Mix, Subject
from wassily.runtime.accelerator import quiet_libraries
from wassily.training import run


@dataclass(frozen=True)
class Pipelines:
    """A stock `diffusers.KandinskyV22PriorPipeline`, a `diffusers.KandinskyV22Pipeline`, and the
    device they draw on; each is there only while it works.
    """

    prior: sample.KandinskyV22PriorPipeline
    decoder: sample.KandinskyV22Pipeline
    device: torch.device

    def draw(
        self,
        subjects: Subject | Iterable[Subject],
        seeds: Iterable[int] = (0,),
        drawing: Drawing | None = None,
    ) -> list[images.Picture]:
        """Each subject with each seed, subject by subject, as PIL pictures.

        A subject is a text or a `Mix`. The same seed gives what `wassily generate --seed` does.
        Raises UserError if the decoder is not of the kind that the drawing's canvas takes.
        """
        several = [subjects] if isinstance(subjects, (str, Mix)) else list(subjects)
        chosen = list(seeds)
        jobs: Sequence[tuple[Subject, int]] = [(s, seed) for s in several for seed in chosen]
        if not jobs:
            return []
        return sample.draw(self.prior, self.decoder, jobs, drawing or Drawing(), self.device)


def load_pipelines(
    prior: str = PRIOR,
    decoder: str = DECODER,
    *,
    prior_lora: str | None = None,
    decoder_lora: str | None = None,
    lora_scale: float = 1.0,
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto",
    offload: bool = False,
    cache_dir: str | None = None,
) -> Pipelines:
    """Both pipelines, their adapters folded in; names and values as `wassily generate` takes them.

    Raises UserError for a name behind which there is no such network.
    """
    config = DrawConfig(
        prior=prior,
        decoder=decoder,
        prior_lora=prior_lora,
        decoder_lora=decoder_lora,
        lora_scale=lora_scale,
        dtype=dtype,
        offload=offload,
        cache_dir=cache_dir,
    )
    quiet_libraries()
    return Pipelines(*load.pipelines(config, load.find(config)))


def open_picture(path: str | os.PathLike[str]) -> images.Picture:
    """A picture for a `Mix` or a `Canvas`, as PIL in RGB: upright, transparent parts white.

    Raises UserError for anything that is not a whole picture.
    """
    try:
        return images.open_rgb(path)
    except images.BadPicture as error:
        raise UserError(f"{os.fspath(path)}: {error}") from None


def train_prior(config: PriorConfig) -> Path:
    """Train the prior as `wassily train prior` does; the output folder. Raises UserError."""
    return _train(config, PriorConfig)


def train_decoder(config: DecoderConfig) -> Path:
    """Train the decoder as `wassily train decoder` does; the output folder. Raises UserError."""
    return _train(config, DecoderConfig)


def _train(config: TrainConfig, kind: type) -> Path:
    if not isinstance(config, kind):
        raise TypeError(f"a {kind.__name__} is wanted, not {type(config).__name__}")
    output_dir = Path(config.output_dir)
    run.train(config)
    return output_dir


def evaluate(config: EvaluateConfig) -> list[Score]:
    """The scores of `wassily evaluate`, each with its intervals; nothing is printed or written but
    progress, and the pictures if the config says so. Raises UserError.
    """
    return scored(config)
