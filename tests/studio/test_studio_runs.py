"""The studio's trainings and images without its pages: processes, what they tell, the queue."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import clean_environment, draw_picture, run_cli, write_folder
from PIL import Image

from wassily.config.generation import GenerateConfig
from wassily.errors import UserError
from wassily.files import lock
from wassily.mini.untrained import Tiny
from wassily.studio import data_findings, generation_queue, process, run_status
from wassily.studio.allowed_folders import AllowedFolders
from wassily.studio.generation_queue import Cancelled, GenerationQueue, Job


def wait_for(holds: Callable[[], Any], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


# ---------------------------------------------------------------- processes


@pytest.fixture
def allowed(tmp_path: Path) -> AllowedFolders:
    (tmp_path / "runs" / "studio").mkdir(parents=True)
    return AllowedFolders(tmp_path / "runs", (tmp_path,))


def endless(folder: Path, run: Path | None = None) -> None:
    """In the place of `wassily` for who works in a folder: it runs until SIGTERM, which it says;
    with `run` it holds the lock of that output folder, as a training does.
    """
    code = (
        "import json, os, signal, sys, time\n"
        "def end(*_):\n    print('stopped by SIGTERM\\ngo on with: it', flush=True)\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
    )
    if run is not None:
        run.mkdir()
        code += (
            "from filelock import lock_descriptor\n"
            f"file = open({str(run / lock.NAME)!r}, 'w')\n"
            "assert lock_descriptor(file.fileno(), blocking=False)\n"
            "json.dump({'process': os.getpid()}, file)\nfile.flush()\n"
        )
    code += "print('ready', flush=True)\nwhile True:\n    time.sleep(0.05)\n"
    (folder / "wassily.py").write_text(code, "utf-8")


def test_start_stop_and_start_again(
    allowed: AllowedFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time; SIGTERM once, however often it is asked for; its last line is kept."""
    endless(allowed.data[0])
    monkeypatch.chdir(allowed.data[0])
    own = process.process_of(allowed, allowed.runs / "a" / "b")
    assert not process.runs(own) and process.last_line(own) == ""
    with pytest.raises(UserError, match="does not run"):
        process.stop(own)
    number = process.start(own, ["train", "prior"])
    try:
        assert process.runs(own) and process.record_of(own)["words"] == ["train", "prior"]
        assert os.getsid(number) == number  # its terminal's end is not its own
        with pytest.raises(UserError, match="runs already"):
            process.start(own, ["train", "prior"])
        wait_for(lambda: process.last_line(own) == "ready")
        assert run_status.look(allowed, allowed.runs / "a" / "b").state == "starting"
        process.stop(own)
        process.stop(own) if process.runs(own) else None
        wait_for(lambda: not process.runs(own))
        assert process.last_line(own) == "stopped by SIGTERM"
        number = process.start(own, ["train", "prior"])
        assert process.runs(own) and process.record_of(own)["stopping"] is False
    finally:
        os.kill(number, signal.SIGKILL)
    wait_for(lambda: not process.runs(own))


def test_it_outlives_who_started_it(allowed: AllowedFolders) -> None:
    """And is found, and stopped, by another."""
    starter = (
        "import os, sys\nfrom pathlib import Path\n"
        "from wassily.studio import process\n"
        "from wassily.studio.allowed_folders import AllowedFolders\n"
        "runs = Path(sys.argv[1])\nos.chdir(sys.argv[2])\n"
        "own = process.process_of(AllowedFolders(runs), runs / 'x')\n"
        "print(process.start(own, ['train', 'prior']))\n"
    )
    endless(allowed.data[0], run=allowed.runs / "x")
    words = [sys.executable, "-c", starter, str(allowed.runs), str(allowed.data[0])]
    done = subprocess.run(words, env=clean_environment(), capture_output=True, text=True)
    own = process.process_of(allowed, allowed.runs / "x")
    assert process.runs(own) and process.record_of(own)["process"] == int(done.stdout)
    wait_for(lambda: process.last_line(own) == "ready")
    process.stop(own)
    wait_for(lambda: not process.runs(own))
    assert process.last_line(own) == "stopped by SIGTERM"


def test_a_disk_that_refuses_is_one_line(allowed: AllowedFolders) -> None:
    """Nothing is started then."""
    (allowed.own / "trainings").write_text("in the way", "utf-8")
    with pytest.raises(UserError, match="trainings: "):
        process.start(process.process_of(allowed, allowed.runs / "x"), ["train", "prior"])


# ---------------------------------------------------------------- what a run tells


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


# ---------------------------------------------------------------- drawing


def config_for(tiny: Tiny, out: Path, **changes: Any) -> GenerateConfig:
    values: dict[str, Any] = {"prompts": ("a", "b"), "num_images": 2, "seed": 5, "batch_size": 3}
    values |= {"prior_steps": 3, "steps": 4, "prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    return GenerateConfig(**(values | {"out": str(out)} | changes))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_queue_draws_what_generate_does(tiny: Tiny, tmp_path: Path) -> None:
    """To the bit, with the same notes; again from the notes of one; its progress rises to its
    end, by every pass of both networks.
    """
    told: list[float] = []
    queue = GenerationQueue()
    config = config_for(tiny, tmp_path / "studio")
    found = queue.draw(config, Job(told.append))
    assert [seed for _, seed in found] == [5, 6, 5, 6]
    words = ["a", "b", "--num_images", 2, "--seed", 5, "--batch_size", 3, "--steps", 4]
    words += ["--prior_steps", 3, "--prior", tiny.prior, "--decoder", tiny.decoder]
    assert run_cli("generate", *words, "--out", tmp_path / "same").code == 0
    for (mine, _), theirs in zip(found, sorted((tmp_path / "same").glob("*.png")), strict=True):
        assert (pixels(mine) == pixels(theirs)).all()
        assert Image.open(mine).text["wassily"] == Image.open(theirs).text["wassily"]
    assert told == [n / 14 for n in range(14)]

    loaded = queue._loaded
    old = generation_queue.provenance_of(found[3][0])
    again = queue.again(old, tmp_path / "studio", None, Job())
    assert (pixels(again) == pixels(found[3][0])).all()
    assert queue._loaded is loaded  # nothing of it has changed
    assert generation_queue.history(tmp_path / "studio")[0] == again
    assert len(generation_queue.history(tmp_path / "studio")) == 5


def test_a_cancelled_drawing_leaves_nothing(tiny: Tiny, tmp_path: Path) -> None:
    """Whether it is in its middle or waits for its turn; the next one is whole."""
    queue, event = GenerationQueue(), threading.Event()

    def tell(share: float) -> None:
        if share > 0.5:
            event.set()

    config = config_for(tiny, tmp_path / "out")
    with pytest.raises(Cancelled):
        queue.draw(config, Job(tell, event))
    with pytest.raises(Cancelled):
        queue.draw(config, Job(lambda share: None, event))
    assert not list((tmp_path / "out").glob("*"))
    assert len(queue.draw(dataclasses.replace(config, num_images=1), Job())) == 2


def test_a_model_that_was_written_anew_is_loaded_anew(tiny: Tiny, tmp_path: Path) -> None:
    """A training may have exported meanwhile."""
    queue = GenerationQueue()
    queue.draw(config_for(tiny, tmp_path), Job())
    loaded = queue._loaded
    file = Path(tiny.decoder) / "unet" / "config.json"
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    queue.draw(config_for(tiny, tmp_path), Job())
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert queue._loaded is not loaded


def test_pictures_of_others_are_not_followed(tiny: Tiny, tmp_path: Path) -> None:
    """A PNG in the history that was drawn on another file is not drawn again here."""
    draw_picture(1).save(tmp_path / "in.png")
    words = ["--image", tmp_path / "in.png", "--steps", 4, "--seed", 1, "--prior_steps", 2]
    words += ["--prior", tiny.prior, "--decoder", tiny.decoder, "--strength", 0.5]
    assert run_cli("generate", "a", *words, "--out", tmp_path / "h.png").code == 0
    with pytest.raises(UserError, match="drawn from other pictures; wassily generate --from"):
        generation_queue.provenance_of(tmp_path / "h.png")


# ---------------------------------------------------------------- data


def test_findings_and_their_pictures(tmp_path: Path) -> None:
    """The gravest first; a finding's pictures are opened where they can be."""
    folder = write_folder(tmp_path / "pics", ["a", "b", "c"])
    (folder / "01.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "02.png").write_bytes(b"no picture")
    allowed = AllowedFolders(tmp_path / "runs", (folder,))
    looked = data_findings.look(allowed, str(folder), 32, True, "mini")
    kinds = [finding.kind for finding in looked.findings]
    assert kinds[0] == "broken" and "duplicates" in kinds and looked.summary["pictures"] == 3
    found = dict(zip(kinds, looked.findings, strict=True))
    assert data_findings.thumbnails(found["broken"], allowed) == []
    shown = data_findings.thumbnails(found["duplicates"], allowed)
    assert [name for _, name in shown] == ["00.png", "01.png"]
    assert all(max(picture.size) <= data_findings.SIDE for picture, _ in shown)
    with pytest.raises(UserError, match="--data"):
        data_findings.look(allowed, str(tmp_path), 32, True, "mini")


def test_names_in_an_item(tmp_path: Path) -> None:
    """With colons and spaces in them; none outside of the data, whatever an item says."""
    allowed = AllowedFolders(tmp_path, (tmp_path / "pics",))
    (tmp_path / "pics").mkdir()
    for name in ("a: b.png", "c = d.png"):
        draw_picture(1).save(tmp_path / "pics" / name)
    draw_picture(1).save(tmp_path / "e.png")
    item = f"{tmp_path}/pics/a: b.png: 32 x 32"
    assert [path.name for path in data_findings.files(item, allowed)] == ["a: b.png"]
    item = f"{tmp_path}/pics/a: b.png (train) = {tmp_path}/e.png (test)"
    assert [path.name for path in data_findings.files(item, allowed)] == ["a: b.png"]
    assert data_findings.files("nothing: here", allowed) == []
