"""Exit codes, and how little is imported on the way to a checked config."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import run_cli, run_command

from wassily import __version__, cli
from wassily.config import parsing
from wassily.config.generation import GenerateConfig
from wassily.config.training import PriorConfig
from wassily.errors import UserError


def _prior(*words: object) -> PriorConfig:
    return parsing.parse("PriorConfig", [str(w) for w in words], "wassily train prior")


def _toml(folder: Path, text: str) -> Path:
    file = folder / "run.toml"
    file.write_text(text, "utf-8")
    return file


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_train_step = 3", "unknown name 'max_train_step'.*'max_train_steps'"),
        ("max_train_steps = 3.5", "--max_train_steps: 3.5 is not a whole number"),
        ("use_ema = 1", "--use_ema: 1 is not true or false"),
        ('lr_scheduler = "cosin"', "--lr_scheduler: 'cosin' is not one of linear, cosine"),
        ("validation_prompts = [1]", "--validation_prompts"),
        ("learning_rate = nan", "--learning_rate: nan is not"),
        ("[table]\nx = 1", "unknown name 'table'"),
        ("max_train_steps = ", r"run\.toml"),
        ("seed = 1\nseed = 2", r"run\.toml"),
    ],
)
def test_mistakes_in_a_file(text: str, message: str, tmp_path: Path) -> None:
    """Exit code 2, one line on the error stream, with the file or the flag."""
    file = _toml(tmp_path, text)
    done = run_cli("train", "prior", "--train_data_dir", tmp_path, "--config", file)
    assert done.code == 2
    assert done.out == ""
    with pytest.raises(UserError, match=message):
        _prior("--train_data_dir", tmp_path, "--config", file)


@pytest.mark.parametrize("words", [["--config"], ["--config", "/no/file.toml"], ["--config=/"]])
def test_no_file(words: list[str]) -> None:
    """The name is in the message."""
    done = run_cli("train", "prior", *words)
    assert done.code == 2
    assert done.err.startswith("wassily: error: --config")
    assert done.err.count("\n") == 1


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    """Latin-1 bytes."""
    (tmp_path / "run.toml").write_bytes(b'output_dir = "\xe9"')
    done = run_cli("train", "prior", "--config", tmp_path / "run.toml")
    assert (done.code, done.err.count("\n")) == (2, 1)


# ---------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "no command 'trian'; perhaps you meant 'train'"),
        (["train"], "train needs the network"),
        (["train", "unet"], "not 'unet'"),
        (["--seed", "3"], "no command"),
        (["generate"], "nothing to draw"),
        (["train", "prior"], "no pictures named"),
        (["train", "prior", "--train_data_dir", "/no/where"], "no such folder"),
    ],
)
def test_what_a_user_can_mend_is_2(words: list[str], message: str) -> None:
    """One line on the error stream, nothing on the other."""
    done = run_cli(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("wassily: error: ")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_switch_that_is_off_may_be_switched_off(tmp_path: Path) -> None:
    """As one that is on already may be switched on."""
    assert not _prior("--train_data_dir", tmp_path, "--no-use_ema").use_ema


def test_debug_shows_the_trace() -> None:
    """--debug anywhere."""
    with pytest.raises(UserError):
        run_cli("train", "prior", "--debug")


def test_other_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Done is 0; interrupted is 130 in one line; a mistake of ours is a stack trace."""
    from wassily.generation import generate

    seen: list[Any] = []
    monkeypatch.setattr(generate, "generate", seen.append)
    assert run_cli("generate", "a").code == 0
    assert seen == [GenerateConfig(prompts=("a",))]

    def interrupt(config: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "generate", interrupt)
    done = run_cli("generate", "a")
    assert (done.code, done.err) == (130, "wassily: interrupted\n")

    def fail(config: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(generate, "generate", fail)
    with pytest.raises(ZeroDivisionError):
        run_cli("generate", "a")


@pytest.mark.parametrize("words", [["--version"], ["-V"]])
def test_version(words: list[str]) -> None:
    """The package's."""
    assert run_cli(*words).out == f"wassily {__version__}\n"


def test_every_verb_has_its_target() -> None:
    """The config class and the function are there."""
    import importlib

    for class_name, target in cli.VERBS.values():
        assert dataclasses.is_dataclass(parsing.config_class(class_name))
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function))


# ---------------------------------------------------------------- processes

HEAVY = ("torch", "diffusers", "transformers", "accelerate", "datasets", "numpy", "PIL")


def _imported(words: list[str]) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Which heavy packages a command has imported by its end."""
    code = (
        "import sys\n"
        "from wassily.cli import main\n"
        "try:\n    code = main(sys.argv[1:])\n"
        "except SystemExit as stop:\n    code = stop.code\n"
        f"print('\\nIMPORTED', *sorted(set(sys.modules) & set({HEAVY!r})))\n"
        "sys.exit(code)\n"
    )
    done = run_command("python", "-c", code, *words)
    return done, set(done.stdout.rsplit("IMPORTED", 1)[1].split())


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["train", "prior"], 2),
        (["train", "decoder", "--train_data_dir", "/no/where"], 2),
        (["train", "prior", "--max_train_step", "3"], 2),
        (["train", "prior", "--config", "/no/file"], 2),
        (["generate"], 2),
        (["train", "prior", "--help"], 0),
    ],
)
def test_nothing_heavy_before_a_config_is_checked(words: list[str], code: int) -> None:
    """Mistakes and help are answered without torch."""
    done, imported = _imported(words)
    assert done.returncode == code
    assert imported == set()
    assert "Traceback" not in done.stderr


def test_the_first_line_of_drawing_comes_before_what_is_slow(tmp_path: Path) -> None:
    """Said with the networks' names; and a training that did not finish is refused that early."""
    step = tmp_path / "run" / "checkpoint-7"
    step.mkdir(parents=True)
    (step / "state.json").write_text("{}", "utf-8")
    for verb in (["generate", "a"], ["mix", "a:1", "b:1"]):
        done, imported = _imported([*verb, "--prior", str(step.parent)])
        told = f"{step.parent}: its training did not finish; draw with {step}"
        assert (done.returncode, done.stderr) == (2, f"wassily: error: {told}\n")
        assert imported == set()
    code = "import sys; from wassily import cli\n"
    code += "sys.meta_path.insert(0, type('', (), {'find_spec': lambda name, *_: "
    code += f"sys.exit(9) if name in {HEAVY!r} else None}}))\ncli.main(sys.argv[1:])"
    done = run_command(
        "python", "-c", code, "generate", "a", "--prior", "mini", "--decoder", "of/x"
    )
    assert (done.returncode, done.stdout) == (9, "loading the prior mini, then the decoder of/x\n")
    done = run_command("python", "-c", code, "generate", "--from", "a.png")
    assert (done.returncode, done.stdout) == (9, "loading what drew a.png\n")


def test_the_three_ways_in(tmp_path: Path) -> None:
    """`python -m wassily` and the guide's two scripts reach the same parser; from the repository
    root as the guide has it.
    """
    for words in (
        ["python", "-m", "wassily", "train", "prior"],
        ["python", "train_text_to_image_prior.py"],
        ["python", "train_text_to_image_decoder.py"],
    ):
        done = run_command(*words, "--max_train_steps", "0", "--train_data_dir", str(tmp_path))
        assert done.returncode == 2
        assert done.stderr == "wassily: error: --max_train_steps: 0 is less than 1\n"


def test_a_reader_that_stops_is_no_error() -> None:
    """`wassily --help | head -1`."""
    done = run_command(
        "bash", "-c", f"'{sys.executable}' -m wassily --help | head -c 1; exit ${{PIPESTATUS[0]}}"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "w", "")
