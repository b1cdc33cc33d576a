"""Sources of captioned pictures, and their checks.

The only file that knows the `datasets` library. Messages name the file, the line or the column.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from wassily import pictures
from wassily.errors import UserError, did_you_mean

SHOWN = 10  # how many offenders a message lists before it counts the rest
CHUNK = 10_000  # rows that are Python objects at a time, of a table that may have millions

MARKS = 2  # tokens around a caption: its beginning and its end

Place = str | tuple[str, int]  # of a picture: its file, or its table's fingerprint and its row


@dataclass(frozen=True)
class Record:
    """One example as the source has it; `image` is a path or the file's bytes."""

    name: str
    image: str | bytes
    captions: tuple[str, ...]


class Pictures:
    """A sized source of records over a `datasets` table."""

    def __init__(
        self, table: datasets.Dataset, image_column: str, caption_column: str | None, root: str
    ):
        self.table, self.root = table, root
        self.image_column, self.caption_column = image_column, caption_column

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Record:
        row = self.table[int(index)]
        cell = row[self.image_column]
        name = cell["path"] or f"{self.root}, row {index}"
        image = cell["bytes"] if cell["bytes"] is not None else cell["path"]
        return Record(
            name, image, _captions(row[self.caption_column]) if self.caption_column else ()
        )

    def select(self, indices: list[int]) -> Pictures:
        """The same source, only these examples."""
        chosen = self.table.select(indices)
        return Pictures(chosen, self.image_column, self.caption_column, self.root)

    def fingerprint(self) -> str:
        """A digest of names, sizes and captions in order: what a resume compares."""
        digest = hashlib.sha256()
        column = self.caption_column
        captions = map(_captions, self._values(column)) if column else itertools.repeat(())
        paths = self._values(f"{self.image_column}.path")
        for path, own in zip(paths, captions, strict=False):
            name = os.path.basename(path or "")
            digest.update(json.dumps([name, _file_size(path), own]).encode() + b"\n")
        return digest.hexdigest()[:16]

    def places(self) -> Iterator[Place]:
        """Where each picture is; files, or rows if the source holds the pictures' bytes itself."""
        flat = self.table.flatten()
        inside = flat.data.column(f"{self.image_column}.bytes")  # counted, not read
        outside = flat.data.column(f"{self.image_column}.path")
        if inside.null_count < len(inside) or outside.null_count:
            return ((self.table._fingerprint, row) for row in range(len(self)))
        return self._values(f"{self.image_column}.path")

    def all_captions(self) -> Iterator[str]:
        """Every caption of every example, in order."""
        for value in self._values(self.caption_column) if self.caption_column else ():
            yield from _captions(value)

    def _values(self, column: str) -> Iterator[Any]:
        """A column in order, without making a row of each value."""
        flat = self.table.flatten().select_columns([column]).with_format("arrow")
        for part in flat.iter(CHUNK):
            yield from part.column(column).to_pylist()


def _file_size(path: str | None) -> int:
    """Bytes of a file; 0 if there is none."""
    try:
        found = os.stat(path or "")
    except (OSError, ValueError):
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _captions(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


# ---------------------------------------------------------------- folders


def read_folder(folder: str, image_column: str, caption_column: str | None) -> Pictures:
    """A folder of pictures with metadata.jsonl / metadata.csv files, or .txt captions beside them.

    Without `caption_column` captions are not read and a bare folder will do. Raises UserError.
    """
    root = Path(folder)
    if image_column != "image":
        raise UserError(
            f"--image_column {image_column}: a folder's picture column is called 'image'"
        )
    metadata = sorted(
        Path(inside, name)
        for inside, _, names in os.walk(root)
        for name in names
        if name in ("metadata.jsonl", "metadata.csv")
    )
    folders = [file.parent for file in metadata]
    if len(set(folders)) < len(folders):
        both = next(f for f in folders if folders.count(f) > 1)
        raise UserError(f"{both}: metadata.jsonl and metadata.csv are both there: keep one")
    if metadata:
        found = (_metadata_rows(file, root, caption_column) for file in metadata)
        rows: Iterator[Row] = itertools.chain.from_iterable(found)
    else:
        rows = iter(_bare_rows(root, caption_column))
    parts = []
    while some := list(itertools.islice(rows, CHUNK)):
        columns: dict[str, Any] = {"image": [{"path": path, "bytes": None} for path, _ in some]}
        if caption_column:
            columns[caption_column] = [list(captions) for _, captions in some]
        parts.append(datasets.Dataset.from_dict(columns))
    if metadata and not parts:
        raise UserError(f"{metadata[0]}: no line in it names a picture")
    if not parts:
        raise UserError(f"{folder}: no pictures in it ({', '.join(sorted(pictures.SUFFIXES))})")
    return Pictures(datasets.concatenate_datasets(parts), "image", caption_column, folder)


Row = tuple[str, tuple[str, ...]]  # path, captions


def _metadata_rows(file: Path, root: Path, caption_column: str | None) -> Iterator[Row]:
    parse = _parse_jsonl if file.suffix == ".jsonl" else _parse_csv
    inside, parent = root.resolve(), str(file.parent)
    for number, row in parse(file):
        where = f"{file} line {number}"
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise UserError(
                f"{where}: no 'file_name' (it has: {', '.join(map(str, row)) or 'nothing'})"
            )
        path = os.path.join(parent, name)
        escapes, there = _escapes_and_there(path, inside)
        if escapes:
            raise UserError(f"{where}: file_name {name!r} leads out of {root}")
        if not there:
            raise UserError(
                f"{where}: file_name {name!r:.200}: no such file; add it, or remove the line"
            )
        yield path, _row_captions(row, caption_column, where) if caption_column else ()


def _escapes_and_there(path: str, inside: Path) -> tuple[bool, bool]:
    """Whether a path leads out of the folder `inside`, and whether it is a file."""
    try:
        # A plain file is where its folder is, and a folder is looked up once.
        if stat.S_ISREG(os.lstat(path).st_mode):
            return not _is_below(os.path.dirname(path), inside), True
        return not Path(path).resolve().is_relative_to(inside), os.path.isfile(path)
    except FileNotFoundError:
        return not Path(path).resolve().is_relative_to(inside), False
    except (OSError, ValueError):  # too long, or no name at all (NUL)
        return False, False


@functools.lru_cache(maxsize=1024)
def _is_below(folder: str, inside: Path) -> bool:
    return Path(folder).resolve().is_relative_to(inside)


def _row_captions(row: dict[str, Any], column: str, where: str) -> tuple[str, ...]:
    if column not in row:
        names = [str(key) for key in row]
        hint = did_you_mean(column, names)
        raise UserError(
            f"{where}: no column {column!r}{hint}; name it with --caption_column "
            f"(there are: {', '.join(names)})"
        )
    return checked_captions(row[column], f"{where}, column {column!r}")


def checked_captions(value: Any, where: str) -> tuple[str, ...]:
    """A caption or a list of captions, none empty; raises UserError naming `where`."""
    captions = _captions(value) if isinstance(value, (str, list, tuple)) else None
    if captions is None or not all(isinstance(c, str) for c in captions):
        raise UserError(f"{where}: a caption is a text or a list of texts, not {value!r:.60}")
    if not captions or not all(c.strip() for c in captions):
        raise UserError(f"{where}: the caption is empty; write one, or remove the picture")
    try:
        "".join(captions).encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: half a character (a lone surrogate) in {value!r:.60}") from None
    return captions


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None


def _lines_of(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text that is not read as a whole."""
    begin = 0
    try:
        with open(file, "rb") as raw:
            # Only b"\n" ends one: a caption may hold U+2028, which is no end of a JSON line.
            for number, line in enumerate(raw, start=1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                begin += len(line)
    except UnicodeDecodeError as error:
        at = begin + error.start
        raise UserError(f"{file}: not UTF-8 text ({error.reason} at byte {at})") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None


def _parse_jsonl(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines_of(file):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file} line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{file} line {number}: not a JSON object")
        yield number, row


def _parse_csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    # A file, not splitlines(): a cell may hold U+2028, which is no end of a CSV row.
    reader = csv.DictReader(io.StringIO(_text_of(file), newline=""))
    try:
        for row in reader:
            extra = row.pop(None, None)
            if extra is not None:
                raise UserError(f"{file} line {reader.line_num}: more cells than the header names")
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{file} line {reader.reader.line_num}: {error}") from None


def _bare_rows(root: Path, caption_column: str | None) -> list[Row]:
    found = sorted(
        p for p in root.rglob("*") if p.suffix.lower() in pictures.SUFFIXES and p.is_file()
    )
    if not caption_column:
        return [(str(path), ()) for path in found]
    missing = [str(path) for path in found if not path.with_suffix(".txt").is_file()]
    if missing:
        raise UserError(
            f"{root}: captions are missing: no metadata.jsonl or metadata.csv, and no .txt beside "
            + listed(missing)
        )
    texts = [(path, path.with_suffix(".txt")) for path in found]
    return [(str(path), checked_captions(_text_of(txt).strip(), str(txt))) for path, txt in texts]


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# ---------------------------------------------------------------- data sets


def read_dataset(
    name: str,
    config_name: str | None,
    image_column: str,
    caption_column: str | None,
    cache_dir: str | None,
) -> Pictures:
    """The train split of a hub data set, a saved `datasets` folder or a parquet folder."""
    table = _load_table(name, config_name, cache_dir)
    for flag, column in (("image_column", image_column), ("caption_column", caption_column)):
        if column is not None and column not in table.column_names:
            hint = did_you_mean(column, table.column_names)
            raise UserError(
                f"--{flag} {column}: {name} has no such column{hint} "
                f"(it has: {', '.join(table.column_names)})"
            )
    try:
        # Bytes are decoded by us, so that a broken picture can be named.
        table = table.cast_column(image_column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"--image_column {image_column}: not pictures ({str(error)[:80]})"
        ) from None
    found = Pictures(table, image_column, caption_column, name)
    if caption_column:
        for index, value in enumerate(found._values(caption_column)):
            checked_captions(value, f"{name}, row {index}, column {caption_column!r}")
    if not len(found):
        raise UserError(f"--dataset_name {name}: it is empty")
    return found


def _load_table(name: str, config_name: str | None, cache_dir: str | None) -> datasets.Dataset:
    path = Path(name)
    try:
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, config_name, cache_dir=cache_dir)
    except Exception as error:  # the library raises many kinds, each a matter of the name given
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"--dataset_name {name}: cannot be loaded: {reason[0]}") from error
    if isinstance(loaded, datasets.DatasetDict):
        if "train" not in loaded:
            raise UserError(
                f"--dataset_name {name}: no 'train' split (it has: {', '.join(loaded)})"
            )
        return loaded["train"]
    return loaded


# ---------------------------------------------------------------- checks


def opened(
    source: Pictures, indices: range, on_done: Callable[[], Any]
) -> dict[int, tuple[int, int] | str]:
    """Open every picture among `indices`; index -> (width, height), or "name: reason" of one that
    cannot be read.
    """

    def look(index: int) -> tuple[int, int] | str:
        record = source[index]
        try:
            return pictures.open_rgb(record.image).size
        except pictures.BadPicture as error:
            return f"{record.name}: {error}"
        finally:
            on_done()

    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(indices, pool.map(look, indices), strict=True))


def count_cut(source: Pictures, tokenizer: Any) -> tuple[int, int]:
    """How many captions are longer than the tokenizer's limit, of how many."""
    cut = total = 0
    batch: list[str] = []

    def flush() -> int:
        ids = tokenizer(batch, truncation=False, verbose=False).input_ids if batch else []
        return sum(len(i) > tokenizer.model_max_length for i in ids)

    for total, caption in enumerate(source.all_captions(), start=1):  # noqa: B007
        # A token is one letter at least; other scripts may grow when the tokenizer normalises.
        if len(caption) + MARKS <= tokenizer.model_max_length and caption.isascii():
            continue
        batch.append(caption)
        if len(batch) >= 1000:
            cut, batch = cut + flush(), []
    return cut + flush(), total
