"""Whole or not there; named, unpickled state; and an export whose index comes last."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import filler, tree, with_checkpoints

from wassily.errors import UserError
from wassily.files import atomic, checksums, output_folder, platforms
from wassily.models import pipeline_folder
from wassily.training import checkpoints, resume, setup

# ---------------------------------------------------------------- whole folders


def test_write_whole_makes_and_replaces(tmp_path: Path) -> None:
    """Nothing of the old one is left in the new, and nothing aside."""
    target = tmp_path / "checkpoint-5"
    atomic.write_whole(target, filler("one"))
    (target / "more").write_text("old")
    atomic.write_whole(target, filler("two"))
    files = tree(target)
    assert set(json.loads(files.pop(checksums.NAME))["files"]) == {"sub/a", "state.json"}
    assert files == {"sub/a": b"two", "state.json": b"{}"}
    assert [p.name for p in target.parent.iterdir()] == ["checkpoint-5"]


@pytest.mark.parametrize("error", [RuntimeError("full"), KeyboardInterrupt(), OSError(28, "full")])
def test_an_interrupted_write_leaves_the_old_one(error: BaseException, tmp_path: Path) -> None:
    """Half of the new one does not count as a checkpoint; after an error it is gone, so that a full
    disk has its room back, and after a kill it is swept away.
    """
    target = tmp_path / "checkpoint-5"
    atomic.write_whole(target, filler("one"))
    before = tree(target)

    def fail(folder: Path) -> None:
        filler("two")(folder)  # type: ignore[operator]
        raise error

    for name in ("checkpoint-5", "checkpoint-6"):
        with pytest.raises(type(error)):
            atomic.write_whole(tmp_path / name, fail)
    assert tree(target) == before
    assert [step for step, _ in output_folder.checkpoints_in(tmp_path)] == [5]
    assert len(list(tmp_path.iterdir())) == (1 if isinstance(error, Exception) else 3)
    atomic.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-5"]
    # And a new attempt over the rest of an old one succeeds.
    atomic.write_whole(target, filler("three"))
    assert tree(target)["sub/a"] == b"three"


class _Killed(BaseException):
    """No `except Exception` sees it, as none sees a kill."""


def _killed_at(number: int, work: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Work until just before the n-th rename, sync or removal of a file; whether it was done."""
    calls = 0

    def count(original: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                raise _Killed
            return original(*args, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(platforms, "flush", count(platforms.flush))
        for home, name in ((Path, "rename"), (os, "unlink"), (os, "rmdir")):
            patch.setattr(home, name, count(getattr(home, name)))
        try:
            work()
        except _Killed:
            return False
    return True


@pytest.mark.parametrize("name", ["checkpoint-5", "best-5"])
def test_killed_while_one_is_replaced(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each moment: after the sweep the old one or the new one is there, whole, and no more."""
    target, seen, number = tmp_path / name, list[bytes](), 0
    done = False
    while not done:
        number += 1
        shutil.rmtree(target, ignore_errors=True)
        atomic.write_whole(target, filler("old"))
        done = _killed_at(number, lambda: atomic.write_whole(target, filler("new")), monkeypatch)
        atomic.sweep(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == [name], f"killed before call {number}"
        assert checksums.damage(target) is None
        seen.append(tree(target)["sub/a"])
    assert seen == sorted(seen, reverse=True)  # never back to the old one
    assert set(seen) == {b"old", b"new"} and number > 10


@pytest.mark.parametrize("number", range(1, 16))
def test_killed_at_any_rename_there_is_a_whole_one(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill just before a rename, removal or sync while checkpoint-6 is written beside
    checkpoint-5: after the sweep all that is found is whole, and 5 is still there.
    """
    atomic.write_whole(tmp_path / "checkpoint-5", filler("five"))

    def work() -> None:
        atomic.write_whole(tmp_path / "checkpoint-6", filler("six"))
        checkpoints.rotate(tmp_path, 1)

    finished = _killed_at(number, work, monkeypatch)
    atomic.sweep(tmp_path)
    found = dict(output_folder.checkpoints_in(tmp_path))
    assert found
    for step, folder in found.items():
        assert tree(folder)["sub/a"] == {5: b"five", 6: b"six"}[step]
    assert 6 in found or 5 in found
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"checkpoint-{s}" for s in sorted(found)]
    if finished:
        assert sorted(found) == [6]


def test_everything_is_flushed_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the rename must find the data: each file and folder is synced before."""
    order: list[str] = []
    sync, rename = platforms.flush, Path.rename

    def noted(path: Path) -> None:
        order.append(path.name)
        sync(path)

    def renamed(self: Path, target: Path) -> Path:
        order.append("rename")
        return rename(self, target)

    monkeypatch.setattr(platforms, "flush", noted)
    monkeypatch.setattr(Path, "rename", renamed)
    atomic.write_whole(tmp_path / "checkpoint-1", filler("x"))
    at = order.index("rename")
    assert {"a", "sub", "state.json", ".writing-checkpoint-1"} <= set(order[:at])
    assert checksums.NAME in order[:at]
    assert order[at + 1 :] == [tmp_path.name]


def test_write_text_is_whole_or_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arabic in UTF-8; an interrupted write keeps the old text."""
    path = tmp_path / "deep" / "run.toml"
    atomic.write_text(path, "قطة")
    assert path.read_text("utf-8") == "قطة"

    def fail(folder: Path) -> None:
        raise OSError(28, "full")

    monkeypatch.setattr(platforms, "flush", fail)
    with pytest.raises(OSError, match="full"):
        atomic.write_text(path, "new")
    assert path.read_text("utf-8") == "قطة"


def test_sweep_removes_only_what_is_half_written(tmp_path: Path) -> None:
    """Files and folders aside; nothing of the user's; a missing folder is no error."""
    (tmp_path / ".writing-run.toml").write_text("x")
    (tmp_path / ".writing-checkpoint-9").mkdir()
    for name in ("checkpoint-1", "logs", ".hidden"):
        (tmp_path / name).mkdir()
    atomic.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "checkpoint-1", "logs"]
    atomic.sweep(tmp_path / "none")


# ---------------------------------------------------------------- which one


def test_found_sorts_by_number(tmp_path: Path) -> None:
    """Not by name (10 is after 9), and only what is whole and named so."""
    with_checkpoints(tmp_path, 10, 9, 100)
    (tmp_path / "checkpoint-200").mkdir()  # no state
    for name in ("checkpoint-x", "checkpoint-5-old", "my-checkpoint-7"):
        (tmp_path / name).mkdir()
        (tmp_path / name / output_folder.STATE).write_text("{}")
    assert [step for step, _ in output_folder.checkpoints_in(tmp_path)] == [9, 10, 100]
    assert output_folder.checkpoints_in(tmp_path / "none") == []


def test_latest_is_the_newest_or_a_new_start(tmp_path: Path) -> None:
    """The same command serves the first start and every restart."""
    assert resume.chosen_checkpoint("latest", tmp_path / "none") is None
    assert resume.chosen_checkpoint("latest", tmp_path) is None
    assert (
        resume.chosen_checkpoint("latest", with_checkpoints(tmp_path, 9, 10))
        == tmp_path / "checkpoint-10"
    )


def test_a_named_checkpoint(tmp_path: Path) -> None:
    """By its path; a folder that is none is refused."""
    with_checkpoints(tmp_path, 9, 10)
    nine = tmp_path / "checkpoint-9"
    assert resume.chosen_checkpoint(str(nine), tmp_path / "other") == nine
    with pytest.raises(UserError, match="no checkpoint of wassily"):
        resume.chosen_checkpoint(str(tmp_path), tmp_path)


def test_a_run_is_not_trained_over(tmp_path: Path) -> None:
    """Without a wish: refused where there are checkpoints, with both remedies."""
    assert resume.chosen_checkpoint(None, tmp_path) is None
    with pytest.raises(UserError, match=r"newest: checkpoint-3.*latest.*--output_dir"):
        resume.chosen_checkpoint(None, with_checkpoints(tmp_path, 3))


def test_rotate_keeps_the_newest(tmp_path: Path) -> None:
    """Oldest first, by number; no limit keeps all."""
    with_checkpoints(tmp_path, 1, 2, 9, 10)
    assert checkpoints.rotate(tmp_path, None) == []
    assert checkpoints.rotate(tmp_path, 4) == []
    assert [p.name for p in checkpoints.rotate(tmp_path, 2)] == ["checkpoint-1", "checkpoint-2"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]


def test_a_kill_while_rotating_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed files go one by one: what is still found has all of its own."""
    with_checkpoints(tmp_path, 1, 2, 3)
    whole = tree(tmp_path / "checkpoint-2")

    def torn(folder: Path) -> None:
        next(p for p in sorted(folder.rglob("*")) if p.name == "a").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.shutil, "rmtree", torn)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.rotate(tmp_path, 1)
    found = output_folder.checkpoints_in(tmp_path)
    assert [step for step, _ in found] == [2, 3]
    assert set(tree(found[0][1])) == set(whole)
    atomic.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-3"]


# ---------------------------------------------------------------- export


def _pipeline(text: str) -> object:
    def save(folder: Path) -> None:
        for part in ("unet", "movq"):
            (folder / part).mkdir(parents=True)
            (folder / part / "w").write_text(text)
        (folder / "image_processor").mkdir()
        processor = {"image_processor_type": "CLIPImageProcessorPil"}
        (folder / "image_processor" / "preprocessor_config.json").write_text(json.dumps(processor))
        index = {"image_processor": ["transformers", "CLIPImageProcessorPil"]}
        (folder / "model_index.json").write_text(json.dumps(index))

    return save


def test_export_stands_beside_the_checkpoints(tmp_path: Path) -> None:
    """A second export replaces the first; what else is there stays; the processor is portable."""
    with_checkpoints(tmp_path, 3)
    pipeline_folder.export(tmp_path, _pipeline("one"), "card one")
    (tmp_path / "unet" / "stale").write_text("x")
    pipeline_folder.export(tmp_path, _pipeline("two"), "بطاقة")
    assert tree(tmp_path / "unet") == {"w": b"two"}
    assert (tmp_path / "README.md").read_text("utf-8") == "بطاقة"
    assert (tmp_path / "checkpoint-3" / output_folder.STATE).exists()
    for file in ("model_index.json", "image_processor/preprocessor_config.json"):
        assert '"CLIPImageProcessor"' in (tmp_path / file).read_text()
    assert not list(tmp_path.glob(".writing*"))


def test_the_index_goes_first_and_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that loads is whole: at any rename but the last there is no index, or nothing has
    been touched; a failing save leaves the old export loadable.
    """
    pipeline_folder.export(tmp_path, _pipeline("one"), "card")
    before = tree(tmp_path)

    def fail(folder: Path) -> None:
        _pipeline("two")(folder)  # type: ignore[operator]
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        pipeline_folder.export(tmp_path, fail, "new card")
    atomic.sweep(tmp_path)
    assert tree(tmp_path) == before

    seen: list[bool] = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        seen.append((tmp_path / "model_index.json").exists())
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    pipeline_folder.export(tmp_path, _pipeline("two"), "new card")
    assert len(seen) >= 4
    assert not any(seen)
    assert (tmp_path / "model_index.json").exists()


# ---------------------------------------------------------------- what must not be mixed


def test_an_early_checkpoint_is_not_gone_on_with_beside_later_ones(tmp_path: Path) -> None:
    """Rotation would keep the old run's later ones, and `latest` would take them."""
    with_checkpoints(tmp_path, 2, 4, 6)
    with pytest.raises(UserError, match="checkpoint-6 stands after it"):
        resume.chosen_checkpoint(str(tmp_path / "checkpoint-2"), tmp_path)
    assert resume.chosen_checkpoint(str(tmp_path / "checkpoint-6"), tmp_path).name == "checkpoint-6"


def test_an_export_does_not_replace_what_is_the_users(tmp_path: Path) -> None:
    """A folder with files of those names is refused, unless a run of ours made it."""
    parts = {"unet", "movq"}
    setup.check_free(tmp_path / "none", parts)
    (tmp_path / "notes.txt").write_text("mine")
    setup.check_free(tmp_path, parts)
    (tmp_path / "unet").mkdir()
    with pytest.raises(UserError, match="would replace unet"):
        setup.check_free(tmp_path, parts)
    (tmp_path / "run.toml").write_text("")
    setup.check_free(tmp_path, parts)
