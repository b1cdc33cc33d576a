"""Sources and their messages."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import datasets
import pytest
from helpers import draw_picture, read_jsonl, write_folder

from wassily import errors
from wassily.data import captions, images
from wassily.data.datasets import Pictures, Record, opened, read_dataset, read_folder
from wassily.errors import UserError
from wassily.mini.untrained import Tiny
from wassily.models import parts


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


# ---------------------------------------------------------------- folders


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


def test_fingerprint_follows_names_sizes_captions_and_order(tmp_path: Path) -> None:
    """Not the place of the folder: a moved data set is the same one."""
    rows = [{"file_name": f"{n}.png", "text": n} for n in "abc"]
    first = read_folder(str(_folder(tmp_path / "1", _jsonl(*rows))), "image", "text")
    moved = read_folder(str(_folder(tmp_path / "2", _jsonl(*rows))), "image", "text")
    assert first.fingerprint() == moved.fingerprint()
    others = {
        "order": [*rows[1:], rows[0]],
        "caption": [*rows[:2], rows[2] | {"text": "d"}],
        "fewer": rows[:2],
        "name": [*rows[:2], rows[2] | {"file_name": "b.png"}],
    }
    prints = {first.fingerprint()}
    for name, changed in others.items():
        folder = _folder(tmp_path / name, _jsonl(*changed))
        prints.add(read_folder(str(folder), "image", "text").fingerprint())
    with (tmp_path / "2" / "a.png").open("ab") as file:
        file.write(b"x")
    prints.add(moved.fingerprint())
    prints.add(read_folder(str(tmp_path / "1"), "image", None).fingerprint())
    assert len(prints) == 7


# ---------------------------------------------------------------- data sets


def _table(count: int = 5, **more: list) -> datasets.Dataset:
    columns = {
        "image": [draw_picture(n, 16, 12) for n in range(count)],
        "text": [f"caption {n}" for n in range(count)],
        **more,
    }
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def _pixels(record: Record) -> bytes:
    return images.open_rgb(record.image).tobytes()


def _from(path: Path, image: str = "image", caption: str | None = "text") -> Pictures:
    return read_dataset(str(path), None, image, caption, None)


@pytest.mark.parametrize("kind", ["saved", "dict", "parquet", "imagefolder"])
def test_local_data_sets(kind: str, tmp_path: Path) -> None:
    """The same pictures and captions out of each form; rows of a test split stay out."""
    table, folder = _table(), tmp_path / "set"
    if kind == "saved":
        table.save_to_disk(str(folder))
    elif kind == "dict":
        datasets.DatasetDict(train=table, test=_table(2)).save_to_disk(str(folder))
    elif kind == "parquet":
        (folder / "data").mkdir(parents=True)
        table.select(range(3)).to_parquet(folder / "data" / "train-00000-of-00002.parquet")
        table.select(range(3, 5)).to_parquet(folder / "data" / "train-00001-of-00002.parquet")
        _table(2).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    else:
        rows = [{"file_name": f"{n}.png", "text": f"caption {n}"} for n in range(5)]
        _folder(folder, _jsonl(*rows), pictures="0 1 2 3 4")
    source = _from(folder)
    assert [r.captions for r in source] == [(f"caption {n}",) for n in range(5)]
    assert [_pixels(r) for r in source] == [draw_picture(n, 16, 12).tobytes() for n in range(5)]
    assert all(r.name for r in source)
    assert [r.captions for r in _from(folder, caption=None)] == [()] * 5
    assert source.fingerprint() == _from(folder).fingerprint()
    assert source.select([3, 1])[1].captions == ("caption 1",)


def test_lists_of_captions_in_a_table(tmp_path: Path) -> None:
    """A list column."""
    table = _table(2, captions=[["a", "b"], ["c"]])
    table.save_to_disk(str(tmp_path / "set"))
    assert [r.captions for r in _from(tmp_path / "set", caption="captions")] == [("a", "b"), ("c",)]


def test_data_set_mistakes(tmp_path: Path) -> None:
    """Each names the flag, the column with the nearest one, the row, or the splits."""
    _table().save_to_disk(str(tmp_path / "set"))
    with pytest.raises(UserError, match=r"--caption_column txt: .*'text'.*image, text"):
        _from(tmp_path / "set", caption="txt")
    with pytest.raises(UserError, match=r"--image_column img: .*'image'"):
        _from(tmp_path / "set", image="img")
    _table(3, mixed=["x", "", "y"]).save_to_disk(str(tmp_path / "gap"))
    with pytest.raises(UserError, match=r"gap, row 1, column 'mixed': .*empty"):
        _from(tmp_path / "gap", caption="mixed")
    datasets.DatasetDict(test=_table(), valid=_table()).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(UserError, match=r"no 'train' split \(it has: test, valid\)"):
        _from(tmp_path / "splits")
    _table().select([]).save_to_disk(str(tmp_path / "empty"), num_shards=1)
    with pytest.raises(UserError, match="empty"):
        _from(tmp_path / "empty")
    _table(3, number=[1, 2, 3]).save_to_disk(str(tmp_path / "numbers"))
    with pytest.raises(UserError, match="--image_column number: not pictures"):
        _from(tmp_path / "numbers", image="number")


@pytest.mark.parametrize("name", ["nobody/nothing-here", "no-such-folder", "./nowhere"])
def test_a_data_set_that_is_not_there(name: str) -> None:
    """One line with the name, whatever the library says; offline as well."""
    with pytest.raises(UserError, match=f"--dataset_name {name}: cannot be loaded") as caught:
        read_dataset(name, None, "image", "text", None)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- what the cache asks


def test_places_of_a_folder_and_of_bytes(tmp_path: Path, photos: Path) -> None:
    """A folder's pictures are files; a parquet's are rows of a table that is the same each time."""
    source = read_folder(str(photos), "image", "text")
    names = [source[i].image for i in range(len(source))]
    assert list(source.places()) == names
    assert list(source.select([2, 0]).places()) == [names[2], names[0]]
    (tmp_path / "set").mkdir()
    _table().to_parquet(tmp_path / "set" / "train.parquet")
    rows = list(_from(tmp_path / "set").places())
    assert [row for _, row in rows] == list(range(len(_table())))
    assert list(_from(tmp_path / "set").places()) == rows


def test_a_table_made_in_pieces_is_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, captions, files and the digest do not depend on how many rows are handled at a time."""
    names = [f"{c}.png" for c in "a b c a c b a".split()]
    rows = [{"file_name": n, "text": [str(i), n]} for i, n in enumerate(names)]
    whole = read_folder(str(_folder(tmp_path, _jsonl(*rows))), "image", "text")
    monkeypatch.setattr("wassily.data.datasets.CHUNK", 3)
    pieces = read_folder(str(tmp_path), "image", "text")
    assert [pieces[i] for i in range(7)] == [whole[i] for i in range(7)]
    assert [Path(str(place)).name for place in pieces.places()] == names
    assert list(pieces.all_captions()) == [text for row in rows for text in row["text"]]
    assert pieces.fingerprint() == whole.fingerprint()
    assert pieces.select([5, 0]).fingerprint() == whole.select([5, 0]).fingerprint()


def test_all_captions_in_order(tmp_path: Path) -> None:
    """Lists are opened; without a column there is none."""
    rows = [{"file_name": "a.png", "text": ["1", "2"]}, {"file_name": "b.png", "text": "3"}]
    folder = str(_folder(tmp_path, _jsonl(*rows)))
    assert list(read_folder(folder, "image", "text").all_captions()) == ["1", "2", "3"]
    assert list(read_folder(folder, "image", None).all_captions()) == []


# ---------------------------------------------------------------- checks


def test_opened_pictures_have_a_size_or_a_reason(tmp_path: Path) -> None:
    """All of those asked for, the reason with the name; `on_done` once for each looked at."""
    folder = write_folder(tmp_path, [f"c{n}" for n in range(6)])
    (folder / "01.png").write_bytes(b"")
    (folder / "04.png").write_bytes((folder / "04.png").read_bytes()[:300])
    source = read_folder(str(folder), "image", None)
    done: list[int] = []
    found = opened(source, range(6), lambda: done.append(1))
    assert [i for i in range(6) if isinstance(found[i], str)] == [1, 4]
    assert "01.png: not a picture" in str(found[1])
    assert found[0] == found[5] == (96, 80)
    assert len(done) == 6
    assert sorted(opened(source, range(1, 6, 2), lambda: None)) == [1, 3, 5]


def test_count_cut_equals_the_tokenizers_own_cut(tiny: Tiny) -> None:
    """A caption is cut if truncation changes its ids. 75 letters and two marks just fit."""
    tokenizer = parts.load("tokenizer", str(tiny.prior))
    texts = ["x" * 75, "x" * 76, "ق" * 37, "ق" * 38, "short"]
    table = datasets.Dataset.from_dict(
        {
            "image": [{"path": "p", "bytes": None}] * 3,
            "text": [texts[:2], texts[2:4], ["short"]],
        }
    )
    whole = tokenizer(texts, truncation=False).input_ids
    cut = tokenizer(texts, truncation=True).input_ids
    expected = sum(a != b for a, b in zip(whole, cut, strict=True))
    assert expected == 2
    source = Pictures(table, "image", "text", "x")
    assert captions.count_cut(source.all_captions(), tokenizer) == (2, 5)


def test_count_cut_over_more_than_a_batch(tiny: Tiny) -> None:
    """1000 captions go at once; 2500 and one cut among them are counted."""
    tokenizer = parts.load("tokenizer", str(tiny.prior))
    texts = ["x"] * 2499 + ["y" * 99]
    table = datasets.Dataset.from_dict({"image": [0] * 2500, "text": texts})
    source = Pictures(table, "image", "text", "x")
    assert captions.count_cut(source.all_captions(), tokenizer) == (1, 2500)


def test_listed_counts_the_rest() -> None:
    """Ten by name."""
    assert errors.listed(["a", "b"]) == "a, b"
    assert errors.listed([str(n) for n in range(13)]).endswith("9 and 3 more")
