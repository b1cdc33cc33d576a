"""The checksums of a folder's files, kept beside them: tells a whole folder from a damaged one."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
    with path.open("rb") as file:
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
        held = json.loads((folder / NAME).read_text(encoding="utf-8"))["files"]
        before = any(WHOLE in entry for entry in held.values())
        kind = WHOLE if before else KIND
        wanted = {folder / name: (int(e["bytes"]), str(e[kind])) for name, e in held.items()}
        if not wanted:
            return f"{NAME} names no file"
        lost = next(filter(None, (_sized(folder, *of) for of in wanted.items())), None)
    except FileNotFoundError:
        return f"{NAME} is missing"
    except NONSENSE as error:
        return f"{NAME}: {error!r:.60}"
    if lost:
        return lost
    found = _wholes(wanted) if before else digests(list(wanted))
    for path, (_, digested) in wanted.items():
        try:
            now = next(found)
        except OSError as error:  # a bad sector
            return f"{path.relative_to(folder)}: {error}"
        if now != digested:
            return f"{path.relative_to(folder)} is not what was written"
    return None


def _sized(folder: Path, path: Path, entry: tuple[int, str]) -> str | None:
    """What is wrong with a file of a folder by name and size; OSError for what is no name."""
    if folder not in path.parents or ".." in path.relative_to(folder).parts:
        return f"{NAME} names {path}, which is no part of it"
    if not path.is_file():
        return f"{path.relative_to(folder)} is missing"
    size = path.stat().st_size
    if size != entry[0]:
        return f"{path.relative_to(folder)} has {size} bytes instead of {entry[0]}"
    return None
