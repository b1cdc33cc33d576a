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

from wassily.config import TrainConfig
from wassily.errors import UserError

# Module -> what to install for it.
PACKAGES = {"bitsandbytes": "bitsandbytes", "optimi": "torch-optimi"}


def name(config: TrainConfig) -> str:
    """The optimizer that a config asks for; `--use_8bit_adam` is the guide's word for adamw8bit."""
    return "adamw8bit" if config.use_8bit_adam else config.optimizer


def library(config: TrainConfig) -> str:
    """The module whose optimizer that is: "torch", "optimi" or "bitsandbytes"."""
    if name(config) == "adamw8bit":
        return "bitsandbytes"
    special = config.weights_dtype == "bf16" or config.gradient_release
    return "optimi" if special or name(config) == "lion" else "torch"


def described(config: TrainConfig) -> str:
    """What a saved state is of: the optimizer, its library, and where it keeps its step count."""
    released = ", gradient release" if config.gradient_release else ""
    return f"{name(config)} ({library(config)}{released})"


def beta2(config: TrainConfig) -> float:
    """AdamW's second decay: the one that was named, or the usual one of the weights' dtype."""
    return _second_decay(config.adam_beta2, config.weights_dtype)


def _second_decay(named: float | None, dtype: str) -> float:
    usual = 0.99 if dtype == "bf16" else 0.999  # why: `checks`
    return usual if named is None else named


def in_force(values: Mapping[str, Any]) -> dict[str, object]:
    """A config's plain values, of any version, with the second decay that is used; None: none."""
    decay = _second_decay(values.get("adam_beta2"), values.get("weights_dtype", "fp32"))
    adam = values.get("optimizer", "adamw") in ("adamw", "adamw8bit")
    return {**values, "adam_beta2": decay if adam else None}


def beta2_lines(config: TrainConfig) -> list[str]:
    """A line where a default is not the usual one."""
    changed = config.weights_dtype == "bf16" and name(config) == "adamw"
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


def check_launch(
    config: TrainConfig, precision: str, processes: int, sharded: bool = False
) -> None:
    """Raise UserError where the flags do not go with what the launcher chose."""
    if config.weights_dtype == "bf16" and precision != "bf16":
        raise UserError(
            f"--weights_dtype bf16 in precision {precision}: weights in bf16 are computed with in "
            "bf16; add --mixed_precision bf16"
        )
    if config.gradient_release and precision == "fp16":
        raise UserError(
            "--gradient_release in precision fp16: its loss scaler looks at all gradients before "
            "the step; add --mixed_precision bf16 or no"
        )
    if config.gradient_release and processes > 1:
        raise UserError(
            f"--gradient_release on {processes} processes: a gradient is used up before they have "
            "exchanged it; launch one"
        )
    if sharded:
        _check_sharded(config, precision)


def _check_sharded(config: TrainConfig, precision: str) -> None:
    """Raise UserError for what FSDP2 does not go with: it has each weight in parts."""
    refused = {
        "--gradient_release": config.gradient_release,
        "--compile": config.compile,
        f"--optimizer {name(config)}": name(config) in ("adamw8bit", "adafactor"),
        "--mixed_precision fp16": precision == "fp16",
    }
    for flag, given in refused.items():
        if given:
            raise UserError(f"{flag} does not go with FSDP2: leave it out, or launch --multi_gpu")


def optimizer(
    config: TrainConfig, parameters: list[nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer of a config over the trained list, in one group."""
    rate: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.adam_weight_decay}
    betas = (config.adam_beta1, beta2(config))
    adam: dict[str, Any] = {"betas": betas, "eps": config.adam_epsilon}
    check(config)
    if library(config) == "optimi":
        own = {} if name(config) == "lion" else adam
        return _optimi(config, parameters, device, rate | own)
    if name(config) == "adamw8bit":
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(parameters, **rate, **adam)
    if name(config) == "adafactor":
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

    kind = optimi.Lion if name(config) == "lion" else optimi.AdamW
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
