"""The checks of the flags of a training: ranges, and flags that exclude one another.

Configs call this at their birth, so nothing heavy is imported here.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from wassily.config import presets, source_checks
from wassily.config.generation_checks import LONGEST_SIDE
from wassily.config.schema import at_least, at_most, check_prompts, require

if TYPE_CHECKING:
    from wassily.config.training import TrainConfig

WORKERS = 256  # processes that read for one process; none of them does much


def training(config: TrainConfig) -> None:
    """Raise UserError for values out of range and for contradictions."""
    at_least(
        config,
        1,
        "max_train_samples",
        "checkpointing_steps",
        "checkpoints_total_limit",
        "train_batch_size",
        "gradient_accumulation_steps",
        "num_train_epochs",
        "max_train_steps",
        "validation_epochs",
        "validation_steps",
        "patience",
        "logging_steps",
    )
    at_least(config, 0, "dataloader_num_workers", "seed", "lr_warmup_steps", "adam_weight_decay")
    at_least(config, 0, "max_grad_norm", "max_bad_steps")
    _check_numbers(config)
    _check_names(config)
    _check_optimizer(config)
    _check_gradient_release(config)
    require(0 <= config.holdout < 1, f"--holdout: {config.holdout:g} is not in [0, 1)")
    _check_best(config)
    source_checks.check(config)
    _check_preserve(config)
    _check_hub(config)
    _check_lora(config)
    require(
        bool(config.output_dir.strip()),
        "--output_dir is empty: name the folder that takes the results",
    )


def _check_numbers(config: TrainConfig) -> None:
    workers = config.dataloader_num_workers
    require(workers <= WORKERS, f"--dataloader_num_workers: {workers} is more than {WORKERS}")
    for name in ("learning_rate", "adam_epsilon", "snr_gamma", "checkpointing_minutes"):
        value = getattr(config, name)
        require(value is None or value > 0, f"--{name}: {value} is not above 0")
    for name in ("adam_beta1", "adam_beta2", "condition_dropout"):
        value = getattr(config, name)
        fits = value is None or 0 <= value < 1
        require(fits, f"--{name} must be at least 0 and below 1")
    width = config.ema_sigma_rel
    if width is not None:
        require(0.01 <= width <= 0.28, f"--ema_sigma_rel: {width} is not in 0.01 to 0.28")
        require(config.use_ema, "--ema_sigma_rel does nothing without --use_ema")
    require(
        config.resolution >= 8 and config.resolution % 8 == 0,
        f"--resolution: {config.resolution} is not a multiple of 8 from 8 on",
    )
    at_most(config, LONGEST_SIDE, "resolution")


def _check_names(config: TrainConfig) -> None:
    check_prompts("--validation_prompts", config.validation_prompts)
    check_prompts("--instance_prompt", [config.instance_prompt])
    check_prompts("--class_prompt", [config.class_prompt])
    logs = Path(config.logging_dir)
    inside = not logs.is_absolute() and ".." not in logs.parts
    require(inside, f"--logging_dir {logs}: it lies inside of --output_dir; name a plain folder")
    project = config.tracker_project_name
    require(
        bool(project.strip()) and not {"/", "\\"} & set(project) and ".." not in project,
        f"--tracker_project_name {project!r}: a name without slashes",
    )


def _check_best(config: TrainConfig) -> None:
    count, metric = config.validation_scores, config.keep_best
    require(count == 0 or count >= 2, f"--validation_scores: {count} is no spread; take 2 or more")
    require(
        not count or config.holdout > 0 or metric in (None, "loss", "kept"),
        f"--keep_best {metric} without held-out pictures: add --holdout 0.05",
    )
    require(
        metric != "loss" or config.holdout > 0,
        "--keep_best loss without held-out pictures: add --holdout 0.05",
    )
    require(
        metric in (None, "loss") or count > 0,
        f"--keep_best {metric} needs scores at validation: add --validation_scores 64",
    )
    require(
        config.patience is None or metric is not None,
        "--patience does nothing without --keep_best: add --keep_best loss",
    )


def _check_preserve(config: TrainConfig) -> None:
    weight, share = config.preserve_weight, config.preserve_share
    require(0 < weight < math.inf, f"--preserve_weight: {weight:g} is not above 0")
    require(0 < share < 1, f"--preserve_share: {share:g} is not between 0 and 1")
    if config.preserve is None:
        for flag, usual in (("preserve_weight", 1.0), ("preserve_share", 0.5)):
            given = getattr(config, flag) != usual
            require(not given, f"--{flag} does nothing without --preserve: add --preserve builtin")
        return
    file = Path(config.preserve)
    require(
        config.preserve == "builtin" or file.is_file(),
        f"--preserve {config.preserve}: no such file (and not `builtin`)",
    )
    require(
        not config.no_cache,
        "--preserve and --no_cache: what the base answers is kept in the cache; leave it out",
    )
    require(
        not getattr(config, "bucket", False),
        "--preserve and --bucket: the base draws squares, and one batch has one shape; leave one "
        "out",
    )


def _check_hub(config: TrainConfig) -> None:
    if config.push_to_hub:
        return
    for name in ("hub_model_id", "hub_token", "hub_prior_id"):
        require(
            getattr(config, name) is None, f"--{name} does nothing without --push_to_hub: add it"
        )


def _check_optimizer(config: TrainConfig) -> None:
    name = config.optimizer
    require(
        not config.use_8bit_adam or name in ("adamw", "adamw8bit"),
        f"--use_8bit_adam and --optimizer {name} exclude one another",
    )
    if name in ("adafactor", "lion"):
        usual = {"adam_beta1": 0.9, "adam_beta2": None, "adam_epsilon": 1e-8}
        for flag, value in usual.items():
            require(getattr(config, flag) == value, f"--{flag}: --optimizer {name} has none")
    if config.weights_dtype == "bf16":
        _check_bf16_weights(config)


def _check_bf16_weights(config: TrainConfig) -> None:
    require(
        config.optimizer in ("adamw", "lion") and not config.use_8bit_adam,
        "--weights_dtype bf16 needs an optimizer that keeps what rounding would lose: "
        "--optimizer adamw or lion, without --use_8bit_adam",
    )
    require(
        config.mixed_precision in (None, "bf16"),
        f"--weights_dtype bf16 and --mixed_precision {config.mixed_precision}: weights in bf16 "
        "are computed with in bf16; add --mixed_precision bf16",
    )
    # The second moment is in bf16 too. v <- beta v rounds back to v unless 1 - beta is more than
    # half of bf16's last digit, 2^-8 = 0.0039 at worst: with 0.999 it could only ever grow.
    beta = config.adam_beta2
    require(
        beta is None or beta <= 0.995,
        f"--weights_dtype bf16 and --adam_beta2 {beta}: so slow an average does not move in bf16; "
        "take 0.99, or leave it out",
    )


def _check_gradient_release(config: TrainConfig) -> None:
    """A gradient is gone once its weight is updated: nothing may need all of them at once."""
    if not config.gradient_release:
        return
    steps, name = config.gradient_accumulation_steps, config.optimizer
    of_preset = not config.lora and "gradient_release" in presets.PRESETS[config.role].get(
        config.preset or "", {}
    )
    flag = "--gradient_release" + (f" (of --preset {config.preset})" if of_preset else "")
    require(
        steps == 1,
        f"{flag} and --gradient_accumulation_steps {steps}: a gradient is used up at "
        "once and cannot be added to; take 1",
    )
    require(
        config.max_grad_norm == 0,
        f"{flag} and --max_grad_norm {config.max_grad_norm:g}: the norm of the whole "
        "gradient is never known; add --max_grad_norm 0",
    )
    require(
        config.mixed_precision != "fp16",
        f"{flag} and --mixed_precision fp16: its loss scaler looks at all gradients "
        "before the step; take bf16 or no",
    )
    require(
        name in ("adamw", "lion") and not config.use_8bit_adam,
        f"{flag} needs --optimizer adamw or lion, without --use_8bit_adam",
    )


def _check_lora(config: TrainConfig) -> None:
    at_least(config, 1, "rank", "lora_alpha")
    dropout = config.lora_dropout or 0.0
    require(0 <= dropout < 1, f"--lora_dropout: {dropout} is not at least 0 and below 1")
    require(all(map(str.strip, config.lora_targets)), "--lora_targets: a name is empty")
    for name in ("rank", "lora_alpha", "lora_dropout", "lora_targets", "use_dora"):
        value = getattr(config, name)
        unset = value is None or value is False or value == ()
        require(config.lora or unset, f"--{name} does nothing without --lora: add it")
    require(
        not config.lora or config.weights_dtype == "fp32",
        "--lora and --weights_dtype bf16: an adapter is small and stays in fp32; --mixed_precision "
        "bf16 keeps the frozen weights in bf16",
    )
    require(
        not (config.lora and config.gradient_release),
        "--lora and --gradient_release: an adapter's gradients are a few megabytes; leave it out",
    )
