"""The checkpoints of an output folder, by their names."""

from __future__ import annotations

from pathlib import Path

from helpers import with_checkpoints

from wassily.files import output_folder


def test_found_sorts_by_number(tmp_path: Path) -> None:
    """Not by name (10 is after 9), and only what is whole and named so."""
    with_checkpoints(tmp_path, 10, 9, 100)
    (tmp_path / "checkpoint-200").mkdir()  # no state
    for name in ("checkpoint-x", "checkpoint-5-old", "my-checkpoint-7"):
        (tmp_path / name).mkdir()
        (tmp_path / name / output_folder.STATE).write_text("{}")
    assert [step for step, _ in output_folder.checkpoints_in(tmp_path)] == [9, 10, 100]
    assert output_folder.checkpoints_in(tmp_path / "none") == []
