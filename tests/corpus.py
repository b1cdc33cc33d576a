"""A few hundred bad inputs, made by small functions: what a stranger, a disk or a slip hands over.

Each case writes into an empty folder. `says` is a pattern of the one line that it is refused with;
an empty one means that it is taken, as documented.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import draw_picture
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file


@dataclass(frozen=True)
class Case:
    """A bad input: its name, what it is made by, and what is said of it."""

    name: str
    make: Callable[[Path], Any]
    says: str


# ---------------------------------------------------------------- pictures

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
    yield "bomb.png", png(60_000, 60_000), "decompression bomb"
    yield "wide bomb.png", png(2**31 - 1, 2**31 - 1), "."
    yield "no pixels.png", png(0, 0), "."
    yield "no width.png", png(0, 8), "."
    yield "depth of 3.png", png(8, 8, depth=3), "."
    yield "size that is not there.png", png(4000, 4000), "."
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))
    yield "bomb in a note.png", png(8, 8, text), "."
    yield "wrong checksum.png", png(8, 8).replace(b"IDAT", b"IDAt"), "."
    many = b"P6\n99999999 99999999\n255\n" + bytes(99)
    yield "bomb.ppm", many, "decompression bomb"
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


# ---------------------------------------------------------------- folders

GOOD = {"file_name": "a.png", "text": "a red square"}


def folder(
    *lines: Any, name: str = "metadata.jsonl", **files: bytes | str
) -> Callable[[Path], None]:
    """Two pictures, a metadata file with these lines, and more files (`__` is a dot)."""

    def make(path: Path) -> None:
        for picture in ("a.png", "b.png"):
            draw_picture(1, 16, 16).save(path / picture)
        raw = [
            line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode()
            for line in lines
        ]
        if raw:
            (path / name).write_bytes(b"\n".join(raw) + b"\n")
        for other, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (path / other.replace("__", ".")).write_bytes(data)

    return make


def then(make: Callable[[Path], Any], more: Callable[[Path], Any]) -> Callable[[Path], None]:
    """One after the other."""

    def both(path: Path) -> None:
        make(path)
        more(path)

    return both


def metadata() -> Iterator[Case]:
    """Bad lines of metadata.jsonl, of metadata.csv, and captions in text files."""
    second = r"metadata\.jsonl line 2"
    texts = {
        "a number": (5, "a text or a list"),
        "a fraction": (0.5, "a text or a list"),
        "true": (True, "a text or a list"),
        "null": (None, "a text or a list"),
        "an object": ({"en": "a"}, "a text or a list"),
        "an empty list": ([], "the caption is empty"),
        "a list of numbers": ([1, 2], "a text or a list"),
        "a list of lists": ([["a"]], "a text or a list"),
        "a list with null": (["a", None], "a text or a list"),
        "a list with nothing": (["a", ""], "the caption is empty"),
        "nothing": ("", "the caption is empty"),
        "spaces": (" \t\u3000\u2003 ", "the caption is empty"),
        "line ends": ("\r\n\u2028\u0085", "the caption is empty"),
    }
    for name, (text, says) in texts.items():
        make = folder(GOOD, {"file_name": "b.png", "text": text})
        yield Case(f"caption: {name}", make, f"{second}, column 'text': .*{says}")
    fine = {
        "nul": "a\0b",
        "a megabyte": "word " * 200_000,
        "one long word": "x" * 300_000,
        "right-to-left marks": "\u202e\u200fقطة\u202c\u200e",
        "a byte order mark inside": "a \ufeff cat",
        "terminal codes": "\x1b[31m\x07\x1b]0;title\x07 a cat",
        "markup": "<script>alert(1)</script>\n---\nlicense: x\n---",
        "combining marks": "a" + "\u0301" * 5000,
        "a line separator": "one\u2028two",
        "the tokenizer's own words": "<|startoftext|><|endoftext|>",
        "format words": "%s {0} {config} ${HOME} $(id) `id`",
    }
    for name, text in fine.items():
        yield Case(f"caption: {name}", folder(GOOD, {"file_name": "b.png", "text": text}), "")
    half = b'{"file_name": "b.png", "text": "half \\ud83d a character"}'
    yield Case("caption: a lone surrogate", folder(GOOD, half), f"{second}.*lone surrogate")
    names = {
        "of another folder": ("../a.png", "leads out of"),
        "of the system": ("/etc/hostname", "leads out of"),
        "with many steps up": ("../" * 60 + "etc/hostname", "leads out of"),
        "through a folder": ("x/../../a.png", "leads out of"),
        "that is not there": ("c.png", "no such file"),
        "with a backslash": ("..\\a.png", "no such file"),
        "of the web": ("http://localhost/a.png", "no such file"),
        "as an address": ("file:///etc/hostname", "no such file"),
        "with a nul": ("a.png\0.jpg", "no such file"),
        "of 5000 letters": ("n" * 5000, "no such file"),
        "of 9000 steps": ("../" * 9000, "file_name"),
        "with a line end": ("a\n.png", "no such file"),
        "of the folder itself": (".", "no such file"),
        "with a tilde": ("~/a.png", "no such file"),
        "empty": ("", "no 'file_name'"),
        "that is a number": (5, "no 'file_name'"),
        "that is a list": (["a.png"], "no 'file_name'"),
        "that is null": (None, "no 'file_name'"),
        "with half a character": ("\ud83d.png", "file_name|UTF-8|not JSON"),
    }
    for name, (file, says) in names.items():
        line = json.dumps({"file_name": file, "text": "a"}).encode()
        yield Case(f"file name: {name}", folder(GOOD, line), f"{second}.*({says})")
    lines: dict[str, tuple[bytes, str]] = {
        "not JSON": (b'{"file_name": "b.png"', "not JSON"),
        "a list": (b'["b.png", "a"]', "not a JSON object"),
        "a text": (b'"b.png"', "not a JSON object"),
        "a number": (b"5", "not a JSON object"),
        "NaN": (b"NaN", "not a JSON object"),
        "two objects": (b'{"file_name": "b.png"}{}', "not JSON"),
        "single quotes": (b"{'file_name': 'b.png'}", "not JSON"),
        "deep": (b"[" * 100_000, "not JSON"),
        "a number of 9000 digits": (b'{"x": ' + b"9" * 9000 + b"}", "not JSON"),
        "a nul": (b"\0", "not JSON"),
        "a comment": (b"# a comment", "not JSON"),
        "an empty object": (b"{}", "no 'file_name'"),
        "no caption": (b'{"file_name": "b.png"}', "no column 'text'"),
        "another name": (b'{"file_name": "b.png", "txt": "a"}', "perhaps you meant 'text'|txt"),
        "a page of code": (b"import os; os.system('id')", "not JSON"),
    }
    for name, (line, says) in lines.items():
        yield Case(f"line: {name}", folder(GOOD, line), f"{second}.*({says})")
    yield Case("latin-1", folder(GOOD, b'{"file_name": "b.png", "text": "caf\xe9"}'), "not UTF-8")
    wide = json.dumps(GOOD).encode("utf-16")
    yield Case("utf-16", folder(wide), "not UTF-8")
    yield Case("bytes of chance", folder(bytes(range(256)) * 9), "UTF-8|not JSON")
    yield Case("empty metadata", folder(b""), "no line in it names a picture")
    yield Case("blank lines alone", folder(b"\n\n  \n"), "no line in it names a picture")
    marked = b"\xef\xbb\xbf" + json.dumps(GOOD).encode()
    yield Case("byte order mark", folder(marked), "")
    yield Case("windows line ends", folder(json.dumps(GOOD).encode() + b"\r", b"\r"), "")
    yield Case("no line end, blank lines", folder(b"", GOOD, b""), "")
    yield Case("the same name twice", folder(GOOD, GOOD | {"text": "another"}), "")
    twice = b'{"file_name": "x", "file_name": "b.png", "text": "a"}'
    yield Case("the same key twice", folder(GOOD, twice), "")
    yield Case("more columns", folder(GOOD | {"x": {"y": [1, None]}, "": 5}), "")
    both = folder(GOOD, metadata__csv="file_name,text\na.png,a\n")
    yield Case("both metadata files", both, "both there: keep one")
    yield from _csv()
    yield from _texts()
    yield from _files()


def _csv() -> Iterator[Case]:
    head, name = b"file_name,text", "metadata.csv"
    rows: dict[str, tuple[list[bytes], str]] = {
        "too many cells": ([head, b"a.png,a, b"], "line 2: more cells"),
        "too few cells": ([head, b"a.png"], "line 2, column 'text'"),
        "no header": ([b"a.png,a red square"], "no line in it|no 'file_name'"),
        "another separator": ([b"file_name;text", b"a.png;a"], "no 'file_name'"),
        "a tab": ([b"file_name\ttext", b"a.png\ta"], "no 'file_name'"),
        "an empty caption": ([head, b"a.png,"], "the caption is empty"),
        "an open quote": ([head, b'a.png,"a', b"b.png,b"], ""),
        "a quote inside": ([head, b'a.png,a "red" cat'], ""),
        "a cell of 200,000": ([head, b'a.png,"' + b"x" * 200_000 + b'"'], "larger than field"),
        "a path out": ([head, b"../../etc/hostname,a"], "leads out of"),
        "latin-1": ([head, b"a.png,caf\xe9"], "not UTF-8"),
        "empty": ([], "no line in it"),
        "a header alone": ([head], "no line in it"),
        "a formula": ([head, b"a.png,=cmd|' /C calc'!A0"], ""),
        "byte order mark": ([b"\xef\xbb\xbf" + head, b"a.png,a"], ""),
        "a line end in a cell": ([head, b'a.png,"one\ntwo"'], ""),
        "the same column twice": ([b"file_name,text,text", b"a.png,a,b"], ""),
    }
    for what, (lines, says) in rows.items():
        yield Case(f"csv: {what}", folder(*(lines or [b""]), name=name), says)


def _texts() -> Iterator[Case]:
    rows: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "b.txt: the caption is empty"),
        "blank": (b" \n\t\n", "b.txt: the caption is empty"),
        "latin-1": (b"caf\xe9", "b.txt: not UTF-8"),
        "a mark alone": (b"\xef\xbb\xbf", "b.txt: the caption is empty"),
        "utf-16": ("a cat".encode("utf-16"), "b.txt: not UTF-8"),
        "half a character": (b"a \xed\xa0\xbd cat", "b.txt: not UTF-8"),
        "a picture": (encoded(draw_picture(1), format="PNG"), "b.txt: not UTF-8"),
        "nul": (b"a\0b", ""),
        "a megabyte": (b"word " * 200_000, ""),
    }
    for what, (text, says) in rows.items():
        yield Case(f"text file: {what}", folder(a__txt="a", b__txt=text), says)
    yield Case("text file: none", folder(a__txt="a"), r"no \.txt beside .*b\.png")
    make = then(folder(a__txt="a"), lambda path: (path / "b.txt").mkdir())
    yield Case("text file: a folder", make, r"no \.txt beside .*b\.png")


def _files() -> Iterator[Case]:
    """Folders, links and pipes where files should be."""

    def outside(name: str) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            secret = path.parent / f"outside{Path(name).suffix}"
            if name.endswith(".png"):
                draw_picture(2, 16, 16).save(secret)
            else:
                secret.write_text(json.dumps(GOOD), "utf-8")
            (path / name).unlink(missing_ok=True)
            (path / name).symlink_to(secret)

        return make

    texts = folder(a__txt="a", b__txt="b")
    yield Case("link: a picture", then(texts, outside("a.png")), r"a\.png: a link that leads out")
    yield Case("link: a text", then(texts, outside("a.txt")), r"a\.txt: a link that leads out")
    yield Case("link: metadata", then(folder(), outside("metadata.jsonl")), "a link that leads out")
    make = then(folder(GOOD), outside("a.png"))
    yield Case("link: a named picture", make, "line 1: file_name 'a.png' leads out of")
    dead = then(folder(GOOD), lambda path: (path / "metadata.csv").symlink_to(path / "nowhere"))
    yield Case("link: metadata to nothing", dead, r"metadata\.csv|keep one")
    loop = then(folder(GOOD), lambda path: (path / "c.png").symlink_to(path / "c.png"))
    yield Case("link: to itself", loop, "")
    line = {"file_name": "c.png", "text": "a"}
    named = then(folder(GOOD, line), lambda path: (path / "c.png").symlink_to(path / "c.png"))
    yield Case("link: a named one to itself", named, "line 2: file_name 'c.png'")
    up = then(folder(GOOD), lambda path: (path / "up").symlink_to(path.parent))
    yield Case("link: a folder above", up, "")
    make = then(folder(GOOD, line), lambda path: (path / "c.png").mkdir())
    yield Case("folder: named as a picture", make, "line 2: file_name 'c.png': no such file")
    make = then(texts, lambda path: (path / "c.png").mkdir())
    yield Case("folder: beside pictures", make, "")
    make = then(folder(), lambda path: (path / "metadata.jsonl").mkdir())
    yield Case("folder: instead of metadata", make, "captions are missing")
    make = then(folder(GOOD, line), lambda path: os.mkfifo(path / "c.png"))
    yield Case("pipe: a picture", make, "line 2: file_name 'c.png': no such file")
    make = then(folder(), lambda path: os.mkfifo(path / "metadata.jsonl"))
    yield Case("pipe: metadata", make, "not a plain file")
    make = then(folder(a__txt="a"), lambda path: os.mkfifo(path / "b.txt"))
    yield Case("pipe: a text", make, r"no \.txt beside")
    yield Case("nothing at all", lambda path: None, "no pictures in it")
    yield Case("no picture", lambda path: (path / "a.doc").write_text("a"), "no pictures in it")
    evil = then(folder(), lambda path: draw_picture(1).save(path / "a\n\x1b[31mx.png"))
    yield Case("a name with a line end", evil, "captions are missing")
    raw = then(folder(), lambda path: os.rename(path / "a.png", os.fsencode(path) + b"/\xe9.png"))
    yield Case("a name that is no text", raw, "its name is not UTF-8; rename it")


# ---------------------------------------------------------------- TOML and flags

TOML = {
    "not TOML": ("max_train_steps = ", "Invalid value|run.toml"),
    "a name twice": ("seed = 1\nseed = 2", "run.toml"),
    "an unknown name": ("max_train_step = 3", "perhaps you meant 'max_train_steps'"),
    "a table": ("[train]\nseed = 1", "unknown name 'train'"),
    "another program's": ("[tool.ruff]\nline-length = 1", "unknown name 'tool'"),
    "a fraction for a number": ("max_train_steps = 3.5", "not a whole number"),
    "a text for a number": ('max_train_steps = "3"', "not a whole number"),
    "true for a number": ("max_train_steps = true", "not a whole number"),
    "a number for a text": ("output_dir = 3", "not a text"),
    "a number for a switch": ("use_ema = 1", "not true or false"),
    "a text for a switch": ('use_ema = "true"', "not true or false"),
    "a list for a text": ('output_dir = ["a"]', "not a text"),
    "a table for a list": ("validation_prompts = {a = 1}", "not a list of texts"),
    "numbers in a list": ("validation_prompts = [1, 2]", "not a list of texts"),
    "a list in a list": ('validation_prompts = [["a"]]', "not a list of texts"),
    "nan": ("learning_rate = nan", "not a finite number"),
    "infinite": ("learning_rate = inf", "not a finite number"),
    "a date": ("seed = 2020-01-01", "not a whole number"),
    "another choice": ('lr_scheduler = "cosin"', "not one of linear"),
    "negative": ("max_train_steps = -3", "is less than 1"),
    "a huge number": (f"seed = {10**30}", "seed"),
    "an empty name": ('"" = 3', "unknown name ''"),
    "a name of markup": ('"<b>\\n" = 3', "unknown name"),
    "a wrong preset": ('preset = "9gb"', "not one of 8gb"),
    "a nul": ('output_dir = "a\\u0000b"', "output_dir"),
    "a pickle": ("\x80\x04cos", "run.toml"),
}

FLAGS = {
    "learning_rate": ["0", "-1e-5", "nan", "inf", "1e400", "a", "", "1e-5x", "None"],
    "max_train_steps": ["0", "-1", "1.5", "1e3", "many", "nan"],
    "num_train_epochs": ["0", "-2", "x"],
    "train_batch_size": ["0", "-1", "2.0", "x"],
    "gradient_accumulation_steps": ["0", "-4"],
    "resolution": ["0", "-512", "7", "513", "512.0", "512px", "nan"],
    "checkpointing_steps": ["0", "-1"],
    "checkpoints_total_limit": ["0", "-3"],
    "validation_epochs": ["0"],
    "logging_steps": ["0", "x"],
    "holdout": ["1", "-0.1", "nan", "2", "10%"],
    "condition_dropout": ["1", "-0.1", "nan"],
    "adam_beta1": ["1", "-0.1", "nan", "inf"],
    "adam_beta2": ["1.5"],
    "adam_epsilon": ["0", "-1"],
    "adam_weight_decay": ["-1", "nan"],
    "max_grad_norm": ["-1", "inf"],
    "snr_gamma": ["0", "-5", "nan"],
    "seed": ["-1", "1.0", "x", str(10**30)],
    "dataloader_num_workers": ["-1"],
    "lr_warmup_steps": ["-1"],
    "lr_scheduler": ["cosin", ""],
    "mixed_precision": ["fp8", "FP16"],
    "report_to": ["wanbd", "[]"],
    "optimizer": ["adam"],
    "preset": ["9gb"],
    "weights_dtype": ["fp16"],
    "fuse_accumulation": ["yes"],
    "max_train_samples": ["0"],
    "logging_dir": ["/tmp/logs", "../logs"],
    "tracker_project_name": ["", "a/b", "..", "a\\b"],
    "output_dir": ["", " ", "a\0b"],
    "resume_from_checkpoint": ["/no/where"],
    "image_column": ["picture"],
    "pretrained_prior_model_name_or_path": ["/no/where", "a/b/c", "./x", "", "a\0b"],
    "ema_sigma_rel": ["0.1"],
    "rank": ["4"],
    "hub_model_id": ["me/x"],
    "hub_token": ["hf_x"],
    "no_such_flag": ["1"],
}

TOGETHER = {
    "no pictures twice": ["--dataset_name", "a/b"],
    "a switch with a value": ["--use_ema=true"],
    "both ways": ["--use_ema", "--no-use_ema"],
    "a loose word": ["word"],
    "a config that is not there": ["--config", "/no/file.toml"],
    "a config that is a folder": ["--config", "/"],
    "a config without a name": ["--config"],
    "8 bits of lion": ["--optimizer", "lion", "--use_8bit_adam"],
    "a cache to verify and none": ["--no_cache", "--verify_cache"],
    "released and clipped": ["--gradient_release"],
    "an adapter's rank": ["--lora", "--rank", "0"],
    "an adapter's dropout": ["--lora", "--lora_dropout", "1"],
    "an adapter in bf16": ["--lora", "--weights_dtype", "bf16"],
    "prompts twice": ["--validation_prompts", "a", "--validation_prompt", "b"],
    "half a character": ["--output_dir", "\udce9"],
}

GENERATE = {
    "no prompt": [],
    "a blank prompt": [" "],
    "no file of prompts": ["--prompts_file", "/no/where"],
    "a folder of prompts": ["--prompts_file", "/"],
    "no steps": ["a", "--steps", "0"],
    "too many steps": ["a", "--steps", "1001"],
    "one prior step": ["a", "--prior_steps", "1"],
    "negative guidance": ["a", "--guidance_scale", "-1"],
    "guidance of nan": ["a", "--guidance_scale", "nan"],
    "no pictures": ["a", "--num_images", "0"],
    "a seed of 30 digits": ["a", "--seed", str(10**30)],
    "another kind of number": ["a", "--dtype", "fp8"],
    "a jpg": ["a", "--out", "x.jpg"],
    "two in one file": ["a", "b", "--out", "x.png"],
    "no height": ["a", "--height", "0"],
    "an adapter's scale without one": ["a", "--lora_scale", "2"],
    "an adapter that is not there": ["a", "--prior_lora", "/no/where"],
    "an unknown flag": ["a", "--stepps", "3"],
}


# ---------------------------------------------------------------- networks and checkpoints


def rewritten(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Change the tensors of the one safetensors file of a folder."""

    def make(path: Path) -> None:
        (file,) = path.glob("*.safetensors")
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, {"format": "pt"})

    return make


def written(name: str, content: bytes) -> Callable[[Path], None]:
    """Replace a file's content; `*` in the name stands for the one file there is."""

    def make(path: Path) -> None:
        found = list(path.glob(name)) or [path / name]
        found[0].write_bytes(content)

    return make


def header(size: int, text: bytes) -> bytes:
    """A safetensors file of a header alone."""
    return struct.pack("<Q", size) + text


def configured(**values: Any) -> Callable[[Path], None]:
    """Other values in config.json."""

    def make(path: Path) -> None:
        file = path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), "utf-8")

    return make


def pickled(name: str) -> Callable[[Path], None]:
    """Only a pickle is there, which would make a file if it were loaded."""

    def make(path: Path) -> None:
        for file in path.glob("*.safetensors"):
            file.unlink()
        mark = str(path.parent / "was run").encode()
        (path / name).write_bytes(b"cposix\nmkdir\n(S'" + mark + b"'\ntR.")

    return make


def networks() -> Iterator[Case]:
    """A network's folder, spoilt."""
    weights = "*.safetensors"
    half = rewritten(lambda t: t.update({n: v.half() for n, v in t.items()}))
    yield Case("another dtype", half, "")
    first = sorted
    yield Case("a tensor is missing", rewritten(lambda t: t.pop(first(t)[0])), "missing")
    yield Case("no tensors", rewritten(lambda t: t.clear()), ".")
    yield Case(
        "another shape",
        rewritten(lambda t: t.update({first(t)[0]: torch.zeros(3, 5, 7)})),
        ".",
    )
    yield Case("more tensors", rewritten(lambda t: t.update(more=torch.zeros(2))), "")
    yield Case("cut to 1000 bytes", lambda p: _cut(p, 1000), ".")
    yield Case("cut by one byte", lambda p: _cut(p, -1), ".")
    yield Case("empty weights", written(weights, b""), ".")
    yield Case("zeros", written(weights, bytes(4096)), ".")
    yield Case("a web page", written(weights, b"<html>404</html>" * 99), ".")
    yield Case("a header of 2^60 bytes", written(weights, header(2**60, b"{}")), ".")
    yield Case("a header that is no JSON", written(weights, header(8, b"nonsense")), ".")
    lies = b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,99999999]}}'
    yield Case("offsets beyond the end", written(weights, header(len(lies), lies)), ".")
    yield Case(
        "a git pointer", written(weights, b"version https://git-lfs.github.com/spec/v1"), "."
    )
    yield Case("no weights", lambda p: next(p.glob(weights)).unlink(), ".")
    yield Case("no config", lambda p: (p / "config.json").unlink(), "config")
    for name, content in {
        "empty": b"",
        "no JSON": b"{ not json",
        "a list": b"[]",
        "a number": b"5",
        "null": b"null",
        "deep": b"[" * 100_000,
        "no UTF-8": b'{"x": "\xe9"}',
    }.items():
        yield Case(f"config: {name}", written("config.json", content), ".")
    for name in ("diffusion_pytorch_model.bin", "model.pt", "model.ckpt", "pytorch_model.bin"):
        yield Case(f"only {name}", pickled(name), "is a pickle, which can run code")
    code = {"auto_map": {"AutoModel": "evil.Net"}, "_class_name": "Evil"}
    evil = then(configured(**code), lambda p: (p / "evil.py").write_text("import os; 1/0"))
    yield Case("its own code", evil, "")


def _cut(path: Path, size: int) -> None:
    (file,) = path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:size])


def states() -> Iterator[Case]:
    """The state of a checkpoint, spoilt."""
    raw = {
        "empty": b"",
        "no JSON": b"{ no",
        "a list": b"[]",
        "null": b"null",
        "a text": b'"x"',
        "no UTF-8": b"\xff\xfe",
        "deep": b'{"a":' * 50_000,
        "an empty object": b"{}",
    }
    for name, content in raw.items():
        yield Case(f"state: {name}", written("state.json", content), r"state\.json|no checkpoint")
    fields: dict[str, Any] = {
        "step": ["3", -1, 1.5, None, True, 99],
        "role": [5, None, "unet", ["prior"]],
        "format": [0, 99, "1", None],
        "signature": [None, [], "x"],
        "config": [None, 5],
        "repositories": [None, []],
        "pending_loss": [None, [], ["a", "b"], 5, [1.0]],
        "fused": [None, 1, "no"],
        "scaler": [5, "x"],
    }
    for field, values in fields.items():
        for value in values:
            yield Case(f"state: {field} is {value!r}", _stated(field, value), "checkpoint-|network")
        yield Case(f"state: no {field}", _stated(field, ...), "checkpoint-")


def _stated(field: str, value: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        file = path / "state.json"
        state = json.loads(file.read_text("utf-8")) | {field: value}
        if value is ...:
            del state[field]
        file.write_text(json.dumps(state), "utf-8")

    return make
