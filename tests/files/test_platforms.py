"""What differs between operating systems, as far as one of them can show it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wassily.files import platforms


@pytest.fixture(autouse=True)
def _hears_sighup() -> Iterator[None]:
    """As in a terminal: who runs the tests under nohup has SIGHUP ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_signals_of_this_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that exist; SIGHUP only where nobody asked for it to be ignored."""
    here = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    assert platforms.stop_signals() == here
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert platforms.stop_signals() == here[:2]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_stopping_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of its own, and Ctrl-Break, which is a signal there: SIGTERM would kill."""
    sent: list[tuple[int, object]] = []
    monkeypatch.setattr(platforms.signal, "CTRL_BREAK_EVENT", "break", raising=False)
    monkeypatch.setattr(platforms.os, "kill", lambda number, what: sent.append((number, what)))
    with monkeypatch.context() as patch:
        patch.setattr(platforms.sys, "platform", "win32")
        assert platforms.detached() == {"creationflags": 512}
        platforms.ask_to_stop(7)
    assert platforms.detached() == {"start_new_session": True}
    platforms.ask_to_stop(7)
    assert sent == [(7, "break"), (7, signal.SIGTERM)]


def test_flush_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file through a handle that writes, a folder not at all; the file keeps its bytes."""
    file = tmp_path / "a"
    file.write_bytes(b"some bytes")
    opened: list[tuple[Path, int]] = []
    real = os.open

    def note(path: Path, flags: int, *more: int) -> int:
        opened.append((path, flags))
        return real(path, flags, *more)

    monkeypatch.setattr(platforms.os, "open", note)
    with monkeypatch.context() as patch:
        patch.setattr(platforms.sys, "platform", "win32")
        platforms.flush(file)
        platforms.flush(tmp_path)
    platforms.flush(tmp_path)
    assert opened == [(file, os.O_RDWR), (tmp_path, os.O_RDONLY)]
    assert file.read_bytes() == b"some bytes"


@pytest.mark.parametrize("number", [0, -1, True, "7", None, 10**30, 1.0])
def test_no_number_of_a_process(number: object) -> None:
    """0 and -1 address groups of processes: nothing is asked about them."""
    assert not platforms.is_alive(number) and platforms.words_of(number) == []


def test_words_of_a_process() -> None:
    """As they were given, empty ones and other scripts among them, until it ends."""
    words = [sys.executable, "-c", "input()", "", "a b", "دائرة\nحمراء"]
    child = subprocess.Popen(words, stdin=subprocess.PIPE)
    try:
        assert platforms.words_of(child.pid)[1:] == words[1:]
    finally:
        child.communicate(b"\n")
    assert platforms.words_of(child.pid) == [] and not platforms.is_alive(child.pid)


def test_a_lost_terminal() -> None:
    """What is printed to it goes to nowhere; a terminal that is there keeps its lines."""
    main, side = pty.openpty()
    kept = [os.dup(1), os.dup(2)]
    try:
        os.dup2(side, 1)
        os.dup2(side, 2)
        platforms.drop_lost_terminal()
        os.write(1, b"here")
        assert os.read(main, 4) == b"here"
        os.close(main)
        with pytest.raises(OSError, match="Input/output"):
            os.write(2, b"gone")
        platforms.drop_lost_terminal()
        assert os.write(1, b"gone") == os.write(2, b"gone") == 4
    finally:
        for number, handle in enumerate(kept, 1):
            os.dup2(handle, number)
            os.close(handle)
        os.close(side)


def test_the_words_of_a_program_that_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux shows a process without words until its program is set up; a zombie stays so."""
    shown = iter([[], [], ["python", "-m", "wassily"]])
    states = iter(["running", "sleeping", "running"])
    monkeypatch.setattr(platforms.psutil.Process, "cmdline", lambda self: next(shown))
    monkeypatch.setattr(platforms.psutil.Process, "status", lambda self: next(states))
    assert platforms.words_of(os.getpid()) == ["python", "-m", "wassily"]
    monkeypatch.setattr(platforms.psutil.Process, "cmdline", lambda self: [])
    monkeypatch.setattr(platforms.psutil.Process, "status", lambda self: "zombie")
    assert platforms.words_of(os.getpid()) == []
