"""The pipeline folder that a run leaves, with its model card."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from torch import nn

from wassily.generation import pipelines
from wassily.models.adapters import Lora, Whole
from wassily.reporting import report, run_facts, run_log
from wassily.reporting.model_card import Facts, model_card
from wassily.training.setup import Setup
from wassily.training.weights import Weights


def export(setup: Setup, weights: Weights, adaptation: Whole | Lora, facts: Facts) -> None:
    """Write the stock pipeline folder of the trained network, with its model card.

    All processes call it, the first one writes.
    """
    runtime, output_dir = setup.runtime, setup.output_dir
    if runtime.main:
        rows = run_log.read_log(output_dir)
        complete = dataclasses.replace(
            facts,
            counts=run_facts.read_summary(output_dir).get("data", {}),
            measured=run_log.measured(rows, facts.steps),
            before=run_log.measured(rows, 0),
        )
        card = model_card(setup.config, complete, runtime.precision)
        save = functools.partial(_save_pipeline, setup, weights.net)
        with weights.ema.applied():
            adaptation.export(weights.net, output_dir, save, card)
        report.refresh(output_dir, runtime.say)
    runtime.wait()


def _save_pipeline(setup: Setup, net: nn.Module, folder: Path) -> None:
    home = setup.config.role
    make = pipelines.prior_pipeline if home == "prior" else pipelines.decoder_pipeline
    repository, dtype = setup.repositories[home], setup.runtime.weight_dtype
    trained: dict[str, Any] = {setup.role: net}
    make(repository, dtype, setup.config.cache_dir, **trained).save_pretrained(folder)
