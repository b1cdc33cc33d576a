"""The checksums of a folder's files, kept beside them: tells a whole folder from a damaged one."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NAME = "manifest.json"
READERS = 4  # threads; hashing does not hold the interpreter
# What reading a manifest that is none raises; the last two of numbers and nesting without end.
NONSENSE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def digest(path: Path) -> str:
    """BLAKE2b of a file's bytes, 32 of them, in hexadecimal. Raises OSError."""
    state = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            state.update(chunk)
    return state.hexdigest()


def seal(folder: Path) -> None:
    """Write the size and the checksum of every file below. Raises OSError."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / NAME)
    with ThreadPoolExecutor(READERS) as pool:
        digests = list(pool.map(digest, files))
    held = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "blake2b": found}
        for file, found in zip(files, digests, strict=True)
    }
    (folder / NAME).write_text(json.dumps({"files": held}, indent=2), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """The first file of a sealed folder that is not as it was, and how; None if all are."""
    try:
        held = json.loads((folder / NAME).read_text(encoding="utf-8"))["files"]
        wanted = {folder / name: (int(e["bytes"]), str(e["blake2b"])) for name, e in held.items()}
        if not wanted:
            return f"{NAME} names no file"
        lost = next(filter(None, (_sized(folder, *of) for of in wanted.items())), None)
    except FileNotFoundError:
        return f"{NAME} is missing"
    except NONSENSE as error:
        return f"{NAME}: {error!r:.60}"
    if lost:
        return lost
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(_digest_or_error, wanted)
        for (path, (_, digested)), now in zip(wanted.items(), found, strict=True):
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


def _digest_or_error(path: Path) -> str:
    try:
        return digest(path)
    except OSError as error:  # a bad sector
        return str(error)
