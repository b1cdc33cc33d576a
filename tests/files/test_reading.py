"""files.reading: regular files inside their folder and of bounded size, each refusal one error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from wassily.files import reading
from wassily.files.reading import BadFile

READERS = [
    reading.read_bytes,
    reading.read_text,
    reading.read_json,
    reading.read_table,
    reading.read_toml,
]


def test_what_is_there_is_read(tmp_path: Path) -> None:
    """The same content as by the plain ways, a byte-order mark apart."""
    file = tmp_path / "a"
    file.write_bytes(b'\xef\xbb\xbf{"a": [1, {"b": "\xd8\xb9"}]}')
    assert reading.read_bytes(file) == file.read_bytes()
    assert reading.read_text(file) == file.read_text("utf-8-sig")
    assert reading.read_table(file) == {"a": [1, {"b": "ع"}]}
    file.write_text('a = [1, "ع"]', "utf-8")
    assert reading.read_toml(file, root=tmp_path) == {"a": [1, "ع"]}


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "absent", "large", "link out"])
def test_no_other_thing_is_opened(read: Callable[..., object], kind: str, tmp_path: Path) -> None:
    """One line that begins with the path, without waiting."""
    inside = tmp_path / "inside"
    inside.mkdir()
    file = inside / "a"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "large":
        file.write_bytes(b"[" * 101)
    elif kind == "link out":
        (tmp_path / "secret").write_text("{}")
        file.symlink_to(tmp_path / "secret")
    root = None if kind == "device" else inside
    with pytest.raises(BadFile) as caught:
        read(file, limit=100, root=root)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_a_link_inside_is_followed(tmp_path: Path) -> None:
    """Relative links within a folder are usual, in the cache of the Hugging Face Hub for one."""
    (tmp_path / "blob").write_text("1")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").symlink_to("../blob")
    assert reading.read_json(tmp_path / "deep" / "a", root=tmp_path) == 1
    assert reading.is_inside(tmp_path / "deep" / "a", tmp_path)
    assert not reading.is_inside(tmp_path / "deep" / "a", tmp_path / "deep")
    assert not reading.is_inside(tmp_path / "a\0b", tmp_path)


@pytest.mark.parametrize("text", ["[" * 200_000, "[" * 101 + "]" * 101, "{", "9" * 5000, ""])
def test_nonsense_is_one_error(text: str, tmp_path: Path) -> None:
    """Too deep for the parser, too deep for those who use it, cut off, a number of 5,000 digits."""
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(BadFile, match="not JSON"):
        reading.read_json(file)


def test_depth_is_counted_from_outside() -> None:
    """DEPTH lists in one another pass, one more does not."""
    value: object = 1
    for _ in range(reading.DEPTH - 1):
        value = [value]
    assert reading.checked_depth(value) is value
    with pytest.raises(ValueError, match="deep"):
        reading.checked_depth([[value]])
