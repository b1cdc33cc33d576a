"""Image files of a stranger: one way to a decoder, no program, one error, and a bounded memory."""

from __future__ import annotations

import ast
import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from heard import PROGRAMS, heard
from helpers import CLEAN, ROOT, draw_picture, run_cli
from PIL import EpsImagePlugin, Image, ImageFile, PngImagePlugin

from wassily.data import decoding, images, png
from wassily.data.decoding import BadPicture
from wassily.reporting import report

SOURCES = sorted((ROOT / "wassily").rglob("*.py"))
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
BIG = 20_000_000  # pixels; ten times those of a band

# ---------------------------------------------------------------- 1: one decoder


def test_finding_01_one_file_opens_images_and_names_the_formats() -> None:
    """Each `Image.open` of the package, by whichever name PIL is imported."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called.endswith(("Image.open", "ImageFile.Parser", "image.open")):
                found.append(path.relative_to(ROOT).as_posix())
                assert "formats" in {word.arg for word in node.keywords}, path
    assert found == ["wassily/data/decoding.py"]
    for path in SOURCES:  # nor under another name
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "PIL.Image":
                assert "open" not in {name.name for name in node.names}, path


def _output_folder(folder: Path, sample: bytes) -> Path:
    """The output folder of a training whose one sample has that content."""
    step = folder / "validation" / "step-1"
    step.mkdir(parents=True)
    (folder / "log.jsonl").write_text(json.dumps({"step": 1, "train_loss": 1.0}) + "\n")
    draw_picture(0).save(step / "sheet.png")
    (step / "00.png").write_bytes(sample)
    return folder


@pytest.mark.parametrize("way", ["report", "refresh"])
def test_finding_01_postscript_starts_no_program(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a sample of that name; `refresh` is what a running training calls."""
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # PIL has not looked for it yet
    folder = _output_folder(tmp_path, POSTSCRIPT)
    said: list[str] = []
    with heard(*PROGRAMS) as programs:
        if way == "report":
            assert run_cli("report", folder).code == 0
        else:
            report.refresh(folder, said.append)
    assert programs == said == []
    text = (folder / "report.html").read_text("utf-8")
    assert "step 1" in text or "log" in text
    assert "data:image" not in text


def test_finding_01_it_would_be_heard() -> None:
    """By the same means, from the program that PIL starts of such a file."""
    with heard(*PROGRAMS) as programs:
        subprocess.run([sys.executable, "-c", ""], check=True, env={**os.environ, **CLEAN})
    assert programs


def _texts(size: int) -> bytes:
    """A PNG of one compressed text of so many bytes."""
    packed = zlib.compress(bytes(size), 9)
    buffer, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add(b"zTXt", b"prompt\0\0" + packed)
    draw_picture(1).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _header(width: int, height: int) -> bytes:
    """A PNG that is a header alone."""
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + content
        + struct.pack(">I", zlib.crc32(content))
    )


BOMBS = {
    "PostScript": POSTSCRIPT,
    "zTXt of 80 MB": _texts(80 * 2**20),
    "1,600 megapixels": _header(40_000, 40_000),
    "not an image": b"<html>",
    "empty": b"",
}


@pytest.mark.parametrize("name", BOMBS)
def test_finding_01_each_way_to_a_decoder_has_one_error(name: str, tmp_path: Path) -> None:
    """BadPicture, no notes, or the image without them; nothing else is raised."""
    path = tmp_path / "00.png"
    path.write_bytes(BOMBS[name])
    ways = [
        lambda: images.open_rgb(path),
        lambda: images.open_mask(path),
        lambda: png.read_notes(path),
        lambda: png.thumbnail(path, 64, tmp_path),
    ]
    raised = 0
    for way in ways:
        try:
            way()
        except BadPicture as error:
            raised += 1
            assert len(str(error).splitlines()) == 1
    assert raised >= (1 if name.startswith("zTXt") else len(ways))
    assert png.png_notes(path) == {}
    folder = _output_folder(tmp_path / "run", BOMBS[name])
    assert run_cli("report", folder).code == 0


def test_finding_09_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """In the place of a sample, of --image and of a file with notes."""
    path = tmp_path / "00.png"
    os.mkfifo(path)
    for way in (images.open_rgb, images.file_bytes, png.read_notes):
        with pytest.raises(BadPicture, match="a pipe or a device"):
            way(path)
    with pytest.raises(BadPicture, match="a pipe or a device"):
        png.thumbnail(path, 64, tmp_path)
    assert png.png_notes(path) == {}


# ---------------------------------------------------------------- 14: memory


def _encoded(kind: str) -> bytes:
    """A PNG of BIG pixels, small as a file."""
    height, width = 4000, BIG // 4000
    buffer = io.BytesIO()
    if kind == "16 bits":
        made = Image.fromarray(np.full((height, width), 30_000, np.uint16))
    elif kind == "palette":
        made = Image.new("P", (width, height), 1)
        made.putpalette([0, 0, 0, 200, 100, 50])
    else:
        made = Image.new(kind, (width, height), (200, 100, 50, 128)[: len(kind)])
    transparent = {"transparency": bytes([0, 128])} if kind == "palette" else {}
    made.save(buffer, "PNG", compress_level=1, **transparent)
    return buffer.getvalue()


PEAK = """
import resource, sys
from pathlib import Path
from wassily.data import images
def peak():
    # The other number is that of the parent, too, whose memory a child has before it begins.
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
images.open_rgb(sys.argv[1])  # what is imported and allocated once
before = peak()
for name in sys.argv[2:]:
    print(*images.open_rgb(name).getpixel((9, 9)))
print(peak() - before)
"""


def test_finding_14_a_large_image_takes_little_more_than_its_result(tmp_path: Path) -> None:
    """PIL holds 4 bytes of a pixel's colours: 8 for what is decoded and its result. Before, the
    conversions of a whole image took 12 to 17. One child for all, as each start costs seconds.
    """
    draw_picture(0).save(tmp_path / "small.png")
    # 128 / 255 of the colour on white; 30,000 / 257 of grey.
    kinds = {"RGBA": (227, 177, 152), "16 bits": (117, 117, 117), "palette": (227, 177, 152)}
    for kind in kinds:
        (tmp_path / kind).write_bytes(_encoded(kind))
    words = [sys.executable, "-c", PEAK, tmp_path / "small.png", *(tmp_path / k for k in kinds)]
    environment = {**os.environ, **CLEAN, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    *colours, peak = done.stdout.splitlines()
    assert int(peak) < 10 * BIG, int(peak) / BIG
    for line, expected in zip(colours, kinds.values(), strict=True):
        assert np.abs(np.subtract([int(v) for v in line.split()], expected)).max() <= 1


def test_finding_14_bands_change_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each kind of image, turned ones and other colours among them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    made = draw_picture(3, 61, 47)
    alpha = made.convert("RGBA")
    alpha.putalpha(made.convert("L"))
    kinds = [(made, {"exif": exif}), (alpha, {}), (made.quantize(9), {"transparency": bytes(9)})]
    kinds += [(Image.fromarray(np.arange(61 * 47, dtype=np.uint16).reshape(47, 61) * 20), {})]
    kinds += [(made.convert("L"), {"transparency": 40}), (made.convert("LA"), {"exif": exif})]
    for picture, options in kinds:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", **options)
        raw = buffer.getvalue()
        monkeypatch.setattr(images, "BAND", 2**21)
        whole = images.open_rgb(raw)
        monkeypatch.setattr(images, "BAND", 100)  # a row of 61
        banded = images.open_rgb(raw)
        assert banded.size == whole.size and banded.tobytes() == whole.tobytes(), picture.mode


def test_finding_14_few_pixels_are_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads: never more pixels at once than the limit, but of one larger image alone."""
    buffers = []
    for side in (10, 20, 30, 60):
        buffer = io.BytesIO()
        draw_picture(0, side, side).save(buffer, "PNG")
        buffers.append(buffer.getvalue())
    monkeypatch.setattr(decoding, "AT_A_TIME", 2000)
    now: list[int] = []
    seen: list[tuple[int, int]] = []
    lock, load = threading.Lock(), ImageFile.ImageFile.load

    def slow(self: Image.Image) -> object:
        pixels = self.width * self.height
        with lock:
            now.append(pixels)
            seen.append((sum(now), len(now)))
        time.sleep(0.002)
        with lock:
            now.remove(pixels)
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", slow)
    threads = [
        threading.Thread(target=lambda: [images.open_rgb(raw) for raw in buffers * 3])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert all(total <= 2000 or count == 1 for total, count in seen)
    assert max(count for _, count in seen) > 1  # small ones go together
    assert decoding._in_flight.pixels == 0
