"""The texts of the studio in both languages."""

from __future__ import annotations

import ast
import string
import typing
from pathlib import Path

from wassily.commands import data_check
from wassily.studio import run_status, texts


def _places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_say_the_same() -> None:
    """The same keys with the same places for values; no text is empty, and Arabic is Arabic."""
    assert texts.ENGLISH.keys() == texts.ARABIC.keys()
    for key, text in texts.ENGLISH.items():
        other = texts.ARABIC[key]
        assert text.strip() and other.strip(), key
        assert _places(text) == _places(other), key
        arabic = any("\u0600" <= letter <= "\u06ff" for letter in other)
        assert arabic != (key == "other_language"), key


def test_every_text_has_its_user_and_every_finding_its_text() -> None:
    """What is said is in the table, and what is in the table is said."""
    folder = Path(texts.__file__).parents[1] / "pages"
    pages = "\n".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    made = ("state_", "find_", "of_", "base_", "start_")  # a value gives the rest of the key
    gravities = {"error", "warning", "note"}
    for key in texts.ENGLISH.keys() - gravities:
        assert (
            f'"{key}"' in pages
            or f"'{key}'" in pages
            or key.startswith(made)
            or key.endswith(("_info", "_lora"))
        ), key
    assert {f"state_{state}" for state in typing.get_args(run_status.State)} <= texts.ENGLISH.keys()
    kinds = {key.removeprefix("find_") for key in texts.ENGLISH if key.startswith("find_")}
    assert kinds == _kinds() | {"duplicates", "near_duplicates"}


def _kinds() -> set[str]:
    """Of findings, as the doctor's source names them."""
    found = set()
    for node in ast.walk(ast.parse(Path(data_check.__file__).read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Finding", "find"):
            kind = node.args[1]
            if isinstance(kind, ast.Constant):
                found.add(str(kind.value))
    return found


def test_values_in_their_places() -> None:
    """In both languages."""
    for name in ("en", "ar"):
        assert texts.Say(name)("seed_of", seed=3).endswith("3")
