"""PNG files with their notes."""

from __future__ import annotations

from pathlib import Path

from helpers import draw_picture
from PIL import Image

from wassily.data import png


def test_png_notes_come_back(tmp_path: Path) -> None:
    """Arabic, line breaks, numbers; the picture itself to the bit; folders are made."""
    notes = {"prompt": "قطة حمراء\nعلى 🧸", "seed": 7, "negative_prompt": ""}
    picture = draw_picture(5)
    png.save_png(picture, tmp_path / "a" / "b" / "x.png", notes)
    with Image.open(tmp_path / "a" / "b" / "x.png") as opened:
        assert opened.text == {key: str(value) for key, value in notes.items()}
        assert opened.tobytes() == picture.tobytes()
