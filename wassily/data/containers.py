"""The files of images taken apart: the pixels alone, and the EXIF block and colour profile beside.

Decoders refuse a whole image for damage in what stands beside its pixels, or for the size of it.
Plain bytes; the pixels are not decoded here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
LEAST = 12  # bytes by which the kind of a file is told
INFLATED = 64 * 2**20  # bytes that the compressed texts and the profile of one file may come to
OF_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # chunks of a PNG
# Markers of a JPEG: JFIF's own and Adobe's, which tell the colours, are needed; the others of
# applications, and comments, are not.
NEEDED = {0xE0, 0xEE}
BESIDE = {*range(0xE0, 0xF0), 0xFE} - NEEDED
WEBP_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}


def is_known(head: bytes) -> bool:
    """Whether a file with this beginning is of a kind that `pixels_alone` takes apart."""
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return head.startswith((PNG, JPEG)) or webp


def pixels_alone(raw: bytes) -> tuple[bytes, dict[str, bytes]]:
    """A PNG, JPEG or WebP without what stands beside its pixels; of that "exif" and "icc_profile"
    as far as they are there and whole.

    Raises ValueError for a PNG whose compressed texts come to more than INFLATED bytes.
    """
    if raw.startswith(PNG):
        return _of_png(raw)
    return _of_jpeg(raw) if raw.startswith(JPEG) else _of_webp(raw)


def _of_png(raw: bytes) -> tuple[bytes, dict[str, bytes]]:
    kept, found, left = [PNG], dict[str, bytes](), INFLATED
    for kind, begin, end in _chunks(raw, len(PNG), "big"):
        if kind in OF_PIXELS:
            kept.append(raw[begin - 8 : end + 4])  # with length, kind and checksum
            continue
        content = raw[begin:end]
        if kind == b"eXIf":
            found["exif"] = content
        elif kind in (b"zTXt", b"iTXt", b"iCCP"):
            inflated = _inflated(kind, content, left)
            left -= len(inflated)
            if left <= 0:
                raise ValueError("texts beside the pixels of more than 64 MB")
            if kind == b"iCCP" and inflated:
                found["icc_profile"] = inflated
    return b"".join(kept), found


def _inflated(kind: bytes, content: bytes, most: int) -> bytes:
    """The compressed part of a chunk, as far as it goes and up to `most` bytes."""
    _, _, rest = content.partition(b"\0")  # behind the name
    if kind == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
        if not packed:
            return b""
    else:
        rest = rest[1:]
    try:
        return zlib.decompressobj().decompress(rest, most)
    except zlib.error:
        return b""


def _of_jpeg(raw: bytes) -> tuple[bytes, dict[str, bytes]]:
    kept, found, profile, at = [raw[:2]], dict[str, bytes](), dict[int, bytes](), 2
    while at + 4 <= len(raw) and raw[at] == 0xFF and raw[at + 1] != 0xDA:
        if raw[at + 1] == 0xFF:  # filling before a marker
            at += 1
            continue
        end = at + 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
        content = raw[at + 4 : end]
        if raw[at + 1] not in BESIDE:
            kept.append(raw[at:end])
        elif content.startswith(b"Exif\0\0"):
            found.setdefault("exif", content)
        elif content.startswith(b"ICC_PROFILE\0") and len(content) > 14:
            profile[content[12]] = content[14:]
        at = end
    if profile:
        found["icc_profile"] = b"".join(part for _, part in sorted(profile.items()))
    return b"".join([*kept, raw[at:]]), found


def _of_webp(raw: bytes) -> tuple[bytes, dict[str, bytes]]:
    parts, found = list[bytes](), dict[str, bytes]()
    for kind, begin, end in _chunks(raw, 12, "little"):
        content = raw[begin:end]
        if kind == b"VP8X" and content:
            plain = content[0] & ~sum(WEBP_FLAGS.values())
            parts.append(raw[begin - 8 : begin] + bytes([plain]) + content[1:])
        elif kind not in WEBP_FLAGS:
            parts.append(raw[begin - 8 : end + (end - begin) % 2])
        elif kind != b"XMP ":
            found["exif" if kind == b"EXIF" else "icc_profile"] = content
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + len(body).to_bytes(4, "little") + body, found


def _chunks(raw: bytes, at: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and end of the content of each chunk; the last may be cut short.

    A PNG's have their length, kind, content and checksum ("big"), a WebP's their kind, length,
    content and a filling to an even length ("little").
    """
    big = order == "big"
    while at + 8 <= len(raw):
        first, second = raw[at : at + 4], raw[at + 4 : at + 8]
        length = int.from_bytes(first, "big") if big else int.from_bytes(second, "little")
        begin = at + 8
        yield second if big else first, begin, min(begin + length, len(raw))
        at = begin + length + (4 if big else length % 2)
