"""A log, a record or a sample that came from a stranger never ends a report, a page or a run.

The tests bear the numbers of the findings that they close.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path

import pytest
from helpers import draw_picture, run_cli

from wassily.data import png
from wassily.reporting import charts, report, report_page, run_log
from wassily.studio import run_status
from wassily.studio.allowed_folders import AllowedFolders

TITLES = ("losses", "step", "training", "held out")
BIG = "9" * 400
# Lines of a log: those of the finding, and others of their kind.
LINES = {
    "text": '{"step": 1, "train_loss": "x"}',
    "null": '{"step": 1, "train_loss": null}',
    "list": '{"step": 1, "train_loss": [1]}',
    "true": '{"step": 1, "train_loss": true}',
    "huge whole number": f'{{"step": 1, "train_loss": {BIG}}}',
    "huge step": f'{{"step": {BIG}, "train_loss": 1.0}}',
    "digits": '{"step": 1, "train_loss": ' + "9" * 5000 + "}",
    "negative step": '{"step": -1, "train_loss": 1.0}',
    "infinite": '{"step": 1, "train_loss": Infinity, "pictures_per_second": Infinity}',
    "not a number": '{"step": 1, "train_loss": NaN, "pictures_per_second": NaN}',
    "largest": '{"step": 1, "train_loss": 1e308}\n{"step": 2, "train_loss": -1e308}',
    "smallest": '{"step": 1, "train_loss": 1e-320}\n{"step": 2, "train_loss": 2e-320}',
    "neighbours": '{"step": 1, "train_loss": 1.0}\n{"step": 2, "train_loss": 1.0000000000000002}',
    "no loss": '{"step": 1, "event": "held_out"}\n{"step": 0, "event": "held_out", "loss": 1.0}',
    "text loss": '{"step": 1, "event": "held_out", "loss": "x"}',
    "text error": '{"step": 1, "event": "held_out", "loss": 1.0, "standard_error": "x"}',
    "text band": '{"step": 1, "event": "held_out", "loss": 1.0, "band_0": "x", "band_1": 0}',
    "text scores": '{"step": 1, "event": "scores", "learned": "x", "kept": [], "kept_low": {}}',
    "event": '{"step": 1, "event": [1]}\n{"step": 2, "event": {"a": 1}, "loss": 1}',
    "drift": '{"step": 1, "variance_drift": "x"}\n{"step": 2, "variance_drift": [[]]}',
    "speed": '{"step": 1, "pictures_per_second": "x", "train_loss": 1}',
    "deep": "[" * 100_000,
    "deep inside": '{"step": 1, "a": ' + "[" * 100_000,
    "list of steps": "[1, 2]",
    "surrogate": '{"step": 1, "event": "\\ud83d"}',
    "bytes": "\x00\x01",
}


@pytest.mark.parametrize("what", LINES)
def test_finding_12_a_bad_line_of_a_log(what: str, tmp_path: Path) -> None:
    """The report and the studio's look pass over it; what is good beside it is shown."""
    good = [{"step": 5, "train_loss": 0.5, "pictures_per_second": 2.0}]
    good.append({"step": 6, "event": "held_out", "loss": 0.25})
    text = LINES[what] + "\n" + "".join(json.dumps(row) + "\n" for row in good)
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "log.jsonl").write_text(text)
    (tmp_path / "runs" / "x" / "run.json").write_text('{"steps": 9, "global_batch": 2}')
    folder = tmp_path / "runs" / "x"
    rows = run_log.read_log(folder)
    assert rows[-2:] == good
    for row in rows:
        numbers = [v for k, v in row.items() if k not in ("event", "pictures")]
        assert all(math.isnan(v) or abs(v) < run_log.LARGEST for v in numbers)
    made = report.write(folder).read_text("utf-8")
    assert "Training loss" in made and "0.2500" in made
    seen = run_status.look(AllowedFolders(tmp_path / "runs", ()), folder)
    assert seen.step == 6
    assert run_status.time_left(rows, 2, 9) == 3.0
    assert "polyline" in run_status.chart(rows, TITLES)
    run_log.rewind(folder, 6)
    assert run_log.read_log(folder)[-2:] == good


@pytest.mark.parametrize("values", [(0.0, 5e-324), (1e99, -1e99), (1e99, 1e99), (0.0, 0.0)])
def test_finding_12_axes_of_odd_numbers(values: tuple[float, float]) -> None:
    """Any two numbers that a row may hold have an axis."""
    line = charts.Series("a", list(enumerate(values)), 1)
    assert "<svg" in charts.line_chart([line], "a", "b", "c")


@pytest.mark.parametrize("metric", [[1], {"a": 1}, 5, None, "both"])
def test_finding_12_a_record_of_nonsense(metric: object, tmp_path: Path) -> None:
    """A run.json of a stranger's: each value of another type."""
    (tmp_path / "log.jsonl").write_text('{"step": 1, "event": "held_out", "loss": 1.0}\n')
    names = ("keep_best", "command", "versions", "data", "beside", "steps", "base", "seed")
    (tmp_path / "run.json").write_text(json.dumps(dict.fromkeys(names, metric)))
    assert "Held-out loss" in report.write(tmp_path).read_text("utf-8")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    end = _chunk(b"IDAT", zlib.compress(b"\0" * 10)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + end


SAMPLES = {
    "1600 megapixels": _png(40_000, 40_000),
    "a text of 80 MB": _png(8, 8, _chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 80_000_000))),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    "cut": _png(8, 8)[:40],
    "nothing": b"",
}


def _with_sample(folder: Path, step: int = 1) -> Path:
    place = folder / "validation" / f"step-{step}"
    place.mkdir(parents=True)
    (folder / "log.jsonl").write_text('{"step": 1, "train_loss": 1.0}\n')
    png.save_png(draw_picture(1), place / "01.png", {"prompt": "a good one"})
    png.save_png(draw_picture(1), place / "sheet.png", {})
    return place


@pytest.mark.parametrize("what", SAMPLES)
def test_finding_12_a_bad_sample(what: str, tmp_path: Path) -> None:
    """It is left out, and the good one beside it is shown."""
    place = _with_sample(tmp_path)
    (place / "00.png").write_bytes(SAMPLES[what])
    assert png.png_notes(place / "00.png") == {}
    done = run_cli("report", tmp_path)
    assert done.code == 0, done.text
    made = (tmp_path / "report.html").read_text("utf-8")
    assert made.count("<img") == 1 and "a good one" in made


def test_finding_12_a_report_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a training: whatever the making of a report raises is a line."""
    (tmp_path / "log.jsonl").symlink_to("/dev/zero")
    said: list[str] = []
    report.refresh(tmp_path, said.append)

    def broken(contents: object) -> str:
        raise RecursionError("deep")

    monkeypatch.setattr(report_page, "page", broken)
    (tmp_path / "log.jsonl").unlink()
    report.refresh(tmp_path, said.append)
    assert len(said) == 2 and all("report.html was not written" in line for line in said)


@pytest.mark.parametrize("which", ["sample", "step", "validation"])
def test_finding_17_a_linked_image_is_not_in_the_report(which: str, tmp_path: Path) -> None:
    """Neither by a link to an image, nor to a folder of them; the studio's look leaves it out."""
    folder, private = tmp_path / "run", tmp_path / "private"
    place = _with_sample(folder)
    _with_sample(private, 2)
    image = private / "validation" / "step-2" / "01.png"
    if which == "sample":
        (place / "00.png").symlink_to(image)
    elif which == "step":
        (folder / "validation" / "step-2").symlink_to(image.parent)
    else:
        (place / "sheet.png").unlink()
        (place / "01.png").unlink()
        place.rmdir()
        place.parent.rmdir()
        place.parent.symlink_to(private / "validation")
    made = report.write(folder).read_text("utf-8")
    assert made.count("<img") == (0 if which == "validation" else 1)
    step, files = run_status.samples(folder)
    assert (step, [f.name for f in files]) == (
        (0, []) if which == "validation" else (1, ["01.png"])
    )
