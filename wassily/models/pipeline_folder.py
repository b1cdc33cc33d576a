"""An exported pipeline folder in the layout of diffusers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wassily.files import atomic, platforms, reading


def export(output_dir: Path, save_pipeline: Callable[[Path], None], card: str) -> None:
    """Put a pipeline folder and its card into `output_dir`, beside the checkpoints.

    The index that makes it loadable goes away first and comes back last: a folder that loads is
    whole.
    """
    aside = output_dir / f"{atomic.ASIDE}export"
    atomic.remove(aside)
    with atomic.system_errors(output_dir):
        save_pipeline(aside)
    _portable_image_processor(aside)
    atomic.flush(aside)
    index = output_dir / "model_index.json"
    index.unlink(missing_ok=True)
    for part in sorted(p for p in aside.iterdir() if p.name != index.name):
        target = output_dir / part.name
        atomic.remove(target)
        part.rename(target)
    atomic.write_text(output_dir / "README.md", card)
    (aside / index.name).rename(index)
    aside.rmdir()
    platforms.flush(output_dir)


def _portable_image_processor(folder: Path) -> None:
    """Name the image processor as every transformers knows it, not by its PIL flavour."""
    for file in (
        folder / "model_index.json",
        folder / "image_processor" / "preprocessor_config.json",
    ):
        if file.is_file():
            text = reading.read_text(file)
            file.write_text(text.replace("CLIPImageProcessorPil", "CLIPImageProcessor"), "utf-8")
