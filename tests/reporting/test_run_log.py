"""log.jsonl, line by line."""

from __future__ import annotations

from pathlib import Path

from wassily.reporting import run_log


def test_what_a_kill_cut_and_what_is_no_line_is_passed_over(tmp_path: Path) -> None:
    """Whole lines with a step alone."""
    run_log.append(tmp_path, {"step": 1, "lr": 0.5})
    with (tmp_path / run_log.LOG).open("a") as file:
        file.write('[1]\n{"step": true}\n{"lr": 1}\n\n{"step": 2, "lr"')
    assert run_log.read_log(tmp_path) == [{"step": 1, "lr": 0.5}]
    assert run_log.read_log(tmp_path / "none") == []


def test_a_new_run_begins_with_an_empty_log(tmp_path: Path) -> None:
    """At step 0 all goes, the validation of the base included; later the steps until then stay."""
    for step in (0, 5, 10):
        run_log.append(tmp_path, {"step": step})
    run_log.rewind(tmp_path, 5)
    assert [row["step"] for row in run_log.read_log(tmp_path)] == [0, 5]
    run_log.rewind(tmp_path, 0)
    assert run_log.read_log(tmp_path) == []


def test_what_was_measured_at_a_step() -> None:
    """By the names that --keep_best takes; the sum of both scores where both are there."""
    rows = [
        {"step": 5, "event": "held_out", "loss": 0.5, "standard_error": 0.1},
        {"step": 5, "event": "scores", "learned": 0.25, "kept": 0.5},
        {"step": 6, "event": "scores", "kept": 0.75},
        {"step": 6, "train_loss": 9.0},
    ]
    both = {"loss": 0.5, "learned": 0.25, "kept": 0.5, "both": 0.75}
    assert run_log.measured(rows, 5) == both
    assert run_log.measured(rows, 6) == {"kept": 0.75}
    assert run_log.measured(rows, 7) == {}
    assert both.keys() == run_log.METRICS.keys()
