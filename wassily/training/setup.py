"""What is settled before a run loads anything: checks, output folder, checkpoint, seed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wassily.config import schema, training
from wassily.config.training import TrainConfig
from wassily.errors import UserError
from wassily.evaluation import variance_drift
from wassily.files import atomic, lock, output_folder, run_state
from wassily.files.run_state import RunState
from wassily.maths import randomness
from wassily.models import adapters, hub, kinds, names
from wassily.models.parts import PARTS, TRAINED, load_config
from wassily.runtime import accelerator
from wassily.runtime.accelerator import Runtime
from wassily.training import optimizers, resume
from wassily.training_data import generated_embeddings


@dataclass(frozen=True)
class Resumed:
    """The checkpoint that a run is resumed from, and its state."""

    folder: Path
    state: RunState


@dataclass(frozen=True)
class Setup:
    """What is settled of a run before anything is loaded.

    `repositories` are resolved, by home; `hub_repository` is that of the upload, if there is one.
    """

    config: TrainConfig
    repositories: dict[str, str]
    output_dir: Path
    runtime: Runtime
    seed: int
    resumed: Resumed | None = None
    hub_repository: str | None = None

    @property
    def role(self) -> str:
        """The role, and folder, of the network in training."""
        return TRAINED[self.config.role]

    @property
    def start(self) -> int:
        """Optimizer steps done already."""
        return self.resumed.state.step if self.resumed else 0


def settle(
    config: TrainConfig, repositories: dict[str, str], runtime: Runtime, held: ExitStack
) -> Setup:
    """Take the output folder and its lock, look for the checkpoint to resume from, draw the seed.

    Raises UserError.
    """
    output_dir = Path(config.output_dir)
    folder = runtime.shared(lambda: take_output_folder(config, output_dir, held, runtime.say))
    state = runtime.shared(lambda: saved_state(config, folder))
    seed = seed_of(config, state, runtime)
    repository = runtime.shared(lambda: hub_repository(config, output_dir))
    resumed = Resumed(folder, state) if folder and state else None
    return Setup(config, repositories, output_dir, runtime, seed, resumed, repository)


def check_surroundings(config: TrainConfig) -> dict[str, str]:
    """The resolved repositories by home; raises UserError for what can fail before loading."""
    missing = accelerator.tracker_missing(config.report_to, training.TRACKER_PACKAGES)
    if missing:
        raise UserError(
            f"--report_to {missing}: the package is not installed; pip install {missing}, "
            "or --report_to none"
        )
    optimizers.check(config)
    repositories = names.repositories(
        config.pretrained_prior_model_name_or_path, config.pretrained_decoder_model_name_or_path
    )
    if kinds.reads_decoder(config):
        kinds.check_plain(repositories["decoder"], config.cache_dir)
        kinds.check_widths(repositories, config.cache_dir)
    generated_embeddings.repository(config, repositories["decoder"])
    variance_drift.check_variance(config, repositories["decoder"])
    local = Path(repositories["prior"]).is_absolute()
    if config.push_to_hub and config.role == "decoder" and local and not config.hub_prior_id:
        raise UserError(
            "--push_to_hub: the prior is a local folder, which others do not have: "
            "name its repository with --hub_prior_id"
        )
    adapters.check_chosen(config, repositories)
    return repositories


def resolution_lines(config: TrainConfig, repositories: dict[str, str]) -> list[str]:
    """What is allowed and hardly meant: a line each."""
    if config.role == "prior" and not config.validation_prompts:
        return []  # then no picture of any size is learnt or drawn
    net = load_config("unet", repositories["decoder"], config.cache_dir)
    movq = load_config("movq", repositories["decoder"], config.cache_dir)
    own = (net.get("sample_size") or 64) * 2 ** (len(movq["block_out_channels"]) - 1)
    if own / 2 <= config.resolution <= own * 2:
        return []
    return [
        f"--resolution is {config.resolution}, and this decoder was made for {own} pixels: "
        f"perhaps you want --resolution {own}"
    ]


def config_lines(config: TrainConfig, repositories: dict[str, str], output_dir: Path) -> list[str]:
    """What a run says of its config: what is not usual, and what is hardly meant."""
    return [
        *(f"  {line}" for line in schema.changed_lines(config)),
        f"everything else is as usual; the whole is in {output_dir / 'run.toml'}",
        *resolution_lines(config, repositories),
    ]


def take_output_folder(
    config: TrainConfig, output_dir: Path, held: ExitStack, say: Callable[[str], None]
) -> Path | None:
    """Make room for the output, and hold its lock; the checkpoint to resume. Raises UserError.

    Damaged checkpoints after it are told by `say`.
    """
    parts = {part.folder for part in PARTS.values()} | {names.ADAPTER}
    check_free(output_dir, parts)
    _check_no(output_dir, "model_index.json" if config.lora else names.ADAPTER)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        atomic.check_own(output_dir / name for name in ("validation", "logs"))
        held.enter_context(lock.held(output_dir))
        atomic.sweep(output_dir)
        fault = functools.partial(_state_fault, config)
        return resume.chosen_checkpoint(config.resume_from_checkpoint, output_dir, say, fault)
    except OSError as error:
        raise UserError(f"--output_dir {output_dir}: {error.strerror or error}") from None


def _state_fault(config: TrainConfig, folder: Path) -> str | None:
    """Why the state of a checkpoint cannot be resumed by a run of this network; None if it can."""
    try:
        saved_state(config, folder)
    except UserError as error:
        return str(error)
    return None


def saved_state(config: TrainConfig, folder: Path | None) -> RunState | None:
    """The state of the checkpoint to resume from; None without one. Raises UserError."""
    state = run_state.to_resume(folder)
    if state is not None:
        where = f"{folder}: the config in {output_folder.STATE}"
        schema.check_values(type(config), state.config, where)
    return state


def check_free(output_dir: Path, parts: set[str]) -> None:
    """Raise UserError if an export into a folder would replace what no run of ours put there."""
    if (
        not output_dir.is_dir()
        or (output_dir / "run.toml").is_file()
        or output_folder.checkpoints_in(output_dir)
    ):
        return
    taken = sorted(
        ({"README.md", "model_index.json"} | parts) & {p.name for p in output_dir.iterdir()}
    )
    if taken:
        raise UserError(
            f"--output_dir {output_dir}: the result would replace {', '.join(taken)} there; "
            "name another folder"
        )


def _check_no(output_dir: Path, file: str) -> None:
    """Raise UserError if a folder holds the result of another kind of run: whole, or an adapter."""
    if (output_dir / file).is_file():
        raise UserError(
            f"--output_dir {output_dir} holds the result of a run with other --lora: {file}; name "
            "another folder"
        )


def seed_of(config: TrainConfig, saved: RunState | None, runtime: Runtime) -> int:
    """The seed that was named, the checkpoint's, or a fresh one for all processes."""
    if config.seed is not None:
        return config.seed
    if saved:
        return int(saved.signature["seed"])
    return int(runtime.shared(randomness.fresh_seed))


def hub_repository(config: TrainConfig, output_dir: Path) -> str | None:
    """The repository of an upload, made if it is not there; None without --push_to_hub."""
    if not config.push_to_hub:
        return None
    return hub.create(config.hub_model_id or output_dir.resolve().name, config.hub_token)


def use_xformers(net: Any, runtime: Runtime) -> None:
    """Attention by xFormers where it is installed; else say that PyTorch's own does."""
    try:
        import xformers  # noqa: F401
    except ImportError:
        runtime.say(
            "xFormers is not installed: PyTorch's own attention is memory-efficient already"
        )
        return
    net.enable_xformers_memory_efficient_attention()
