"""What is wrong with the words of a command line, told in one line once they were refused."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator
from typing import Literal

from wassily.config.schema import describe_type
from wassily.errors import did_you_mean

ALIASES = {"validation_prompt": "validation_prompts", "from": "from_picture"}


def fault(cls: type, words: list[str], reason: str, positional: str | None) -> str:
    """The first fault of `words` as flags of a config class, with the nearest name or what fits.

    `reason` is what the parser said of them, for a fault that is none of the usual ones;
    `positional` the field that takes words without a flag, if there is one.
    """
    return next(_faults(cls, words, positional), None) or plain(reason)


def plain(text: str) -> str:
    """A text of several lines in a frame with a heading, on one line: its first paragraph."""
    lines = [line.strip("│| \t") for line in text.splitlines()]
    rules = [n for n, line in enumerate(lines) if set(line) <= set("─-╭╮╰╯+ ") or line[0] in "╭+"]
    begin = rules[0] + 1 if rules else 0
    end = next((n for n in rules if n > begin), len(lines))
    return " ".join(" ".join(lines[begin:end]).split()) or "the flags cannot be read; see --help"


def _faults(cls: type, words: list[str], positional: str | None) -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    kinds = {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.name != positional}
    for flag, following in _groups(words):
        wrong, loose = _judged(flag, following, kinds) if flag else ("", following)
        if wrong:
            yield wrong
        if loose and positional is None:
            yield f"{loose[0]!r} belongs to no flag; put a text with spaces in quotes"


def _judged(flag: str, following: list[str], kinds: dict[str, object]) -> tuple[str, list[str]]:
    """What is wrong with a flag, if anything, and which of the words after it are not its own."""
    dashed, equals, glued = flag.partition("=")
    name = dashed.lstrip("-").replace("-", "_")
    name = ALIASES.get(name, name)
    values, kind = ([glued] if equals else []) + following, kinds.get(name)
    if kinds.get(name.removeprefix("no_")) is bool:
        wrong = f"--{name} is a switch and takes no value; --no-{name} switches it off"
        return (wrong if equals else ""), following
    if kind is None:
        return f"no flag {dashed}{did_you_mean(name, list(kinds), '--')}", []
    if typing.get_origin(kind) is tuple:
        return "", []
    if not values:
        return f"--{name} needs a value: {describe_type(kind)}", []
    return _misfit(name, kind, values[0]), values[1:]


def _groups(words: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with the words after it; before them an empty one with those that have none."""
    flag, following = "", list[str]()
    for word in words:
        if re.match(r"--?[^\d.\s]|--$", word):
            yield flag, following
            flag, following = word, []
        else:
            following.append(word)
    yield flag, following


def _options(kind: object) -> tuple[object, ...]:
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if union else (kind,)


def _misfit(name: str, kind: object, word: str) -> str:
    """Why a word is no value of a kind, if it is none."""
    options = _options(kind)
    if any(_reads(option, word) for option in options):
        return ""
    choices = [
        str(c) for o in options if typing.get_origin(o) is Literal for c in typing.get_args(o)
    ]
    return f"--{name}: {word!r} is not {describe_type(kind)}{did_you_mean(word, choices)}"


def _reads(kind: object, word: str) -> bool:
    if typing.get_origin(kind) is Literal:
        return word in map(str, typing.get_args(kind))
    if kind is type(None):
        return word == "None"
    try:
        return kind not in (int, float) or kind(word) is not None
    except ValueError:
        return False
