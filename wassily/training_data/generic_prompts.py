"""The lists of generic prompts, which tell what a network kept."""

from __future__ import annotations

from pathlib import Path

from wassily.config.training import TrainConfig
from wassily.errors import UserError
from wassily.files import reading
from wassily.files.reading import BadFile
from wassily.models import parts

LISTS = ("english", "arabic")
GENERIC = Path(__file__).parent / "prompts"


def builtin(mini: bool) -> dict[str, list[str]]:
    """Prompts by language, line by line the same; those of its own world for the bundled model."""
    folder = parts.MINI / "prompts" if mini else GENERIC
    return {name: prompt_lines(folder / f"{name}.txt") for name in LISTS}


def prompt_lines(path: Path) -> list[str]:
    """The prompts of a text file, one a line. Raises UserError."""
    try:
        text = reading.read_text(path)
    except BadFile as error:
        raise UserError(f"--prompts {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def shortened(lists: dict[str, list[str]], most: int | None) -> dict[str, list[str]]:
    """At most so many prompts in all, but 2 of each list, of each list alike."""
    each = None if most is None else max(2, most // len(lists))
    return {name: prompts[:each] for name, prompts in lists.items()}


def generic(prior: str, most: int) -> list[str]:
    """At most so many prompts for networks on a resolved prior.

    The bundled model reads both languages. The text encoder of the released weights was trained on
    English, so Arabic prompts would only add noise there.
    """
    mini = prior == str(parts.MINI / "prior")
    found = builtin(mini)
    chosen = found if mini else {"english": found["english"]}
    return [prompt for prompts in shortened(chosen, most).values() for prompt in prompts]


def prompts(config: TrainConfig, repositories: dict[str, str]) -> list[str]:
    """The prompts of a file, one a line, or those that come along. Raises UserError."""
    assert config.preserve  # the caller looked
    path = Path(config.preserve)
    if config.preserve == "builtin":
        mini = parts.public_name(repositories["prior"], "prior") == "mini"
        path = (parts.MINI / "prompts" if mini else GENERIC) / "preserve.txt"
    try:
        text = reading.read_text(path)
    except BadFile as error:
        raise UserError(f"--preserve {error}") from None
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise UserError(f"--preserve {path}: no prompt in it")
    return found
