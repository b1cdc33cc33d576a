"""Which optimizer flags go with the launcher's engine."""

from __future__ import annotations

from wassily.config import training
from wassily.config.training import TrainConfig
from wassily.errors import UserError


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
        f"--optimizer {training.name(config)}": training.name(config) in ("adamw8bit", "adafactor"),
        "--mixed_precision fp16": precision == "fp16",
    }
    for flag, given in refused.items():
        if given:
            raise UserError(f"{flag} does not go with FSDP2: leave it out, or launch --multi_gpu")
