"""Every command of the documentation is one: its program is known, its flags and values are taken.

What is run of them is in test_docs_run.py (`make docs-test`).
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pages
import pytest
from helpers import draw_picture, write_folder
from shell_lines import Command, both_languages, commands_of, launched, pairs

from wassily import cli
from wassily.config import parsing

# Programs of others, as far as they are checked here.
OTHERS = {
    ("hf", "auth", "login"): "asks for a token",
    ("wandb", "login"): "asks for a token",
    ("tensorboard", "--logdir"): "serves until it is stopped",
    ("ssh", "-L"): "wants another machine",
    ("accelerate", "config"): "asks questions; with `default` it is run by test_docs_run.py",
}


def _all() -> dict[tuple[str, ...], Command]:
    found: dict[tuple[str, ...], Command] = {}
    for page in pages.english_pages():
        for command in both_languages(page):
            found.setdefault(command.words, command)
    return found


COMMANDS = _all()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all that the pages name is there."""
    folder = tmp_path_factory.mktemp("named")
    for name in ("pics", "kept", "sks"):
        write_folder(folder / name, ["a"])
    for name in ("foxes", "foxes-parquet", "shards", "tars", "runs/prior", "runs/prior-best"):
        (folder / name).mkdir(parents=True)
    for name in ("prompts.txt", "my_prompts.txt"):
        (folder / name).write_text("a fox\na cat\n", "utf-8")
    for name in ("circle", "photo", "mask", "depth", "mix"):
        draw_picture(1, 64, 64).save(folder / f"{name}.png")
    blocks = pages.blocks(pages.DOCS / "guide.md")
    (toml,) = (code for language, code in blocks if language == "toml")
    (folder / "fox.toml").write_text(toml, "utf-8")
    return folder


def _check_ours(words: tuple[str, ...]) -> None:
    verb, rest = cli._verb(list(words))
    if "--help" in rest:
        with pytest.raises(SystemExit, match="0"):
            parsing.parse(cli.VERBS[verb][0], rest, "wassily")
        return
    named = {flag[0] for flag in pairs(rest) if flag}
    sources = {"--train_data_dir", "--dataset_name", "--instance_data_dir", "--config"}
    if verb[0] == "train" and not named & sources:
        rest = [*rest, "--train_data_dir", "pics"]  # a line of the guide that shows one flag
    parsing.parse(cli.VERBS[verb][0], rest, "wassily")


def _check_pip(words: tuple[str, ...]) -> None:
    extras = re.findall(r"^(\w+) = \[", (pages.ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    assert words[1] == "install"
    for word in words[2:]:
        named = re.fullmatch(r"wassily\[(\w+)\]", word)
        assert not named or named[1] in extras, word
        assert word != "requirements.txt" or (pages.ROOT / word).is_file()


def _check(words: tuple[str, ...]) -> None:
    inner = launched(words)
    if inner is not None:
        _check_ours(inner)
    elif words[0] == "wassily":
        _check_ours(words[1:])
    elif words[0] == "make":
        targets = re.findall(r"^([a-z -]+):", (pages.ROOT / "Makefile").read_text("utf-8"), re.M)
        assert words[1] in " ".join(targets).split()
    elif words[0] == "pip":
        _check_pip(words)
    elif words[:2] == ("python", "-m"):
        assert importlib.util.find_spec(words[2])
    else:
        assert any(words[: len(known)] == known for known in OTHERS), words


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda c: f"{c.page}: {c.text[:60]}")
def test_a_command_is_taken(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(pages.ROOT))
    _check(command.words)


def test_a_command_with_a_wrong_flag_is_noticed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wassily import UserError

    monkeypatch.chdir(place)
    with pytest.raises(UserError, match="--lerning_rate"):
        _check(("wassily", "train", "prior", "--train_data_dir", "pics", "--lerning_rate", "1"))
    with pytest.raises(SystemExit):
        _check(("accelerate", "launch", "--many_gpus", "-m", "wassily", "doctor"))
    with pytest.raises(AssertionError):
        _check(("make", "everything"))


def test_each_language_has_the_same_commands_but_for_prompts() -> None:
    """And there are many of them. An Arabic page opens the Arabic studio."""
    for page in pages.english_pages():
        for one, two in zip(commands_of(page), commands_of(pages.arabic_of(page)), strict=True):
            words = shlex.split(shlex.join(two.words).replace(" --language ar", ""))
            assert len(one.words) == len(words)
            differ = [b for a, b in zip(one.words, words, strict=True) if a != b]
            assert all(re.search("[\u0600-\u06ff]", word) for word in differ)
    assert len(COMMANDS) > 70
