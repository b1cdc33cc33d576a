"""Pictures: damaged, lying or merely odd, as the bytes of their files."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from helpers import draw_picture
from PIL import Image, PngImagePlugin

# kind -> the ending and how it is saved
KINDS: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG"},
    "png": {"format": "PNG"},
    "gif": {"format": "GIF"},
    "bmp": {"format": "BMP"},
    "webp": {"format": "WEBP"},
    "tif": {"format": "TIFF"},
    "ppm": {"format": "PPM"},
}


def encoded(picture: Image.Image, **options: Any) -> bytes:
    """A picture as the bytes of its file."""
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG, with its checksum."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(width: int, height: int, *more: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose header claims a size; nearly no pixels follow."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + rows + chunk(b"IEND", b"")
    )


def damaged() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes and what is said, of each kind of picture damaged in each way."""
    for ending, options in KINDS.items():
        whole = encoded(draw_picture(3), **options)
        yield f"first 12 bytes.{ending}", whole[:12], "."
        yield f"cut in half.{ending}", whole[: len(whole) // 2], "."
        yield f"nothing but zeros.{ending}", bytes(len(whole)), "not a picture of a known kind"
        yield f"empty.{ending}", b"", "not a picture of a known kind"
        yield f"backwards.{ending}", whole[::-1], "not a picture of a known kind"


def strange() -> Iterator[tuple[str, bytes, str]]:
    """Files that are no pictures, lie about themselves, or ask for more than they are."""
    none = "not a picture of a known kind"
    yield "web page.jpg", b"<html>404 Not Found</html>", none
    yield (
        "drawing.jpg",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///"/></svg>',
        none,
    )
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file\nshowpage\n"
    yield "postscript.jpg", script, none
    yield "pdf.png", b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n", none
    yield "zip.png", b"PK\x03\x04" + bytes(60), none
    yield "pickle.png", b"\x80\x04cos\nsystem\n(S'echo'\ntR.", none
    yield "icon.png", encoded(draw_picture(1).resize((32, 32)), format="ICO"), none
    yield "targa.jpg", encoded(draw_picture(1), format="TGA"), none
    yield "bomb.png", png(60_000, 60_000), "3600.0 megapixels"
    yield "wide bomb.png", png(2**31 - 1, 2**31 - 1), "."
    yield "no pixels.png", png(0, 0), "."
    yield "no width.png", png(0, 8), "."
    yield "depth of 3.png", png(8, 8, depth=3), "."
    yield "size that is not there.png", png(4000, 4000), "."
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))
    yield "bomb in a note.png", png(8, 8, text), "."
    yield "wrong checksum.png", png(8, 8).replace(b"IDAT", b"IDAt"), "."
    many = b"P6\n99999999 99999999\n255\n" + bytes(99)
    yield "bomb.ppm", many, "make it smaller"
    yield "ascii.ppm", b"P3\n2 2\n255\nnot numbers at all", "."
    yield "bomb.gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0), "."
    yield "bomb.bmp", b"BM" + struct.pack("<IIIIiiHH", 99, 0, 54, 40, 99_999, 99_999, 1, 24), "."
    yield "tags.tif", b"II*\0\x08\0\0\0" + struct.pack("<H", 65535), "."
    yield "loop.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "."
    fractions = Image.fromarray(np.full((9, 9), 0.5, np.float32))
    yield "fractions.tif", encoded(fractions, format="TIFF"), "with a fraction"


def odd() -> Iterator[tuple[str, bytes]]:
    """Pictures that are odd and good: they are read."""
    base = draw_picture(3)
    yield "wrong ending.png", encoded(base, format="JPEG")
    yield "one column.png", encoded(base.resize((1, 20_000)), format="PNG")
    yield "one row.png", encoded(base.resize((20_000, 1)), format="PNG")
    yield "dot.png", encoded(base.resize((1, 1)), format="PNG")
    yield "16 bits.png", encoded(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), format="PNG")
    yield "32 bits.tif", encoded(Image.fromarray(np.full((9, 9), 70_000, np.int32)), format="TIFF")
    yield "print.jpg", encoded(base.convert("CMYK"), format="JPEG")
    yield "palette.png", encoded(base.convert("P"), format="PNG", transparency=3)
    yield "grey and alpha.png", encoded(base.convert("LA"), format="PNG")
    yield "one bit.png", encoded(base.convert("1"), format="PNG")
    frames = [draw_picture(n) for n in range(4)]
    moving = {"save_all": True, "append_images": frames[1:]}
    yield "moving.gif", encoded(frames[0], format="GIF", **moving)
    yield "moving.webp", encoded(frames[0], format="WEBP", **moving)
    yield "moving.png", encoded(frames[0], format="PNG", **moving)
    yield "pages.tif", encoded(frames[0], format="TIFF", **moving)
    yield "bad exif.jpg", encoded(base, format="JPEG", exif=b"Exif\0\0" + b"\xff" * 40)
    yield "bad profile.jpg", encoded(base, format="JPEG", icc_profile=b"\xff" * 200)
    turned = Image.Exif()
    turned[0x0112] = 99
    yield "turned nowhere.jpg", encoded(base, format="JPEG", exif=turned)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("prompt", "</script>\n" * 99)
    yield "notes.png", encoded(base, format="PNG", pnginfo=notes)
    yield "tail.jpg", encoded(base, format="JPEG") + b"\x80\x04cos\nsystem\n" * 99
    yield "zeros inside.bmp", encoded(base, format="BMP")[:9000] + bytes(23_094 - 9000)
