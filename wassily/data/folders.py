"""A folder as rows of pictures and captions: metadata.jsonl, metadata.csv, or .txt beside them.

Messages name the file, the line or the column.
"""

from __future__ import annotations

import codecs
import csv
import functools
import io
import itertools
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import unquote

from wassily.data import entries, images
from wassily.data.entries import Listing, Names
from wassily.errors import UserError, did_you_mean, listed
from wassily.files import reading
from wassily.files.reading import BadFile

T = TypeVar("T")
D = TypeVar("D")
P = ParamSpec("P")
Row = tuple[str, tuple[str, ...]]  # path, captions
TABLE = 2**30  # bytes of a metadata.csv, which is read as a whole
Fault = Callable[[UserError], None]  # is told what is wrong; where it returns, the reading goes on


def stop(error: UserError) -> None:
    """The fault handler of a training: the first fault ends it."""
    raise error


def attempt(
    fault: Fault, otherwise: D, make: Callable[P, T], *words: P.args, **named: P.kwargs
) -> T | D:
    """What `make` gives; `otherwise` where it raised a UserError and `fault` let that pass."""
    try:
        return make(*words, **named)
    except UserError as error:
        fault(error)
        return otherwise


def rows_of(
    folder: str, caption_column: str | None, fault: Fault, listing: Listing | None = None
) -> Iterator[Row]:
    """Each picture of a folder with its captions; none are read without a column.

    A bad line goes to `fault`; after it, a bad caption counts as none and a line without its
    picture is passed over. `listing`: that of the folder, if it was made already; it learns which
    captions are used. Raises UserError for a folder without pictures.
    """
    root = Path(folder)
    listing = entries.scan(root) if listing is None else listing
    for error in listing.check():
        fault(error)
    metadata = [Path(path) for path in listing.metadata]
    for file in metadata:
        _check_inside(file, root)
    folders = [file.parent for file in metadata]
    if len(set(folders)) < len(folders):
        both = next(f for f in folders if folders.count(f) > 1)
        fault(UserError(f"{both}: metadata.jsonl and metadata.csv are both there: keep one"))
    if metadata:
        names = Names()
        found = (_metadata_rows(file, root, caption_column, fault, names) for file in metadata)
        rows: Iterator[Row] = itertools.chain.from_iterable(found)
    else:
        rows = _bare_rows(listing, caption_column, fault)
    first = next(rows, None)
    if metadata and first is None:
        raise UserError(f"{metadata[0]}: no line in it names a picture")
    if first is None:
        raise no_pictures(listing)
    yield first
    yield from rows


def no_pictures(listing: Listing) -> UserError:
    """What is said of a folder without any, and what it holds instead."""
    kinds = ", ".join(sorted(images.SUFFIXES))
    instead = "".join(f"; {remark.message}" for remark in entries.remarks(listing))
    return UserError(f"{listing.root}: no pictures in it ({kinds}){instead}")


def _metadata_rows(
    file: Path, root: Path, caption_column: str | None, fault: Fault, names: Names
) -> Iterator[Row]:
    parse = _parse_jsonl if entries.ending(file.name) == ".jsonl" else _parse_csv
    inside, parent = root.resolve(), str(file.parent)
    for number, row in parse(file, fault):
        where = f"{file} line {number}"
        path = attempt(fault, None, _named_picture, row, parent, inside, root, where, names)
        if path is None:
            continue
        captions: tuple[str, ...] = ()
        if caption_column:
            captions = attempt(fault, (), _row_captions, row, caption_column, where)
        yield path, captions


def _named_picture(
    row: Mapping[str, object], folder: str, inside: Path, root: Path, where: str, names: Names
) -> str:
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        near = [key for key in map(str, row) if re.sub("[ _-]", "", key).lower() == "filename"]
        hint = f"; rename {near[0]!r} to 'file_name'" if near and "file_name" not in row else ""
        has = ", ".join(map(str, row)) or "nothing"
        raise UserError(f"{where}: no 'file_name' (it has: {has}){hint}")
    path = os.path.join(folder, name)
    escapes, there = _escapes_and_there(path, inside)
    if not there and not escapes:
        other = names.find(str(root), folder, name)
        if other is not None:
            path, (escapes, there) = other, _escapes_and_there(other, inside)
    hint = "" if there and not escapes else _meant(name, folder, root, names)
    if escapes:
        raise UserError(
            f"{where}: file_name {name!r:.200} leads out of {root}; copy the file into it{hint}"
        )
    if not there:
        remedy = hint or "; add it, or remove the line"
        raise UserError(f"{where}: file_name {name!r:.200}: no such file{remedy}")
    _check_name(path)
    return path


def _meant(name: str, folder: str, root: Path, names: Names) -> str:
    """A file that a wrong name may mean, as a hint; empty if there is none."""
    plain = unquote(name).replace("\\", "/").strip("'\"<>")
    last = plain.rpartition("/")[2]
    parts = plain.lstrip("/").split("/")
    tails = ["/".join(parts[n:]) for n in range(min(len(parts), 8))]
    stem = os.path.splitext(last)[0]
    wanted = [*tails, last, *(stem + end for end in sorted(images.SUFFIXES))]
    for start, part in [*((folder, part) for part in wanted), (str(root), plain)]:
        found = names.find(str(root), start, part) if part else None
        if found is not None:
            seen = os.path.relpath(found, folder)
            return f"; did you mean {seen!r}? Names are relative to the metadata file"
    return ""


def _check_name(path: str | Path) -> None:
    """Raise UserError for a file whose name is of another encoding: no table can hold it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{path}: its name is not UTF-8; rename it") from None


def _escapes_and_there(path: str, inside: Path) -> tuple[bool, bool]:
    """Whether a path leads out of the folder `inside`, and whether it is a file."""
    try:
        # A plain file is where its folder is, and a folder is looked up once.
        if stat.S_ISREG(os.lstat(path).st_mode):
            return not _is_below(os.path.dirname(path), inside), True
        return not Path(path).resolve().is_relative_to(inside), os.path.isfile(path)
    except FileNotFoundError:
        return not Path(path).resolve().is_relative_to(inside), False
    except (OSError, ValueError, RuntimeError):  # too long, no name at all (NUL), a loop of links
        return False, False


def check_file(path: Path, root: Path) -> None:
    """Raise UserError for a link that leads out of the folder, and for a name that is not UTF-8."""
    if path.is_symlink():
        _check_inside(path, root)
    _check_name(path)


def _check_inside(file: Path, root: Path) -> None:
    """Raise UserError for a link that leads out of the folder: a stranger's could name any file.

    Nor is a pipe read, which would wait for ever.
    """
    if file.exists() and not file.is_file():
        raise UserError(f"{file}: not a plain file; remove it")
    if file.is_symlink() and not file.resolve().is_relative_to(root.resolve()):
        raise entries.leads_out(file, root)


@functools.lru_cache(maxsize=1024)
def _is_below(folder: str, inside: Path) -> bool:
    return Path(folder).resolve().is_relative_to(inside)


def _row_captions(row: Mapping[str, object], column: str, where: str) -> tuple[str, ...]:
    if column not in row:
        names = [str(key) for key in row]
        hint = did_you_mean(column, names)
        raise UserError(
            f"{where}: no column {column!r}{hint}; name it with --caption_column "
            f"(there are: {', '.join(names)})"
        )
    return checked_captions(row[column], f"{where}, column {column!r}")


def as_captions(value: object) -> tuple[str, ...]:
    """A cell of a caption column as a tuple; empty for what is no caption."""
    several = value if isinstance(value, (list, tuple)) else ()
    return (value,) if isinstance(value, str) else tuple(several)


def checked_captions(value: object, where: str) -> tuple[str, ...]:
    """A caption or a list of captions, none empty; raises UserError naming `where`."""
    captions = as_captions(value) if isinstance(value, (str, list, tuple)) else None
    if captions is None or not all(isinstance(c, str) for c in captions):
        raise UserError(f"{where}: a caption is a text or a list of texts, not {value!r:.60}")
    if not captions or not all(c.strip() for c in captions):
        raise UserError(f"{where}: the caption is empty; write one, or remove the picture")
    try:
        "".join(captions).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: half a character (a lone surrogate) in {value!r:.60}; mend it"
        ) from None
    return captions


def _text_of(file: Path, limit: int) -> str:
    """A UTF-8 text of at most `limit` bytes. Raises UserError."""
    raw = reading.read_bytes(file, limit)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(file, error, error.start) from None


def _not_utf8(file: Path, error: UnicodeDecodeError, at: int) -> UserError:
    wide = error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    reason = "it is UTF-16" if wide else f"{error.reason} at byte {at}"
    return UserError(f"{file}: not UTF-8 text ({reason}); save it as UTF-8")


def _lines_of(file: Path, fault: Fault) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text that is not read as a whole."""
    begin = 0
    try:
        with reading.opened(file) as raw:
            # Only b"\n" ends one: a caption may hold U+2028, which is no end of a JSON line.
            for number, line in enumerate(reading.lines(raw), start=1):
                if len(line) > reading.LINE:
                    size = f"over {reading.LINE:,} bytes"
                    fault(UserError(f"{file} line {number}: too long ({size}). Shorten it."))
                    return
                text = line.removesuffix(b"\n")
                yield number, text.decode("utf-8-sig" if number == 1 else "utf-8")
                begin += len(line)
    except UnicodeDecodeError as error:
        fault(_not_utf8(file, error, begin + error.start))
    except BadFile as error:
        fault(error)
    except OSError as error:
        fault(UserError(f"{file}: {error.strerror}"))


def _parse_jsonl(file: Path, fault: Fault) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in _lines_of(file, fault):
        if line.strip():
            row = attempt(fault, None, _json_row, line, f"{file} line {number}")
            if row is not None:
                yield number, row


def _json_row(line: str, where: str) -> dict[str, object]:
    try:
        row = reading.checked_depth(json.loads(line))
    except (ValueError, RecursionError) as error:
        remedy = "mend or remove the line"
        if "\r" in line.strip():
            remedy = "save it with the line ends of Unix (LF)"
        elif line.strip().endswith((",", "[")):
            remedy = "write one object a line, without commas between the lines"
        raise UserError(f"{where}: not JSON ({error}); {remedy}") from None
    if not isinstance(row, dict):
        raise UserError(f'{where}: not a JSON object; write {{"file_name": ..., "text": ...}}')
    return row


def _parse_csv(file: Path, fault: Fault) -> Iterator[tuple[int, dict[str, object]]]:
    # A file, not splitlines(): a cell may hold U+2028, which is no end of a CSV row.
    text = attempt(fault, "", _text_of, file, TABLE)
    reader: csv.DictReader[str] = csv.DictReader(io.StringIO(text, newline=""), fieldnames=[])
    try:
        # Blank lines may stand above the header.
        header = [cell.strip().strip('"') for cell in next(filter(None, reader.reader), [])]
        if wrong := _wrong_header(header, text):
            fault(UserError(f"{file} line {reader.reader.line_num}: {wrong}"))
            return
        reader.fieldnames = header
        for row in reader:
            extra = row.pop(None, None)
            if extra is None:
                yield reader.line_num, row
                continue
            remedy = "put a text with commas in quotes"
            if any(str(cell).startswith((' "', '\t"')) for cell in (*row.values(), *extra)):
                remedy = "remove the space before the quotes"
            where = f"{file} line {reader.line_num}"
            fault(UserError(f"{where}: more cells than the header names; {remedy}"))
    except csv.Error as error:
        fault(UserError(f"{file} line {reader.reader.line_num}: {error}; mend or remove the line"))


def _wrong_header(header: list[str], text: str) -> str | None:
    """What is wrong with a header, if it tells what the file is instead; None if nothing is."""
    if "file_name" in header:
        return None
    first = text.lstrip().partition("\n")[0].strip()
    for mark, name in ((";", "';'"), ("\t", "a tab"), ("|", "'|'")):
        if "file_name" in (cell.strip().strip('"') for cell in first.split(mark)):
            return (
                f"no 'file_name' in the header, because the separator is {name}. Separate the "
                "cells by commas, and put texts with commas in quotes."
            )
    if first.lower().startswith("sep="):
        return f"no 'file_name' in the header. Remove this line ({first[:10]!r})."
    if header and entries.ending(header[0]) in images.SUFFIXES:
        return "no 'file_name': the header is missing. Write file_name,text as the first line."
    return None


def pictures_in(listing: Listing) -> list[Path]:
    """Every picture of a folder by its ending, in the order of their names.

    `listing` learns which of them are no files: links to nothing, pipes.
    """
    there = [path for path in listing.images if os.path.isfile(path)]
    kept = set(there)
    listing.dead = [path for path in listing.images if path not in kept]
    return [Path(path) for path in there]


def _bare_rows(listing: Listing, caption_column: str | None, fault: Fault) -> Iterator[Row]:
    root, found = listing.root, pictures_in(listing)
    names, stems = Names(), {os.path.splitext(path)[0] for path in listing.images}
    texts = [names.caption(str(path), stems) for path in found] if caption_column else []
    for path in [*found, *(Path(text) for text in texts if text)]:
        if path.is_symlink():
            attempt(fault, None, _check_inside, path, root)
    for path in found:
        _check_name(path)
    if not caption_column:
        yield from ((str(path), ()) for path in found)
        return
    missing = [str(path) for path, text in zip(found, texts, strict=True) if text is None]
    if missing:
        why = "captions are missing: no metadata.jsonl or metadata.csv, and no .txt beside"
        fault(UserError(f"{root}: {why} {listed(missing)}{_instead(missing, listing, names)}"))
    listing.unused = entries.unused(listing.texts, {text for text in texts if text})
    for path, text in zip(found, texts, strict=True):
        yield str(path), () if text is None else attempt(fault, (), _text_caption, text)


def _instead(images: list[str], listing: Listing, names: Names) -> str:
    """What may hold the missing captions, as the end of a message."""
    for image in images:
        if other := names.beside(image):
            text = os.path.splitext(os.path.basename(image))[0] + entries.CAPTION
            return f"; {other} is there and is not read: write its caption to {text}"
    meant = (r.message for r in entries.remarks(listing) if r.kind == "not_metadata")
    return "".join(f"; {message}" for message in meant)


def _text_caption(file: str) -> tuple[str, ...]:
    return checked_captions(_text_of(Path(file), reading.LINE).strip(), file)
