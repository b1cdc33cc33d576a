"""Sources of captioned pictures, and their checks.

Messages name the file, the line
or the column.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import datasets

from wassily.data import entries, images
from wassily.data.entries import Remark
from wassily.data.folders import (
    Fault,
    as_captions,
    attempt,
    check_file,
    checked_captions,
    no_pictures,
    pictures_in,
    rows_of,
    stop,
)
from wassily.errors import UserError, did_you_mean, out_of_memory
from wassily.sources import own_files, saved

CHUNK = 10_000  # rows that are Python objects at a time, of a table that may have millions

# Of a table whose paths are not followed; what to do is for whoever wrote it.
ABSENT = "not in the table, and a path in one is not followed: write it with save_to_disk"

READ_BY = {"parquet": ".parquet", "webdataset": ".tar"}  # which files a builder reads
Table = TypeVar("Table", datasets.Dataset, datasets.IterableDataset)


Place = str | tuple[str, int]  # of a picture: its file, or its table's fingerprint and its row


@dataclass(frozen=True)
class Record:
    """One example as the source has it; `image` is a path or the file's bytes."""

    name: str
    image: str | bytes
    captions: tuple[str, ...]


class Pictures:
    """A sized source of records over a `datasets` table.

    Where `paths` are not to be followed, a picture whose bytes are not in the table is an empty
    one: a stranger's table could name any file of this machine. `remarks`: what else the folder
    holds.
    """

    def __init__(
        self,
        table: datasets.Dataset,
        image_column: str,
        caption_column: str | None,
        root: str,
        paths: bool = True,
        remarks: tuple[Remark, ...] = (),
    ):
        self.table, self.root, self.paths, self.remarks = table, root, paths, remarks
        self.image_column, self.caption_column = image_column, caption_column

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Record:
        row = self.table[int(index)]
        cell = row[self.image_column] or {"path": None, "bytes": None}
        name = cell["path"] or f"{self.root}, row {index}"
        followed = (self.paths and cell["path"]) or b""
        image = cell["bytes"] if cell["bytes"] is not None else followed
        return Record(
            name, image, as_captions(row[self.caption_column]) if self.caption_column else ()
        )

    def select(self, indices: list[int]) -> Pictures:
        """The same source, only these examples."""
        chosen = self.table.select(indices)
        columns = (self.image_column, self.caption_column)
        return Pictures(chosen, *columns, self.root, self.paths, self.remarks)

    def fingerprint(self) -> str:
        """A digest of names, sizes and captions in order: what a resume compares."""
        digest = hashlib.sha256()
        column = self.caption_column
        captions = map(as_captions, self.values(column)) if column else itertools.repeat(())
        paths = self.values(f"{self.image_column}.path")
        for path, own in zip(paths, captions, strict=False):
            name = os.path.basename(path or "")
            digest.update(json.dumps([name, file_size(path), own]).encode() + b"\n")
        return digest.hexdigest()[:16]

    @functools.cached_property
    def _flat(self) -> datasets.Dataset:
        """With a column for path and one for bytes; made once, for `datasets` digests each form."""
        return self.table.flatten().with_format("arrow")

    def places(self) -> Iterator[Place]:
        """Where each picture is; files, or rows if the source holds the pictures' bytes itself."""
        flat = self._flat
        inside = flat.data.column(f"{self.image_column}.bytes")  # counted, not read
        outside = flat.data.column(f"{self.image_column}.path")
        if not self.paths or inside.null_count < len(inside) or outside.null_count:
            return ((self.table._fingerprint, row) for row in range(len(self)))
        return self.values(f"{self.image_column}.path")

    def all_captions(self) -> Iterator[str]:
        """Every caption of every example, in order."""
        for captions in self.captions():
            yield from captions

    def captions(self) -> Iterator[tuple[str, ...]]:
        """The captions of each example, in order; nothing if the source has no caption column."""
        return map(as_captions, self.values(self.caption_column) if self.caption_column else ())

    def values(self, column: str) -> Iterator[Any]:
        """A column in order, without making a row of each value."""
        for part in self._flat.select_columns([column]).iter(CHUNK):
            yield from part.column(column).to_pylist()


def file_size(path: str | None) -> int:
    """Bytes of a file; 0 if there is none."""
    try:
        found = os.stat(path or "")
    except (OSError, ValueError):
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


# ---------------------------------------------------------------- folders


def read_folder(
    folder: str, image_column: str, caption_column: str | None, fault: Fault = stop
) -> Pictures:
    """A folder of pictures with metadata.jsonl / metadata.csv files, or .txt captions beside them.

    Without `caption_column` captions are not read and a bare folder will do. What is wrong goes to
    `fault`, as in `rows_of`. Raises UserError.
    """
    if image_column != "image":
        raise UserError(
            f"--image_column {image_column}: a folder's picture column is called 'image'"
        )
    listing, parts = entries.scan(Path(folder)), []
    rows = rows_of(folder, caption_column, fault, listing)
    while some := list(itertools.islice(rows, CHUNK)):
        columns: dict[str, Sequence[object]] = {
            "image": [{"path": path, "bytes": None} for path, _ in some]
        }
        if caption_column:
            columns[caption_column] = [list(captions) for _, captions in some]
        parts.append(datasets.Dataset.from_dict(columns))
    found = Pictures(datasets.concatenate_datasets(parts), "image", caption_column, folder)
    if listing.metadata:
        listing.unnamed = entries.left_out(listing.images, found.values("image.path"))
    found.remarks = entries.remarks(listing)
    return found


def read_prompted(folder: str, prompt: str | None) -> Pictures:
    """All pictures of a folder with one caption, or with none; what else lies there is not read.

    Raises UserError if there are none, and for a link that leads out of the folder.
    """
    listing = entries.scan(Path(folder))
    for error in listing.check():
        raise error
    found = pictures_in(listing)
    for path in found:
        check_file(path, Path(folder))
    paths = [str(path) for path in found]
    if not paths:
        raise no_pictures(listing)
    columns: dict[str, Sequence[object]] = {
        "image": [{"path": path, "bytes": None} for path in paths]
    }
    if prompt is not None:
        columns["text"] = [[prompt]] * len(paths)
    table = datasets.Dataset.from_dict(columns)
    column = None if prompt is None else "text"
    return Pictures(table, "image", column, folder, remarks=entries.remarks(listing))


# ---------------------------------------------------------------- data sets


def is_data_set(folder: Path) -> bool:
    """Whether a folder is for `read_dataset`: saved by `datasets`, or of parquet or tar files.

    A folder of images with captions is not, whatever lies beside them.
    """
    if saved.is_saved(folder):
        return True
    listing = entries.scan(folder)
    captioned = listing.metadata or 0 < len(listing.images) <= len(listing.texts)
    return bool(listing.tables) and not captioned


def also_there(name: str, kind: str | None) -> tuple[Remark, ...]:
    """What a local folder of shards holds besides the `kind` that is read of it."""
    read = READ_BY.get(kind or "")
    if read is None or not Path(name).is_dir() or saved.is_saved(Path(name)):
        return ()
    there = entries.scan(Path(name)).tables
    others = " and ".join(f"{end} {there[end]}" for end in entries.TABLES if end != read)
    if not any(there[end] for end in entries.TABLES if end != read):
        return ()
    message = f"the {read} files are read, and other files are not: {others}. Keep one kind there."
    return (Remark("kinds", message),)


def _instead(name: str, kind: str | None) -> str:
    """How to read a local folder that `datasets` reads in another way, as the end of a message."""
    if not Path(name).is_dir() or saved.is_saved(Path(name)):
        return ""
    if others := also_there(name, kind):
        return f"; {others[0].message}"
    listing = entries.scan(Path(name))
    if listing.images:
        return f"; use --train_data_dir {name} for its images"
    if kind is None and listing.tables:
        return "; write the endings .parquet and .tar in lower case"
    return ""


def read_dataset(
    name: str,
    config_name: str | None,
    image_column: str,
    caption_column: str | None,
    cache_dir: str | None,
) -> Pictures:
    """The train split of a hub data set, a saved `datasets` folder or a parquet folder."""
    tables = _load_tables(name, config_name, cache_dir)
    if "train" not in tables:
        raise UserError(f"--dataset_name {name}: no 'train' split (it has: {', '.join(tables)})")
    return _as_pictures(tables["train"], name, image_column, caption_column, cache_dir, stop)


def read_splits(
    name: str, image_column: str, caption_column: str | None, cache_dir: str | None, fault: Fault
) -> dict[str, Pictures]:
    """Every split of a data set by its name; a bad caption goes to `fault`. Raises UserError."""
    columns = (image_column, caption_column, cache_dir, fault)
    tables = _load_tables(name, None, cache_dir)
    return {split: _as_pictures(table, name, *columns) for split, table in tables.items()}


def _as_pictures(
    table: datasets.Dataset,
    name: str,
    image_column: str,
    caption_column: str | None,
    cache_dir: str | None,
    fault: Fault,
) -> Pictures:
    kind = table.builder_name
    check_columns(name, table.column_names, image_column, caption_column, kind)
    # The one kind whose paths are of files that the library found itself; a saved table may say of
    # itself that it was such a one.
    paths = kind == "imagefolder" and not saved.is_saved(Path(name))
    columns = (image_column, caption_column, name, paths)
    found = Pictures(undecoded(table, image_column), *columns, also_there(name, kind))
    if paths:
        own_files.check_images(name, cache_dir, found.values(f"{image_column}.path"))
    for index, value in enumerate(found.values(caption_column) if caption_column else ()):
        where = f"{name}, row {index}, column {caption_column!r}"
        attempt(fault, None, checked_captions, value, where)
    if not len(found):
        raise UserError(f"--dataset_name {name}: it is empty")
    return found


def check_columns(
    name: str,
    columns: list[str],
    image_column: str,
    caption_column: str | None,
    kind: str | None = None,
) -> None:
    """Raise UserError for a column that a data set, read as `kind`, does not have."""
    for flag, column in (("image_column", image_column), ("caption_column", caption_column)):
        if column is not None and column not in columns:
            hint = did_you_mean(column, columns)
            raise UserError(
                f"--{flag} {column}: {name} has no such column{hint} "
                f"(it has: {', '.join(columns)}){_instead(name, kind)}"
            )


def undecoded(table: Table, image_column: str) -> Table:
    """A table whose pictures are bytes: they are decoded by us, so that a broken one can be named.

    Raises UserError if the column holds no pictures.
    """
    try:
        return table.cast_column(image_column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error)[:80]
        raise UserError(
            f"--image_column {image_column}: not pictures ({reason}); name another column"
        ) from None


def _load_tables(
    name: str, config_name: str | None, cache_dir: str | None
) -> dict[str, datasets.Dataset]:
    try:
        return own_files.tables(name, config_name, cache_dir)
    except UserError:
        raise
    except Exception as error:  # the library raises many kinds, each a matter of the name given
        if out_of_memory(error):
            raise
        head = f"--dataset_name {name}: cannot be loaded: {own_files.reason(error)}"
        raise UserError(head + _instead(name, None)) from error


# ---------------------------------------------------------------- checks


def opened(
    source: Pictures, indices: range, on_done: Callable[[], object]
) -> dict[int, tuple[int, int] | str]:
    """Open every picture among `indices`; index -> (width, height), or "name: reason" of one that
    cannot be read.
    """

    def look(index: int) -> tuple[int, int] | str:
        record = source[index]
        try:
            return images.open_rgb(record.image).size
        except images.BadPicture as error:
            absent = record.image == b"" and not source.paths
            return f"{record.name}: {ABSENT if absent else error}"
        finally:
            on_done()

    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(indices, pool.map(look, indices), strict=True))
