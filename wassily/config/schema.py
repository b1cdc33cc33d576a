"""Configs as plain values: type checks, names from a mapping, TOML out."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from wassily.errors import UserError, did_you_mean, masked, without_secrets

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SECRETS = frozenset({"hub_token"})
# Fields that name a file or folder, or a model or data set that may be one; and lists of such.
PATHS = frozenset(
    """pretrained_decoder_model_name_or_path pretrained_prior_model_name_or_path train_data_dir
    dataset_name instance_data_dir class_data_dir cache_dir output_dir resume_from_checkpoint
    preserve logging_dir drawn_embeds image mask control prior decoder prior_lora decoder_lora out
    prompts_file variations from_picture base lora tuned folder holdout_dir json runs write_data
    prompts base_prior base_decoder save_pictures learned_prompts""".split()
)
PATH_LISTS = frozenset({"base", "tuned", "data"})
LONGEST_PROMPT = 10_000  # characters: the text encoder reads 77 tokens
MOST = 2**63  # what the libraries below take for a whole number is less


@dataclass(frozen=True)
class About:
    """What others tell of a flag, in its annotation: `card` names its row in a model card and
    `fact` its value in run.json; `remarked`: a resume says if it has changed.
    """

    card: str = ""
    fact: str = ""
    remarked: bool = False


def abouts(cls: type) -> dict[str, About]:
    """Field name -> what others tell of it, in the order of the fields."""
    found: dict[str, About] = {}
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        for note in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(note, About):
                found[field.name] = note
    return found


def card_rows(config: DataclassInstance) -> dict[str, Any]:
    """What a model card tells of a config; what is unset is left out."""
    values = public(config)
    named = {about.card: values[n] for n, about in abouts(type(config)).items()}
    return {row: value for row, value in named.items() if row and value is not None}


def run_facts(config: DataclassInstance) -> dict[str, Any]:
    """What run.json tells of a config besides the words of its command."""
    values = public(config)
    named = {about.fact: values[n] for n, about in abouts(type(config)).items()}
    return {fact: value for fact, value in named.items() if fact}


def remarked(cls: type) -> list[str]:
    """The flags whose change a resume says: they change the numbers, not what the state means."""
    return [name for name, about in abouts(cls).items() if about.remarked]


def _fits(value: object, kind: object) -> bool:
    """Whether a value is of an annotated type; an int passes for a float, a bool for no number."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return _fits(value, typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(kind))
    if origin is Literal:
        return value in typing.get_args(kind)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(v, typing.get_args(kind)[0]) for v in value)
    if kind is float:
        whole = isinstance(value, int) and _fits(value, int) and abs(value) < MOST
        return whole or (isinstance(value, float) and math.isfinite(value))
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(kind, type) and isinstance(value, kind)


def describe_type(kind: object) -> str:
    """A type as a person would say it: "a whole number", "one of no, fp16, bf16", ..."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return describe_type(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        inner = [describe_type(k) for k in typing.get_args(kind) if k is not type(None)]
        return " or ".join(inner)
    if origin is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if origin is tuple:
        return "a list of texts"
    names: dict[object, str] = {
        int: "a whole number",
        float: "a finite number",
        str: "a text",
        bool: "true or false",
    }
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def check_types(config: DataclassInstance) -> None:
    """Raise UserError naming the first field whose value is not of its annotated type.

    Then `~` at the beginning of a path becomes the home: a shell leaves it alone behind a `=`.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not _fits(value, hints[field.name]):
            wanted = describe_type(hints[field.name])
            shown = "what was given" if field.name in SECRETS else masked(repr(value))[:80]
            raise UserError(f"--{field.name}: {shown} is not {wanted}")
        if type(value) is int and abs(value) >= MOST:
            raise UserError(f"--{field.name}: {value!r:.40} is too large; it goes up to 2**63")
        if isinstance(value, str) and "\0" in value:
            raise UserError(f"--{field.name}: {value!r} has a NUL in it, which no name may")
        if field.name in PATHS and isinstance(value, str):
            object.__setattr__(config, field.name, _at_home(field.name, value))
        elif field.name in PATH_LISTS and isinstance(value, tuple):
            whole = tuple(_at_home(field.name, one) for one in value)
            object.__setattr__(config, field.name, whole)


def check_values(cls: type, values: Mapping[str, object], where: str) -> None:
    """Raise UserError for a saved value that is not of its field's type; unknown names pass, which
    another version had.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    for name in hints.keys() & values.keys():
        value = values[name]
        value = tuple(value) if isinstance(value, list) else value
        if not _fits(value, hints[name]):
            raise UserError(f"{where}: {name} is not {describe_type(hints[name])} ({value!r:.80}).")


def _at_home(name: str, path: str) -> str:
    """A path with the home in place of `~`. Raises UserError where there is no such home, and for a
    variable, which nobody fills in behind a shell's back.
    """
    whole = os.path.expanduser(path)
    if os.path.lexists(whole):
        return whole
    if whole.startswith("~"):
        user = whole.partition("/")[0]
        raise UserError(f"--{name} {path}: no user {user[1:]!r} here; write ./{path} for a folder")
    if found := re.match(r"\$\{?\w+\}?(?=/|$)", whole):
        raise UserError(
            f"--{name} {path}: only a shell fills in {found[0]}; write ~ for the home, or the "
            "whole path"
        )
    return whole


def require(holds: bool, message: str) -> None:
    """Raise UserError with a message unless what it says holds."""
    if not holds:
        raise UserError(message)


def at_least(config: object, least: float, *names: str) -> None:
    """Raise UserError naming the first of these fields whose value is set and less than that."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value >= least, f"--{name}: {value} is less than {least}")


def at_most(config: object, most: float, *names: str) -> None:
    """Raise UserError naming the first of these fields whose value is set and not up to that."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value <= most:  # NaN is not, either
            raise UserError(f"--{name}: {value:g} is more than {most:g}. Take less.")


def check_prompts(flag: str, prompts: Iterable[str | None]) -> None:
    """Raise UserError for a prompt that is too long or no Unicode text; `flag` is its name."""
    for prompt in filter(None, prompts):
        if len(prompt) > LONGEST_PROMPT:
            size = f"{len(prompt):,} characters, the limit is {LONGEST_PROMPT:,}"
            raise UserError(f"{flag}: a prompt is too long ({size}). Shorten it.")
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise UserError(
                f"{flag}: {prompt[:80]!r} is not Unicode text. Remove the lone surrogate."
            )


def from_mapping(cls: type, values: dict[str, Any], where: str) -> dict[str, Any]:
    """Check the names of a mapping (a TOML file) against a config class; lists become tuples.

    Raises UserError naming `where`, the unknown key and the nearest known one.
    """
    known = [field.name for field in dataclasses.fields(cls)]
    if "validation_prompt" in values:
        values = {
            ("validation_prompts" if k == "validation_prompt" else k): v for k, v in values.items()
        }
    for key in values:
        if key not in known:
            raise UserError(f"{where}: unknown name {key!r}{did_you_mean(key, known)}")
    tuples = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    if isinstance(tuples.get("validation_prompts"), str):
        tuples["validation_prompts"] = (tuples["validation_prompts"],)
    return tuples


def public(config: DataclassInstance) -> dict[str, Any]:
    """The config as plain values, without secrets: fit to be printed, saved, sent.

    Secrets are fields of their own (SECRETS) or parts of a text, as the signature of an address.
    """
    values = dataclasses.asdict(config)
    shown: dict[str, Any] = without_secrets({k: v for k, v in values.items() if k not in SECRETS})
    return shown


def left_out(config: DataclassInstance) -> str | None:
    """The line that names the flags whose text `public` shortens; None without one."""
    values = public(config)
    names = [f"--{name}" for name, shown in values.items() if shown != getattr(config, name)]
    if not names:
        return None
    return (
        f"run.toml: the secrets in {', '.join(names)} are left out. To run again, add the flag "
        "with its whole value."
    )


def to_flags(config: DataclassInstance) -> list[str]:
    """The words of a command line that give this config: what is not the default, no secrets."""
    words: list[str] = []
    usual = {field.name: field.default for field in dataclasses.fields(config)}
    for key, value in public(config).items():
        if value == usual[key] or value is None:
            continue
        listed = list(value) if isinstance(value, (list, tuple)) else [value]
        words += [f"--{key}", *([] if value is True else map(str, listed))]
    return words


def to_toml(config: DataclassInstance) -> str:
    """The config as TOML that `--config` reads back; unset values and secrets are left out."""
    lines = [f"# {type(config).__name__}: run again with --config THIS_FILE"]
    lines += [f"# {line}"] if (line := left_out(config)) else []
    for key, value in public(config).items():
        if value is not None:
            lines.append(f"{key} = {_toml_value(value)}")
    return "\n".join(lines) + "\n"


def changed_lines(config: DataclassInstance) -> list[str]:
    """The TOML lines of those values that are not the defaults."""
    usual = {f.name: f.default for f in dataclasses.fields(config)}
    changed = {name: v for name, v in public(config).items() if v is not None and v != usual[name]}
    return [f"{name} = {_toml_value(value)}" for name, value in changed.items()]


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for DEL, which JSON leaves bare.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
