"""Files and folders that are complete or absent: written aside, flushed, renamed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from wassily.errors import UserError
from wassily.files import checksums, lock, platforms, reading

ASIDE = ".writing-"
OLD = f"{ASIDE}old-"  # what a folder is called while another takes its place


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder by `write(temporary)`, seal it, flush it to the disk, name it in one rename.

    Raises OSError; then what was half-written is gone, and a folder that stood there still stands.
    """
    # Beside it: a rename across file systems would be a copy.
    aside = folder.parent / f"{ASIDE}{folder.name}"
    remove(aside)
    aside.mkdir()
    try:
        with system_errors(folder):
            write(aside)
        # Before the rename: a folder under its name has its checksums and is on the disk, so that
        # a power cut leaves no name without content.
        checksums.seal(aside)
        flush(aside)
    except Exception:
        shutil.rmtree(aside, ignore_errors=True)  # a full disk wants its room back
        raise
    if os.path.lexists(folder):
        # Renaming onto a full folder is not possible: step the old one aside first.
        old = folder.parent / f"{OLD}{folder.name}"
        remove(old)
        folder.rename(old)
        try:
            aside.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        remove(old)
    else:
        aside.rename(folder)
    platforms.flush(folder.parent)  # the rename is an entry of that folder


@contextlib.contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Within, the system's errors that safetensors wraps are OSErrors of a path: a full disk is
    known.
    """
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(str(error)) from error
        code = int(number[1])
        # On Windows the number is one of its own, which the fourth place translates.
        raise OSError(code, os.strerror(code), str(path), code) from error


# ---------------------------------------------------------------- files


@contextlib.contextmanager
def writing(path: Path, new: bool = False) -> Iterator[BinaryIO]:
    """A file to write into, which is whole under its name afterwards, or not there.

    A link under that name is replaced, never followed. With `new` nothing is replaced: raises
    FileExistsError where the name was taken meanwhile. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    try:
        with open(os.open(aside, _NEW, 0o666), "wb") as file:
            yield file
        platforms.flush(aside)
        _named(aside, path) if new else aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


# A name that another one made, a link above all, is no place to write into.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def _aside(path: Path) -> Path:
    """A name beside a path that nobody else has: two may be writing the same file, and a killed
    run or a stranger may have left something there.
    """
    aside = path.parent / f"{ASIDE}{path.name}"
    return path.parent / f"{aside.name}.{uuid.uuid4().hex[:8]}" if os.path.lexists(aside) else aside


def _named(aside: Path, path: Path) -> None:
    """Give a file its name, if nobody else has it yet. Raises FileExistsError."""
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: take the name first
        os.close(os.open(path, _NEW, 0o666))
        aside.replace(path)


def write_text(path: Path, text: str) -> None:
    """A text file that is whole or not there. Raises OSError."""
    with writing(path) as file:
        file.write(text.encode("utf-8"))


def append_text(path: Path, text: str) -> None:
    """More of a text file of this folder's own. Raises UserError for a link, OSError."""
    handle = lock.opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with open(handle, "ab") as file:
        file.write(text.encode("utf-8"))


def copy(source: Path, path: Path) -> None:
    """A copy of a file that is whole or not there. Raises BadFile, OSError."""
    with reading.opened(source, source.parent) as old, writing(path) as file:
        shutil.copyfileobj(old, file)


def emptied(path: Path) -> int:
    """The handle of a new, empty file in the place of what stood there. Raises OSError."""
    remove(path)
    return os.open(path, _NEW, 0o666)


def remove(path: Path) -> None:
    """Remove a folder with its content, a file, or a link without what it leads to; or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_own(folders: Iterable[Path]) -> None:
    """Raise UserError for a link among folders that are written into, and for one in them to a
    folder elsewhere. Links to files are no matter: a file is replaced, not written into.
    """
    for folder in folders:
        below = folder.rglob("*") if folder.is_dir() and not folder.is_symlink() else ()
        out = (p for p in below if p.is_symlink() and p.is_dir())
        fault = folder if folder.is_symlink() else None
        fault = fault or next((p for p in out if not reading.is_inside(p, folder)), None)
        if fault is not None:
            raise UserError(f"{fault}: a link, and a run writes there. Remove it.")


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], notes: dict[str, str] | None = None
) -> None:
    """A safetensors file, with notes in its header, that is whole or not there. Raises OSError."""
    aside = _aside(path)
    try:
        with system_errors(path):
            save_file(tensors, aside, metadata=notes)
        platforms.flush(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def open_tensors(path: Path) -> Any:
    """A safetensors file to read from piece by piece, through a memory map. Raises BadFile,
    OSError.
    """
    reading.check_file(path)
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of a safetensors file, and the notes in its header. Raises UserError."""
    reading.check_file(path)
    try:
        with safe_open(path, "pt") as file:
            names, notes = file.keys(), file.metadata() or {}
            return {name: file.get_tensor(name) for name in names}, notes
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: {error}") from error


def read_notes(path: Path) -> dict[str, str]:
    """The notes in the header of a safetensors file, without its tensors. Raises UserError."""
    reading.check_file(path)
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: {error}") from error


def flush(folder: Path) -> None:
    """Every file and folder below, to the disk."""
    for path in sorted(folder.rglob("*")):
        platforms.flush(path)
    platforms.flush(folder)


def sweep(output_dir: Path) -> None:
    """Remove what a killed run left half-written; a folder that was being replaced, and was out of
    its place just then, is put back.
    """
    if not output_dir.is_dir():
        return
    for old in output_dir.glob(f"{OLD}*"):
        folder = output_dir / old.name.removeprefix(OLD)
        if not os.path.lexists(folder):
            old.rename(folder)
    for path in output_dir.glob(f"{ASIDE}*"):
        remove(path)
