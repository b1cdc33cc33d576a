"""What installs an extra."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import ROOT

from wassily.commands import doctor, extras


def test_an_extra_is_installed_from_where_the_package_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By name where it was installed by name; from its clone, wherever one stands; in a clone, as
    the README says it. Each extra that is named is one of the package's.
    """
    clone, other = tmp_path / "my clone", tmp_path / "other"
    for folder in (clone, other):
        folder.mkdir()
    (clone / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (other / "pyproject.toml").write_text('[project]\nname = "other"\n', "utf-8")
    monkeypatch.chdir(other)
    assert extras.install("studio", other) == "pip install 'wassily[studio]'"
    assert extras.install("studio", tmp_path) == "pip install 'wassily[studio]'"
    assert extras.install("studio", clone) == f"pip install -e '{clone}[studio]'"
    monkeypatch.chdir(clone)
    for root in (clone, other):
        assert extras.install("studio", root) == "pip install -e '.[studio]'"
    readmes = [(ROOT / name).read_text("utf-8") for name in ("README.md", "README.ar.md")]
    assert all(extras.install("studio", clone) in text for text in readmes)
    monkeypatch.chdir(extras.ROOT)
    assert extras.install("8bit") == "pip install -e '.[8bit]'"
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    for extra in filter(None, (extra for extra, _ in doctor.EXTRAS.values())):
        assert f"\n{extra} = [" in project
