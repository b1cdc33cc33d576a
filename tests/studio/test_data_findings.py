"""What a check of a folder found, with its images."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import draw_picture, write_folder

from wassily.errors import UserError
from wassily.studio import data_findings
from wassily.studio.allowed_folders import AllowedFolders


@pytest.fixture
def allowed(tmp_path: Path) -> AllowedFolders:
    (tmp_path / "runs" / "studio").mkdir(parents=True)
    return AllowedFolders(tmp_path / "runs", (tmp_path,))


def test_findings_and_their_pictures(tmp_path: Path) -> None:
    """The gravest first; a finding's pictures are opened where they can be."""
    folder = write_folder(tmp_path / "pics", ["a", "b", "c"])
    (folder / "01.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "02.png").write_bytes(b"no picture")
    allowed = AllowedFolders(tmp_path / "runs", (folder,))
    looked = data_findings.look(allowed, str(folder), 32, True, "mini")
    kinds = [finding.kind for finding in looked.findings]
    assert kinds[0] == "broken" and "duplicates" in kinds and looked.summary["pictures"] == 3
    found = dict(zip(kinds, looked.findings, strict=True))
    assert data_findings.thumbnails(found["broken"], allowed) == []
    shown = data_findings.thumbnails(found["duplicates"], allowed)
    assert [name for _, name in shown] == ["00.png", "01.png"]
    assert all(max(picture.size) <= data_findings.SIDE for picture, _ in shown)
    with pytest.raises(UserError, match="--data"):
        data_findings.look(allowed, str(tmp_path), 32, True, "mini")


def test_names_in_an_item(tmp_path: Path) -> None:
    """With colons and spaces in them; none outside of the data, whatever an item says."""
    allowed = AllowedFolders(tmp_path, (tmp_path / "pics",))
    (tmp_path / "pics").mkdir()
    for name in ("a: b.png", "c = d.png"):
        draw_picture(1).save(tmp_path / "pics" / name)
    draw_picture(1).save(tmp_path / "e.png")
    item = f"{tmp_path}/pics/a: b.png: 32 x 32"
    assert [path.name for path in data_findings.files(item, allowed)] == ["a: b.png"]
    item = f"{tmp_path}/pics/a: b.png (train) = {tmp_path}/e.png (test)"
    assert [path.name for path in data_findings.files(item, allowed)] == ["a: b.png"]
    assert data_findings.files("nothing: here", allowed) == []
