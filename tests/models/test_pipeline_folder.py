"""A pipeline folder beside the checkpoints of its run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import tree, with_checkpoints

from wassily.files import atomic, output_folder
from wassily.models import pipeline_folder


def _pipeline(text: str) -> object:
    def save(folder: Path) -> None:
        for part in ("unet", "movq"):
            (folder / part).mkdir(parents=True)
            (folder / part / "w").write_text(text)
        (folder / "image_processor").mkdir()
        processor = {"image_processor_type": "CLIPImageProcessorPil"}
        (folder / "image_processor" / "preprocessor_config.json").write_text(json.dumps(processor))
        index = {"image_processor": ["transformers", "CLIPImageProcessorPil"]}
        (folder / "model_index.json").write_text(json.dumps(index))

    return save


def test_export_stands_beside_the_checkpoints(tmp_path: Path) -> None:
    """A second export replaces the first; what else is there stays; the processor is portable."""
    with_checkpoints(tmp_path, 3)
    pipeline_folder.export(tmp_path, _pipeline("one"), "card one")
    (tmp_path / "unet" / "stale").write_text("x")
    pipeline_folder.export(tmp_path, _pipeline("two"), "بطاقة")
    assert tree(tmp_path / "unet") == {"w": b"two"}
    assert (tmp_path / "README.md").read_text("utf-8") == "بطاقة"
    assert (tmp_path / "checkpoint-3" / output_folder.STATE).exists()
    for file in ("model_index.json", "image_processor/preprocessor_config.json"):
        assert '"CLIPImageProcessor"' in (tmp_path / file).read_text()
    assert not list(tmp_path.glob(".writing*"))


def test_the_index_goes_first_and_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that loads is whole: at any rename but the last there is no index, or nothing has
    been touched; a failing save leaves the old export loadable.
    """
    pipeline_folder.export(tmp_path, _pipeline("one"), "card")
    before = tree(tmp_path)

    def fail(folder: Path) -> None:
        _pipeline("two")(folder)  # type: ignore[operator]
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        pipeline_folder.export(tmp_path, fail, "new card")
    atomic.sweep(tmp_path)
    assert tree(tmp_path) == before

    seen: list[bool] = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        seen.append((tmp_path / "model_index.json").exists())
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    pipeline_folder.export(tmp_path, _pipeline("two"), "new card")
    assert len(seen) >= 4
    assert not any(seen)
    assert (tmp_path / "model_index.json").exists()
