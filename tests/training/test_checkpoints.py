"""How many checkpoints of a run stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import tree, with_checkpoints

from wassily.files import atomic, output_folder
from wassily.training import checkpoints

# ---------------------------------------------------------------- which one


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
        patch.setattr(atomic.shutil, "rmtree", torn)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.rotate(tmp_path, 1)
    found = output_folder.checkpoints_in(tmp_path)
    assert [step for step, _ in found] == [2, 3]
    assert set(tree(found[0][1])) == set(whole)
    atomic.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-3"]
