"""Sizes of the code that a change may not outgrow, and a test file for each module."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGE, TESTS = ROOT / "wassily", ROOT / "tests"
FILES = sorted(PACKAGE.rglob("*.py"))
LINES, PARAMETERS, ANY = 60, 8, 60  # at most, in a function; untyped parameters in the package
Function = ast.FunctionDef | ast.AsyncFunctionDef

# Modules without a test file of their own, and what tests them instead.
FIELD = "the cases that were met in the field, one file for each of their subjects"
STRANGERS = "what the sources of strangers may do: tests/data/test_strangers_datasets.py"
BROWSER = "a page is looked at in a browser: tests/browser, and its parts in tests/studio"
EXCEPTIONS = {
    "data/colours.py": FIELD,
    "data/containers.py": FIELD,
    "data/decoding.py": "each way to a decoder: tests/data/test_strangers_images.py",
    "data/entries.py": FIELD,
    "models/part_files.py": "what a model folder may name: tests/models/test_strangers_models.py",
    "pages/command.py": BROWSER,
    "reporting/report_style.py": "a style sheet alone, which test_report_page.py reads",
    "sources/connections.py": STRANGERS,
    "sources/own_files.py": STRANGERS,
    "sources/saved.py": STRANGERS,
    "sources/tars.py": STRANGERS,
    "pages/compare.py": BROWSER,
    "pages/data.py": BROWSER,
    "pages/generate.py": BROWSER,
    "pages/shared.py": BROWSER,
    "pages/server.py": BROWSER,
    "pages/train.py": BROWSER,
    "pages/train_form.py": BROWSER,
    "studio/access.py": "who is answered: tests/studio/test_strangers_runs.py",
    "version.py": "one constant, which test_cli.py prints",
}


@cache
def _functions(path: Path) -> tuple[Function, ...]:
    tree = ast.parse(path.read_text("utf-8"))
    return tuple(node for node in ast.walk(tree) if isinstance(node, Function))


def _parameters(node: Function) -> list[ast.arg]:
    """All but `self` and `cls`."""
    given = node.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    rest = [one for one in (given.vararg, given.kwarg) if one]
    return [one for one in (*named, *rest) if one.arg not in ("self", "cls")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_are_short_and_take_little(path: Path) -> None:
    """60 lines with the docstring, 8 parameters."""
    for node in _functions(path):
        assert (node.end_lineno or 0) - node.lineno < LINES, node.name
        assert len(_parameters(node)) <= PARAMETERS, node.name


def test_few_parameters_may_be_anything() -> None:
    """`Any` says nothing to a reader, nor to mypy."""
    vague = [
        f"{path.stem}.{node.name}({one.arg})"
        for path in FILES
        for node in _functions(path)
        for one in _parameters(node)
        if one.annotation and ast.unparse(one.annotation) == "Any"
    ]
    assert len(vague) <= ANY, vague


def test_a_flag_of_the_loss_is_in_few_files() -> None:
    """`--snr_gamma`: its field, its check, the network that is given it, and the loss."""
    users = [path for path in FILES if re.search(r"\bsnr_gamma\b", path.read_text("utf-8"))]
    assert len(users) <= 6, users


def test_each_module_has_a_test_file() -> None:
    """`wassily/ROOM/x.py` has `tests/ROOM/test_x.py`, with the exceptions above and no others."""
    without = set()
    for path in FILES:
        place = path.relative_to(PACKAGE)
        named = TESTS / place.with_name(f"test_{place.name}")
        if not path.name.startswith("__") and not named.is_file():
            without.add(place.as_posix())
    assert without == set(EXCEPTIONS)


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports them by their name alone; those of a browser are run by themselves."""
    names = [path.name for path in TESTS.rglob("test_*.py") if path.parent.name != "browser"]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
