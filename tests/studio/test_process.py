"""A training as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import clean_environment

from wassily.errors import UserError
from wassily.files import lock
from wassily.studio import process, run_status
from wassily.studio.allowed_folders import AllowedFolders


def wait_for(holds: Callable[[], Any], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


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
