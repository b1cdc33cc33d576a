"""Data sets in shards, parquet files or WebDataset tars, read as a stream: here, by http, from s3.

Nothing is written to the disk, and
no shard is read further than it is needed.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import datasets

from wassily.data import datasets as image_data
from wassily.data.datasets import Record
from wassily.data.entries import Remark
from wassily.data.folders import checked_captions
from wassily.errors import UserError, out_of_memory
from wassily.sources import connections, own_files

KINDS = {".parquet": "parquet", ".tar": "webdataset"}
NAMES = "name a data set of the hub, a folder of parquet files or tars, or the address of one"
MOST = 1_000_000  # shards of one name
PICKLES = {"pth", "pt", "pkl", "pickle", "pyd", "ckpt", "bin"}  # endings of members of a tar


@dataclass(frozen=True)
class Cell:
    """One example as its shard has it, not looked at yet; `where` names shard and index."""

    where: str
    image: bytes | None
    captions: object

    def record(self, captioned: bool) -> Record:
        """The same, checked. Raises UserError."""
        if not self.image:
            raise UserError(f"{self.where}: no picture in it")
        captions = checked_captions(self.captions, self.where) if captioned else ()
        return Record(self.where, self.image, captions)


class Shards:
    """Examples in numbered shards, each to be read from its beginning or from a later row."""

    def __init__(
        self,
        table: datasets.IterableDataset,
        names: list[str],
        image_column: str,
        caption_column: str | None,
        remarks: tuple[Remark, ...] = (),
    ):
        self.table, self.names, self.remarks = table, names, remarks
        self.image_column, self.caption_column = image_column, caption_column

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, shard: int, first: int = 0) -> Iterator[Cell]:
        """The examples of a shard from row `first` on. Raises UserError if it cannot be read."""
        name, index = os.path.basename(_shown(self.names[shard])), first
        try:
            part = self.table.shard(num_shards=len(self), index=shard)
            for index, row in enumerate(part.skip(first), first):
                cell = row[self.image_column] or {}
                captions = row[self.caption_column] if self.caption_column else None
                where = f"{name}, example {index}"
                # A path would be one that a stranger chose: only bytes are taken.
                yield Cell(where, cell.get("bytes"), captions)
        except Exception as error:  # of the library, the format, the network: many kinds
            if out_of_memory(error):
                raise
            raise UserError(
                f"{_shown(self.names[shard])}: cannot be read at example {index} or after it: "
                f"{own_files.reason(error)}; get this shard anew, or see that it can be reached, "
                "then repeat the command"
            ) from error

    def fingerprint(self) -> str:
        """A digest of the shards' names and local sizes in order: what a resume compares."""
        known = [[os.path.basename(name), image_data.file_size(name)] for name in self.names]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def read_shards(
    name: str,
    config_name: str | None,
    image_column: str,
    caption_column: str | None,
    cache_dir: str | None,
) -> Shards:
    """The train split of a data set in shards, by its hub name, its folder, or its shards' address.

    An address has numbers in braces for several, as https://host/pics-{000..127}.tar has 128.
    Raises UserError.
    """
    head, remedy = f"--dataset_name {name}: cannot be read as a stream", NAMES
    try:
        kind, files = _files(name, config_name, cache_dir)
        remedy = f"see that {_shown(files[0])} is there and whole"
        # A file that is here goes by its name, which is no pattern.
        names = [glob.escape(file) if os.path.exists(file) else file for file in files]
        table = datasets.load_dataset(
            kind,
            data_files={"train": names},
            split="train",
            streaming=True,
            cache_dir=cache_dir,
            storage_options=connections.OPTIONS,
        )
    except UserError:
        raise
    except Exception as error:  # as in data
        if out_of_memory(error):
            raise
        raise UserError(f"{head}: {own_files.reason(error)}; {remedy}") from error
    columns = list(table.column_names or [])
    for column in columns:
        if kind == "webdataset" and column.rpartition(".")[2].lower() in PICKLES:
            raise UserError(
                f"--dataset_name {name}: .{column} files in it may be pickles; leave them out of "
                "the tars"
            )
    image_data.check_columns(name, columns, image_column, caption_column, kind)
    _check_pictures(name, table, image_column)
    table = image_data.undecoded(table, image_column)
    wanted = [image_column] + ([caption_column] if caption_column else [])
    remarks = image_data.also_there(name, kind)
    return Shards(table.select_columns(wanted), files, image_column, caption_column, remarks)


def _check_pictures(name: str, table: datasets.IterableDataset, column: str) -> None:
    """Raise UserError if a column is known to hold something else: numbers or texts."""
    kind = (table.features or {}).get(column)
    held = getattr(kind, "feature", kind)  # of a list, which may be one of numbers: pixels
    dtype = held.dtype if isinstance(held, datasets.Value) else "binary"
    numbers = held is kind and "binary" not in dtype and dtype != "null"
    if numbers or "string" in dtype:
        raise UserError(
            f"--image_column {column}: {name} has {dtype} in it; name the column that has the "
            "pictures"
        )


def _files(name: str, config_name: str | None, cache_dir: str | None) -> tuple[str, list[str]]:
    """The kind of a data set's shards, and their paths or addresses."""
    if ("://" in name or "{" in name) and not os.path.isdir(name):
        files = [name] if os.path.exists(name) else numbered(name)
        kind = KINDS.get(os.path.splitext(files[0].partition("?")[0])[1], "")
    else:
        found = own_files.builder(name, config_name, cache_dir)
        kind, splits = found.name, dict(found.config.data_files or {})
        if kind in KINDS.values() and "train" not in splits:
            raise UserError(
                f"--dataset_name {name}: no 'train' split (it has: {', '.join(map(str, splits))}); "
                "give the shards to train on names that begin with train"
            )
        files = [str(file) for file in splits.get("train", [])]
    if kind not in KINDS.values():
        raise UserError(
            f"--streaming reads parquet files and WebDataset tars: {name} is neither; write it as "
            "one of them, or leave out --streaming"
        )
    return kind, files


def numbered(name: str) -> list[str]:
    """A name with {00..15} in it as sixteen names, numbers as wide as the first; others as one."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", name)
    if not found:
        return [name]
    first, last = found.groups()
    head, tail = name[: found.start()], name[found.end() :]
    numbers = range(int(first), int(last) + 1)
    if not 0 < len(numbers) <= MOST:
        raise UserError(
            f"--dataset_name {name}: {found[0]} is no row of shards: write the first number, then "
            f"the last, for {MOST:,} shards at most"
        )
    return [one for n in numbers for one in numbered(f"{head}{n:0{len(first)}d}{tail}")]


def _shown(address: str) -> str:
    """A shard's path or address without the query, which may be a signature that lets one in."""
    return address.partition("?")[0] if "://" in address else address
