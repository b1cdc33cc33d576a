"""What is settled before a run loads anything: checks, output folder, checkpoint, seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wassily import adapt, checkpoint, draws, drift, hub, models, optim
from wassily import config as configs
from wassily import runtime as runtimes
from wassily.config import TrainConfig
from wassily.errors import UserError
from wassily.runtime import Runtime


def check_surroundings(config: TrainConfig) -> dict[str, str]:
    """The resolved repositories by home; raises UserError for what can fail before loading."""
    missing = runtimes.tracker_missing(config.report_to, configs.TRACKER_PACKAGES)
    if missing:
        raise UserError(
            f"--report_to {missing}: the package is not installed; pip install {missing}, "
            "or --report_to none"
        )
    optim.check(config)
    repositories = models.repositories(
        config.pretrained_prior_model_name_or_path, config.pretrained_decoder_model_name_or_path
    )
    if config.role == "decoder" or config.validation_prompts:  # else the decoder is not looked at
        models.check_widths(repositories, config.cache_dir)
    drift.check_variance(config, repositories["decoder"])
    local = Path(repositories["prior"]).is_absolute()
    if config.push_to_hub and config.role == "decoder" and local and not config.hub_prior_id:
        raise UserError(
            "--push_to_hub: the prior is a local folder, which others do not have: "
            "name its repository with --hub_prior_id"
        )
    adapt.check_chosen(config, repositories)
    return repositories


def begin(config: TrainConfig, output_dir: Path) -> Path | None:
    """Make room for the output; the checkpoint to go on from."""
    chosen = checkpoint.chosen(config.resume_from_checkpoint, output_dir)
    parts = {part.folder for part in models.PARTS.values()} | {models.ADAPTER}
    checkpoint.check_free(output_dir, parts)
    checkpoint.check_no(output_dir, "model_index.json" if config.lora else models.ADAPTER)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        checkpoint.sweep(output_dir)
    except OSError as error:
        raise UserError(f"--output_dir {output_dir}: {error.strerror or error}") from None
    return chosen


def seed_of(config: TrainConfig, saved: dict[str, Any] | None, runtime: Runtime) -> int:
    """The seed that was named, the checkpoint's, or a fresh one for all processes."""
    if config.seed is not None:
        return config.seed
    if saved:
        return int(saved["signature"]["seed"])
    return int(runtime.shared(draws.fresh_seed))


def hub_repository(config: TrainConfig, output_dir: Path) -> str | None:
    """The repository of an upload, made if it is not there; None without --push_to_hub."""
    if not config.push_to_hub:
        return None
    return hub.create(config.hub_model_id or output_dir.resolve().name, config.hub_token)
