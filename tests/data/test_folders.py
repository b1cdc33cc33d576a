"""A folder's metadata and captions."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from helpers import draw_picture, read_jsonl, write_folder

from wassily.data.datasets import Record, read_folder
from wassily.errors import UserError


def _read(folder: Path, caption: str | None = "text") -> list[Record]:
    return list(read_folder(str(folder), "image", caption))


def _folder(root: Path, lines: str, name: str = "metadata.jsonl", pictures: str = "a b c") -> Path:
    """A folder of drawn pictures a.png, b.png, c.png and a metadata file with this text."""
    root.mkdir(parents=True, exist_ok=True)
    for number, letter in enumerate(pictures.split()):
        draw_picture(number, 16, 12).save(root / f"{letter}.png")
    (root / name).write_bytes(lines.encode("utf-8"))
    return root


def _jsonl(*rows: object) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def test_photographs(photos: Path) -> None:
    """Rows of metadata.jsonl in their order, with the files beside it."""
    rows = list(read_jsonl(photos / "metadata.jsonl"))
    records = _read(photos)
    assert [Path(r.name).name for r in records] == [row["file_name"] for row in rows]
    assert [r.captions for r in records] == [(row["text"],) for row in rows]
    assert all(Path(str(r.image)).is_file() for r in records)
    bare = _read(photos, None)  # the decoder reads no captions
    assert [(r.name, r.captions) for r in bare] == [(r.name, ()) for r in records]


def test_jsonl_with_lists_bom_blank_lines_and_any_script(tmp_path: Path) -> None:
    """U+2028 in a caption ends no line; a list of captions stays a list."""
    rows = [
        {"file_name": "a.png", "text": "قطة حمراء 🧸"},
        {"file_name": "b.png", "text": ["one", "two"]},
        {"file_name": "c.png", "text": "one\u2028line"},
    ]
    _folder(tmp_path, "\ufeff" + _jsonl(rows[0]) + "\r\n\n" + _jsonl(*rows[1:]) + "\n\n")
    assert [r.captions for r in _read(tmp_path)] == [
        ("قطة حمراء 🧸",),
        ("one", "two"),
        ("one\u2028line",),
    ]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_csv_as_the_csv_module_writes_it(ending: str, tmp_path: Path) -> None:
    """Commas, quotes, line breaks and U+2028 inside of cells; a byte order mark; another column."""
    captions = ["plain", 'with "quotes", commas', "two\nlines", "one\u2028line"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator=ending)
    writer.writerows([["class", "file_name", "text"], *(["x", "a.png", c] for c in captions)])
    _folder(tmp_path, "\ufeff" + buffer.getvalue(), "metadata.csv")
    assert [r.captions for r in _read(tmp_path)] == [(c,) for c in captions]


def test_text_files_beside_the_pictures(tmp_path: Path) -> None:
    """Sorted by path, sub-folders too; white space around a caption is no part of it."""
    write_folder(tmp_path / "z", ["unused"])
    (tmp_path / "z" / "metadata.jsonl").unlink()
    draw_picture(1).save(tmp_path / "B.JPG", "JPEG")
    (tmp_path / "B.txt").write_text("\ufeff  قطة \n", "utf-8")
    (tmp_path / "z" / "00.txt").write_text("deep", "utf-8")
    (tmp_path / "notes.md").write_text("not a picture")
    records = _read(tmp_path)
    assert [(Path(r.name).relative_to(tmp_path).as_posix(), r.captions) for r in records] == [
        ("B.JPG", ("قطة",)),
        ("z/00.png", ("deep",)),
    ]


def test_nested_metadata(tmp_path: Path) -> None:
    """Each file names pictures relative to itself; below itself, too."""
    _folder(tmp_path / "one", _jsonl({"file_name": "a.png", "text": "1"}))
    _folder(tmp_path / "two", "file_name,text\nsub/a.png,2\n", "metadata.csv", "")
    _folder(tmp_path / "two" / "sub", "", "x.txt")
    got = [(Path(r.name).parent.name, r.captions[0]) for r in _read(tmp_path)]
    assert got == [("one", "1"), ("sub", "2")]


def test_the_decoder_takes_a_bare_folder(tmp_path: Path) -> None:
    """No captions anywhere; the prior refuses the same folder, naming what it looked for."""
    folder = write_folder(tmp_path, ["x"] * 3)
    (folder / "metadata.jsonl").unlink()
    assert len(_read(folder, None)) == 3
    with pytest.raises(UserError, match=r"no metadata\.jsonl.*00\.png"):
        _read(folder)


def test_the_decoder_does_not_look_at_captions(tmp_path: Path) -> None:
    """Empty or absent ones are no error there."""
    _folder(tmp_path, _jsonl({"file_name": "a.png"}, {"file_name": "b.png", "text": ""}))
    assert len(_read(tmp_path, None)) == 2


def test_another_caption_column(tmp_path: Path) -> None:
    """--caption_column."""
    _folder(tmp_path, _jsonl({"file_name": "a.png", "label": "x", "text": ""}))
    assert _read(tmp_path, "label")[0].captions == ("x",)


BAD_LINES = {
    "not json": ("{oops", r"metadata\.jsonl line 2: not JSON"),
    "not an object": ("[1]", "line 2: not a JSON object"),
    "no file name": (_jsonl({"name": "b.png", "text": "x"}), "line 2: no 'file_name'.*name, text"),
    "number as name": (_jsonl({"file_name": 3, "text": "x"}), "line 2: no 'file_name'"),
    "no file": (
        _jsonl({"file_name": "zz.png", "text": "x"}),
        "line 2: file_name 'zz.png': no such",
    ),
    "long name": (_jsonl({"file_name": "z" * 999, "text": "x"}), "line 2: file_name.*no such file"),
    "nul": (_jsonl({"file_name": "a\0.png", "text": "x"}), "line 2: file_name.*no such file"),
    "folder": (_jsonl({"file_name": ".", "text": "x"}), "line 2: file_name '.': no such file"),
    "escape": (_jsonl({"file_name": "../out.png", "text": "x"}), "line 2: .*leads out of"),
    "absolute": (_jsonl({"file_name": "/etc/passwd", "text": "x"}), "line 2: .*leads out of"),
    "no column": (_jsonl({"file_name": "b.png", "txt": "x"}), "line 2: no column 'text'.*'txt'"),
    "empty": (_jsonl({"file_name": "b.png", "text": ""}), "line 2, column 'text': .*empty"),
    "blank": (_jsonl({"file_name": "b.png", "text": " \t"}), "line 2, column 'text': .*empty"),
    "empty list": (_jsonl({"file_name": "b.png", "text": []}), "line 2, column 'text': .*empty"),
    "blank in list": (_jsonl({"file_name": "b.png", "text": ["x", ""]}), "line 2, .*empty"),
    "null": (_jsonl({"file_name": "b.png", "text": None}), "line 2, column 'text': .*not None"),
    "number": (_jsonl({"file_name": "b.png", "text": 5}), "line 2, column 'text': .*not 5"),
    "list of numbers": (_jsonl({"file_name": "b.png", "text": [5]}), "line 2, column 'text'"),
    "half a character": (
        '{"file_name": "b.png", "text": "x\\ud83e"}',
        "line 2, .*half a character",
    ),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_lines_are_named(name: str, tmp_path: Path) -> None:
    """The file, the line and the column, in one line."""
    line, message = BAD_LINES[name]
    draw_picture(0).save(tmp_path / "out.png")
    folder = _folder(
        tmp_path / "pics", _jsonl({"file_name": "a.png", "text": "good"}) + "\n" + line
    )
    with pytest.raises(UserError, match=message) as caught:
        _read(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,text\na.png,x\nb.png,x,y\n", r"metadata\.csv line 3: more cells"),
        ("file_name,text\na.png,x\nb.png\n", "line 3, column 'text'"),
        ("file_name,caption\na.png,x\n", "line 2: no column 'text'.*file_name, caption"),
        ("picture,text\na.png,x\n", "line 2: no 'file_name'"),
        ("file_name,text\na.png," + "x" * 200_000, "line 2: field larger"),
        ("", "no line in it names a picture"),
    ],
)
def test_bad_csv_lines_are_named(text: str, message: str, tmp_path: Path) -> None:
    """Counting lines as an editor does."""
    with pytest.raises(UserError, match=message):
        _read(_folder(tmp_path, text, "metadata.csv"))


def test_other_folder_mistakes(tmp_path: Path) -> None:
    """An empty folder, a column it cannot have, text that is not UTF-8, two metadata files."""
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"no pictures in it.*\.jpg"):
        _read(tmp_path / "none")
    with pytest.raises(UserError, match="--image_column photo"):
        read_folder(str(tmp_path), "photo", None)
    folder = _folder(tmp_path / "latin", "")
    (folder / "metadata.jsonl").write_bytes('{"file_name": "a.png", "text": "é"}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"metadata\.jsonl: not UTF-8 text .*byte 3"):
        _read(folder)
    _folder(tmp_path / "two", _jsonl({"file_name": "a.png", "text": "x"}))
    _folder(tmp_path / "two", "file_name,text\na.png,x\n", "metadata.csv")
    with pytest.raises(UserError, match=r"two: metadata\.jsonl and metadata\.csv"):
        _read(tmp_path / "two")
