"""What is settled of a run before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from wassily.errors import UserError
from wassily.training import setup


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
