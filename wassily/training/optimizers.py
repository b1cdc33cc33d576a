"""Optimizers and learning-rate schedules, each a library's.

Owner of bitsandbytes and torch-optimi.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import nn

from wassily.config import training
from wassily.config.training import TrainConfig
from wassily.errors import UserError

# Module -> what to install for it.
PACKAGES = {"bitsandbytes": "bitsandbytes", "optimi": "torch-optimi"}


def library(config: TrainConfig) -> str:
    """The module whose optimizer that is: "torch", "optimi" or "bitsandbytes"."""
    if training.name(config) == "adamw8bit":
        return "bitsandbytes"
    special = config.weights_dtype == "bf16" or config.gradient_release
    return "optimi" if special or training.name(config) == "lion" else "torch"


def described(config: TrainConfig) -> str:
    """What a saved state is of: the optimizer, its library, and where it keeps its step count."""
    released = ", gradient release" if config.gradient_release else ""
    return f"{training.name(config)} ({library(config)}{released})"


def beta2(config: TrainConfig) -> float:
    """AdamW's second decay: the one that was named, or the usual one of the weights' dtype."""
    return _second_decay(config.adam_beta2, config.weights_dtype)


def _second_decay(named: float | None, dtype: str) -> float:
    usual = 0.99 if dtype == "bf16" else 0.999  # why: `training_checks`
    return usual if named is None else named


def in_force(values: Mapping[str, Any]) -> dict[str, object]:
    """A config's plain values, of any version, with the second decay that is used; None: none."""
    decay = _second_decay(values.get("adam_beta2"), values.get("weights_dtype", "fp32"))
    adam = values.get("optimizer", "adamw") in ("adamw", "adamw8bit")
    return {**values, "adam_beta2": decay if adam else None}


def beta2_lines(config: TrainConfig) -> list[str]:
    """A line where a default is not the usual one."""
    changed = config.weights_dtype == "bf16" and training.name(config) == "adamw"
    if not changed or config.adam_beta2 is not None:
        return []
    return [f"--adam_beta2 {beta2(config)}, for weights in bf16: 0.999 does not move there"]


def check(config: TrainConfig) -> None:
    """Raise UserError if the optimizer's package is not there."""
    module = library(config)
    if importlib.util.find_spec(module) is None:
        flags = {
            "--use_8bit_adam": config.use_8bit_adam,
            "--weights_dtype bf16": config.weights_dtype == "bf16",
            "--gradient_release": config.gradient_release,
        }
        asked = next((flag for flag, given in flags.items() if given), None)
        package = PACKAGES[module]
        raise UserError(
            f"{asked or f'--optimizer {config.optimizer}'} needs {package}: pip install {package}"
        )


def optimizer(
    config: TrainConfig, parameters: list[nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer of a config over the trained list, in one group."""
    rate: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.adam_weight_decay}
    betas = (config.adam_beta1, beta2(config))
    adam: dict[str, Any] = {"betas": betas, "eps": config.adam_epsilon}
    check(config)
    if library(config) == "optimi":
        own = {} if training.name(config) == "lion" else adam
        return _optimi(config, parameters, device, rate | own)
    if training.name(config) == "adamw8bit":
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(parameters, **rate, **adam)
    if training.name(config) == "adafactor":
        return torch.optim.Adafactor(parameters, **rate)
    # One kernel over all weights; elsewhere the library's own choice.
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(parameters, **rate, **adam, fused=fused or None)


def _optimi(
    config: TrainConfig,
    parameters: list[nn.Parameter],
    device: torch.device,
    options: dict[str, Any],
) -> torch.optim.Optimizer:
    """torch-optimi's AdamW or Lion; with Kahan summation where the weights are in bf16.

    What it would find out at its first step is given here, so that a resumed run, whose first step
    comes with a state, does the same.
    """
    import optimi

    kind = optimi.Lion if training.name(config) == "lion" else optimi.AdamW
    kernels = device.type == "cuda" and importlib.util.find_spec("triton") is not None
    made = kind(
        parameters,
        **options,
        kahan_sum=config.weights_dtype == "bf16",
        triton=kernels and torch.cuda.is_bf16_supported(),
        gradient_release=config.gradient_release,
    )
    for group in made.param_groups:
        group["setup"], group["step"] = True, torch.tensor(0, dtype=torch.int32)
    return made


def release_gradients(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Have each trained weight of a network updated, and its gradient freed, within `backward`."""
    import optimi

    optimi.prepare_for_gradient_release(net, getattr(optimizer, "optimizer", optimizer))


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
