"""One run for one output folder: a lock that the kernel gives up when the process ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from wassily.errors import UserError

NAME = ".lock"
# What a file system answers that has no locks: some network ones, or without their lock service.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

_mine: set[int] = set()


def _leave_to_the_parent() -> None:
    """A forked reader must not go on holding what its killed parent held."""
    while _mine:
        os.close(_mine.pop())


os.register_at_fork(after_in_child=_leave_to_the_parent)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder's lock. Raises UserError if another run does, OSError if it cannot be made."""
    path = folder / NAME
    handle = _taken(path)
    _mine.add(handle)
    try:
        record = {"process": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(record).encode(), 0)
        yield
    finally:
        if handle in _mine:  # else this is a child of the one that took it
            path.unlink(missing_ok=True)
            _mine.discard(handle)
            os.close(handle)


def _taken(path: Path) -> int:
    """The open, locked file; one that a killed run left there serves as well."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle, path)
        except BaseException:
            os.close(handle)
            raise
        # The run before may have removed the file between our opening and our locking it.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    """Raises UserError if another has the lock, or, where there are no locks, if it may have."""
    record = _record(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"--output_dir {path.parent}: another run is writing there ({_who(record)}); wait for "
            "it, stop it, or name another folder"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        if record and _may_live(record):
            raise UserError(
                f"--output_dir {path.parent}: another run may be writing there ({_who(record)}), "
                f"and this file system has no locks; if it is over, remove {path}"
            ) from None


def _record(handle: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
        return found if isinstance(found, dict) else {}
    except ValueError:
        return {}


def _who(record: dict[str, object]) -> str:
    return f"process {record.get('process', '?')} on {record.get('host', '?')}"


def _may_live(record: dict[str, object]) -> bool:
    """Whether the process of a record is there; of another host that is not known."""
    process = record.get("process")
    if record.get("host") != socket.gethostname() or not isinstance(process, int):
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def is_held(folder: Path) -> bool:
    """Whether a run of this machine, as far as its record tells, is writing into a folder."""
    try:
        handle = os.open(folder / NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        record = _record(handle)
    finally:
        os.close(handle)
    return bool(record) and _may_live(record)
