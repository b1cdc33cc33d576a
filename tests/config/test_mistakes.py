"""What is wrong with the words of a command, in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import run_cli

from wassily.config import mistakes


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
