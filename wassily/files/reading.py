"""Files that may be a stranger's are read here: regular ones, inside their folder, of bounded size.

A pipe would be waited for without end, a device or a link leads elsewhere, and a file of gigabytes
or of a thousand brackets takes the memory. All of that is one error, `BadFile`.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from wassily.errors import UserError

TEXT_LIMIT = 64 * 2**20  # bytes of a log, a card or a configuration; real ones are far smaller
LINE = 2**20  # bytes of a line, or of a caption; a description of an image is far shorter
DEPTH = 100  # levels of lists and tables in JSON, TOML and YAML
# What a damaged or hostile text raises in a parser, whichever it is.
NONSENSE = (OSError, ValueError, RecursionError, MemoryError, OverflowError)

# A pipe would block the open itself. Windows has neither flag, nor pipes among its files.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_FLAGS |= getattr(os, "O_BINARY", 0)


class BadFile(UserError):
    """A file that is not there, is no regular one, leads out of its folder, is too large, or holds
    what cannot be read. The message is `PATH: problem. Fix.`
    """


@contextlib.contextmanager
def opened(path: Path, root: Path | None = None, limit: int | None = None) -> Iterator[BinaryIO]:
    """A regular file, open for reading bytes; `limit` is its largest size in bytes.

    With `root` the file has to be inside that folder once all links are followed. Raises BadFile.
    """
    try:
        if root is not None:
            check_inside(path, root)
        handle = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadFile(f"{path}: {_reason(error)}") from None
    try:
        _check_regular(path, os.fstat(handle), limit)
    except BaseException:
        os.close(handle)
        raise
    with open(handle, "rb") as file:
        yield file


def _check_regular(path: Path, found: os.stat_result, limit: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise BadFile(f"{path}: {kind}, not a file. Remove it.")
    if limit is not None and found.st_size > limit:
        size = f"{found.st_size:,} bytes, the limit is {limit:,}"
        raise BadFile(f"{path}: too large ({size}). Remove it or make it smaller.")


def check_file(path: Path, root: Path | None = None) -> None:
    """Raise BadFile unless a library may open this path: a regular file, inside of `root`."""
    with opened(path, root):
        pass


def check_inside(path: Path, root: Path) -> None:
    """Raise BadFile where a path leads out of a folder once all links are followed."""
    real, folder = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([real, folder]) != folder:
        raise BadFile(f"{path}: a link that leads out of {root}. Copy the file there.")


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path stays in a folder once all links are followed."""
    try:
        check_inside(path, root)
    except NONSENSE:
        return False
    except BadFile:
        return False
    return True


def read_bytes(path: Path, limit: int = TEXT_LIMIT, root: Path | None = None) -> bytes:
    """The content of a file of at most `limit` bytes. Raises BadFile."""
    try:
        with opened(path, root, limit) as file:
            # A file may grow, or a special one of /proc may say that it is empty.
            content = file.read(limit + 1)
    except OSError as error:
        raise BadFile(f"{path}: {_reason(error)}") from None
    if len(content) > limit:
        raise BadFile(f"{path}: too large (over {limit:,} bytes). Remove it or make it smaller.")
    return content


def read_tail(path: Path, size: int, root: Path | None = None) -> bytes:
    """The last `size` bytes of a file, or all where it has fewer. Raises BadFile."""
    try:
        with opened(path, root) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size)
    except OSError as error:
        raise BadFile(f"{path}: {_reason(error)}") from None


def lines(file: BinaryIO, longest: int = LINE) -> Iterator[bytes]:
    """The lines of an open file, with their ends. Of one that is longer than `longest` bytes only
    the beginning is kept, `longest` + 1 bytes of it. Raises OSError.
    """
    while line := file.readline(longest + 1):
        yield line
        while len(line) > longest and not line.endswith(b"\n"):
            line = file.readline(longest + 1)  # the rest, which a caller may not want to wait for


def read_text(path: Path, limit: int = TEXT_LIMIT, root: Path | None = None) -> str:
    """The text of a UTF-8 file, without a byte-order mark. Raises BadFile."""
    try:
        return read_bytes(path, limit, root).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        why = f"{error.reason} at byte {error.start}"
        raise BadFile(f"{path}: not UTF-8 text ({why}). Save it as UTF-8.") from None


def read_json(path: Path, limit: int = TEXT_LIMIT, root: Path | None = None) -> Any:
    """The value of a JSON file, at most DEPTH levels deep. Raises BadFile."""
    text = read_text(path, limit, root)
    try:
        return checked_depth(json.loads(text))
    except NONSENSE as error:
        raise BadFile(f"{path}: not JSON ({_reason(error)}). Fix or remove it.") from None


def read_table(path: Path, limit: int = TEXT_LIMIT, root: Path | None = None) -> dict[str, Any]:
    """The table of a JSON file. Raises BadFile where it holds another value."""
    value = read_json(path, limit, root)
    if not isinstance(value, dict):
        raise BadFile(f"{path}: not a JSON object. Fix or remove it.")
    return value


def read_toml(path: Path, limit: int = TEXT_LIMIT, root: Path | None = None) -> dict[str, Any]:
    """The table of a TOML file, at most DEPTH levels deep. Raises BadFile."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    text = read_text(path, limit, root)
    try:
        return checked_depth(tomllib.loads(text))
    except NONSENSE as error:
        raise BadFile(f"{path}: not TOML ({_reason(error)}). Fix it.") from None


def check_yaml(text: str) -> None:
    """Raise ValueError for YAML with aliases, which a few lines multiply without end, or deeper
    than DEPTH. What is no YAML raises yaml.YAMLError.
    """
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            raise ValueError(f"YAML with the alias *{event.anchor:.50} (line {line}): write it out")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise ValueError(f"YAML more than {DEPTH} levels deep: make it flatter")


def checked_depth(value: Any) -> Any:
    """The same value. Raises ValueError where lists and tables lie deeper than DEPTH."""
    level = [value]
    for _ in range(DEPTH):
        held = [v for v in level if isinstance(v, (dict, list))]
        if not held:
            return value
        level = [one for v in held for one in (v.values() if isinstance(v, dict) else v)]
    raise ValueError(f"more than {DEPTH} levels deep")


def _reason(error: BaseException) -> str:
    """What went wrong, without a path: the message names it already."""
    if isinstance(error, FileNotFoundError):
        return "no such file. Check the name."
    if isinstance(error, OSError):
        return f"{error.strerror or error}. Check the file."
    if isinstance(error, (RecursionError, MemoryError)):
        return f"more than {DEPTH} levels deep"
    return str(error)
