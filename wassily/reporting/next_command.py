"""The other network of a training: whether it is tuned, and what draws with both of them."""

from __future__ import annotations

import shlex
from pathlib import Path

from wassily.config.training import TrainConfig
from wassily.data import folders
from wassily.data.datasets import Pictures
from wassily.errors import UserError, printable
from wassily.models import names, parts
from wassily.reporting import run_facts

OTHER = {"prior": "decoder", "decoder": "prior"}


def is_run(name: str | Path) -> bool:
    """Whether a model name is the folder of a training of ours."""
    return (Path(name) / run_facts.FILE).is_file()


def samples_remark(config: TrainConfig) -> str:
    """What samples of a training are drawn with besides; nothing where that was trained, too."""
    other = OTHER[config.role]
    base = getattr(config, f"pretrained_{other}_model_name_or_path")
    return "" if is_run(base) else f" (drawn with the {other} as it is, untuned)"


def source(config: TrainConfig) -> str:
    """What a training learns from: a folder by its whole path, or a data set by its name."""
    folder = config.train_data_dir or config.instance_data_dir
    if folder is None and Path(config.dataset_name or "").exists():
        folder = config.dataset_name
    if folder is not None:
        return str(Path(folder).resolve())
    return " ".join(filter(None, (config.dataset_name, config.dataset_config_name)))


def partner(config: TrainConfig, repositories: dict[str, str]) -> str | None:
    """The newest finished training of the other network on the same data beside this one's folder,
    from the base that this one knows; before all, the one that --drawn_embeds names. None without
    one.
    """
    named = getattr(config, "drawn_embeds", None)
    if named and is_run(named):
        return str(named)
    home = OTHER[config.role]
    base = parts.public_name(repositories[home], home)
    try:
        near = Path(config.output_dir).resolve().parent.iterdir()
        beside = [f for f in near if _is_of(f, home, base, source(config))]
        return (
            str(max(beside, key=lambda f: (f / run_facts.FILE).stat().st_mtime)) if beside else None
        )
    except OSError:
        return None


def _is_of(folder: Path, home: str, base: str, learned: str) -> bool:
    """Whether a folder has the result of a training of that network from that base on that data."""
    facts = run_facts.read_summary(folder) if is_run(folder) else {}
    results = (folder / parts.TRAINED[home] / "config.json", folder / names.ADAPTER)
    command = facts.get("command")
    trained = command[1:3] if isinstance(command, list) else []
    return (
        trained == ["train", home]
        and facts.get("base") == base
        and facts.get("source") == learned
        and any(file.is_file() for file in results)
    )


def caption(config: TrainConfig, source: Pictures | None) -> str | None:
    """The first caption of a training's pictures, on one line; None if none is at hand.

    `source` is what was read; the folder is looked into where captions were not.
    """
    found = next(source.all_captions(), None) if source is not None else None
    found = found or config.instance_prompt
    if found is None and config.train_data_dir:
        rows = folders.rows_of(config.train_data_dir, config.caption_column, lambda error: None)
        try:
            found = next((texts[0] for _, texts in rows if texts), None)
        except UserError:
            found = None
    line = " ".join((found or "").split())
    return line if line and printable(line) == line else None


def next_line(config: TrainConfig, repositories: dict[str, str], first: str | None) -> str:
    """Where the result of a training is, and the command that draws with it; `first` is a caption
    of its pictures. It says so if the other network is still the base's.
    """
    role, other = config.role, OTHER[config.role]
    known = names.example_prompt(repositories[role], role)
    prompt = (*config.validation_prompts, first or known)[0]
    ends = {home: parts.public_name(name, home) for home, name in repositories.items()}
    ends[role] = config.output_dir
    remark = ""
    if found := None if is_run(ends[other]) else partner(config, repositories):
        ends[other] = found
    elif not is_run(ends[other]):
        remark = f" (the {other} is still its base's: train both, then judge)"
    words = ["wassily", "generate", prompt, "--prior", ends["prior"], "--decoder", ends["decoder"]]
    if parts.public_name(repositories[role], role) == "mini":
        words += ["--guidance_scale", f"{names.GUIDANCE['decoder']:g}"]
        words += ["--prior_guidance_scale", f"{names.GUIDANCE['prior']:g}"]
    return f"the {role} is in {config.output_dir}{remark}: {shlex.join(words)}"
