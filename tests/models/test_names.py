"""From a name to its folder: the hub, a folder, a checkpoint, `mini`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from wassily.errors import UserError
from wassily.mini.untrained import Tiny
from wassily.models import names, parts


def test_resolve_folders(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute whatever the working folder; `~` too."""
    assert names.resolve(str(tiny.prior), "prior") == str(tiny.prior)
    monkeypatch.chdir(tiny.decoder.parent)
    assert names.resolve("decoder", "decoder") == str(tiny.decoder)
    assert names.resolve("./decoder/", "decoder") == str(tiny.decoder)
    monkeypatch.setenv("HOME", str(tiny.prior.parent))
    assert names.resolve("~/prior", "prior") == str(tiny.prior)


def test_resolve_hub_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """owner/name passes as it is, without asking anyone."""
    monkeypatch.chdir(tmp_path)
    name = "kandinsky-community/kandinsky-2-2-prior"
    assert names.resolve(name, "prior") == name


@pytest.mark.parametrize(
    "name", ["nothing", "a/b/c", "/nowhere/at/all", "./here", "../there", "~/none", "a/b/"]
)
def test_resolve_says_what_is_no_name(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before anything is loaded or asked for."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        names.resolve(name, "prior")


def test_resolve_says_what_a_wrong_folder_is(tiny: Tiny, tmp_path: Path) -> None:
    """The other network's folder, an empty one, a file."""
    with pytest.raises(UserError, match=r"no sub-folder 'unet'.*it is a prior's"):
        names.resolve(str(tiny.prior), "decoder")
    with pytest.raises(UserError, match=r"no sub-folder 'prior'.*it is a decoder's.*movq"):
        names.resolve(str(tiny.decoder), "prior")
    with pytest.raises(UserError, match="no part of a model"):
        names.resolve(str(tmp_path), "prior")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="a file"):
        names.resolve(str(tmp_path / "file"), "prior")


def test_mini_is_the_bundled_folder_or_one_line(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Present: its absolute path. Missing: no stack trace."""
    monkeypatch.setattr(parts, "MINI", tiny.prior.parent)
    assert names.resolve("mini", "prior") == str(tiny.prior)
    assert names.resolve("mini", "decoder") == str(tiny.decoder)
    monkeypatch.setattr(parts, "MINI", tmp_path)
    with pytest.raises(UserError, match="mini: this installation has no bundled"):
        names.resolve("mini", "prior")


def _checkpoint(folder: Path, tiny: Tiny, role: str, ema: bool = False) -> Path:
    folder.mkdir(parents=True)
    network = parts.TRAINED[role]
    shutil.copytree(getattr(tiny, role) / network, folder / network)
    if ema:
        shutil.copytree(getattr(tiny, role) / network, folder / f"{network}_ema")
    repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    state = {"role": role, "step": 3, "repositories": repositories}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


@pytest.mark.parametrize("role", ["prior", "decoder"])
def test_locate_a_checkpoint(role: str, tiny: Tiny, tmp_path: Path) -> None:
    """The frozen parts from its repository; the averaged network where there is one."""
    network = parts.TRAINED[role]
    plain = _checkpoint(tmp_path / "checkpoint-1", tiny, role)
    found = names.locate(str(plain), role)
    assert found == names.Trained(str(getattr(tiny, role)), (plain / network).resolve())
    averaged = _checkpoint(tmp_path / "checkpoint-2", tiny, role, ema=True)
    found = names.locate(str(averaged), role)
    assert found.network == (averaged / f"{network}_ema").resolve()


def test_locate_other_names(tiny: Tiny, tmp_path: Path) -> None:
    """A pipeline folder; and the other network's checkpoint is refused."""
    assert names.locate(str(tiny.prior), "prior") == names.Trained(str(tiny.prior))
    wrong = _checkpoint(tmp_path / "checkpoint-1", tiny, "prior")
    with pytest.raises(UserError, match="a checkpoint of a prior, not of a decoder"):
        names.locate(str(wrong), "decoder")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"role": "prior"}'])
def test_locate_a_torn_state_is_one_line(text: str, tmp_path: Path) -> None:
    """What a full disk leaves."""
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(UserError, match=r"state\.json"):
        names.locate(str(tmp_path), "prior")
