"""`wassily data check` on folders with known faults: each is found, and nothing is changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from helpers import Outcome, image_files, run_cli, write_folder, write_photos
from PIL import Image, ImageFilter

from wassily.data import images
from wassily.mini.untrained import Tiny

SIDE = 64


@pytest.fixture(scope="module")
def prior(tiny: Tiny) -> str:
    return tiny.prior


def _noise(number: int, width: int = 96, height: int = 80) -> Image.Image:
    """A sharp picture unlike every other: smooth noise with fine noise on it."""
    random = np.random.default_rng(number)
    large = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    values = np.asarray(large.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    values += random.normal(0, 25, values.shape)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _folder(root: Path, drawn: dict[str, Image.Image], lines: list[Any] | None = None) -> Path:
    """PNG pictures by name, and metadata.jsonl of these lines; of one caption each if None."""
    root.mkdir(parents=True, exist_ok=True)
    for name, picture in drawn.items():
        (root / name).parent.mkdir(exist_ok=True)
        picture.save(root / name)
    if lines is None:
        lines = [{"file_name": name, "text": f"caption {name}"} for name in drawn]
    words = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (root / "metadata.jsonl").write_text("\n".join(words) + "\n", "utf-8")
    return root


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        stat = path.stat()
        digest.update(f"{path} {stat.st_mode} {stat.st_mtime_ns}\n".encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def _check(root: Path, prior: str, *words: object) -> tuple[Outcome, dict[str, Any]]:
    """Run it; the outcome and the JSON report with its findings by their kind."""
    before, file = _digest(root), root.parent / "report.json"
    common = ["--resolution", SIDE, "--pretrained_prior_model_name_or_path", prior]
    done = run_cli("data", "check", root, "--json", file, *common, *words)
    assert _digest(root) == before
    report = json.loads(file.read_text("utf-8")) if file.is_file() else {"findings": []}
    report["findings"] = {finding["kind"]: finding for finding in report["findings"]}
    return done, report


def _names(report: dict[str, Any], kind: str) -> list[str]:
    return [Path(item.split(":")[0]).name for item in report["findings"][kind]["items"]]


def test_a_sound_folder_has_no_findings(tmp_path: Path, prior: str) -> None:
    """Sizes, captions, tokens and steps are those of what was written."""
    root = _folder(tmp_path / "pics", {f"{n}.png": _noise(n) for n in range(7)})
    batch = ["--train_batch_size", 2, "--gradient_accumulation_steps", 2]
    done, report = _check(root, prior, *batch)
    assert (done.code, report["findings"]) == (0, {}), done.text
    summary = report["summary"]
    assert (summary["pictures"], summary["readable"], summary["captions"]) == (7, 7, 7)
    assert (summary["global_batch"], summary["steps_per_epoch"]) == (4, 1.75)
    assert summary["shorter_edge"] == {"least": 80, "median": 80, "mean": 80, "most": 80}
    assert summary["cropped_away"] == f"{1 - 80 / 96:.1%}"
    assert summary["scripts"] == {"latin": 7}
    assert "no findings" in done.out


def test_each_fault_of_a_picture_is_found(tmp_path: Path, prior: str) -> None:
    """Broken, tiny, small, blurred, enlarged, cropped, twice, and nearly twice."""
    sharp = _noise(0)
    drawn = {f"{n}.png": _noise(n) for n in range(3)} | {
        "broken.png": _noise(3),
        "tiny.png": _noise(4, 40, 31),
        "small.png": _noise(5, 80, 63),
        "blurred.png": _noise(6).filter(ImageFilter.GaussianBlur(2)),
        "enlarged.png": _noise(7, 24, 20).resize((96, 80), Image.Resampling.BICUBIC),
        "wide.png": _noise(8, 300, 100),
        "again.png": sharp,
        "nearly.png": sharp.resize((120, 100), Image.Resampling.NEAREST),
    }
    root = _folder(tmp_path / "pics", drawn)
    torn = (root / "broken.png").read_bytes()
    (root / "broken.png").write_bytes(torn[: len(torn) // 2])
    done, report = _check(root, prior)
    assert done.code == 1
    assert {kind: f["gravity"] for kind, f in report["findings"].items()} == {
        "broken": "error",
        "duplicates": "warning",
        "near_duplicates": "warning",
        "tiny": "warning",
        "blurred": "warning",
        "small": "note",
        "cropped": "note",
    }
    for kind, name in (("broken", "broken"), ("tiny", "tiny"), ("small", "small")):
        assert _names(report, kind) == [f"{name}.png"]
    assert _names(report, "blurred") == ["blurred.png", "enlarged.png"]
    assert _names(report, "cropped") == ["wide.png"]
    assert report["findings"]["duplicates"]["items"] == [f"{root}/0.png = {root}/again.png"]
    assert report["findings"]["near_duplicates"]["items"] == [f"{root}/0.png = {root}/nearly.png"]
    assert (report["summary"]["pictures"], report["summary"]["readable"]) == (11, 10)
    assert done.out.index("errors\n") < done.out.index("warnings\n") < done.out.index("notes\n")


def test_shapes_with_bucket(tmp_path: Path, prior: str) -> None:
    """2 : 1 goes to 5 : 3 of 64 pixels each, which keeps 5/6 of it; squares stay whole."""
    sizes = [(200, 100), (100, 200), (100, 100), (120, 120)]
    root = _folder(tmp_path / "pics", {f"{n}.png": _noise(n, *s) for n, s in enumerate(sizes)})
    _, report = _check(root, prior, "--resolution", 256)
    shapes = {"192 x 320": 1, "256 x 256": 2, "320 x 192": 1}
    assert report["summary"]["with_bucket"] == shapes
    assert report["summary"]["cropped_away"] == "25.0%"
    assert report["summary"]["cropped_away_then"] == f"{1 - (2 * 5 / 6 + 2) / 4:.1%}"
    _, report = _check(root, prior, "--resolution", 72)
    assert "with_bucket" not in report["summary"]


def test_bad_lines_are_found_with_their_numbers_and_the_check_goes_on(
    tmp_path: Path, prior: str
) -> None:
    """Also the pictures of the lines with bad captions are looked at."""
    lines = [
        {"file_name": "0.png", "text": "fine"},
        '{"file_name": "1.png"',
        {"file_name": "missing.png", "text": "a"},
        {"file_name": "1.png", "text": " "},
        {"file_name": "2.png", "text": 3},
        {"text": "nameless"},
        {"file_name": "3.png", "text": ["ok", "fine too"]},
    ]
    root = _folder(tmp_path / "pics", {f"{n}.png": _noise(n) for n in range(4)}, lines)
    done, report = _check(root, prior)
    assert done.code == 1
    items = report["findings"]["metadata"]["items"]
    assert [item.split(":")[0].split(",")[0] for item in items] == [
        f"{root}/metadata.jsonl line {number}" for number in (2, 3, 4, 5, 6)
    ]
    assert (report["summary"]["readable"], report["summary"]["captions"]) == (4, 3)
    assert report["summary"]["pictures_without"] == 2


def test_csv_and_text_files_too(tmp_path: Path, prior: str) -> None:
    """A comma outside of quotes; a picture without its .txt, an empty one, one of another code."""
    root = _folder(tmp_path / "1" / "pics", {f"{n}.png": _noise(n) for n in range(3)})
    (root / "metadata.jsonl").unlink()
    csv = root / "metadata.csv"
    csv.write_text('file_name,text\n0.png,"a, b"\n1.png,a, b\n2.png,c\n', "utf-8")
    done, report = _check(root, prior)
    assert report["findings"]["metadata"]["items"] == [
        f"{csv} line 3: more cells than the header names; put a text with commas in quotes"
    ]
    assert (done.code, report["summary"]["readable"]) == (1, 2)
    csv.unlink()
    (root / "1.txt").write_text("")
    (root / "2.txt").write_bytes("حقيبة".encode("cp1256"))
    done, report = _check(root, prior)
    assert (done.code, report["findings"]["metadata"]["count"]) == (1, 3)
    done, report = _check(root, prior, "--no_captions")
    assert (done.code, report["findings"], report["summary"]["readable"]) == (0, {}, 3)


def test_captions_cut_repeated_and_in_another_script(tmp_path: Path, prior: str) -> None:
    """Only what is too long for the tokenizer, only what three pictures share."""
    texts = ["same"] * 3 + ["ثعلب نائم", "so long " * 100, "short"]
    lines = [{"file_name": f"{n}.png", "text": text} for n, text in enumerate(texts)]
    root = _folder(tmp_path / "pics", {f"{n}.png": _noise(n) for n in range(6)}, lines)
    done, report = _check(root, prior)
    assert (done.code, set(report["findings"])) == (0, {"cut", "repeated", "script"})
    assert _names(report, "cut") == ["4.png"]
    assert report["findings"]["repeated"]["items"] == ["3 times: same"]
    assert report["findings"]["script"]["items"] == ["arabic: 1"]
    assert "script" not in _check(root, "mini")[1]["findings"]  # it learnt from Arabic, too


def test_without_a_tokenizer_it_says_that_cuts_were_not_counted(tmp_path: Path) -> None:
    root = _folder(tmp_path / "pics", {"0.png": _noise(0)})
    done, report = _check(root, "nobody/nothing")
    assert (done.code, list(report["findings"])) == (0, ["cut_not_counted"])
    assert "tokens" not in report["summary"]


def test_the_same_picture_in_two_splits(tmp_path: Path, prior: str) -> None:
    """Sub-folders with names of splits, and a folder beside."""
    drawn = {
        f"{split}/{n}.png": _noise(n) for split, n in (("train", 0), ("train", 1), ("test", 2))
    }
    root = _folder(tmp_path / "pics", drawn | {"test/copy.png": _noise(1).resize((120, 100), 0)})
    _, report = _check(root, prior)
    copy = f"{root}/train/1.png = {root}/test/copy.png"
    assert report["findings"]["leakage"]["items"] == [copy]
    one = _folder(tmp_path / "one", {"0.png": _noise(0), "1.png": _noise(1)})
    kept = _folder(tmp_path / "kept", {"a.png": _noise(5), "b.png": _noise(1)})
    done, report = _check(one, prior, "--holdout_dir", kept)
    both = f"{one}/1.png (train) = {kept}/b.png (holdout)"
    assert (done.code, report["findings"]["leakage"]["items"]) == (0, [both])
    assert report["summary"]["pictures"] == 2


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_data_sets(kind: str, tmp_path: Path, prior: str) -> None:
    """Saved by `datasets` with two splits, and parquet: a bad caption, a broken picture, a leak."""

    def table(numbers: list[int], captions: list[str]) -> datasets.Dataset:
        files = [tmp_path / f"{n}.png" for n in numbers]
        for n, file in zip(numbers, files, strict=True):
            _noise(n).save(file)
        cells = [{"bytes": f.read_bytes(), "path": None} for f in files]
        cells[0]["bytes"] = cells[0]["bytes"][:100]
        found = datasets.Dataset.from_dict({"image": cells, "text": captions})
        return found.cast_column("image", datasets.Image(decode=False))

    root = tmp_path / "set"
    train, test = table([0, 1, 2], ["a", "", "c"]), table([3, 2], ["a", "b"])
    if kind == "saved":
        datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(root))
    else:
        root.mkdir()
        for name, rows in (("train", train), ("test", test)):
            rows.to_parquet(str(root / f"{name}-00000.parquet"))
    done, report = _check(root, prior, "--cache_dir", tmp_path / "cache")
    assert done.code == 1
    rows = {kind: found["items"] for kind, found in report["findings"].items()}
    assert set(rows) == {"metadata", "broken", "duplicates", "leakage"}
    assert [r.split(",")[1] for r in rows["metadata"]] == [" row 1"]
    assert [r.split(":")[0] for r in rows["broken"]] == [f"{root}, row 0"] * 2
    assert rows["leakage"] == [f"{root}, row 2 (train) = {root}, row 1 (test)"]
    assert (report["summary"]["pictures"], report["summary"]["readable"]) == (3, 2)


def test_misuse_is_told_and_ends_with_2(tmp_path: Path) -> None:
    """Before anything is read."""
    root = write_folder(tmp_path / "pics", ["a"])
    for words, said in (
        ([], "nothing to check: name a folder"),
        ([tmp_path / "none"], "no such folder"),
        ([root / "00.png"], "not a folder"),
        ([root, "--resolution", 65], "--resolution: 65 is not a multiple of 8"),
        ([root, "--train_batch_size", 0], "--train_batch_size: 0 is less than 1"),
        ([root, "--json", root / "r.json"], "where nothing is changed"),
        ([root, "--json", tmp_path / "no" / "r.json"], "no folder"),
        ([root, "--holdout_dir", root], "a training would read whole"),
        ([root, "--image_column", "text"], "are both 'text'"),
        ([root, "--pretrained_prior_model_name_or_path", "./none"], "no such folder"),
    ):
        done = run_cli("data", "check", *words)
        assert (done.code, said in done.err) == (2, True), done.text
    assert "wassily data check FOLDER" in run_cli("data").err


def test_an_empty_folder_is_an_error(tmp_path: Path, prior: str) -> None:
    (tmp_path / "pics").mkdir()
    done, report = _check(tmp_path / "pics", prior)
    assert (done.code, list(report["findings"])) == (1, ["metadata"])


def test_long_lists_are_cut_unless_asked_for(tmp_path: Path, prior: str) -> None:
    root = _folder(tmp_path / "pics", {f"{n:02d}.png": _noise(n, 80, 60) for n in range(14)})
    short, _ = _check(root, prior)
    whole, _ = _check(root, prior, "--verbose")
    assert "and 4 more" in short.out and "13.png" not in short.out
    assert "more" not in whole.out and "13.png" in whole.out


def test_what_is_shown_does_not_depend_on_the_order_of_the_threads(
    tmp_path: Path, prior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of two, over and over: as in one piece."""
    root = _folder(tmp_path / "pics", {f"{n}.png": _noise(n % 4, 80, 60) for n in range(9)})
    _, report = _check(root, prior)
    monkeypatch.setattr("wassily.commands.data_check.CHUNK", 2)
    assert _check(root, prior)[1] == report


def test_photographs(tmp_path: Path, prior: str) -> None:
    """They are sharp and different; enlarged and blurred copies of them are not sharp."""
    root = write_photos(tmp_path / "pics", range(11))
    for file in image_files(root):
        with Image.open(file) as opened:
            photo = opened.convert("RGB")
        small = photo.resize((photo.width // 3, photo.height // 3))
        for worse in (small.resize(photo.size), photo.filter(ImageFilter.GaussianBlur(2))):
            assert images.sharpness(worse, 256) < 0.28 < images.sharpness(photo, 256), file
    done, report = _check(root, prior, "--resolution", 192)
    assert (done.code, report["findings"]) == (0, {})


def test_the_demos_pictures(tmp_path: Path, prior: str) -> None:
    """What `wassily demo --write_data` writes: no errors, nothing blurred, both scripts told."""
    assert run_cli("demo", "--write_data", tmp_path / "pics", "--pictures", 30).code == 0
    done, report = _check(tmp_path / "pics", prior, "--resolution", 32)
    assert done.code == 0
    assert not set(report["findings"]) & {"blurred", "tiny", "small", "metadata", "duplicates"}
    assert set(report["summary"]["scripts"]) == {"latin", "arabic"}
