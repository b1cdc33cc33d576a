"""Five images with captions, and how often each encoding prepares them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import write_folder

from wassily.config.training import TrainConfig
from wassily.encodings import definitions, fill
from wassily.mini.untrained import Tiny
from wassily.runtime.accelerator import Runtime
from wassily.training_data import training_set

CAPTIONS = ["a red cat", "قطة حمراء صغيرة", "a red cat", "a very long caption of a small bird", "b"]


@pytest.fixture
def work(tmp_path: Path, tiny: Tiny) -> Callable[..., Any]:
    """work(PriorConfig | DecoderConfig, **flags) -> (reading of five pictures, calls).

    The calls say how many items each encoding prepared to make it.
    """
    write_folder(tmp_path / "pics", CAPTIONS)

    def make(kind: type[TrainConfig], **flags: Any) -> Any:
        config = kind(
            pretrained_prior_model_name_or_path=str(tiny.prior),
            pretrained_decoder_model_name_or_path=str(tiny.decoder),
            train_data_dir=str(tmp_path / "pics"),
            output_dir=str(tmp_path / "out"),
            **({"resolution": 32} | flags),
        )
        runtime = Runtime(None, 1, str(tmp_path), "logs", "none")
        repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
        context = definitions.of_training(config, repositories, runtime, tmp_path / "cache")
        calls: dict[str, int] = {}
        wanted = [counted(e, calls) for e in definitions.make_encodings(context)]
        source = training_set.chosen_images(config, 0, runtime)
        return training_set.make_reading(
            wanted, source, 0, context, flips=config.random_flip, skip_bad=config.skip_bad_images
        ), calls

    return make


def counted(encoding: fill.Encoding, calls: dict[str, int]) -> fill.Encoding:
    """The same encoding, noting how many items it prepared."""

    def prepare(item: Any) -> torch.Tensor:
        calls[encoding.name] = calls.get(encoding.name, 0) + 1
        return encoding.prepare(item)

    return replace(encoding, prepare=prepare)
