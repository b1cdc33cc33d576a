"""Which checkpoint a run is resumed from."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import with_checkpoints

from wassily.errors import UserError
from wassily.training import resume


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


def test_an_early_checkpoint_is_not_gone_on_with_beside_later_ones(tmp_path: Path) -> None:
    """Rotation would keep the old run's later ones, and `latest` would take them."""
    with_checkpoints(tmp_path, 2, 4, 6)
    with pytest.raises(UserError, match="checkpoint-6 stands after it"):
        resume.chosen_checkpoint(str(tmp_path / "checkpoint-2"), tmp_path)
    assert resume.chosen_checkpoint(str(tmp_path / "checkpoint-6"), tmp_path).name == "checkpoint-6"
