"""The lists of generic prompts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from helpers import ROOT

from wassily.models import parts
from wassily.training_data import base_predictions, generic_prompts

PROMPTS = base_predictions.DRAWINGS  # of the lists that come along; the tests draw fewer


BASE_PROMPTS = ("a red robot", "a blue dog, watercolour", "a tree")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen questions instead of thousands."""
    monkeypatch.setattr(base_predictions, "DRAWINGS", 8)
    monkeypatch.setattr(base_predictions, "AT_ONCE", {"prior": 4, "decoder": 4})
    monkeypatch.setattr(base_predictions, "GROUP", 4)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A file of prompts."""
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(BASE_PROMPTS) + "\n\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("folder", [generic_prompts.GENERIC, parts.MINI / "prompts"])
def test_what_is_held_is_not_what_is_measured(folder: Path) -> None:
    """`wassily evaluate` asks for other prompts: else it would measure what was rehearsed."""
    lines = (folder / "preserve.txt").read_text(encoding="utf-8").splitlines()
    held = set(lines)
    assert len(held) == len(lines) == PROMPTS
    for name in ("english", "arabic"):
        assert not held & set((folder / f"{name}.txt").read_text(encoding="utf-8").splitlines())


def test_the_lists_are_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tools/prompts.py` writes what lies there."""
    monkeypatch.setattr(base_predictions, "DRAWINGS", PROMPTS)
    spec = importlib.util.spec_from_file_location("prompts", ROOT / "tools" / "prompts.py")
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.main(check=True) == 0
