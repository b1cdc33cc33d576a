"""What a report is made of."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from e2e import refused, wassily
from PIL import Image

from wassily.data import png
from wassily.reporting import report, run_facts, run_log

HOSTILE = '</title><script>alert(1)</script><img src=x onerror="alert(2)">\' & "q" \udce4'


def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step, loss, learned, kept in (
        (0, 2.0, 0.4, 0.7),
        (10, 1.0, 0.6, 0.69),
        (20, 1.5, 0.7, 0.5),
    ):
        bands = {f"band_{n}": loss * (n + 1) / 5.5 for n in range(10)}
        rows.append(
            {"step": step, "event": "held_out", "loss": loss, "standard_error": 0.1, **bands}
        )
        scores: dict[str, Any] = {"step": step, "event": "scores"}
        for name, value in (("learned", learned), ("kept", kept)):
            scores |= {name: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05}
        rows.append(scores)
    for step in range(5, 25, 5):
        rate = {"pictures_per_second": 30.0 + step}
        rows.append({"step": step, "train_loss": 1 / step, **rate})
    return rows


def _folder(out: Path, steps: list[int], side: int, prompt: str = "a") -> Path:
    for step in steps:
        place = out / "validation" / f"step-{step}"
        picture = Image.new("RGB", (side, side), (step % 256, 0, 0))
        png.save_png(picture, place / "00.png", {"prompt": prompt})
        png.save_png(picture, place / "sheet.png", {})
    run_log.append(out, {"step": 1, "train_loss": 1.0})
    return out


def test_steps_are_chosen_evenly() -> None:
    """The base's, the exported and the last always; no more than there is room for."""
    steps = list(range(0, 1000, 10))
    found = report.chosen_steps(steps, 500)
    assert len(found) == 8 and {0, 500, 990} <= set(found) and found == sorted(found)
    assert max(b - a for a, b in itertools.pairwise(found)) < 350
    assert report.chosen_steps([20, 0, 10], None) == [0, 10, 20]


def test_pictures_are_small_and_whole(tmp_path: Path) -> None:
    """Tiny ones to the pixel, large ones as small JPEGs; a broken one is left out."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    tiny = report.contents_of(_folder(tmp_path / "a", [0, 10], 32))
    assert [(s.step, s.small) for s in tiny.strips["a"]] == [(0, True), (10, True)]
    assert tiny.strips["a"][0].uri.startswith("data:image/png;base64,")
    big = _folder(tmp_path / "b", [0, 10, 20], 1024, HOSTILE.replace("\udce4", ""))
    (big / "validation" / "step-20" / "00.png").write_bytes(b"no picture")
    ((_, shown),) = report.contents_of(big).strips.items()
    assert [s.step for s in shown] == [0, 10]
    assert shown[0].uri.startswith("data:image/jpeg;base64,") and len(shown[0].uri) < 40_000


def test_the_exported_step_is_that_of_the_rule() -> None:
    rows = _rows()
    assert report.exported_step(rows, None) == 20
    assert report.exported_step(rows, "loss") == 10
    assert report.exported_step(rows, "learned") == 20
    assert report.exported_step(rows, "both") == 10
    assert report.exported_step([row for row in rows if not row["step"]], "loss") is None


def test_a_log_that_was_cut_and_facts_of_nonsense(tmp_path: Path) -> None:
    """A report is still made of them."""
    (tmp_path / run_log.LOG).write_text('{"step": 1, "train_loss": 1.0}\n[1]\n{"step": 2, "tr')
    (tmp_path / run_facts.FILE).write_text('{"data": 3, "command": "x", "versions": [1]}')
    assert wassily("report", tmp_path).code == 0
    assert "Training loss" in (tmp_path / report.FILE).read_text("utf-8")


def test_no_run(tmp_path: Path) -> None:
    """One line."""
    assert "no output folder of a training" in refused("report", tmp_path)
    assert "no such folder" in refused("report", tmp_path / "none")
    assert "name a folder" in refused("report")


def test_a_report_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / report.FILE).mkdir()
    said: list[str] = []
    report.refresh(tmp_path, said.append)
    assert said and said[0].startswith("report.html was not written")
