"""Damage to a checkpoint: told by its manifest, and what a run does about it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from helpers import tree, with_checkpoints

from wassily.errors import UserError
from wassily.files import checksums, output_folder
from wassily.training import resume


def _damage(folder: Path, way: str) -> str:
    """Do it; the words that tell it."""
    file = folder / "sub" / "a"
    if way == "missing":
        file.unlink()
        return "sub/a is missing"
    if way == "cut":
        file.write_text("")
        return f"sub/a has 0 bytes instead of {len(folder.name.split('-')[1])}"
    if way == "one bit":
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
        return "sub/a is not what was written"
    if way == "no manifest":
        (folder / checksums.NAME).unlink()
        return "manifest.json is missing"
    (folder / checksums.NAME).write_text('{"files": {"sub/a": 3}}')
    return "manifest.json: TypeError"


@pytest.mark.parametrize("way", ["missing", "cut", "one bit", "no manifest", "nonsense"])
def test_latest_is_the_newest_that_is_whole(way: str, tmp_path: Path) -> None:
    """A damaged one is named and steps aside, undeleted; the one before it is taken."""
    with_checkpoints(tmp_path, 8, 9, 10)
    told = _damage(tmp_path / "checkpoint-10", way)
    before = tree(tmp_path / "checkpoint-10")
    said: list[str] = []
    assert resume.chosen_checkpoint("latest", tmp_path, said.append) == tmp_path / "checkpoint-9"
    (line,) = said
    assert f"checkpoint-10 is damaged: {told}" in line and "going on from checkpoint-9" in line
    assert tree(tmp_path / "damaged-checkpoint-10") == before
    assert [step for step, _ in output_folder.checkpoints_in(tmp_path)] == [8, 9]


def test_checksums_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BLAKE2b of the parts' BLAKE2b: one part, none, a whole number of them, and a rest."""
    monkeypatch.setattr(checksums, "PART", 10)
    contents = [b"abc", b"", 20 * b"d", 25 * b"e"]
    files = [tmp_path / str(number) for number in range(4)]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)

    def once(content: bytes) -> bytes:
        return hashlib.blake2b(content, digest_size=32).digest()

    expected = [
        once(b"".join(once(c[i : i + 10]) for i in range(0, max(len(c), 1), 10))).hex()
        for c in contents
    ]
    assert list(checksums.digests(files)) == expected


def test_every_part_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit in the last part of the last file, in a folder sealed in this way or as it once was."""
    monkeypatch.setattr(checksums, "PART", 10)
    for name in "ab":
        (tmp_path / name).write_bytes(25 * b"x")
    for before in (False, True):
        checksums.seal(tmp_path)
        if before:
            whole = hashlib.blake2b(25 * b"x", digest_size=32).hexdigest()
            entry = {"bytes": 25, "blake2b": whole}
            text = json.dumps({"files": {"a": entry, "b": entry}})
            (tmp_path / checksums.NAME).write_text(text)
        assert checksums.damage(tmp_path) is None
        (tmp_path / "b").write_bytes(24 * b"x" + b"y")
        assert checksums.damage(tmp_path) == "b is not what was written"
        (tmp_path / "b").write_bytes(25 * b"x")


def test_what_nothing_vouches_for(tmp_path: Path) -> None:
    """Weights that the manifest does not name are damage; a note that somebody left is not."""
    (tmp_path / "a.safetensors").write_text("a")
    (tmp_path / "b.safetensors").write_text("b")
    checksums.seal(tmp_path)
    (tmp_path / "note.txt").write_text("the good one")
    assert checksums.damage(tmp_path) is None
    held = json.loads((tmp_path / checksums.NAME).read_text())
    del held["files"]["b.safetensors"]
    (tmp_path / checksums.NAME).write_text(json.dumps(held))
    assert checksums.damage(tmp_path) == "b.safetensors is not in manifest.json"


def test_each_entry_has_its_kind(tmp_path: Path) -> None:
    """An old checksum beside the new one is not asked; one of its own is."""
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    checksums.seal(tmp_path)
    held = json.loads((tmp_path / checksums.NAME).read_text())
    held["files"]["a"]["blake2b"] = "wrong"
    whole = hashlib.blake2b(b"b", digest_size=32).hexdigest()
    for told, expected in ((whole, None), ("wrong", "b is not what was written")):
        held["files"]["b"] = {"bytes": 1, "blake2b": told}
        (tmp_path / checksums.NAME).write_text(json.dumps(held))
        assert checksums.damage(tmp_path) == expected


def test_damage_without_a_way_back_is_refused(tmp_path: Path) -> None:
    """An explicit path, though there are others; and `latest` where all are damaged: no new start
    over what a run had, and nothing is moved.
    """
    with_checkpoints(tmp_path, 8, 9)
    told = _damage(tmp_path / "checkpoint-9", "one bit")
    with pytest.raises(UserError, match=f"checkpoint-9 is damaged: {told}"):
        resume.chosen_checkpoint(str(tmp_path / "checkpoint-9"), tmp_path)
    _damage(tmp_path / "checkpoint-8", "cut")
    with pytest.raises(UserError, match=f"checkpoint-9 is damaged: {told}; there is no whole one"):
        resume.chosen_checkpoint("latest", tmp_path)
    assert [step for step, _ in output_folder.checkpoints_in(tmp_path)] == [8, 9]


def test_without_its_state_a_checkpoint_is_damaged(tmp_path: Path) -> None:
    """It is named and steps aside, or stands in the way of a new start."""
    with_checkpoints(tmp_path, 8, 9)
    (tmp_path / "checkpoint-9" / "state.json").unlink()
    said: list[str] = []
    assert resume.chosen_checkpoint("latest", tmp_path, said.append) == tmp_path / "checkpoint-8"
    assert "checkpoint-9 is damaged: state.json is missing" in said[0]
    (tmp_path / "checkpoint-8" / "state.json").unlink()
    with pytest.raises(UserError, match=r"checkpoint-8 is damaged: state\.json is missing"):
        resume.chosen_checkpoint("latest", tmp_path)
    with pytest.raises(UserError, match="holds a run already"):
        resume.chosen_checkpoint(None, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"files": {}}',
        '{"files": {"/etc/passwd": {"bytes": 1, "blake2b": ""}}}',
        '{"files": {"../checkpoint-8/state.json": {"bytes": 1, "blake2b": ""}}}',
        '{"files": {"state.json": {"bytes": 1e999, "blake2b": ""}}}',
        '{"files": {"\\ud800": {"bytes": 1, "blake2b": ""}}}',
        '{"files": {"' + 5000 * "a" + '": {"bytes": 1, "blake2b": ""}}}',
        100_000 * "[",
    ],
    ids=["nothing", "absolute", "outside", "infinite", "no name", "long", "nested"],
)
def test_a_manifest_of_nonsense(text: str, tmp_path: Path) -> None:
    """It is damage like any other; nothing outside of the folder is read for it."""
    with_checkpoints(tmp_path, 8, 9)
    (tmp_path / "checkpoint-9" / "manifest.json").write_text(text, "utf-8")
    said: list[str] = []
    assert resume.chosen_checkpoint("latest", tmp_path, said.append) == tmp_path / "checkpoint-8"
    assert "checkpoint-9 is damaged: manifest.json" in said[0]
