"""Sources and their messages."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from helpers import draw_picture, write_folder

from wassily import errors
from wassily.data import captions, images
from wassily.data.datasets import Pictures, Record, opened, read_dataset, read_folder
from wassily.errors import UserError
from wassily.mini.untrained import Tiny
from wassily.models import parts


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
