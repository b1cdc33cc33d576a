"""Opening the images that users have, and the guide's transform to the bit."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import draw_picture, guide_pixels, image_files
from PIL import Image, ImageFile, features

from wassily.data import images
from wassily.data.images import BadPicture

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)


def _bytes(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


# ---------------------------------------------------------------- the guide's transform


@pytest.mark.parametrize("side", [16, 64, 96])
@pytest.mark.parametrize("size", [(64, 64), (101, 64), (64, 101), (33, 500), (7, 5), (640, 480)])
def test_square_pixels_are_the_guides_to_the_bit(size: tuple[int, int], side: int) -> None:
    """Odd differences (the box has halves), enlarging, and shrinking in two steps."""
    picture = draw_picture(size[0], *size)
    ours = images.centre_pixels(picture, side, side)
    assert torch.equal(ours, guide_pixels(picture, side))
    assert ours.shape == (3, side, side)
    assert ours.is_contiguous()


def test_square_pixels_of_photographs(photos: Path) -> None:
    """The same on photographs, whose edges and detail a resize must treat the same way."""
    files = image_files(photos)
    assert files
    for file in files:
        ours = images.centre_pixels(images.open_rgb(file), 64, 64)
        with Image.open(file) as picture:
            assert torch.equal(ours, guide_pixels(picture.convert("RGB"), 64)), file.name


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((64, 32), (0, 80, 640, 400)),
        ((32, 64), (200, 0, 440, 480)),
        ((64, 48), (0, 0, 640, 480)),
        ((48, 48), (80, 0, 560, 480)),
    ],
)
def test_the_largest_centre_box_of_a_shape(
    shape: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    """Of 640 x 480; against the box written out, cut and resized the same way."""
    picture = draw_picture(3, 640, 480)
    cut = picture.crop(box).resize(shape, Image.Resampling.BICUBIC, reducing_gap=1)
    expected = np.asarray(cut).astype(np.float32) / 127.5 - 1
    ours = images.centre_pixels(picture, *shape)
    assert ours.shape == (3, shape[1], shape[0])
    assert np.array_equal(ours.numpy(), expected.transpose(2, 0, 1))


def test_mirror_twice_is_the_picture() -> None:
    """And once puts the left column to the right."""
    picture = draw_picture(0)
    once = images.mirror(picture)
    assert np.array_equal(np.asarray(once), np.asarray(picture)[:, ::-1])
    assert images.mirror(once).tobytes() == picture.tobytes()


# ---------------------------------------------------------------- opening


def test_bytes_and_paths_open_alike(tmp_path: Path) -> None:
    """A data set brings bytes, a folder paths."""
    picture = draw_picture(1)
    picture.save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), _bytes(picture, "PNG")):
        opened = images.open_rgb(source)
        assert opened.mode == "RGB"
        assert opened.tobytes() == picture.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    """The eight orientations of the EXIF standard: a picture stored turned comes back upright."""
    upright = draw_picture(2, 40, 24)
    values = np.asarray(upright)
    stored = {
        1: values,
        2: values[:, ::-1],
        3: values[::-1, ::-1],
        4: values[::-1],
        5: values.transpose(1, 0, 2),
        6: np.rot90(values, 1),
        7: np.rot90(values, 2).transpose(1, 0, 2),
        8: np.rot90(values, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = _bytes(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.array_equal(np.asarray(images.open_rgb(raw)), values)


def test_transparency_lies_on_white() -> None:
    """alpha 0 is white, 255 the colour, 128 the mean: 255 + (c - 255) 128 / 255."""
    picture = Image.new("RGBA", (3, 1), (*RED, 255))
    picture.putpixel((1, 0), (*BLUE, 0))
    picture.putpixel((2, 0), (0, 0, 0, 128))
    pixels = np.asarray(images.open_rgb(_bytes(picture, "PNG")))[0]
    assert tuple(pixels[0]) == RED
    assert tuple(pixels[1]) == WHITE
    assert abs(int(pixels[2][0]) - 127) <= 1


def test_palette_with_transparency() -> None:
    """Index 1 is transparent (tRNS as an index and as bytes), the others keep their colours."""
    picture = Image.new("P", (3, 1))
    picture.putpalette([*RED, *GREEN, *BLUE])
    for x in range(3):
        picture.putpixel((x, 0), x)
    for transparency in (1, bytes([255, 0, 255])):
        raw = _bytes(picture, "PNG", transparency=transparency)
        pixels = np.asarray(images.open_rgb(raw))[0]
        assert [tuple(map(int, p)) for p in pixels] == [RED, WHITE, BLUE]
    opaque = np.asarray(images.open_rgb(_bytes(picture, "PNG")))[0]
    assert [tuple(map(int, p)) for p in opaque] == [RED, GREEN, BLUE]


def test_grey_with_and_without_alpha() -> None:
    """L has three equal channels; LA is laid on white; 1 bit is black and white."""
    grey = Image.new("L", (1, 1), 77)
    assert images.open_rgb(_bytes(grey, "PNG")).getpixel((0, 0)) == (77, 77, 77)
    faint = Image.new("LA", (1, 1), (77, 0))
    assert images.open_rgb(_bytes(faint, "PNG")).getpixel((0, 0)) == WHITE
    bit = Image.new("1", (2, 1))
    bit.putpixel((0, 0), 1)
    opened = images.open_rgb(_bytes(bit, "PNG"))
    assert [opened.getpixel((x, 0)) for x in range(2)] == [WHITE, (0, 0, 0)]


def test_cmyk() -> None:
    """No ink is white, full cyan has no red."""
    for ink, wanted in (((0, 0, 0, 0), WHITE), ((255, 0, 0, 0), (0, 255, 255))):
        raw = _bytes(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)
        got = np.asarray(images.open_rgb(raw))[8, 8].astype(int)
        assert np.abs(got - wanted).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_cut(kind: str) -> None:
    """65535 / 257 = 255, 32896 / 257 = 128: PIL's own convert would cut all of them to 255."""
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    opened = np.asarray(images.open_rgb(_bytes(Image.fromarray(values), kind)))
    assert opened[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (opened == opened[..., :1]).all()


def test_animation_gives_its_first_frame() -> None:
    """GIF and WebP."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    kinds = ["GIF"] + (["WEBP"] if features.check("webp") else [])
    for kind in kinds:
        options = {"lossless": True} if kind == "WEBP" else {}
        raw = _bytes(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert images.open_rgb(raw).getpixel((4, 4)) == RED, kind


# ---------------------------------------------------------------- what is no picture


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no data."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0")
    chunks = [
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        for body in (header, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "known kind"),
        (b"<html>404</html>", "known kind"),
        (_bytes(draw_picture(0, 200, 200), "JPEG")[:-2000], "cut short"),
        (_bytes(draw_picture(0), "PNG")[:500], "."),
        (_png_header(10, 10), "."),
        (_png_header(60_000, 60_000), "3600.0 megapixels, the limit is 179"),
    ],
    ids=["empty", "html", "half a jpeg", "half a png", "no data", "bomb"],
)
def test_not_a_whole_picture(raw: bytes, reason: str, tmp_path: Path) -> None:
    """BadPicture in one line, from bytes and from a file."""
    (tmp_path / "x.png").write_bytes(raw)
    for source in (raw, tmp_path / "x.png"):
        with pytest.raises(BadPicture, match=reason) as caught:
            images.open_rgb(source)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("error", [RuntimeError("decoder"), struct.error("tag"), IndexError()])
def test_whatever_a_decoder_raises_is_a_bad_picture(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AVIF raises RuntimeError, a torn tag struct.error: the file is listed all the same."""

    def fail(self: Image.Image) -> None:
        raise error

    raw = _bytes(draw_picture(0), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(BadPicture, match="damaged: its pixels cannot be decoded"):
        images.open_rgb(raw)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """Neither is a stack trace."""
    with pytest.raises(BadPicture, match="no such file"):
        images.open_rgb(tmp_path / "none.png")
    with pytest.raises(BadPicture):
        images.open_rgb(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL's, about what it repaired
def test_damaged_files_are_bad_pictures_or_pictures() -> None:
    """480 files with random bytes changed or cut off: nothing else is ever raised."""
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    palette = draw_picture(0, 24, 20).quantize(8)
    files = [
        _bytes(draw_picture(0, 24, 20), "JPEG", exif=exif),
        _bytes(draw_picture(1, 24, 20), "PNG", exif=exif),
        _bytes(draw_picture(2, 24, 20), "GIF"),
        _bytes(draw_picture(3, 24, 20), "TIFF", exif=exif),
        _bytes(draw_picture(4, 24, 20), "BMP"),
        _bytes(palette, "PNG", transparency=bytes(range(8))),
    ]
    bad = 0
    for raw in files:
        for _ in range(80):
            damaged = np.frombuffer(raw, np.uint8).copy()
            # The headers are at the front, and there the damage is interesting.
            where = (len(raw) * rng.random(4) ** 4).astype(int)
            damaged[where] = rng.integers(0, 256, 4)
            cut = damaged[: rng.integers(1, len(raw)) if rng.random() < 0.2 else len(raw)]
            try:
                opened = images.open_rgb(cut.tobytes())
            except BadPicture as error:
                bad += 1
                assert str(error)
            else:
                assert opened.mode == "RGB"
    assert 50 < bad < 450  # both happen
