"""Writes docs/flags.md from the configs: python tools/flags.py; with --check it only compares.

A flag's help is the docstring of its field, its default the field's own: nothing is said twice.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import sys
import typing
from pathlib import Path
from typing import Annotated, Any

import tyro

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from wassily import cli, schema  # noqa: E402

PAGE = ROOT / "docs" / "flags.md"
HEAD = """# Flags

Every flag of every command. This page is written by `python tools/flags.py` from
`wassily/config.py`; do not edit it.

- A switch, which takes nothing, is on when it is named.
- Hyphens do as well as underscores: `--max-train-steps` is `--max_train_steps`.
- `--config FILE.toml` reads the same names, without the hyphens, from a file. A flag wins over the
  file.
- `--debug` shows the stack trace of an error. `--help` after a command lists its flags.
- `--version`, alone, prints the version.
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
    positional = kind == tyro.conf.Positional[tuple[str, ...]]
    return [field.name.upper()] if positional else [f"--{field.name}", *aliases(kind)]


def takes(kind: Any) -> str:
    """What follows the flag."""
    plain = {
        "true or false": "nothing",
        "a list of texts": "one text or more",
        "a finite number": "a number",
    }
    words = schema.describe_type(kind)
    return plain.get(words, words)


def default(value: Any) -> str:
    """A default as one would type it."""
    if value is None or value == ():
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def table(cls: type) -> str:
    """The flags of one command as a Markdown table, in the order of its help."""
    hints, words = typing.get_type_hints(cls, include_extras=True), docstrings(cls)
    lines = ["| flag | takes | default | |", "|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        flags = ", ".join(f"`{name}`" for name in names(field, kind))
        cells = (flags, takes(kind), default(field.default), words[field.name])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for verb, (name, _) in cli.VERBS.items():
        cls = cli.config_class(name)
        about = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0]
        parts.append(f"## wassily {' '.join(verb)}\n\n{about}\n\n{table(cls)}\n")
    return "\n".join(parts)


def known() -> set[str]:
    """Every flag of every command, with its hyphens."""
    found = {"--config", "--debug", "--help", "--version"}
    for name, _ in cli.VERBS.values():
        cls = cli.config_class(name)
        hints = typing.get_type_hints(cls, include_extras=True)
        for field in dataclasses.fields(cls):
            found.update(names(field, hints[field.name]))
    return found


def main() -> int:
    """Write the page, or tell by the exit code whether it is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if it is stale")
    check = parser.parse_args().check
    text = page()
    if not check:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        print("docs/flags.md is stale: run `python tools/flags.py`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
