"""The log of a run, a line for each step that is logged, and the account of skipped steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import read_jsonl

from wassily.errors import UserError
from wassily.reporting.run_log import LOG
from wassily.runtime.accelerator import Runtime
from wassily.training.step_log import Skipped, StepLog


def _log(folder: Path) -> StepLog:
    folder.mkdir(exist_ok=True)
    return StepLog(folder, Runtime(None, 1, str(folder), "logs", "none"))


def test_log_is_one_object_a_line(tmp_path: Path) -> None:
    """Floats to the bit."""
    log = _log(tmp_path)
    log.log(10, {"train_loss": 0.1 + 0.2, "lr": 1e-5})
    log.log(20, {"train_loss": 0.25, "lr": 1e-5})
    assert list(read_jsonl(tmp_path / LOG)) == [
        {"step": 10, "train_loss": 0.1 + 0.2, "lr": 1e-5},
        {"step": 20, "train_loss": 0.25, "lr": 1e-5},
    ]


def test_rewind_drops_what_a_killed_run_logged_ahead(tmp_path: Path) -> None:
    """Later steps and a torn last line; the log then goes on."""
    log = _log(tmp_path)
    log.rewind(5)  # no log yet
    for step in (5, 10, 15):
        log.log(step, {"train_loss": 1.0})
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 20, "tra')
    log.rewind(10)
    log.log(15, {"train_loss": 2.0})
    got = [(row["step"], row["train_loss"]) for row in read_jsonl(tmp_path / LOG)]
    assert got == [(5, 1.0), (10, 1.0), (15, 2.0)]


def test_state_of_the_log_is_plain_json(tmp_path: Path) -> None:
    """A reader needs no code of ours."""
    log = _log(tmp_path)
    log.log(1, {"train_loss": 0.5})
    assert json.loads((tmp_path / LOG).read_text()) == {"step": 1, "train_loss": 0.5}


@pytest.mark.parametrize(("most", "before", "ends"), [(3, 0, False), (3, 2, True), (None, 0, True)])
def test_skipped_steps_are_logged_and_counted(
    most: int | None, before: int, ends: bool, tmp_path: Path
) -> None:
    """Each with its images, also those of the run that is resumed; beyond the limit it ends."""
    log = _log(tmp_path)
    skipped = Skipped(before, most, lambda step: [f"{step}.png"], log)
    if ends:
        with pytest.raises(UserError, match=f"at {before + 2} step"):
            skipped.note([4, 6])
    else:
        skipped.note([4, 6])
    assert skipped.count == before + 2
    assert [(row["step"], row["pictures"]) for row in read_jsonl(tmp_path / LOG)] == [
        (5, ["4.png"]),
        (7, ["6.png"]),
    ]
    assert log.has(5, "skipped")
    assert not log.has(6, "skipped")
