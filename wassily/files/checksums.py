"""The checksums of a folder's files, kept beside them: tells a whole folder from a damaged one."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wassily.files import reading
from wassily.files.reading import BadFile

NAME = "manifest.json"
PART = 2**26
KIND = f"blake2b of {PART}"  # the name of such a checksum in a manifest
WHOLE = "blake2b"  # and of one over a file as a whole, as they were before
# Threads: hashing does not hold the interpreter, and one core does half a gigabyte a second.
READERS = min(16, os.cpu_count() or 1)
# What reading a manifest that is none raises; the last two of numbers and nesting without end.
NONSENSE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def _part(path: Path, start: int, size: int) -> bytes:
    """BLAKE2b of so many bytes of a file, 32 of them. Raises OSError."""
    state = hashlib.blake2b(digest_size=32)
    with reading.opened(path) as file:
        file.seek(start)
        while size > 0 and (chunk := file.read(min(size, 2**22))):
            state.update(chunk)
            size -= len(chunk)
    return state.digest()


def digests(files: list[Path]) -> Iterator[str]:
    """Of each file the BLAKE2b of the BLAKE2b of its parts of 64 MiB, in hexadecimal, so that all
    cores work on one large file. Raises OSError.
    """
    parts = [range(0, max(file.stat().st_size, 1), PART) for file in files]
    with ThreadPoolExecutor(READERS) as pool:
        jobs = [(file, start) for file, own in zip(files, parts, strict=True) for start in own]
        found = pool.map(lambda job: _part(job[0], job[1], PART), jobs)
        for own in parts:
            joined = b"".join(itertools.islice(found, len(own)))
            yield hashlib.blake2b(joined, digest_size=32).hexdigest()


def _wholes(files: Iterable[Path]) -> Iterator[str]:
    return (_part(file, 0, file.stat().st_size).hex() for file in files)


def seal(folder: Path) -> None:
    """Write the size and the checksum of every file below. Raises OSError."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / NAME)
    held = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, KIND: found}
        for file, found in zip(files, digests(files), strict=True)
    }
    (folder / NAME).write_text(json.dumps({"files": held}, indent=2), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """The first file of a sealed folder that is not as it was, and how; None if all are."""
    try:
        held = reading.read_table(folder / NAME, root=folder)["files"]
        "".join(held).encode()  # what no file can be called, cannot be told either
        sizes = {folder / name: int(entry["bytes"]) for name, entry in held.items()}
        new, old = (
            {folder / n: str(e[kind]) for n, e in held.items() if (KIND in e) == (kind == KIND)}
            for kind in (KIND, WHOLE)
        )
        if not sizes:
            return f"{NAME} names no file"
        lost = next(filter(None, (_sized(folder, *of) for of in sizes.items())), None)
    except BadFile as error:
        if not (folder / NAME).exists():
            return f"{NAME} is missing"
        return str(error).removeprefix(f"{folder}{os.sep}")
    except NONSENSE as error:
        return f"{NAME}: {error!r:.60}"
    lost = lost or _unnamed(folder, sizes)
    return lost or _other(folder, new, digests(list(new))) or _other(folder, old, _wholes(old))


def _unnamed(folder: Path, named: Iterable[Path]) -> str | None:
    """A file that a run would read, and that nothing vouches for."""
    read = {p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json")}
    more = sorted(read - {folder / NAME} - set(named))
    return f"{more[0].relative_to(folder)} is not in {NAME}" if more else None


def _other(folder: Path, wanted: Mapping[Path, str], found: Iterator[str]) -> str | None:
    """The first file whose checksum is another one."""
    for path, digested in wanted.items():
        try:
            now = next(found)
        except (OSError, BadFile) as error:  # a bad sector
            return f"{path.relative_to(folder)}: {error}"
        if now != digested:
            return f"{path.relative_to(folder)} is not what was written"
    return None


def _sized(folder: Path, path: Path, wanted: int) -> str | None:
    """What is wrong with a file of a folder by name and size; OSError for what is no name."""
    if folder not in path.parents or ".." in path.relative_to(folder).parts:
        return f"{NAME} names {path}, which is no part of it"
    if not path.is_file():
        return f"{path.relative_to(folder)} is missing"
    size = path.stat().st_size
    if size != wanted:
        return f"{path.relative_to(folder)} has {size} bytes instead of {wanted}"
    return None
