"""Optimizers and learning-rate schedules, each a library's. Owner of bitsandbytes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import nn

from wassily.config import TrainConfig
from wassily.errors import UserError


def check_8bit() -> None:
    """Raise UserError if 8-bit Adam is asked for and its package is not there."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("--use_8bit_adam needs bitsandbytes: pip install bitsandbytes")


def optimizer(config: TrainConfig, parameters: list[nn.Parameter], device: torch.device) -> Any:
    """AdamW over the trained list: fused on a GPU, with 8-bit states if asked for."""
    options: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "weight_decay": config.adam_weight_decay,
        "eps": config.adam_epsilon,
    }
    if config.use_8bit_adam:
        check_8bit()
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(parameters, **options)
    return torch.optim.AdamW(parameters, **options, fused=device.type == "cuda")


def learning_rate(config: TrainConfig, steps: int) -> Callable[[int], float]:
    """Optimizer step (from 0) -> rate, by diffusers' schedules; a pure function, so nothing to
    resume.

    Warm-up and total are counted in optimizer steps, whatever the accumulation and the processes.
    """
    if config.lr_scheduler == "polynomial" and config.learning_rate <= 1e-7:
        raise UserError("--lr_scheduler polynomial ends at 1e-7: --learning_rate must be above it")
    # The library's schedules are functions of the step that hang on an optimizer: give it a dummy.
    dummy = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.learning_rate)
    schedule = get_scheduler(
        config.lr_scheduler,
        optimizer=dummy,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=steps,
    )
    factor = schedule.lr_lambdas[0]
    return lambda step: config.learning_rate * factor(step)
