"""One run for one folder; what a dead process left in the way is no hindrance."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import clean_environment

from wassily.errors import UserError
from wassily.files import lock

HOLDER = """
import os, sys, time
from pathlib import Path
from wassily.files import lock
with lock.held(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def _dead() -> int:
    """The number of a process that is over."""
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    return int(done.stdout)


def test_the_second_is_refused(tmp_path: Path) -> None:
    """With the process that has it; free again afterwards, and nothing is left."""
    with lock.held(tmp_path):
        with (
            pytest.raises(UserError, match=rf"{tmp_path}.*\(process {os.getpid()} on"),
            lock.held(tmp_path),
        ):
            pass
        assert json.loads((tmp_path / lock.NAME).read_text())["process"] == os.getpid()
    with lock.held(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder(tmp_path: Path) -> None:
    """The kernel frees it at once, though a forked reader of the dead run lives on."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=clean_environment())
    assert process.stdout
    child = int(process.stdout.readline())
    time.sleep(0.2)
    try:
        with pytest.raises(UserError, match=f"process {process.pid} on"), lock.held(tmp_path):
            pass
        process.kill()
        process.wait()
        assert (tmp_path / lock.NAME).exists()
        os.kill(child, 0)  # it is there
        with lock.held(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def no_locks(handle: int, blocking: bool) -> bool:
    """In the place of the system's, on a file system without them."""
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize(
    ("record", "free"),
    [
        ({"process": 0, "host": "here"}, True),  # 0: put in below, a dead one
        ({"process": os.getppid(), "host": "here"}, False),
        ({"process": 1, "host": "another"}, False),
        ({"process": -1, "host": "here"}, True),  # addresses every process
        ({"process": True, "host": "here"}, True),
        ({"process": 10**30, "host": "here"}, True),
        ({}, True),
        ("nonsense", True),
    ],
)
def test_a_file_system_without_locks(
    record: Any, free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record decides: a dead process of this machine hinders nobody; of another machine that
    is not known, and the line names the file to remove.
    """
    monkeypatch.setattr(lock, "lock_descriptor", no_locks)
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "here")
    if isinstance(record, dict) and record.get("process") == 0:
        record = record | {"process": _dead()}
    (tmp_path / lock.NAME).write_text(json.dumps(record) if record else "")
    if free:
        with lock.held(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(UserError, match=f"remove {tmp_path / lock.NAME}"), lock.held(tmp_path):
            pass


# ---------------------------------------------------------------- who looks


@pytest.mark.parametrize("record", [{"process": 1, "host": "another"}, {"process": 1}, "nonsense"])
def test_a_record_alone_is_no_run(record: Any, tmp_path: Path) -> None:
    """What a killed run of a container left, whose host has another name since."""
    (tmp_path / lock.NAME).write_text(json.dumps(record))
    assert not lock.is_held(tmp_path)
    with lock.held(tmp_path):
        assert lock.is_held(tmp_path)
    assert not lock.is_held(tmp_path)


def test_a_look_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the record decides."""
    monkeypatch.setattr(lock, "lock_descriptor", no_locks)
    host = lock.socket.gethostname()
    for process, lives in ((os.getppid(), True), (_dead(), False)):
        (tmp_path / lock.NAME).write_text(json.dumps({"process": process, "host": host}))
        assert lock.is_held(tmp_path) is lives
    (tmp_path / lock.NAME).write_text("")
    assert not lock.is_held(tmp_path)


def test_a_look_does_not_refuse_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the lock for an instant, in which a run that starts tries again."""
    looks = iter([False, False, True])
    monkeypatch.setattr(lock, "lock_descriptor", lambda handle, blocking: next(looks))
    with lock.held(tmp_path):
        pass
    assert next(looks, None) is None


@pytest.mark.parametrize("kind", ["link", "hard link", "link to nothing", "pipe", "folder"])
def test_a_lock_that_is_not_a_file_of_its_own(kind: str, tmp_path: Path) -> None:
    """Refused in one line, and what it leads to stays as it was."""
    other, folder = tmp_path / "precious", tmp_path / "out"
    other.write_text("precious")
    folder.mkdir()
    place = folder / lock.NAME
    if kind == "link":
        place.symlink_to(other)
    elif kind == "hard link":
        place.hardlink_to(other)
    elif kind == "link to nothing":
        place.symlink_to(tmp_path / "new")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    with pytest.raises((UserError, IsADirectoryError), match=str(place)), lock.held(folder):
        pass
    assert not lock.is_held(folder)
    assert other.read_text() == "precious" and not (tmp_path / "new").exists()
