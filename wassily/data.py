"""Sources of captioned pictures, and their checks.

The only file that knows the `datasets` library. Messages name the file, the line or the column.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from wassily import pictures
from wassily.errors import UserError, did_you_mean

SHOWN = 10  # how many offenders a message lists before it counts the rest

Fault = Callable[[UserError], None]  # is told what is wrong; where it returns, the reading goes on


def stop(error: UserError) -> None:
    """The fault handler of a training: the first fault ends it."""
    raise error


def _attempt(fault: Fault, otherwise: Any, make: Callable[..., Any], *words: Any) -> Any:
    """What `make` gives; `otherwise` where it raised a UserError and `fault` let that pass."""
    try:
        return make(*words)
    except UserError as error:
        fault(error)
        return otherwise


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
        flat = self.table.flatten()
        path_column = f"{self.image_column}.path"
        kept = [path_column, *([self.caption_column] if self.caption_column else [])]
        for row in flat.select_columns(kept):
            path = row[path_column] or ""
            size = Path(path).stat().st_size if path and Path(path).is_file() else 0
            captions = _captions(row[self.caption_column]) if self.caption_column else ()
            digest.update(json.dumps([Path(path).name, size, captions]).encode() + b"\n")
        return digest.hexdigest()[:16]

    def paths(self) -> list[str] | None:
        """The file of every picture, or None if the source holds the pictures' bytes itself."""
        flat = self.table.flatten()
        inside = flat.data.column(f"{self.image_column}.bytes")  # counted, not read
        outside = flat.data.column(f"{self.image_column}.path")
        if inside.null_count < len(inside) or outside.null_count:
            return None
        return list(flat[f"{self.image_column}.path"])

    def all_captions(self) -> Iterator[str]:
        """Every caption of every example, in order."""
        for captions in self.captions():
            yield from captions

    def captions(self) -> Iterator[tuple[str, ...]]:
        """The captions of each example, in order; nothing if the source has no caption column."""
        for value in self.table[self.caption_column] if self.caption_column else ():
            yield _captions(value)


def _captions(value: Any) -> tuple[str, ...]:
    several = value if isinstance(value, (list, tuple)) else ()
    return (value,) if isinstance(value, str) else tuple(several)


# ---------------------------------------------------------------- folders


def read_folder(
    folder: str, image_column: str, caption_column: str | None, fault: Fault = stop
) -> Pictures:
    """A folder of pictures with metadata.jsonl / metadata.csv files, or .txt captions beside them.

    Without `caption_column` captions are not read and a bare folder will do. A bad line goes to
    `fault`; after it, a bad caption counts as none and a line without its picture is passed over.
    Raises UserError.
    """
    root = Path(folder)
    if image_column != "image":
        raise UserError(
            f"--image_column {image_column}: a folder's picture column is called 'image'"
        )
    metadata = sorted([*root.rglob("metadata.jsonl"), *root.rglob("metadata.csv")])
    folders = [file.parent for file in metadata]
    if len(set(folders)) < len(folders):
        both = next(f for f in folders if folders.count(f) > 1)
        fault(UserError(f"{both}: metadata.jsonl and metadata.csv are both there: keep one"))
    if metadata:
        rows = [r for file in metadata for r in _metadata_rows(file, root, caption_column, fault)]
    else:
        rows = _bare_rows(root, caption_column, fault)
    if metadata and not rows:
        raise UserError(f"{metadata[0]}: no line in it names a picture")
    if not rows:
        raise UserError(f"{folder}: no pictures in it ({', '.join(sorted(pictures.SUFFIXES))})")
    cells = [{"path": str(path), "bytes": None} for path, _ in rows]
    columns: dict[str, Any] = {"image": cells}
    if caption_column:
        columns[caption_column] = [list(captions) for _, captions in rows]
    return Pictures(datasets.Dataset.from_dict(columns), "image", caption_column, folder)


def _metadata_rows(
    file: Path, root: Path, caption_column: str | None, fault: Fault
) -> list[tuple[Path, tuple[str, ...]]]:
    parse = _parse_jsonl if file.suffix == ".jsonl" else _parse_csv
    rows: list[tuple[Path, tuple[str, ...]]] = []
    inside = root.resolve()
    for number, row in parse(file, fault):
        where = f"{file} line {number}"
        path = _attempt(fault, None, _named_picture, row, file.parent, inside, root, where)
        if path is None:
            continue
        captions: tuple[str, ...] = ()
        if caption_column:
            captions = _attempt(fault, (), _row_captions, row, caption_column, where)
        rows.append((path, captions))
    return rows


def _named_picture(
    row: dict[str, Any], folder: Path, inside: Path, root: Path, where: str
) -> Path | None:
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{where}: no 'file_name' (it has: {', '.join(map(str, row)) or 'nothing'})"
        )
    path = folder / name
    try:
        escapes, there = not path.resolve().is_relative_to(inside), path.is_file()
    except (OSError, ValueError):  # too long, or no name at all (NUL)
        escapes = there = False
    if escapes:
        raise UserError(f"{where}: file_name {name!r} leads out of {root}")
    if not there:
        raise UserError(
            f"{where}: file_name {name!r:.200}: no such file; add it, or remove the line"
        )
    return path


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


def _parse_jsonl(file: Path, fault: Fault) -> Iterator[tuple[int, dict[str, Any]]]:
    # split("\n"), not splitlines(): a caption may hold U+2028, which is no end of a JSON line.
    text = _attempt(fault, "", _text_of, file)
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            row = _attempt(fault, None, _json_row, line, f"{file} line {number}")
            if row is not None:
                yield number, row


def _json_row(line: str, where: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object")
    return row


def _parse_csv(file: Path, fault: Fault) -> Iterator[tuple[int, dict[str, Any]]]:
    # A file, not splitlines(): a cell may hold U+2028, which is no end of a CSV row.
    text = _attempt(fault, "", _text_of, file)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            extra = row.pop(None, None)
            if extra is None:
                yield reader.line_num, row
                continue
            where = f"{file} line {reader.line_num}"
            fault(UserError(f"{where}: more cells than the header names"))
    except csv.Error as error:
        fault(UserError(f"{file} line {reader.reader.line_num}: {error}"))


def _bare_rows(
    root: Path, caption_column: str | None, fault: Fault
) -> list[tuple[Path, tuple[str, ...]]]:
    found = sorted(
        p for p in root.rglob("*") if p.suffix.lower() in pictures.SUFFIXES and p.is_file()
    )
    if not caption_column:
        return [(path, ()) for path in found]
    missing = [path for path in found if not path.with_suffix(".txt").is_file()]
    if missing:
        why = "captions are missing: no metadata.jsonl or metadata.csv, and no .txt beside"
        fault(UserError(f"{root}: {why} {listed([str(path) for path in missing])}"))
    bare = set(missing)
    return [(p, () if p in bare else _attempt(fault, (), _text_caption, p)) for p in found]


def _text_caption(picture: Path) -> tuple[str, ...]:
    file = picture.with_suffix(".txt")
    return checked_captions(_text_of(file).strip(), str(file))


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# ---------------------------------------------------------------- data sets


def is_data_set(folder: Path) -> bool:
    """Whether a folder is for `read_dataset`: saved by `datasets`, or of parquet or tar files."""
    saved = any((folder / name).exists() for name in ("dataset_dict.json", "state.json"))
    return saved or any(any(folder.rglob(f"*{end}")) for end in (".parquet", ".tar"))


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
    return _as_pictures(tables["train"], name, image_column, caption_column, stop)


def read_splits(
    name: str, image_column: str, caption_column: str | None, cache_dir: str | None, fault: Fault
) -> dict[str, Pictures]:
    """Every split of a data set by its name; a bad caption goes to `fault`. Raises UserError."""
    columns = (image_column, caption_column, fault)
    tables = _load_tables(name, None, cache_dir)
    return {split: _as_pictures(table, name, *columns) for split, table in tables.items()}


def _as_pictures(
    table: datasets.Dataset, name: str, image_column: str, caption_column: str | None, fault: Fault
) -> Pictures:
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
        reason = str(error)[:80]
        raise UserError(f"--image_column {image_column}: not pictures ({reason})") from None
    for index, value in enumerate(table[caption_column] if caption_column else ()):
        where = f"{name}, row {index}, column {caption_column!r}"
        _attempt(fault, None, checked_captions, value, where)
    if not len(table):
        raise UserError(f"--dataset_name {name}: it is empty")
    return Pictures(table, image_column, caption_column, name)


def _load_tables(
    name: str, config_name: str | None, cache_dir: str | None
) -> dict[str, datasets.Dataset]:
    path = Path(name)
    try:
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, config_name, cache_dir=cache_dir)
    except Exception as error:  # the library raises many kinds, each a matter of the name given
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"--dataset_name {name}: cannot be loaded: {reason[0]}") from error
    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}


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
    for length in token_counts(source.all_captions(), tokenizer):
        cut, total = cut + (length > tokenizer.model_max_length), total + 1
    return cut, total


def token_counts(captions: Iterable[str], tokenizer: Any) -> Iterator[int]:
    """The length of each caption in tokens, both ends included, before anything is cut."""
    left = iter(captions)
    while batch := list(itertools.islice(left, 1000)):
        yield from map(len, tokenizer(batch, truncation=False, verbose=False).input_ids)
