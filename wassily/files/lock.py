"""One run for one output folder: a lock that the system releases when the process ends.

The record in the file names the process and the host that hold the lock. It decides only on a file
system without locks.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import lock_descriptor

from wassily.errors import UserError
from wassily.files import platforms

NAME = ".lock"
# Answers of a file system without locks: some network ones, or those without a lock service.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
TRIES = 3  # `is_held` holds a lock for an instant, which is not a run
PAUSE = 0.02  # seconds between two tries
# No link is followed, and a pipe under the name of a lock does not block. Windows has neither flag.
FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

_mine: set[int] = set()


def _leave_to_the_parent() -> None:
    """A forked reader must not go on holding what its killed parent held."""
    while _mine:
        os.close(_mine.pop())


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_leave_to_the_parent)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder's lock. Raises UserError if another run does or the lock file is a link,
    OSError if it cannot be made.
    """
    path = folder / NAME
    handle = _taken(path)
    _mine.add(handle)
    try:
        record = {"process": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, json.dumps(record).encode())
        yield
    finally:
        if handle in _mine:  # else this is a child of the one that took it
            _mine.discard(handle)
            _release(path, handle)


def _release(path: Path, handle: int) -> None:
    if sys.platform == "win32":  # which removes no open file; another run may have opened it
        os.close(handle)
        with contextlib.suppress(OSError):
            path.unlink()
        return
    try:
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _taken(path: Path) -> int:
    """The open, locked file; one that a killed run left there serves as well."""
    while True:
        handle = opened(path)
        try:
            _lock(handle, path)
        except BaseException:
            os.close(handle)
            raise
        # The run before may have removed the file between our opening and our locking it.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == path.lstat().st_ino:
                return handle
        os.close(handle)


def opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """A handle of a lock file, or of another one that is written in its place. Raises UserError
    for a link, also a hard one, and for all that is not a plain file: its content belongs to
    somebody else. Raises OSError.
    """
    fault = UserError(f"{path}: a link or not a plain file. Remove it.")
    if path.is_symlink():  # for the systems without O_NOFOLLOW
        raise fault
    try:
        handle = os.open(path, flags | FLAGS, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise fault from None
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(handle)
        raise fault
    return handle


def taken(handle: int) -> bool:
    """Lock an open file until it is closed; False if another handle has the lock. Raises OSError
    where there are no locks.
    """
    for _ in range(TRIES - 1):
        if lock_descriptor(handle, blocking=False):
            return True
        time.sleep(PAUSE)
    return lock_descriptor(handle, blocking=False)


def _lock(handle: int, path: Path) -> None:
    """Raises UserError if another has the lock, or, where there are no locks, if it may have."""
    record = _record(handle)
    try:
        free = taken(handle)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        if record and _may_live(record):
            raise UserError(
                f"--output_dir {path.parent}: another run may be writing there ({_who(record)}), "
                f"and this file system has no locks; if it is over, remove {path}"
            ) from None
        return
    if not free:
        raise UserError(
            f"--output_dir {path.parent}: another run is writing there ({_who(record)}); wait for "
            "it, stop it, or name another folder"
        )


def _record(handle: int) -> dict[str, object]:
    """Process and host, as JSON. Its first byte is the locked one, which Windows lets nobody else
    read: it is always a brace.
    """
    try:
        os.lseek(handle, 1, os.SEEK_SET)
        found = json.loads(b"{" + os.read(handle, 4096))
        return found if isinstance(found, dict) else {}
    except (ValueError, RecursionError):
        return {}


def _who(record: dict[str, object]) -> str:
    return f"process {record.get('process', '?')} on {record.get('host', '?')}"


def _may_live(record: dict[str, object]) -> bool:
    """Whether the process of a record is there; of another host that is not known."""
    if record.get("host") != socket.gethostname():
        return True
    return platforms.is_alive(record.get("process"))


def is_held(folder: Path) -> bool:
    """Whether a run is writing into a folder: whether its lock is taken. On a file system without
    locks the record of the run decides.
    """
    try:
        handle = _for_looking(folder / NAME)
    except (OSError, UserError):
        return False
    try:
        record = _record(handle)
        return not taken(handle)
    except OSError:
        return bool(record) and _may_live(record)
    finally:
        os.close(handle)


def _for_looking(path: Path) -> int:
    try:
        return opened(path, os.O_RDWR)  # a lock over NFS needs the right to write
    except PermissionError:
        return opened(path, os.O_RDONLY)
