"""Images as they come from cameras, editors and the web: what stands beside the pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_pictures import chunk, encoded, png
from helpers import draw_picture
from PIL import Image, ImageCms, PngImagePlugin

from wassily.data import datasets, images
from wassily.data.images import BadPicture
from wassily.data.png import read_notes
from wassily.encodings import cache, fill
from wassily.errors import UserError
from wassily.generation import conditions
from wassily.runtime.accelerator import Runtime

TORN_EXIF = b"\0\x08\0\x02\x01\x12\0\x03\0\0"  # an eXIf chunk that ends in its first entry
TURNED = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # a quarter, by EXIF
XMP_TURNED = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # PIL's, about what it passes over


# ---------------------------------------------------------------- profiles made here


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def icc(space: bytes, tags: dict[bytes, bytes], version: int = 2) -> bytes:
    """A profile of a monitor as bytes, by ICC.1:2001-04 and ICC.1:2010 (version 4)."""
    at, table, content = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        value += b"\0" * (-len(value) % 4)
        table += name + struct.pack(">II", at + len(content), len(value))
        content += value
    size = 128 + len(table) + len(content)
    head = struct.pack(
        ">I4sB3x4s4s4s12x4s", size, b"\0" * 4, version, b"mntr", space, b"XYZ ", b"acsp"
    )
    head += b"\0" * (68 - len(head)) + _fixed(0.9642) + _fixed(1.0) + _fixed(0.8249)
    return head.ljust(128, b"\0") + table + content


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def _srgb_curve() -> bytes:
    return (
        b"para\0\0\0\0"
        + struct.pack(">HH", 3, 0)
        + b"".join(map(_fixed, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
    )


WHITE = {b"wtpt": _xyz(0.9642, 1.0, 0.8249)}
# Red, green and blue of each space in XYZ under D50, from the spaces' own definitions.
P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
PROPHOTO = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249))


def rgb_profile(primaries: Any, curve: bytes, version: int = 2) -> bytes:
    """A profile of three primaries and one curve."""
    names = zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)
    tags = WHITE | {name: _xyz(*value) for name, value in names}
    return icc(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve), version)


def grey_profile(gamma: float) -> bytes:
    """A profile of grey values."""
    return icc(b"GRAY", WHITE | {b"kTRC": _gamma(gamma)})


DISPLAY_P3 = rgb_profile(P3, _srgb_curve(), 4)
PROFILES = {
    "p3": DISPLAY_P3,
    "adobe": rgb_profile(ADOBE, _gamma(563 / 256)),
    "prophoto": rgb_profile(PROPHOTO, _gamma(1.8)),
}
SRGBS = {
    "built in": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "version 2": rgb_profile(SRGB, _srgb_curve()),
    "version 4": rgb_profile(SRGB, _srgb_curve(), 4),
}


def _linear(colour: tuple[int, ...], curve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return curve(np.array(colour) / 255)


def _srgb_linear(v: np.ndarray) -> np.ndarray:
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def _srgb_encoded(v: np.ndarray) -> np.ndarray:
    v = v.clip(0, 1)
    return np.where(v <= 0.0031308, v * 12.92, 1.055 * v ** (1 / 2.4) - 0.055) * 255


CURVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "p3": _srgb_linear,
    "adobe": lambda v: v ** (563 / 256),
    "prophoto": lambda v: v**1.8,
}
PRIMARIES = {"p3": P3, "adobe": ADOBE, "prophoto": PROPHOTO}


def expected(name: str, stored: tuple[int, ...]) -> np.ndarray:
    """The stored values of a space as sRGB, by its primaries and its curve."""
    xyz = _linear(stored, CURVES[name]) @ np.array(PRIMARIES[name])
    return _srgb_encoded(xyz @ np.linalg.inv(np.array(SRGB)))


def _one(image: Image.Image) -> np.ndarray:
    """The colour in the middle of an opened image, (3,)."""
    return np.asarray(image)[image.height // 2, image.width // 2].astype(int)


def _near(image: Image.Image, colour: Any, most: float = 2) -> None:
    assert np.abs(_one(image) - np.asarray(colour)).max() <= most, (_one(image), colour)


# ---------------------------------------------------------------- F4: damage beside the pixels


def _webp(**beside: bytes) -> bytes:
    return encoded(Image.new("RGB", (8, 8), (9, 80, 200)), format="WEBP", lossless=True, **beside)


def _png(*chunks: bytes) -> bytes:
    """Two blue rows of eight, and what a file may hold besides."""
    plain = encoded(Image.new("RGB", (8, 2), (9, 80, 200)), format="PNG")
    return plain[:33] + b"".join(chunks) + plain[33:]


def _jpeg(*segments: tuple[int, bytes], **options: Any) -> bytes:
    plain = encoded(Image.new("RGB", (8, 8), (9, 80, 200)), format="JPEG", quality=95, **options)
    more = b"".join(
        bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content
        for marker, content in segments
    )
    return plain[:2] + more + plain[2:]


def _wrong_checksum(kind: bytes, content: bytes) -> bytes:
    return chunk(kind, content)[:-1] + b"?"


def _tiff(**options: Any) -> bytes:
    return encoded(Image.new("RGB", (8, 8), (9, 80, 200)), format="TIFF", **options)


LONG_XMP = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x/>" + b" " * 3_000_000)
F4 = {
    "webp exif of ff": _webp(exif=b"\xff" * 30),
    "webp torn exif": _webp(exif=TORN_EXIF),
    "webp xmp and profile of ff": _webp(xmp=b"\xff" * 99, icc_profile=b"\xff" * 99),
    "png torn exif": _png(chunk(b"eXIf", TORN_EXIF)),
    "png exif with a wrong checksum": _png(_wrong_checksum(b"eXIf", TURNED[:9])),
    "png xmp of 3 MB, compressed": _png(chunk(b"iTXt", LONG_XMP)),
    "png xmp of 3 MB": _png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b" " * 3_000_000)),
    "png profile of 3 MB": _png(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(3_000_000)))),
    "png cut profile": _png(chunk(b"iCCP", b"a\0\0" + zlib.compress(DISPLAY_P3)[:40])),
    "png profile packed in an unknown way": _png(chunk(b"iCCP", b"a\0\7" + DISPLAY_P3)),
    "png profile without a name": _png(chunk(b"iCCP", b"\0" * 3)),
    "png text of no latin": _png(chunk(b"tEXt", b"a\0" + bytes(range(256)))),
    "png empty chunks": _png(
        *(chunk(k, b"") for k in (b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"eXIf"))
    ),
    "png chunk nobody knows": _png(_wrong_checksum(b"abCd", b"1234")),
    "png animation without its frames": _png(chunk(b"acTL", b"\0" * 3)),
    "jpeg exif of ff": _jpeg((0xE1, b"Exif\0\0" + b"\xff" * 40)),
    "jpeg torn exif": _jpeg((0xE1, b"Exif\0\0" + TURNED[:15])),
    "jpeg exif that points into nothing": _jpeg((0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xf0")),
    "jpeg torn index of images": _jpeg((0xE2, b"MPF\0MM\0*\0\0\0\x08\0\x03")),
    "jpeg index of images of ff": _jpeg((0xE2, b"MPF\0" + b"\xff" * 40)),
    "jpeg second half of a profile": _jpeg((0xE2, b"ICC_PROFILE\0\2\2" + DISPLAY_P3[200:])),
    "jpeg photoshop block of ff": _jpeg((0xED, b"Photoshop 3.0\x008BIM\x03\xed" + b"\xff" * 9)),
    "jpeg comment": _jpeg((0xFE, b"\xff" * 900)),
    "tiff profile of ff": _tiff(icc_profile=b"\xff" * 90),
    "tiff xmp of ff": _tiff(tiffinfo={700: b"\xff" * 90}),
    "gif comment of ff": encoded(
        Image.new("RGB", (8, 8), (9, 80, 200)), format="GIF", comment=b"\xff" * 400
    ),
}


@pytest.mark.parametrize("name", F4)
def test_f04_damage_beside_the_pixels(name: str, tmp_path: Path) -> None:
    """The image is read, and as it lies, from bytes, from a file, as --image and as --mask."""
    (tmp_path / "a.png").write_bytes(F4[name])
    for source in (F4[name], tmp_path / "a.png"):
        opened = images.open_rgb(source)
        _near(opened, (9, 80, 200))
        assert opened.width == 8
    shelf = conditions.OpenedImages()
    _near(shelf.open("--image", str(tmp_path / "a.png")), (9, 80, 200))
    with pytest.raises(UserError, match="no white in it"):  # read, and found to be blue
        shelf.open("--mask", str(tmp_path / "a.png"), images.open_mask)


TORN_INDEX = (0xE2, b"MPF\0MM\0*\0\0\0\x08\0\x03")
RATIONAL = b"\x01\x1a\0\5\0\0\0\1\0\0\xff\0" + b"\0" * 4  # an entry, and the end of the block
READABLE = {
    "png beside a wrong checksum": _png(chunk(b"eXIf", TURNED), _wrong_checksum(b"tEXt", b"a\0b")),
    "png beside a long text": _png(chunk(b"eXIf", TURNED), chunk(b"iTXt", LONG_XMP)),
    "jpeg beside a torn index": _jpeg(
        (0xE1, b"Exif\0\0" + TURNED), (0xE2, b"MPF\0MM\0*\0\0\0\x08\0\x03")
    ),
    # The second entry, of rationals, points behind the end of the block.
    "png before a torn entry": _png(
        chunk(
            b"eXIf",
            TURNED[:8] + b"\0\2" + TURNED[10:22] + b"\x01\x1a\0\5\0\0\0\1\0\0\xff\0" + b"\0" * 4,
        )
    ),
    "png by xmp of 100 kB": _png(
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_TURNED + b" " * 100_000)
    ),
}


@pytest.mark.parametrize("name", READABLE)
def test_f04_a_readable_rotation_is_applied(name: str) -> None:
    """Whatever else is damaged: 8 x 2 (8 x 8 of a JPEG) stands upright."""
    tall = Image.new("RGB", (8, 2))
    size = (8, 8) if name.startswith("jpeg") else (tall.height, tall.width)
    assert images.open_rgb(READABLE[name]).size == size


@pytest.mark.parametrize("way", [0, 9, 65535])
def test_f04_a_rotation_that_is_none(way: int) -> None:
    """Orientation 0 or 9: the image as it lies."""
    exif = Image.Exif()
    exif[0x0112] = way
    image = draw_picture(2, 40, 24)
    opened = images.open_rgb(encoded(image, format="PNG", exif=exif))
    assert opened.tobytes() == image.tobytes()


def test_f04_what_is_damaged_in_the_pixels_stays_refused() -> None:
    """Half of a file, a bomb in a text, and a wrong checksum of a needed chunk."""
    whole = encoded(draw_picture(3), format="PNG")
    bomb = png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000))))
    for raw, reason in (
        (whole[: len(whole) // 2], "cut short"),
        (encoded(draw_picture(3), format="JPEG")[:-900], "cut short"),
        (bomb, "damaged"),
        (_wrong_checksum(b"IHDR", b""), "known kind"),
    ):
        with pytest.raises(BadPicture, match=reason):
            images.open_rgb(raw)


# ---------------------------------------------------------------- F5: colours


def test_f05_display_p3() -> None:
    """(212, 75, 60) in Display P3 is (230, 60, 50) in sRGB."""
    raw = encoded(Image.new("RGB", (8, 8), (212, 75, 60)), format="PNG", icc_profile=DISPLAY_P3)
    _near(images.open_rgb(raw), (230, 60, 50))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("name", PROFILES)
def test_f05_profiles_of_three_primaries(name: str, kind: str) -> None:
    """Against the matrices and curves of the spaces, in every kind of file."""
    exact = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    for stored in ((150, 120, 90), (90, 140, 120), (60, 60, 60), (0, 0, 0), (255, 255, 255)):
        image = Image.new("RGB", (16, 16), stored)
        raw = encoded(image, format=kind, icc_profile=PROFILES[name], **exact)
        assert images.recoloured(raw)
        _near(images.open_rgb(raw), expected(name, stored), 3)


@pytest.mark.parametrize("name", [*SRGBS, "none", "unreadable", "of grey", "cut"])
def test_f05_srgb_and_no_profile_are_as_before(name: str) -> None:
    """To the bit, and so is what carries an unreadable profile, or one of other values."""
    profile = SRGBS | {"none": None, "unreadable": b"\xff" * 400, "of grey": grey_profile(1.8)}
    profile["cut"] = DISPLAY_P3[:200]
    image = draw_picture(5)
    raw = encoded(image, format="PNG", icc_profile=profile[name])
    assert not images.recoloured(raw)
    assert images.open_rgb(raw).tobytes() == image.tobytes()


@pytest.mark.parametrize("kind", ["L", "LA", "I;16", "1"])
def test_f05_grey_of_another_gamma(kind: str) -> None:
    """Grey 128 of gamma 1.8 is 255 f((128 / 255) ^ 1.8) in sRGB, f its curve; white stays white."""
    if kind == "I;16":
        image = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
    else:
        image = Image.new(kind, (8, 8), (128, 255) if kind == "LA" else 128 if kind == "L" else 1)
    raw = encoded(image, format="PNG", icc_profile=grey_profile(1.8))
    level = float(_srgb_encoded(np.array((128 / 255) ** 1.8))) if kind != "1" else 255
    _near(images.open_rgb(raw), (level,) * 3)


def test_f05_grey_with_gamma_chunks_alone() -> None:
    """gAMA and cHRM without a profile: untagged, so as before."""
    plain = encoded(draw_picture(1).convert("L"), format="PNG")
    more = chunk(b"gAMA", struct.pack(">I", 55_555)) + chunk(b"cHRM", struct.pack(">8I", *range(8)))
    raw = plain[:33] + more + plain[33:]
    assert images.open_rgb(raw).tobytes() == draw_picture(1).convert("L").convert("RGB").tobytes()


def test_f05_palette_and_transparency() -> None:
    """The colours are converted, the transparent is white, and half of it is half of white."""
    colour = expected("p3", (150, 120, 90))
    image = Image.new("RGBA", (2, 1), (150, 120, 90, 255))
    image.putpixel((1, 0), (150, 120, 90, 128))
    values = np.asarray(images.open_rgb(encoded(image, format="PNG", icc_profile=DISPLAY_P3)))[0]
    half = 255 + (colour - 255) * 128 / 255
    assert np.abs(values - np.stack([colour, half])).max() <= 3
    flat = Image.new("P", (2, 1), 1)
    flat.putpalette([0, 0, 0, 150, 120, 90])
    flat.putpixel((1, 0), 0)
    raw = encoded(flat, format="PNG", icc_profile=DISPLAY_P3, transparency=0)
    values = np.asarray(images.open_rgb(raw))[0]
    assert np.abs(values - np.stack([colour, [255] * 3])).max() <= 3


def _lab_table(inks: int) -> bytes:
    """A table (lut8) from inks to Lab: each ink alone darkens, none is white."""
    corners = np.stack(np.meshgrid(*[[0, 1]] * inks, indexing="ij"), -1).reshape(-1, inks)
    light = 255 * (1 - np.minimum(1, corners.sum(1) / 2))
    lab = np.stack([light, np.full(len(light), 128), np.full(len(light), 128)], 1)
    ramp = bytes(range(256))
    matrix = b"".join(map(_fixed, (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    return (
        b"mft1\0\0\0\0" + bytes([inks, 3, 2, 0]) + matrix + ramp * inks
        + lab.round().astype(np.uint8).tobytes() + ramp * 3
    )  # fmt: skip


def test_f05_print_colours() -> None:
    """CMYK by its profile: one ink in full is the middle grey of its table, L 50, which is 119."""
    profile = bytearray(icc(b"CMYK", WHITE | {b"A2B0": _lab_table(4), b"A2B1": _lab_table(4)}))
    profile[12:16], profile[20:24] = b"prtr", b"Lab "
    for kind in ("TIFF", "JPEG"):
        image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
        raw = encoded(image, format=kind, icc_profile=bytes(profile), quality=100)
        assert images.recoloured(raw)
        _near(images.open_rgb(raw), (119, 119, 119), 4)
        untagged = encoded(image, format=kind)
        assert not images.recoloured(untagged)
        assert _one(images.open_rgb(untagged))[0] < 30  # no red, as ever


def test_f05_lab() -> None:
    """A Lab TIFF with its profile: the colours that were made Lab come back."""
    image = draw_picture(4)
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    made = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    assert made is not None
    back = images.open_rgb(encoded(made, format="TIFF"))
    assert np.abs(np.asarray(back).astype(int) - np.asarray(image)).mean() < 3


def test_f05_a_phones_pair_of_images() -> None:
    """An MPO with a profile: its first image, converted."""
    first = Image.new("RGB", (16, 16), (150, 120, 90))
    second = Image.new("RGB", (16, 16), (0, 255, 0))
    raw = encoded(
        first, format="MPO", save_all=True, append_images=[second], icc_profile=DISPLAY_P3
    )
    _near(images.open_rgb(raw), expected("p3", (150, 120, 90)), 3)


def test_f05_a_profile_that_came_in_a_damaged_file() -> None:
    """The profile of a JPEG whose index of images is torn is found all the same."""
    image = Image.new("RGB", (16, 16), (150, 120, 90))
    plain = encoded(image, format="JPEG", quality=100, icc_profile=DISPLAY_P3)
    torn = b"\xff\xe2\0\x10MPF\0" + b"\xff" * 10
    _near(images.open_rgb(plain[:2] + torn + plain[2:]), expected("p3", (150, 120, 90)), 3)


def test_f05_the_cache_knows_the_colours(tmp_path: Path) -> None:
    """Only an image whose colours are converted has a key of its own; mirrored it is another."""
    image = draw_picture(7)
    for name, profile in (("plain", None), ("srgb", SRGBS["built in"]), ("p3", DISPLAY_P3)):
        image.save(tmp_path / f"{name}.png", icc_profile=profile)
    source = datasets.read_folder(str(tmp_path), "image", None)
    runtime = Runtime("no", 1, str(tmp_path / "out"), "logs", "none")
    found, bad = fill.image_contents(source, tmp_path / "cache", runtime)
    assert not bad
    for record, key in zip((source[i] for i in range(3)), found, strict=True):
        assert isinstance(record.image, str)
        same = key.tobytes() == cache.file_digest(record.image)
        assert same == (Path(record.image).stem != "p3")
        assert key.tobytes() == fill.content_key(record.image)
    again, _ = fill.image_contents(source, tmp_path / "cache", runtime)
    assert np.array_equal(found, again)


def test_f05_a_cache_of_before_is_used_and_its_files_read_once_more(tmp_path: Path) -> None:
    """What remembers files by how they were read before the colours does not answer for them."""
    draw_picture(7).save(tmp_path / "a.png", icc_profile=DISPLAY_P3)
    name = str(tmp_path / "a.png")
    before = cache.Contents(tmp_path / "cache")
    old = before.read(name, name)
    before.writer.flush()
    assert cache.Contents(tmp_path / "cache").known([name])[0].tobytes() == old
    assert not cache.Contents(tmp_path / "cache", (images.READ_AS,)).known([name]).any()


# ---------------------------------------------------------------- F12: size


PIL_WORDS = ("decompression", "DOS", "truncated", "PngImagePlugin", "PIL", "cannot identify")
HUGE = {
    "png": png(20_000, 10_000),
    "gif": b"GIF89a" + struct.pack("<HHBBB", 20_000, 10_000, 0, 0, 0) + b"," + struct.pack(
        "<HHHHB", 0, 0, 20_000, 10_000, 0
    ) + b"\x02\x02\x4c\x01\0;",
    "bmp": b"BM" + struct.pack("<IIIIiiHH24x", 99, 0, 54, 40, 20_000, 10_000, 1, 24),
    "ppm": b"P6\n20000 10000\n255\n" + bytes(99),
    "jpeg": encoded(Image.new("RGB", (8, 8)), format="JPEG").replace(
        b"\xff\xc0\0\x11\x08\0\x08\0\x08", b"\xff\xc0\0\x11\x08\x27\x10\x4e\x20"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HUGE)
def test_f12_a_huge_image(kind: str) -> None:
    """Its size, the limit, and what to do."""
    with pytest.raises(BadPicture) as caught:
        images.open_rgb(HUGE[kind])
    assert str(caught.value) == ("too large (200.0 megapixels, the limit is 179): make it smaller")


@pytest.mark.parametrize("raw", [
    encoded(draw_picture(0), format="JPEG")[:-900],
    encoded(draw_picture(0), format="PNG")[:200],
    encoded(draw_picture(0), format="WEBP")[:-50],
    encoded(draw_picture(0), format="TIFF")[:900],
    png(10, 10), png(0, 8), png(8, 8, depth=3), HUGE["png"],
    png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))),
])  # fmt: skip
def test_f12_no_words_of_pillows(raw: bytes) -> None:
    """Whatever is wrong with an image is told in words for its owner."""
    with pytest.raises(BadPicture) as caught:
        images.open_rgb(raw)
    assert not any(word.lower() in str(caught.value).lower() for word in PIL_WORDS)


def test_f12_too_large_for_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image below the limit that this machine cannot hold."""
    raw = encoded(draw_picture(0), format="PNG")

    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", full)
    with pytest.raises(BadPicture, match="memory of this machine: make it smaller"):
        images.open_rgb(raw)


def test_f12_notes_of_a_damaged_png(tmp_path: Path) -> None:
    """--from reads notes: what is wrong with the file is told in the same words."""
    notes = PngImagePlugin.PngInfo()
    notes.add_text("prompt", "a cat")
    whole = encoded(draw_picture(1), format="PNG", pnginfo=notes)
    for raw, says in ((whole[:200], "cut short|damaged"), (HUGE["png"], "too large"), (b"", "PNG")):
        (tmp_path / "a.png").write_bytes(raw)
        with pytest.raises(BadPicture, match=says):
            read_notes(tmp_path / "a.png")
    with pytest.raises(BadPicture, match="no such file"):
        read_notes(tmp_path / "b.png")
