"""Device, precision, processes, trackers and progress, on one process."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
import torch
import tqdm
from helpers import draw_picture

from wassily import runtime as runtimes
from wassily.errors import UserError
from wassily.runtime import Progress, Runtime


def _runtime(folder: Path, precision: str | None = None, report_to: str = "none") -> Runtime:
    return Runtime(precision, 1, str(folder), "logs", report_to)


@pytest.mark.parametrize(
    ("asked", "launcher", "expected"),
    [
        (None, None, "no"),
        (None, "bf16", "bf16"),
        ("no", "bf16", "no"),  # the flag wins over the launcher
        ("bf16", "no", "bf16"),
        ("fp16", None, "no"),  # there is no accelerator
        (None, "fp16", "no"),
    ],
)
def test_precision(
    asked: str | None,
    launcher: str | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Unset leaves the launcher's choice; fp16 on a CPU is one line and fp32."""
    if launcher:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    runtime = _runtime(tmp_path, asked)
    assert runtime.precision == expected
    assert runtime.accelerator.mixed_precision == expected
    assert runtime.weight_dtype == {"no": torch.float32, "bf16": torch.bfloat16}[expected]
    said = [line for line in capsys.readouterr().out.splitlines() if "fp16" in line]
    assert len(said) == int("fp16" in (asked, asked or launcher))


def test_one_process(tmp_path: Path) -> None:
    """Rank 0 of 1; what is shared is what was made; a mean is the value."""
    runtime = _runtime(tmp_path)
    assert (runtime.rank, runtime.world, runtime.main) == (0, 1, True)
    assert runtime.device.type == "cpu"
    assert runtime.shared(lambda: {"a": (1, None)}) == {"a": (1, None)}
    assert runtime.gathered({3: "x"}) == {3: "x"}
    assert runtime.mean(torch.tensor(2.5)) == 2.5
    assert runtime.scaler_state() is None
    runtime.load_scaler(None)
    with pytest.raises(UserError, match=r"^no$"):
        runtime.shared(lambda: (_ for _ in ()).throw(UserError("no")))


def test_processes_that_do_not_find_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two were launched, each would train alone: said with the remedy."""
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = r"2 processes were launched.*run alone.*ACCELERATE_USE_CPU"
    with pytest.raises(UserError, match=message):
        runtimes.process_state()


def test_to_device_keeps_names(tmp_path: Path) -> None:
    """And values."""
    batch = {"a": torch.ones(2), "b": torch.zeros(1, dtype=torch.long)}
    moved = _runtime(tmp_path).to_device(batch)
    assert {k: v.tolist() for k, v in moved.items()} == {"a": [1.0, 1.0], "b": [0]}


# ---------------------------------------------------------------- trackers


def test_tensorboard_gets_numbers_and_pictures(tmp_path: Path) -> None:
    """Read back with tensorboard's own reader; under logging_dir inside the output folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runtime = _runtime(tmp_path, report_to="tensorboard")
    runtime.start_trackers("project", {"seed": 3, "prompts": ("a", "b"), "gamma": None})
    runtime.log({"train_loss": 0.5, "lr": 1e-4}, step=1)
    runtime.log({"train_loss": 0.25, "lr": 1e-4}, step=2)
    pictures = [draw_picture(n, 16, 16) for n in range(2)]
    runtime.log_pictures("validation", pictures, ["one", "two"], step=2)
    runtime.end()
    (events,) = (tmp_path / "logs" / "project").glob("events.out.tfevents.*")
    reader = EventAccumulator(str(events.parent))
    reader.Reload()
    assert [(e.step, e.value) for e in reader.Scalars("train_loss")] == [(1, 0.5), (2, 0.25)]
    assert [e.step for e in reader.Images("validation")] == [2]


def test_no_tracker_is_silent(tmp_path: Path) -> None:
    """The same calls, and nothing is written."""
    runtime = _runtime(tmp_path)
    runtime.start_trackers("project", {"seed": 3})
    runtime.log({"train_loss": 0.5}, step=1)
    runtime.log_pictures("validation", [draw_picture(0)], ["one"], step=1)
    runtime.end()
    assert list(tmp_path.iterdir()) == []


def test_tracker_missing() -> None:
    """The package of a known tracker that is not installed; `all` and `none` never lack one."""
    known = ("tensorboard", "no_such_tracker")
    assert runtimes.tracker_missing("no_such_tracker", known) == "no_such_tracker"
    for name in ("tensorboard", "all", "none"):
        assert runtimes.tracker_missing(name, known) is None


# ---------------------------------------------------------------- progress


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
    monkeypatch.setattr(runtimes.time, "monotonic", lambda: clock[0])
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
    monkeypatch.setattr(runtimes.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(tqdm.std, "time", lambda: clock[0])
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
    with runtimes.progress("checking", 3, shown=False) as bar:
        bar.advance(3)
        bar.note(x=1)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")
