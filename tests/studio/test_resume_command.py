"""studio.resume: a run.toml goes through the fence of the form before it is resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from wassily.config import schema
from wassily.errors import UserError
from wassily.studio import command_words, resume_command
from wassily.studio.allowed_folders import AllowedFolders


def test_resuming(tmp_path: Path, photos: Path) -> None:
    """By the run's own values, in its own folder alone."""
    allowed = AllowedFolders(tmp_path, (photos,))
    folder, elsewhere = tmp_path / "run", tmp_path / "moved"
    folder.mkdir(), elsewhere.mkdir()
    with pytest.raises(UserError, match="no training to resume"):
        resume_command.words(allowed, folder, None)
    flags = ["--train_data_dir", str(photos), "--output_dir", str(folder), "--preset", "12gb"]
    flags += ["--pretrained_prior_model_name_or_path", "mini", "--validation_prompts", "a", "b"]
    config = command_words.checked(["train", "decoder", *flags])
    (folder / "run.toml").write_text(schema.to_toml(config), "utf-8")
    command = resume_command.words(allowed, folder, None)
    assert command[:2] == ["train", "decoder"] and "--config" not in command
    again, was = schema.public(command_words.checked(command)), schema.public(config)
    assert again == was | {"preset": None, "resume_from_checkpoint": "latest"}
    shutil.copyfile(folder / "run.toml", elsewhere / "run.toml")
    with pytest.raises(UserError, match="it writes into"):
        resume_command.words(allowed, elsewhere, None)
    (folder / "run.toml").write_text("nothing = 1\n", "utf-8")
    with pytest.raises(UserError, match="names no network"):
        resume_command.words(allowed, folder, None)
