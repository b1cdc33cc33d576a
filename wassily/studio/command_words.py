"""A form of settings becomes the words of a command, which the command line itself checks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from wassily.commands import demo
from wassily.config import parsing
from wassily.config.training import TrainConfig
from wassily.errors import UserError
from wassily.files import reading
from wassily.files.reading import BadFile

CLASSES = {"prior": "PriorConfig", "decoder": "DecoderConfig"}
NAMES = {network: f"my-{network}" for network in CLASSES}  # that the form proposes


def untouched(name: str, steps: str) -> tuple[bool, bool]:
    """Whether a name and a number of steps are still what the form proposed, for either network."""
    proposed = re.fullmatch(rf"({'|'.join(NAMES.values())})(-\d+)?", name.strip())
    return bool(proposed), steps.strip() in map(str, demo.TRAINING.values())


def train(network: str, values: Mapping[str, object]) -> list[str]:
    """The words of a training, checked as the command line checks them. Raises UserError.

    `values` are flags without their hyphens; what is unset, empty or off is left out.
    """
    words = ["train", network, *_flags(values)]
    checked(words)
    return words


def _flags(values: Mapping[str, object]) -> list[str]:
    words: list[str] = []
    for name, value in values.items():
        if value is None or value is False or value in ("", ()):
            continue
        listed = [_text(v) for v in (value if isinstance(value, tuple) else (value,))]
        if any(text.startswith("-") for text in listed):
            raise UserError(f"--{name}: {listed[0]!r} begins with a hyphen, as flags do")
        words += [f"--{name}", *([] if value is True else listed)]
    return words


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def resume(folder: Path) -> list[str]:
    """The words that go on with the training of an output folder. Raises UserError."""
    file = folder / "run.toml"
    try:
        first = reading.read_text(file, root=folder).partition("\n")[0]
    except BadFile:
        raise UserError(f"{folder}: no training to go on with (no run.toml)") from None
    network = next((n for n, kind in CLASSES.items() if kind in first), None)
    if network is None:
        raise UserError(f"{file}: does not say which network it trains")
    words = ["train", network, "--config", str(file), "--resume_from_checkpoint", "latest"]
    config = checked(words)
    if Path(config.output_dir).resolve() != folder.resolve():
        raise UserError(
            f"{file}: it writes into {config.output_dir}; go on with it where it was started"
        )
    return words


def checked(words: list[str]) -> TrainConfig:
    """The config of these words of a training. Raises UserError."""
    config: TrainConfig = parsing.parse(CLASSES[words[1]], words[2:], "wassily train " + words[1])
    return config


def shown(words: list[str]) -> str:
    """A command as one types it, one flag a line."""
    lines, line = [], "wassily"
    for word in words:
        if word.startswith("--"):
            lines.append(line)
            line = "  " + word
        else:
            line += " " + shlex.quote(word)
    return " \\\n".join([*lines, line])


def prompts(text: str | None) -> tuple[str, ...]:
    """The lines of a text that are not empty."""
    return tuple(line.strip() for line in (text or "").splitlines() if line.strip())
