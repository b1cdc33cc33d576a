"""The folders that a page may ask for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from wassily.errors import UserError
from wassily.files import atomic
from wassily.mini.untrained import Tiny
from wassily.models import names
from wassily.studio.allowed_folders import AllowedFolders


@pytest.fixture
def allowed(tmp_path: Path) -> AllowedFolders:
    """Runs and data, a folder beside them, and links that lead out."""
    for name in ("runs/studio", "runs/a/b", "pics/train", "pics/.hidden", "private"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs/out").symlink_to(tmp_path / "private")
    (tmp_path / "pics/out").symlink_to(tmp_path / "private")
    return AllowedFolders(tmp_path / "runs", (tmp_path / "pics",))


def test_only_given_folders(allowed: AllowedFolders) -> None:
    """Data lies in --data, trainings lie below --runs; links and dots lead nowhere."""
    pics = allowed.data[0]
    assert allowed.folders() == [str(pics), str(pics / "train")]
    assert allowed.data_folder(str(pics / "train")) == str(pics / "train")
    for name in ("/etc", str(pics / ".."), str(pics / "out"), str(allowed.runs), "\0", None, ""):
        with pytest.raises(UserError, match=r"--data"):
            allowed.data_folder(name)
    assert allowed.run("a/b") == allowed.runs / "a/b"
    for name in ("..", "../pics", "/etc", "out", ".", "a/../.."):
        with pytest.raises(UserError, match="not below"):
            allowed.run(name)
    with pytest.raises(UserError, match="no training is chosen"):
        allowed.run(None)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "-x", "studio", "a b", "x" * 65, None])
def test_names_that_are_none(allowed: AllowedFolders, name: str | None) -> None:
    """Of a new training; in Arabic they may be."""
    with pytest.raises(UserError, match="no name for a training"):
        allowed.new_run(name)
    assert allowed.new_run(" تجربة-1 ") == allowed.runs / "تجربة-1"


def test_names_that_are_taken(allowed: AllowedFolders) -> None:
    """By a training; what is proposed is the first that no folder has."""
    assert allowed.unused("my-prior") == "my-prior"
    (allowed.runs / "my-prior").mkdir()
    (allowed.runs / "my-prior-2").mkdir()
    assert allowed.unused("my-prior") == "my-prior-3"
    allowed.new_run("my-prior")
    (allowed.runs / "my-prior" / "run.toml").touch()
    with pytest.raises(UserError, match="there is a training already"):
        allowed.new_run("my-prior")


@pytest.fixture
def runs(tmp_path: Path, tiny: Tiny) -> Path:
    """A prior, a checkpoint of a decoder, an adapter, and what is none of them."""
    shutil.copytree(tiny.prior, tmp_path / "one" / "prior-run")
    step = tmp_path / "decoder-run" / "checkpoint-5"
    shutil.copytree(Path(tiny.decoder) / "unet", step / "unet")
    (step / "state.json").write_text(
        json.dumps({"step": 5, "role": "decoder", "repositories": {}}), "utf-8"
    )
    (tmp_path / "adapter").mkdir()
    notes = {"network": "decoder", "base": "mini"}
    atomic.write_tensors(tmp_path / "adapter" / names.ADAPTER, {}, notes)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / names.ADAPTER).write_bytes(b"nothing")
    shutil.copytree(tiny.prior, tmp_path / "studio" / "not-this")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    return tmp_path
