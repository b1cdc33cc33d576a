"""Files and folders that are complete or absent: written aside, flushed, renamed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from wassily.errors import UserError
from wassily.files import checksums, platforms

ASIDE = ".writing-"
OLD = f"{ASIDE}old-"  # what a folder is called while another takes its place


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder by `write(temporary)`, seal it, flush it to the disk, name it in one rename.

    Raises OSError; then what was half-written is gone, and a folder that stood there still stands.
    """
    aside = folder.parent / f"{ASIDE}{folder.name}"
    if aside.exists():
        shutil.rmtree(aside)
    aside.mkdir()
    try:
        with system_errors(folder):
            write(aside)
        checksums.seal(aside)
        flush(aside)
    except Exception:
        shutil.rmtree(aside, ignore_errors=True)  # a full disk wants its room back
        raise
    if folder.exists():
        # Renaming onto a full folder is not possible: step the old one aside first.
        old = folder.parent / f"{OLD}{folder.name}"
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        try:
            aside.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old)
    else:
        aside.rename(folder)
    platforms.flush(folder.parent)


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


def write_text(path: Path, text: str) -> None:
    """A text file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f"{ASIDE}{path.name}"
    aside.write_text(text, encoding="utf-8")
    platforms.flush(aside)
    aside.replace(path)


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], notes: dict[str, str] | None = None
) -> None:
    """A safetensors file, with notes in its header, that is whole or not there. Raises OSError."""
    aside = path.parent / f"{ASIDE}{path.name}"
    try:
        with system_errors(path):
            save_file(tensors, aside, metadata=notes)
        platforms.flush(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def open_tensors(path: Path) -> Any:
    """A safetensors file to read from piece by piece, through a memory map. Raises OSError."""
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of a safetensors file, and the notes in its header. Raises UserError."""
    try:
        with safe_open(path, "pt") as file:
            names, notes = file.keys(), file.metadata() or {}
            return {name: file.get_tensor(name) for name in names}, notes
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: {error}") from error


def read_notes(path: Path) -> dict[str, str]:
    """The notes in the header of a safetensors file, without its tensors. Raises UserError."""
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
        if not folder.exists():
            old.rename(folder)
    for path in output_dir.glob(f"{ASIDE}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
