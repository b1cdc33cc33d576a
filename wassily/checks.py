"""What a config may not be: values out of range and contradictions, each refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wassily.errors import UserError


def require(holds: bool, message: str) -> None:
    """Raise UserError unless it holds."""
    if not holds:
        raise UserError(message)


def at_least(config: Any, least: float, *names: str) -> None:
    """Raise UserError naming the first of these fields that is set and below `least`."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value >= least, f"--{name}: {value} is less than {least}")


def check_training(config: Any) -> None:
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
        "logging_steps",
    )
    at_least(config, 0, "dataloader_num_workers", "seed", "lr_warmup_steps", "adam_weight_decay")
    for name in ("learning_rate", "adam_epsilon", "max_grad_norm", "snr_gamma"):
        value = getattr(config, name)
        require(value is None or value > 0, f"--{name}: {value} is not above 0")
    for name in ("adam_beta1", "adam_beta2"):
        require(0 <= getattr(config, name) < 1, f"--{name} must be at least 0 and below 1")
    require(
        config.resolution >= 8 and config.resolution % 8 == 0,
        f"--resolution: {config.resolution} is not a multiple of 8 from 8 on",
    )
    logs = Path(config.logging_dir)
    inside = not logs.is_absolute() and ".." not in logs.parts
    require(inside, f"--logging_dir {logs}: it lies inside of --output_dir; name a plain folder")
    project = config.tracker_project_name
    require(
        bool(project.strip()) and not {"/", "\\"} & set(project) and ".." not in project,
        f"--tracker_project_name {project!r}: a name without slashes",
    )
    _check_source(config)
    _check_hub(config)
    require(
        bool(config.output_dir.strip()),
        "--output_dir is empty: name the folder that takes the results",
    )


def _check_source(config: Any) -> None:
    require(
        not (config.no_cache and config.verify_cache),
        "--no_cache and --verify_cache exclude one another: there is no cache to verify",
    )
    named, folder = config.dataset_name, config.train_data_dir
    require(
        bool(named or folder) or not config.needs_pictures,
        "no pictures named: give --train_data_dir FOLDER or --dataset_name NAME",
    )
    require(
        not (named and folder),
        "--dataset_name and --train_data_dir were both given: name one source of pictures",
    )
    require(
        not (config.dataset_config_name and folder),
        "--dataset_config_name belongs to --dataset_name, not to --train_data_dir",
    )
    if folder:
        require(Path(folder).exists(), f"--train_data_dir {folder}: no such folder")
        require(Path(folder).is_dir(), f"--train_data_dir {folder}: not a folder")
    resume = config.resume_from_checkpoint
    if resume and resume != "latest":
        require(Path(resume).is_dir(), f"--resume_from_checkpoint {resume}: no such folder")


def _check_hub(config: Any) -> None:
    if config.push_to_hub:
        return
    for name in ("hub_model_id", "hub_token", "hub_prior_id"):
        require(
            getattr(config, name) is None, f"--{name} does nothing without --push_to_hub: add it"
        )
