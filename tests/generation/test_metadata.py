"""What a PNG tells of itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import draw_picture
from PIL import Image, PngImagePlugin

from wassily.errors import UserError
from wassily.generation import metadata


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with pictures of all sorts."""
    monkeypatch.chdir(tmp_path)
    draw_picture(1, 48, 32).save("in.png")
    draw_picture(2, 40, 40).save("photo.jpg")
    half = np.zeros((64, 96), np.uint8)
    half[:, 48:] = 255
    Image.fromarray(half).save("mask.png")
    Image.new("L", (48, 32)).save("black.png")
    Image.new("L", (48, 48), 255).save("square.png")
    Image.new("RGBA", (48, 32), (255, 255, 255, 100)).save("clear.png")
    Path("words.png").write_text("hello")
    return tmp_path


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (None, "no notes of wassily in it that tell what drew it"),
        ("{", "its notes are damaged"),
        ("[" * 100000, "its notes are damaged"),
        ('{"command": "train"}', "its notes are damaged"),
        ({"config": {"prompts": ["a"], "seed": 1, "batch_size": 10**9}}, "is more than 1024"),
        ({"config": {"prompts": ["a"], "seed": 1, "steps": "rm"}}, "--steps: 'rm' is not a whole"),
        ({"config": {"prompts": ["a"], "seed": 1, "step": 1}}, "unknown name 'step'"),
        ({"config": {"prompts": ["a"]}}, "no seed"),
        ({"config": {"seed": 1, "prompts_file": "/etc/passwd"}}, "nothing to draw"),
    ],
    ids=range(9),
)
def test_damaged_notes(here: Path, chunk: object, message: str) -> None:
    """One line each; nothing that is not of the picture is taken from them."""
    info = PngImagePlugin.PngInfo()
    if isinstance(chunk, dict):
        whole = {"command": "generate", "place": 1, "digests": {}, "made_with": {}} | chunk
        chunk = json.dumps(whole)
    if chunk is not None:
        info.add_itxt("wassily", str(chunk))
    Image.new("RGB", (8, 8)).save("x.png", pnginfo=info)
    with pytest.raises(UserError, match=r"--from x\.png: ") as refused:
        metadata.read_provenance("x.png")
    assert message in str(refused.value)
