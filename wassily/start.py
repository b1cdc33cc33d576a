"""What is settled before a run loads anything: checks, output folder, checkpoint, seed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from wassily import optim
from wassily.config import schema, source_checks, training
from wassily.config.training import TrainConfig
from wassily.errors import UserError
from wassily.evaluation import variance_drift
from wassily.files import atomic, checksums, lock, output_folder, run_state
from wassily.files.run_state import RunState, Saved
from wassily.maths import randomness
from wassily.models import adapters, hub, kinds, names
from wassily.models import parts as model_parts
from wassily.runtime import accelerator
from wassily.runtime.accelerator import Runtime
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
        return model_parts.TRAINED[self.config.role]

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
    folder = runtime.shared(lambda: begin(config, output_dir, held, runtime.say))
    state = runtime.shared(lambda: run_state.to_resume(folder))
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
    optim.check(config)
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


def remarks(config: TrainConfig, repositories: dict[str, str]) -> list[str]:
    """What is allowed and hardly meant: a line each."""
    if config.role == "prior" and not config.validation_prompts:
        return []  # then no picture of any size is learnt or drawn
    net = model_parts.load_config("unet", repositories["decoder"], config.cache_dir)
    movq = model_parts.load_config("movq", repositories["decoder"], config.cache_dir)
    own = (net.get("sample_size") or 64) * 2 ** (len(movq["block_out_channels"]) - 1)
    if own / 2 <= config.resolution <= own * 2:
        return []
    return [
        f"--resolution is {config.resolution}, and this decoder was made for {own} pixels: "
        f"perhaps you want --resolution {own}"
    ]


def told(config: TrainConfig, repositories: dict[str, str], output_dir: Path) -> list[str]:
    """What a run says of its config: what is not usual, and what is hardly meant."""
    return [
        *(f"  {line}" for line in schema.changed_lines(config)),
        f"everything else is as usual; the whole is in {output_dir / 'run.toml'}",
        *remarks(config, repositories),
    ]


def begin(
    config: TrainConfig, output_dir: Path, held: ExitStack, say: Callable[[str], None]
) -> Path | None:
    """Make room for the output, and hold its lock; the checkpoint to go on from. Raises UserError.

    Damaged checkpoints after it are told by `say`.
    """
    parts = {part.folder for part in model_parts.PARTS.values()} | {names.ADAPTER}
    check_free(output_dir, parts)
    _check_no(output_dir, "model_index.json" if config.lora else names.ADAPTER)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        held.enter_context(lock.held(output_dir))
        atomic.sweep(output_dir)
        return chosen(config.resume_from_checkpoint, output_dir, say)
    except OSError as error:
        raise UserError(f"--output_dir {output_dir}: {error.strerror or error}") from None


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


def chosen(asked: str | None, output_dir: Path, say: Callable[[str], None] = print) -> Path | None:
    """The checkpoint to go on from; None to start anew. Raises UserError.

    `latest` takes the newest of `output_dir` that is as it was written, or none if there is none
    yet. Without a wish, a folder that holds checkpoints is not trained over.
    """
    here = output_folder.named(output_dir)
    if asked and source_checks.is_latest(asked):
        return _newest_whole([folder for _, folder in here], say)
    if asked:
        path = source_checks.resumed(asked, str(output_dir))
        if not (path / output_folder.STATE).is_file():
            raise UserError(
                f"--resume_from_checkpoint {asked}: no checkpoint of wassily (no {output_folder.STATE})"
            )
        if reason := checksums.damage(path):
            raise UserError(f"--resume_from_checkpoint {path} is damaged: {reason}; name another")
        _check_nothing_later(path, here)
        return path
    if here:
        raise UserError(
            f"{output_dir} holds a run already (newest: {here[-1][1].name}): add "
            "--resume_from_checkpoint latest to go on with it, or name another --output_dir"
        )
    return None


def _newest_whole(folders: list[Path], say: Callable[[str], None]) -> Path | None:
    """The last of them that is not damaged; those after it step aside. None of none.

    Raises UserError if all are damaged: nothing is trained over then, either.
    """
    reasons: dict[Path, str] = {}
    for folder in reversed(folders):
        reason = checksums.damage(folder)
        if reason is None:
            for damaged, why in reasons.items():
                # Not removed, but not counted any more among those that the newest are kept of.
                damaged.rename(_unused(damaged.with_name(f"damaged-{damaged.name}")))
                say(f"{damaged} is damaged: {why}; going on from {folder.name}")
            return folder
        reasons[folder] = reason
    if reasons:
        newest = folders[-1]
        raise UserError(
            f"{newest} is damaged: {reasons[newest]}; there is no whole one before it: move it "
            "away to start anew"
        )
    return None


def _unused(path: Path) -> Path:
    return next(p for n in range(1000) if not (p := path.with_suffix(f".{n}" * bool(n))).exists())


def _check_nothing_later(path: Path, here: list[tuple[int, Path]]) -> None:
    """A run that goes on from an early checkpoint must not mix its own with those after it."""
    named = output_folder.NAME.fullmatch(path.name)
    step = int(named[1]) if named else run_state.read(path, Saved).step
    later = [folder.name for number, folder in here if number > step]
    if later:
        raise UserError(
            f"{path.name} is not the newest: {later[-1]} stands after it; move that away, or name "
            "another --output_dir"
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
