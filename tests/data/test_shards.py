"""Shards that cannot be read: each error names the file and what to do, in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet
import pytest
import shard_files

from wassily.data import stream_order
from wassily.data.shards import Shards, read_shards
from wassily.errors import UserError


@dataclass(frozen=True)
class Broken:
    """A folder of shards made wrong by `make(folder)`; what the error says, as a pattern."""

    make: Callable[[Path], object]
    says: str
    kind: str = "parquet"
    name: str = ""  # of the data set below the folder
    image: str = ""
    caption: str = ""


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _only(name: str, content: bytes) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        for file in folder.iterdir():
            file.unlink()
        (folder / name).write_bytes(content)

    return make


def _columns(folder: Path) -> None:
    file = folder / "train-00001.parquet"
    table = pyarrow.parquet.read_table(file)
    pyarrow.parquet.write_table(table.rename_columns(["photo", "text"]), file)


def _renamed(folder: Path) -> None:
    for file in folder.iterdir():
        file.rename(file.with_name(file.name.replace("train", "test")))


def _nothing(folder: Path) -> None:
    pass


WHOLE = r"; see that .*{} is there and whole"
KINDS = "; name a data set of the hub, a folder of parquet files or tars, or the address of one"
LATER = "cannot be read at example 0 or after it: .*; get this shard anew, or see that it can be"
BROKEN = {
    "no folder": Broken(shutil.rmtree, f"cannot be read as a stream: .*{KINDS}"),
    "no file": Broken(_nothing, WHOLE.format(r"none-0\.tar"), name="none-{0..1}.tar"),
    "no such protocol": Broken(_nothing, "Protocol not known", name="foo://x/0.tar"),
    "another kind": Broken(_nothing, r"x\.zip is neither; .* leave out", name="x-{0..1}/x.zip"),
    "nonsense, the only one": Broken(_only("a.parquet", b"no"), WHOLE.format(r"a\.parquet")),
    "empty, the only one": Broken(_only("0.tar", b""), WHOLE.format(r"0\.tar"), "tar"),
    "nonsense": Broken(_write("train-00001.parquet", b"no"), rf"/train-00001\.parquet: {LATER}"),
    "empty": Broken(_write("00001.tar", b""), rf"/00001\.tar: {LATER}", "tar"),
    "other columns": Broken(_columns, rf"/train-00001\.parquet: {LATER}"),
    "no split to train on": Broken(
        _renamed, r"no 'train' split \(it has: test\); .* names that begin with train"
    ),
    "texts for pictures": Broken(
        _nothing, "--image_column text: .* name the column that has the pictures", image="text"
    ),
    "texts of a tar for pictures": Broken(
        _nothing, "--image_column txt: .* name the column that has the pictures", "tar", image="txt"
    ),
    "no such column": Broken(_nothing, "--caption_column txt: .* perhaps you meant", caption="txt"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_names_file_and_remedy(name: str, tmp_path: Path) -> None:
    """When it is opened, or at its turn."""
    broken = BROKEN[name]
    usual = ("image", "text") if broken.kind == "parquet" else ("jpg", "txt")
    folder = getattr(shard_files, "parquet" if broken.kind == "parquet" else "tars")(
        tmp_path / "set", (2, 2)
    )
    broken.make(folder)
    named = broken.name if "://" in broken.name else str(folder / broken.name)
    with pytest.raises(UserError, match=broken.says) as caught:
        shards = read_shards(
            named, None, broken.image or usual[0], broken.caption or usual[1], str(tmp_path)
        )
        for number in range(len(shards)):
            list(shards.rows(number))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_shard_that_vanishes(tmp_path: Path) -> None:
    """It was there when the run began."""
    folder = shard_files.parquet(tmp_path / "set", (2, 2))
    shards = read_shards(str(folder), None, "image", "text", None)
    (folder / "train-00001.parquet").unlink()
    with pytest.raises(UserError, match=rf"/train-00001\.parquet: {LATER}"):
        list(shards.rows(1))


def test_the_signature_of_an_address_is_not_shown() -> None:
    """What stands after the question mark may let others in."""
    table = shard_files.datasets.Dataset.from_dict({"image": [1]}).to_iterable_dataset()
    shards = Shards(table, ["https://host/a.tar?sig=secret"], "jpg", None)
    with pytest.raises(UserError, match=r"https://host/a\.tar: cannot be read") as caught:
        list(shards.rows(0))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("saved", [{}, {"lanes": 1, "stripe": 1, "marks": {"0": [1.5]}}])
def test_a_place_that_is_none(saved: dict[str, object]) -> None:
    """The checkpoint is to blame, and another to be named."""
    with pytest.raises(UserError, match=r"place in the stream: .*; name another checkpoint"):
        stream_order._restored(saved, 2)
