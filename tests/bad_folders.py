"""Folders of pictures with bad metadata, captions, links and pipes, made in an empty folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bad_pictures import encoded
from helpers import draw_picture


@dataclass(frozen=True)
class Case:
    """A bad input: its name, what it is made by, and a pattern of the line it is refused with.

    An empty pattern: it is taken, as documented.
    """

    name: str
    make: Callable[[Path], Any]
    says: str


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
    yield Case("link: a folder above", up, r"up: a link that leads out of")
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
