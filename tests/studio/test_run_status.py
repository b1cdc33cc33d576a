"""How a training stands, told from its folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helpers import draw_picture

from wassily.files import lock
from wassily.studio import run_status
from wassily.studio.allowed_folders import AllowedFolders


@pytest.fixture
def allowed(tmp_path: Path) -> AllowedFolders:
    (tmp_path / "runs" / "studio").mkdir(parents=True)
    return AllowedFolders(tmp_path / "runs", (tmp_path,))


ROWS = [
    {"step": 10, "train_loss": 0.5, "pictures_per_second": 4.0},
    {"step": 20, "event": "held_out", "loss": 0.6},
    {"step": 20, "train_loss": 0.4, "pictures_per_second": 2.0},
]


def a_run(folder: Path, steps: int = 50) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.toml").write_text("# PriorConfig\n", "utf-8")
    (folder / "run.json").write_text(json.dumps({"steps": steps, "global_batch": 6}), "utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "log.jsonl").write_text(lines + '{"step": 3', "utf-8")
    return folder


def test_how_a_training_stands(allowed: AllowedFolders) -> None:
    """From its files alone: not there, stopped, finished, and held by another process."""
    assert run_status.look(allowed, allowed.runs / "x") == run_status.Seen("none")
    folder = a_run(allowed.runs / "x")
    assert run_status.look(allowed, folder) == run_status.Seen("stopped", 20, 50)
    with lock.held(folder):
        found = run_status.look(allowed, folder)
    # 30 steps of 6 pictures are left, at 3 a second in the mean
    assert (found.state, found.left) == ("elsewhere", pytest.approx(60))
    assert not lock.is_held(folder)
    (folder / "model_index.json").write_text("{}", "utf-8")
    assert run_status.look(allowed, folder).state == "stopped"
    done = a_run(allowed.runs / "y" / "z", steps=20)
    (done / "model_index.json").write_text("{}", "utf-8")
    assert run_status.look(allowed, done).state == "finished"


def test_the_training_to_look_at_first(allowed: AllowedFolders) -> None:
    """The newest one that runs, however old it is; then the newest of those that rest."""
    for age, place in enumerate(("running", "old", "y/new")):
        os.utime(a_run(allowed.runs / place) / "run.toml", (1e9 + age, 1e9 + age))
    assert run_status.trainings(allowed) == ["y/new", "old", "running"]
    with lock.held(allowed.runs / "running"):
        assert run_status.trainings(allowed) == ["running", "y/new", "old"]


def test_time_left() -> None:
    """At the pace of the last rows; unknown without one."""
    assert run_status.time_left(ROWS, 6, 50) == pytest.approx(60)
    assert run_status.time_left(ROWS, 6, 10) == 0
    assert run_status.time_left([], 6, 50) is None
    assert (
        run_status.time_left(ROWS, None, 50) is None and run_status.time_left(ROWS, 6, None) is None
    )
    assert run_status.clock(3723.4) == "1:02:03"


def test_losses_as_a_chart() -> None:
    """A line for each kind of loss that was logged."""
    titles = ("الخسارة", "step", "training", "<held out>")
    svg = run_status.chart(ROWS, titles)
    assert svg.count("<polyline") == 2 and "الخسارة" in svg and "&lt;held out&gt;" in svg
    assert run_status.chart(ROWS[:1], titles).count("<polyline") == 1
    assert run_status.chart([], titles) == ""


def test_samples_of_the_latest_step(tmp_path: Path) -> None:
    """Of a validation that is whole."""
    assert run_status.samples(tmp_path) == (0, [])
    for step in (5, 10, 20):
        folder = tmp_path / "validation" / f"step-{step}"
        folder.mkdir(parents=True)
        draw_picture(step).save(folder / "00.png")
        if step < 20:
            draw_picture(step).save(folder / "sheet.png")
    assert run_status.samples(tmp_path) == (10, [tmp_path / "validation/step-10/00.png"])
