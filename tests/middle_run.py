"""A run in its middle, as its validations and its export see it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from wassily.config.training import DecoderConfig, PriorConfig
from wassily.evaluation.variance_drift import NoDrift
from wassily.maths.ema import Ema, NoEma
from wassily.mini.untrained import SIDE, Tiny
from wassily.models.adapters import Whole, trained_parameters
from wassily.models.parts import TRAINED, load
from wassily.reporting.model_card import Facts
from wassily.runtime.accelerator import Runtime
from wassily.training.setup import Setup
from wassily.training.step_log import StepLog
from wassily.training.validation import Measures, Validator
from wassily.training.weights import Weights

PROMPTS = ("a red cat", "قطة حمراء")


def make_validator(
    home: str, tiny: Tiny, out: Path, *, averaged: bool = False, **values: Any
) -> tuple[Validator, nn.Module]:
    """A run in its middle: the network has moved, and its average stayed behind."""
    cls = {"prior": PriorConfig, "decoder": DecoderConfig}[home]
    base = {
        "train_data_dir": str(tiny.prior),
        "output_dir": str(out),
        "validation_prompts": PROMPTS,
        "resolution": SIDE,
        "seed": 4,
    }
    config = cls(**(base | values))
    role = TRAINED[home]
    net = load(role, str(getattr(tiny, home)))
    trained = trained_parameters(net)
    ema: Ema | NoEma = Ema(trained) if averaged else NoEma()
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.1)
    repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    out.mkdir(parents=True, exist_ok=True)
    runtime = Runtime(None, 1, str(out), "logs", "none")
    weights = Weights(SimpleNamespace(net=net), trained, ema)
    setup = Setup(config, repositories, out, runtime, 4)
    log = StepLog(out, runtime)
    return Validator(setup, weights, Whole(role), Measures(NoDrift()), log), net


def facts_of_run(home: str, tiny: Tiny, out: Path) -> Facts:
    base = str(getattr(tiny, home))
    prior, decoder = str(tiny.prior), str(tiny.decoder)
    return Facts(str(out), home, base, prior, decoder, "pics", False, 9, 7, 4, True)
