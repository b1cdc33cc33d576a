"""Files and folders that are complete or absent, whenever a process ends."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import filler, tree

from wassily.files import atomic, checksums, output_folder, platforms
from wassily.training import checkpoints


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
