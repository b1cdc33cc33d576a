"""Writes docs/flags.md and docs/ar/flags.md from the configs: python tools/flags.py; with --check
it only compares.

A flag's help is the docstring of its field, its default the field's own: nothing is said twice. The
Arabic words for them are in tools/flags_ar.toml.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from wassily import cli  # noqa: E402
from wassily.config import parsing, schema  # noqa: E402

DOCS = ROOT / "docs"
ARABIC = ROOT / "tools" / "flags_ar.toml"
HEAD = """# Flags

Every flag of every command. This page is written by `python tools/flags.py` from
the modules of `wassily/config`; do not edit it.

- A switch, which takes nothing, is on when it is named.
- Hyphens do as well as underscores: `--max-train-steps` is `--max_train_steps`.
- `--config FILE.toml` reads the same names, without the hyphens, from a file. A flag wins over the
  file.
- `--debug` shows the stack trace of an error. `--help` after a command lists its flags.
- `--version`, alone, prints the version.
"""

ARABIC_HEAD = """# الخيارات

كل خيارات (flags) كل الأوامر. تُكتب هذه الصفحة بالأمر `python tools/flags.py` من
وحدات `wassily/config`، فلا تعدّلها.

- الخيار الذي لا يأخذ شيئًا يُفعَّل بمجرد ذكره.
- الشرطة تغني عن الشرطة السفلية: ‎`--max-train-steps` هو ‎`--max_train_steps`.
- يقرأ ‎`--config FILE.toml` الأسماء نفسها، دون الشرطتين، من ملف. والخيار في سطر الأوامر مقدَّم على
  الملف.
- يعرض ‎`--debug` مسار الخطأ في البرنامج (stack trace). ويسرد ‎`--help` بعد أمرٍ ما خياراته.
- يطبع ‎`--version` وحده رقم الإصدار.
"""


def docstrings(cls: type) -> dict[str, str]:
    """Field name -> the docstring under it, of a class and its bases, on one line."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        (tree,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(tree, ast.ClassDef)
        for field, words in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(words, ast.Expr):
                assert isinstance(field.target, ast.Name)
                found[field.target.id] = " ".join(str(ast.literal_eval(words.value)).split())
    return found


def aliases(kind: Any) -> list[str]:
    """The other names of a flag."""
    notes = typing.get_args(kind)[1:] if typing.get_origin(kind) is Annotated else ()
    return [name for note in notes for name in getattr(note, "aliases", None) or ()]


def names(field: dataclasses.Field[Any], kind: Any) -> list[str]:
    """The flag as it is typed and its aliases; a positional argument in capitals."""
    positional = kind in (tyro.conf.Positional[str], tyro.conf.Positional[tuple[str, ...]])
    return [field.name.upper()] if positional else [f"--{field.name}", *aliases(kind)]


class Words:
    """What is said in one language: the English words themselves, or those of a table for them."""

    def __init__(self, tables: Mapping[str, Mapping[str, str]] | None = None):
        self.tables, self.used = tables, set[tuple[str, str]]()

    def say(self, kind: str, english: str) -> str:
        """The words for these, of a kind: "words", "commands" or "flags". Raises KeyError."""
        self.used.add((kind, english))
        return english if self.tables is None else self.tables[kind][english]


def arabic() -> Words:
    """The Arabic words."""
    return Words(tomllib.loads(ARABIC.read_text("utf-8")))


def takes(kind: Any, words: Words) -> str:
    """What follows the flag."""
    plain = {
        "true or false": "nothing",
        "a list of texts": "one text or more",
        "a finite number": "a number",
    }
    told = schema.describe_type(kind)
    if told.startswith("one of "):
        return f"{words.say('words', 'one of')} {told.removeprefix('one of ')}"
    return words.say("words", plain.get(told, told))


def default(value: Any, words: Words) -> str:
    """A default as one would type it."""
    if value is None or value == ():
        return words.say("words", "unset")
    if isinstance(value, bool):
        return words.say("words", "on" if value else "off")
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def table(cls: type, words: Words) -> str:
    """The flags of one command as a Markdown table, in the order of its help."""
    hints, helps = typing.get_type_hints(cls, include_extras=True), docstrings(cls)
    head = " | ".join(words.say("words", word) for word in ("flag", "takes", "default"))
    lines = [f"| {head} | |", "|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        flags = ", ".join(f"`{name}`" for name in names(field, kind))
        told = words.say("flags", helps[field.name])
        cells = (flags, takes(kind, words), default(field.default, words), told)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def page(head: str, words: Words) -> str:
    """The whole page."""
    parts = [head]
    for verb, (name, _) in cli.VERBS.items():
        cls = parsing.config_class(name)
        about = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        told = words.say("commands", about)
        parts.append(f"## wassily {' '.join(verb)}\n\n{told}\n\n{table(cls, words)}\n")
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    """Both pages by their places."""
    return {
        DOCS / "flags.md": page(HEAD, Words()),
        DOCS / "ar" / "flags.md": page(ARABIC_HEAD, arabic()),
    }


def known() -> set[str]:
    """Every flag of every command, with its hyphens."""
    found = {"--config", "--debug", "--help", "--version"}
    for name, _ in cli.VERBS.values():
        cls = parsing.config_class(name)
        hints = typing.get_type_hints(cls, include_extras=True)
        for field in dataclasses.fields(cls):
            found.update(names(field, hints[field.name]))
    return found


def main() -> int:
    """Write the pages, or tell by the exit code whether one is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if it is stale")
    check = parser.parse_args().check
    for file, text in pages().items():
        if not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            print(f"{file} is stale: run `python tools/flags.py`", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
