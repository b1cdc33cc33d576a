"""Field cases on folders that are named with --dataset_name.

Each `test_fNN_` is one case, with the whole kind that it stands for.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pytest
from field import fill, lines, size
from helpers import draw_picture

from wassily.data.datasets import Pictures, is_data_set, read_dataset
from wassily.data.shards import read_shards
from wassily.errors import UserError

# ---------------------------------------------------------------- F17, F19: data sets


def shards(folder: Path, *ends: str, columns: bool = True) -> Path:
    """Shards of both kinds with two images, or as img2dataset leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = {"url": ["x", "y"], "caption": ["x", "y"]}
    if columns:
        table = {"image": [draw_picture(n, 16, 12) for n in range(2)], "text": ["x", "y"]}
    if "parquet" in ends:
        datasets.Dataset.from_dict(table).to_parquet(str(folder / "00000.parquet"))
    if "tar" in ends:
        with tarfile.open(folder / "00000.tar", "w") as file:
            for n in range(2):
                raw = io.BytesIO()
                draw_picture(n, 16, 12).save(raw, "PNG")
                for end, content in (("png", raw.getvalue()), ("txt", b"x")):
                    member = tarfile.TarInfo(f"{n}.{end}")
                    member.size = len(content)
                    file.addfile(member, io.BytesIO(content))
    return folder


def dataset(root: Path, image: str = "image", caption: str | None = "text") -> Pictures:
    return read_dataset(str(root), None, image, caption, None)


def above(root: Path) -> Path:
    """Metadata above `train` and `test`."""
    names = [f"{split}/{n}.png" for split in ("train", "test") for n in range(2)]
    lines(fill(root, *names) / "metadata.jsonl", *names)
    return root


@pytest.mark.parametrize("form", ["texts", "above", "captioned", "unfit"])
def test_f17_images_are_read_by_another_flag(form: str, tmp_path: Path) -> None:
    """A folder of images that `datasets` reads in its own way, or not at all."""
    root = tmp_path / "d"
    if form == "above":
        above(root)
    else:
        ends = {"texts": ".txt", "captioned": ".caption", "unfit": ".xyz"}[form]
        fill(root, *(f"{n}{end}" for n in range(3) for end in (".png", ends)))
    with pytest.raises(UserError, match=f"; use --train_data_dir {root} for its images"):
        dataset(root)
    if form in ("texts", "above"):
        assert size(root) in (3, 4)


def test_f17_a_data_set_has_no_such_hint(tmp_path: Path) -> None:
    """Where the column is missing of a saved one, or of shards."""
    shards(tmp_path / "d", "parquet")
    datasets.Dataset.from_dict({"x": [1]}).save_to_disk(str(fill(tmp_path / "s", "a.png")))
    for name in ("d", "s"):
        with pytest.raises(UserError, match=r"no such column.*\(it has: [a-z, ]+\)$"):
            dataset(tmp_path / name, "nothing")


@pytest.mark.parametrize("columns", [True, False])
def test_f19_of_two_kinds_of_shards_one_is_named(columns: bool, tmp_path: Path) -> None:
    """In the refusal for a column, and as a warning where the columns fit."""
    says = "the .parquet files are read, and other files are not: .tar 1. Keep one kind there."
    root = shards(tmp_path / "d", "parquet", "tar", columns=columns)
    if columns:
        assert [remark.message for remark in dataset(root).remarks] == [says]
        streamed = read_shards(str(root), None, "image", "text", None)
        assert [remark.message for remark in streamed.remarks] == [says]
        return
    for how in (read_dataset, read_shards):
        with pytest.raises(UserError, match="no such column") as caught:
            how(str(root), None, "image", "text", None)
        assert str(caught.value).endswith(says)


@pytest.mark.parametrize("kinds", [("parquet",), ("tar",)])
def test_f19_of_one_kind_nothing_is_said(kinds: tuple[str, ...], tmp_path: Path) -> None:
    """Hidden files of the other kind do not count."""
    root = shards(tmp_path / "d", *kinds)
    fill(root, "._00000.tar", ".cache/00000.parquet")
    columns = ("image", "text") if kinds == ("parquet",) else ("png", "txt")
    assert dataset(root, *columns).remarks == ()
    assert is_data_set(root)


@pytest.mark.parametrize("name", [".d", "__d", "x/.d/e"])
def test_f01_the_root_of_shards_may_be_hidden(name: str, tmp_path: Path) -> None:
    """As that of images."""
    root = shards(tmp_path / name, "parquet")
    assert is_data_set(root) and len(dataset(root)) == 2


def test_f19_endings_of_shards_in_upper_case(tmp_path: Path) -> None:
    """`datasets` does not find them; the line says so."""
    root = shards(tmp_path / "d", "parquet")
    (root / "00000.parquet").rename(root / "00000.PARQUET")
    with pytest.raises(UserError, match=r"write the endings \.parquet and \.tar in lower case"):
        dataset(root)
