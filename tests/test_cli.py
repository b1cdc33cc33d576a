"""Words to configs, exit codes, and how little is imported on the way."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import run_cli, run_command

from wassily import __version__, cli
from wassily.config import mistakes, parsing, schema
from wassily.config.generation import GenerateConfig
from wassily.config.training import DecoderConfig, PriorConfig
from wassily.errors import UserError


def _prior(*words: object) -> PriorConfig:
    return parsing.parse("PriorConfig", [str(w) for w in words], "wassily train prior")


def _toml(folder: Path, text: str) -> Path:
    file = folder / "run.toml"
    file.write_text(text, "utf-8")
    return file


# ---------------------------------------------------------------- words to values


def test_the_guides_command(tmp_path: Path) -> None:
    """Its flags as it writes them: `--name=value`, a bare switch, and quotes gone."""
    config = parsing.parse(
        "DecoderConfig",
        [
            "--dataset_name=lambdalabs/naruto-blip-captions",
            "--resolution=768",
            "--train_batch_size=1",
            "--gradient_accumulation_steps=4",
            "--gradient_checkpointing",
            "--max_train_steps=15000",
            "--learning_rate=1e-05",
            "--max_grad_norm=1",
            "--checkpoints_total_limit=3",
            "--lr_scheduler=constant",
            "--lr_warmup_steps=0",
            "--validation_prompts=A robot naruto, 4k photo",
            "--report_to=wandb",
            "--push_to_hub",
            "--output_dir=kandi2-decoder-naruto-model",
        ],
        "wassily train decoder",
    )
    assert config == DecoderConfig(
        dataset_name="lambdalabs/naruto-blip-captions",
        resolution=768,
        gradient_accumulation_steps=4,
        gradient_checkpointing=True,
        max_train_steps=15000,
        learning_rate=1e-5,
        max_grad_norm=1.0,
        checkpoints_total_limit=3,
        lr_warmup_steps=0,
        validation_prompts=("A robot naruto, 4k photo",),
        report_to="wandb",
        push_to_hub=True,
        output_dir="kandi2-decoder-naruto-model",
    )


def test_hyphens_work_as_well(tmp_path: Path) -> None:
    """In any mixture."""
    words = ["--train-data-dir", tmp_path, "--max-train_steps", 3, "--use-ema"]
    assert _prior(*words) == PriorConfig(
        train_data_dir=str(tmp_path), max_train_steps=3, use_ema=True
    )


@pytest.mark.parametrize("flag", ["--validation_prompts", "--validation_prompt"])
def test_prompts_by_both_names(flag: str, tmp_path: Path) -> None:
    """One or more, in any script, in order."""
    config = _prior("--train_data_dir", tmp_path, flag, "a cat", "قطة حمراء", "--seed", 3)
    assert config.validation_prompts == ("a cat", "قطة حمراء")
    assert config.seed == 3


def test_generate_takes_prompts_in_any_place() -> None:
    """Several, and a negative guidance word that starts with a hyphen by `=`."""
    config = parsing.parse("GenerateConfig", ["a", "b c", "--seed", "3", "--grid"], "x")
    assert config == GenerateConfig(prompts=("a", "b c"), seed=3, grid=True)


# ---------------------------------------------------------------- files


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    """Of numbers, texts, lists and switches, also switched off; the rest is the file's."""
    file = _toml(
        tmp_path,
        f'train_data_dir = "{tmp_path}"\nmax_train_steps = 7\nlearning_rate = 1\n'
        'validation_prompt = "one"\nuse_ema = true\nallow_tf32 = true\n',
    )
    assert _prior("--config", file) == PriorConfig(
        train_data_dir=str(tmp_path),
        max_train_steps=7,
        learning_rate=1,
        validation_prompts=("one",),
        use_ema=True,
        allow_tf32=True,
    )
    words = ["--max_train_steps", 9, "--validation_prompts", "two", "three", "--no-use_ema"]
    config = _prior(*words, f"--config={file}")
    assert (config.max_train_steps, config.validation_prompts) == (9, ("two", "three"))
    assert (config.use_ema, config.allow_tf32, config.learning_rate) == (False, True, 1)


def test_a_contradiction_is_judged_on_the_whole(tmp_path: Path) -> None:
    """The file and the flags together; each alone would do."""
    file = _toml(tmp_path, f'train_data_dir = "{tmp_path}"\n')
    with pytest.raises(UserError, match="--dataset_name and --train_data_dir"):
        _prior("--config", file, "--dataset_name", "me/pics")
    file = _toml(tmp_path, 'hub_model_id = "me/x"\n')
    assert _prior("--config", file, "--train_data_dir", tmp_path, "--push_to_hub").push_to_hub


def test_a_saved_config_is_the_same_run_again(tmp_path: Path) -> None:
    """What is written beside the weights reads back as the config it was, all fields changed."""
    config = DecoderConfig(
        train_data_dir=str(tmp_path),
        validation_prompts=('a "quoted" cat', "قطة\nحمراء"),
        learning_rate=3e-6,
        snr_gamma=5,
        seed=0,
        use_ema=True,
        mixed_precision="bf16",
        resume_from_checkpoint="latest",
        push_to_hub=True,
        hub_token="hf_secret",
    )
    file = _toml(tmp_path, schema.to_toml(config))
    again = parsing.parse("DecoderConfig", ["--config", str(file)], "x")
    assert again == dataclasses.replace(config, hub_token=None)


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


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--max_train_step", "3"], "no flag --max_train_step; perhaps you meant .*_steps'"),
        (["--learnin-rate", "3"], "no flag --learnin-rate; perhaps you meant '--learning_rate'"),
        (["--zzz"], "no flag --zzz"),
        (["-x", "3"], "no flag -x"),
        (["--train_batch_size", "many"], "--train_batch_size: 'many' is not a whole number"),
        (["--learning_rate=1e"], "--learning_rate: '1e' is not a finite number"),
        (["--lr_scheduler", "cosin"], "--lr_scheduler: .* one of .*; perhaps you meant 'cosine'"),
        (["--use_ema", "maybe"], "'maybe' belongs to no flag; .*"),
        (["--use_ema=yes"], "--use_ema is a switch .*; --no-use_ema switches it off"),
        (["--use_ema", "--no-use-ema"], "--use_ema and --no-use_ema were both given: keep one"),
        (["--seed"], "--seed needs a value: a whole number"),
        (["--seed", "--use_ema"], "--seed needs a value: a whole number"),
        (["--validation_prompts", "a", "--seed", "3", "b"], "'b' belongs to no flag; .*"),
        (["--=3"], "no flag --"),
    ],
)
def test_a_mistyped_flag_is_one_line(given: list[str], line: str, tmp_path: Path) -> None:
    """What is wrong, the nearest name or what fits, exit code 2, and nothing else."""
    done = run_cli("train", "decoder", "--train_data_dir", tmp_path, *given)
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(f"wassily: error: {line}\n", done.err), done.err


def test_what_the_parser_says_is_one_line_too() -> None:
    """A fault that is none of the usual ones: the parser's frame is taken off its words."""
    done = run_cli("data", "check", ".", "b")
    assert done.code == 2
    assert re.fullmatch("wassily: error: Unrecognized options: b\n", done.err)
    frame = "╭─ Head ─╮\n│ two      │\n│ lines    │\n│ ─────── │\n│ more     │\n╰──────────╯\n"
    assert mistakes.plain(frame) == "two lines"
    assert mistakes.plain("Head\n-----\ntwo\nlines\n-----\nmore\n") == "two lines"
    assert mistakes.plain("a line") == "a line"
    assert mistakes.plain("") == "the flags cannot be read; see --help"


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
