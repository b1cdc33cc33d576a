"""Help texts: complete, true, and quick."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import sys
import time
from pathlib import Path

import pytest
from helpers import run_cli, run_command

from wassily import cli
from wassily.config import commands, evaluation, generation, parsing, training

CLASSES = {verb: parsing.config_class(name) for verb, (name, _) in cli.VERBS.items()}

POSITIONAL = {("generate", "prompts"), ("mix", "parts"), ("data", "folder"), ("report", "folder")}


def _docstrings(cls: type) -> dict[str, str]:
    """Field -> the string below it, of a class and its bases, read from the source."""
    files = [Path(module.__file__ or "") for module in (training, commands, evaluation, generation)]
    tree = ast.parse("\n".join(file.read_text("utf-8") for file in files))
    found: dict[str, str] = {}
    names = [base.__name__ for base in cls.__mro__]
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in names:
            for field, below in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    assert isinstance(field.target, ast.Name)
                    assert isinstance(below.value, ast.Constant)
                    found[field.target.id] = str(below.value.value)
    return found


def _plain(text: str) -> str:
    """Without colours and frames, on one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return " ".join(re.sub(r"[│╭╮╰╯─|+]", " ", text).split())


@pytest.mark.parametrize("verb", CLASSES, ids=" ".join)
def test_every_flag_has_help(verb: tuple[str, ...]) -> None:
    """Each field's docstring stands in `--help`, with its flag; sentences end in a full stop."""
    cls = CLASSES[verb]
    done = run_cli(*verb, "--help")
    assert done.code == 0
    shown, strings = _plain(done.out), _docstrings(cls)
    for field in dataclasses.fields(cls):
        text = strings[field.name]
        assert text.endswith("."), field.name
        assert _plain(text).replace("`", "") in shown.replace("`", ""), field.name
        positional = (verb[0], field.name) in POSITIONAL
        assert positional or f"--{field.name}" in shown.replace("-no-", "-"), field.name


@pytest.mark.parametrize("role", ["prior", "decoder"])
def test_no_flag_is_broken_in_a_narrow_terminal(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name stands whole at the start of a line, to be found and copied."""
    monkeypatch.setenv("COLUMNS", "40")
    lines = run_cli("train", role, "--help").out.splitlines()
    starts = {line.strip("│| ").split(",")[0].split(" ")[0].replace("-no-", "-") for line in lines}
    names = {f"--{field.name}" for field in dataclasses.fields(CLASSES["train", role])}
    assert names - starts == set()


def test_the_overview_names_every_verb_and_is_true() -> None:
    """`wassily`, `wassily --help`, `-h` and `help` alike."""
    texts = {run_cli(*words).out for words in ([], ["--help"], ["-h"], ["help"])}
    assert len(texts) == 1
    text = texts.pop()
    for verb in cli.VERBS:
        assert re.search(rf"^  {' '.join(verb)}\b", text, re.M), verb
    for flag in re.findall(r"--(\w+)", text):
        known = {f.name for cls in CLASSES.values() for f in dataclasses.fields(cls)}
        assert flag in known | {"help", "version", "debug", "multi_gpu"}, flag
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize(
    "verb",
    [
        ("train", "prior"),
        ("train", "decoder"),
        ("generate",),
        ("evaluate",),
        ("merge",),
        ("cache", "prune"),
        ("data", "check"),
    ],
    ids=" ".join,
)
def test_examples_in_help_parse(verb: tuple[str, ...], tmp_path: Path) -> None:
    """The command in a config's docstring is one that its parser takes."""
    doc = " ".join((CLASSES[verb].__doc__ or "").split())
    words = shlex.split(doc.split("Example: ")[1])
    start = ["wassily", *verb]
    assert words[: len(start)] == start
    rest = [str(tmp_path) if word == "pics" else word for word in words[len(start) :]]
    parsing.parse(cli.VERBS[verb][0], rest, "x")


def test_the_overview_imports_next_to_nothing() -> None:
    """No third-party package at all: what `wassily --help` loads is ours or Python's own."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from wassily.cli import main; main(['--help'])\n"
        "print(*{m.partition('.')[0] for m in set(sys.modules) - before}, file=sys.stderr)\n"
    )
    done = run_command("python", "-c", code)
    assert done.returncode == 0
    others = set(done.stderr.split()) - set(sys.stdlib_module_names) - {"wassily"}
    assert others == set()


@pytest.mark.parametrize(
    ("words", "limit"), [(["--help"], 0.5), (["train", "prior", "--help"], 1.3)], ids=["all", "one"]
)
def test_help_is_quick(words: list[str], limit: float) -> None:
    """Processor time of the whole process, the best of three: a busy machine is not our doing."""
    code = (
        "import sys, time\n"
        "from wassily.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "print('TOOK', time.process_time())\n"
    )
    took = []
    for _ in range(3):
        done = run_command("python", "-c", code, *words)
        took.append(float(done.stdout.rsplit("TOOK", 1)[1]))
        if took[-1] < limit:
            break
        time.sleep(0.2)
    assert min(took) < limit, took
