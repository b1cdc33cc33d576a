"""The command that resumes a training, allowed only where the form could have started it.

The run.toml of an output folder may be a stranger's. Its values become the words of the command, so
that the page shows every one of them and the process reads no file that could change meanwhile.
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from wassily.config import parsing, schema
from wassily.config.training import TrainConfig
from wassily.errors import UserError
from wassily.files import reading
from wassily.files.reading import BadFile
from wassily.studio import command_words, model_choices
from wassily.studio.allowed_folders import AllowedFolders

FILE = "run.toml"
DATA = ("train_data_dir", "dataset_name", "instance_data_dir", "class_data_dir", "preserve")
MODELS = {
    "pretrained_prior_model_name_or_path": "prior",
    "pretrained_decoder_model_name_or_path": "decoder",
    "drawn_embeds": "prior",
}
BUILTIN = ("preserve", "builtin")  # the prompts of the package
LOCAL_TRACKERS = ("tensorboard", "none")


def words(allowed: AllowedFolders, folder: Path, cache_dir: str | None) -> list[str]:
    """The words of `wassily` that resume the training of an output folder from its newest
    checkpoint. Raises UserError, with the command to type for a training that reads or sends more
    than the studio may.
    """
    saved = _saved(folder)
    if Path(saved.output_dir).resolve() != folder.resolve():
        raise UserError(
            f"{folder / FILE}: it writes into {saved.output_dir}. Resume it where it was started."
        )
    # The values of the preset are among the others already.
    config = dataclasses.replace(saved, preset=None, resume_from_checkpoint="latest")
    found = ["train", saved.role, *schema.to_flags(config)]
    parsed = command_words.checked(found)
    problem = _problem(allowed, parsed, cache_dir)
    if problem is None and schema.public(parsed) != schema.public(config):
        problem = "a value begins with a hyphen, as flags do"
    if problem is not None:
        typed = ["wassily", "train", saved.role, "--config", str(folder / FILE)]
        typed += ["--resume_from_checkpoint", "latest"]
        raise UserError(f"{folder / FILE}: {problem}. To resume it, type: {shlex.join(typed)}")
    return found


def _saved(folder: Path) -> TrainConfig:
    """The config that a training wrote into its output folder. Raises UserError."""
    file = folder / FILE
    try:
        first = reading.read_text(file, root=folder).partition("\n")[0]
    except BadFile as error:
        raise UserError(f"{folder}: no training to resume ({error})") from None
    kind = next((kind for kind in command_words.CLASSES.values() if kind in first), None)
    if kind is None:
        raise UserError(f"{file}: its first line names no network. Start a new training.")
    cls = parsing.config_class(kind)
    values = schema.from_mapping(cls, reading.read_toml(file, root=folder), str(file))
    config: TrainConfig = cls(**values)
    return config


def _problem(allowed: AllowedFolders, config: TrainConfig, cache_dir: str | None) -> str | None:
    """Why the studio does not resume a training, None if it may."""
    for name in DATA:
        value = getattr(config, name)
        inside = value is None or allowed.has_data(value) or (name, value) == BUILTIN
        if not inside:
            return f"--{name} {value} is not in a folder that the studio was given by --data"
    for name, home in MODELS.items():
        value = getattr(config, name, None)
        if value is not None and not model_choices.is_offered(allowed.runs, home, value):
            return f"--{name} {value} is no {home} that the studio found below {allowed.runs}"
    if config.push_to_hub:
        return "--push_to_hub uploads the model"
    if config.report_to not in LOCAL_TRACKERS:
        return f"--report_to {config.report_to} sends the log to a server"
    if config.cache_dir not in (None, cache_dir):
        return f"--cache_dir {config.cache_dir} is not that of the studio"
    return None
