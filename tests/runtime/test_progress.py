"""A bar on a screen, plain lines where there is none, and the time left on both."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import sys
import termios

import pytest
import tqdm

from wassily.runtime import progress as timing
from wassily.runtime.progress import Progress, progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it is about, how far, and the notes."""
    screen = _Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = Progress("training", 10, 4)
    bar.note(loss="0.5000")
    for _ in range(6):
        bar.advance()
    bar.close()
    text = screen.getvalue()
    assert "training" in text
    assert "10/10" in text
    assert "loss=0.5000" in text


def test_plain_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Now and then, with the time left: 2 of 4 further steps took 20 s, so 20 s are left."""
    clock = [1000.0]
    monkeypatch.setattr(timing.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Progress, "FIRST", 15.0)
    monkeypatch.setattr(Progress, "EVERY", 15.0)
    bar = Progress("training", 10, 6)
    for _ in range(2):
        clock[0] += 10
        bar.note(loss="0.5")
        bar.advance()
    bar.close()
    shown = capsys.readouterr()
    assert shown.out == "training: 8 of 10, loss 0.5, 0:00:20 left\n"
    assert shown.err == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_rest_is_not_in_the_time_left(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a rest of 100 s the rate and the time left are those of a bar that never rested."""
    clock = [1000.0]
    monkeypatch.setattr(timing.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(tqdm.std, "time", lambda: clock[0])
    monkeypatch.setattr(Progress, "FIRST", 15.0)
    monkeypatch.setattr(Progress, "EVERY", 15.0)
    told = []
    for pauses in ([], [3, 6, 8]):
        screen = _Terminal() if terminal else io.StringIO()
        monkeypatch.setattr(sys, "stderr", screen)
        bar = Progress("training", 20, 2)
        begun = clock[0]
        for step in range(10):
            clock[0] += 10
            bar.advance()
            if step in pauses:
                with bar.resting():
                    clock[0] += 100
                    bar.note(loss="1")
        assert clock[0] - begun - bar.worked() == 100 * len(pauses)
        left = re.findall(r"<(\d\d:\d\d)", screen.getvalue())
        left += re.findall(r"(\d:\d\d:\d\d) left", capsys.readouterr().out)
        told.append((bar.bar.format_dict["rate"] if terminal else 0.1, left[-1]))
        bar.close()
    assert told[0] == pytest.approx(told[1])
    assert told[1] == (pytest.approx(0.1), "01:20" if terminal else "0:01:20")


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal or not."""
    with progress("checking", 3, shown=False) as bar:
        bar.advance(3)
        bar.note(x=1)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_the_first_plain_line_comes_early(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what takes 80 s: after 5 s, then every 30 s."""
    clock = [1000.0]
    monkeypatch.setattr(timing.time, "monotonic", lambda: clock[0])
    with progress("training", 80) as bar:
        for _ in range(80):
            clock[0] += 1
            bar.advance()
    told = re.findall(r"training: (\d+) of 80, ", capsys.readouterr().out)
    assert told == ["5", "35", "65"]


def test_a_terminal_without_a_size_is_like_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 columns have room for no bar: there are lines instead. In 80 columns there is a bar."""
    clock = [1000.0]
    monkeypatch.setattr(timing.time, "monotonic", lambda: clock[0])
    main, other = os.openpty()
    with open(other, "w", encoding="utf-8") as screen:
        for columns, told in ((0, ["7"]), (80, [])):
            size = struct.pack("4H", columns and 24, columns, 0, 0)
            fcntl.ioctl(other, termios.TIOCSWINSZ, size)
            monkeypatch.setattr(sys, "stderr", screen)
            with progress("training", 10) as bar:
                clock[0] += 1
                bar.advance(1)
                clock[0] += 6
                bar.advance(6)
            assert re.findall(r"training: (\d+) of 10, ", capsys.readouterr().out) == told
            screen.flush()
            assert timing.is_screen(screen) == (columns > 0)
    os.close(main)
