"""The words of a command line, parsed to a checked config."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import typing
from pathlib import Path
from typing import Any

from wassily.errors import UserError
from wassily.files import reading
from wassily.files.reading import BadFile


def config_class(name: str) -> type:
    """A config class by its name."""
    from wassily.config import commands, evaluation, generation, training

    homes = (training, commands, evaluation, generation)
    return next(getattr(home, name) for home in homes if hasattr(home, name))


def parse(class_name: str, words: list[str], prog: str) -> Any:
    """The config of a command: defaults, then the preset, the file of `--config`, the flags.

    Raises UserError for bad values and unknown flags, naming the nearest one.
    """
    import tyro

    cls = config_class(class_name)
    words, file = _take_config_file(words)
    _check_words(words)
    default = _from_file(cls, file) if file is not None else {}
    default = _preset(cls, words, default) | default
    if {"-h", "--help"} & set(words):  # which shows the values of the file
        from wassily.config import schema

        # tyro breaks the longest flags' names where the terminal is narrower than they are.
        os.environ["COLUMNS"] = str(max(60, shutil.get_terminal_size().columns))
        default = {name: value for name, value in default.items() if name not in schema.SECRETS}
    # A switch that is on by the file or the preset, or off: saying so again changes nothing.
    fields = {f.name: f.default for f in dataclasses.fields(cls)} | default
    said = {n if value else f"no_{n}" for n, value in fields.items() if isinstance(value, bool)}
    named = {flag_of(word) for word in words}
    for name, value in fields.items():
        if isinstance(value, bool) and {name, f"no_{name}"} <= named:
            raise UserError(f"--{name} and --no-{name} were both given: keep one")
    words = [word for word in words if flag_of(word) not in said]
    # Contradictions are judged once, on the whole: tyro builds from a bag of defaults, not from a
    # config.
    bare = _unchecked(cls, fields)
    options: dict[str, Any] = {"use_underscores": True, "config": (tyro.conf.FlagCreatePairsOff,)}
    refusal = io.StringIO()
    try:
        with contextlib.redirect_stderr(refusal):  # tyro's faults come in a frame of many lines
            return tyro.cli(cls, prog=prog, args=words, default=bare, **options)
    except SystemExit as stop:
        if stop.code != 2:
            raise
        from wassily.config import mistakes

        raise UserError(mistakes.fault(cls, words, refusal.getvalue(), _positional(cls))) from None


def _positional(cls: type) -> str | None:
    """The field whose values stand without a flag, if a config class has one."""
    import tyro

    hints = typing.get_type_hints(cls, include_extras=True)
    for name, kind in hints.items():
        if tyro.conf.Positional in getattr(kind, "__metadata__", ()):
            return name
    return None


def _preset(cls: type, words: list[str], file: dict[str, Any]) -> dict[str, Any]:
    """The values of the preset that is named by flag or file; none for one that is not known."""
    from wassily.config import presets

    named = file.get("preset")
    for word, following in zip(words, [*words, None][1:], strict=True):
        if flag_of(word) == "preset":
            named = word.partition("=")[2] if "=" in word else following
    network = next((n for n in presets.PRESETS if cls.__name__.lower().startswith(n)), None)
    if network is None or named is None:
        return {}
    lora = bool(file.get("lora")) or any(flag_of(word) == "lora" for word in words)
    known = presets.known(network, lora)
    if named == "8gb" and named not in known:
        least = list(known)[-1]
        raise UserError(f"--preset {named}: the {network} as a whole does not fit; take {least}")
    return dict(known.get(named, {}))  # an unknown name is refused with the flags


def flag_of(word: str) -> str | None:
    """The flag's name in a word, in one spelling; None for a value."""
    if not word.startswith("--"):
        return None
    name = word[2:].split("=", 1)[0].replace("-", "_")
    return "validation_prompts" if name == "validation_prompt" else name


def _check_words(words: list[str]) -> None:
    """Raise UserError for words that are no text, and for a list of prompts given in two pieces."""
    for word in words:
        if any("\ud800" <= c <= "\udfff" for c in word):
            raise UserError(f"{word!r}: not UTF-8 text")
    if sum(flag_of(word) == "validation_prompts" for word in words) > 1:
        raise UserError("--validation_prompts was given twice: put all prompts behind one")


def _unchecked(cls: type, values: dict[str, Any]) -> Any:
    """An instance that skipped `__post_init__`: only a holder of defaults for tyro."""
    holder: Any = object.__new__(cls)
    for key, value in values.items():
        object.__setattr__(holder, key, value)
    return holder


def _take_config_file(words: list[str]) -> tuple[list[str], str | None]:
    """Cut `--config FILE` out of the words."""
    for i, word in enumerate(words):
        if word == "--config":
            if any(w == "--config" or w.startswith("--config=") for w in words[i + 1 :]):
                raise UserError("--config was given twice: name one file")
            if i + 1 == len(words):
                raise UserError("--config needs the name of a TOML file")
            return words[:i] + words[i + 2 :], words[i + 1]
        if word.startswith("--config="):
            return words[:i] + words[i + 1 :], word.split("=", 1)[1]
    return words, None


def _from_file(cls: type, file: str) -> dict[str, Any]:
    """Named values of a TOML file, checked by name and type."""
    from wassily.config import schema

    path = Path(file).expanduser()
    if not path.exists():
        raise UserError(f"--config {file}: no such file. Check the name.")
    try:
        values = reading.read_toml(path)
    except BadFile as error:
        raise UserError(f"--config {str(error).replace(str(path), file, 1)}") from None
    checked = schema.from_mapping(cls, values, f"--config {file}")
    schema.check_types(
        _unchecked(cls, {f.name: f.default for f in dataclasses.fields(cls)} | checked)
    )
    return checked
