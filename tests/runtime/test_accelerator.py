"""Device, precision, processes and trackers, on one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import draw_picture

from wassily.errors import UserError
from wassily.runtime import accelerator
from wassily.runtime.accelerator import Runtime


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
        accelerator.process_state()


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
    runtime.log_images("validation", pictures, ["one", "two"], step=2)
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
    runtime.log_images("validation", [draw_picture(0)], ["one"], step=1)
    runtime.end()
    assert list(tmp_path.iterdir()) == []


def test_tracker_missing() -> None:
    """The package of a known tracker that is not installed; `all` and `none` never lack one."""
    known = ("tensorboard", "no_such_tracker")
    assert accelerator.tracker_missing("no_such_tracker", known) == "no_such_tracker"
    for name in ("tensorboard", "all", "none"):
        assert accelerator.tracker_missing(name, known) is None
