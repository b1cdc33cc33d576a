"""A training as a process of its own: started, told to stop, and found again by a later studio.

The process holds the lock of its ticket for as long as it lives, so whether it runs is asked of the
kernel: a number that was given to another process deceives nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from wassily.errors import UserError
from wassily.studio.fence import Fence

TRIES = 3  # to take a lock
TAIL = 4096  # bytes of the output that are looked at
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Ticket:
    """The files of one training: who it is, what holds its lock, what it said."""

    stem: Path

    @property
    def record(self) -> Path:
        """Its process and its words, as JSON."""
        return self.stem.with_name(self.stem.name + ".json")

    @property
    def lock(self) -> Path:
        """What is locked while it lives."""
        return self.stem.with_name(self.stem.name + ".lock")

    @property
    def output(self) -> Path:
        """What it printed."""
        return self.stem.with_name(self.stem.name + ".txt")


def ticket(fence: Fence, folder: Path) -> Ticket:
    """That of an output folder below the runs."""
    place = folder.relative_to(fence.runs)
    return Ticket(fence.own / "trainings" / quote(str(place), safe=""))


def start(own: Ticket, words: list[str]) -> int:
    """`wassily WORDS` in a session of its own, which outlives this process; its number.

    Raises UserError if one of this ticket runs, or the disk refuses.
    """
    line = [sys.executable, "-m", "wassily", *words]
    with _files():
        own.stem.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(own.lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle)
            with own.output.open("wb") as output:
                child = subprocess.Popen(
                    line,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                    start_new_session=True,
                    pass_fds=(handle,),
                )
            _write(own, {"process": child.pid, "words": words, "stopping": False})
        except BlockingIOError:
            raise UserError("this training runs already") from None
        finally:
            os.close(handle)  # the child keeps it
    _children.append(child)
    return child.pid


def _lock(handle: int) -> None:
    """Raises BlockingIOError if a process holds it for longer than `runs`, which only looks."""
    for _ in range(TRIES):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def _files() -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        raise UserError(f"{error.filename or 'the training'}: {error.strerror or error}") from None


def _write(own: Ticket, value: dict[str, object]) -> None:
    aside = own.record.with_suffix(".writing")
    aside.write_text(json.dumps(value), "utf-8")
    aside.replace(own.record)


def read(own: Ticket) -> dict[str, object]:
    """What `start` wrote; nothing where it never ran."""
    try:
        value = json.loads(own.record.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def runs(own: Ticket) -> bool:
    """Whether the process of a ticket lives."""
    _children[:] = [child for child in _children if child.poll() is None]  # no zombies
    try:
        handle = os.open(own.lock, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def stop(own: Ticket) -> None:
    """Have it finish its step, save and end, by SIGTERM; a second time changes nothing.

    Raises UserError if it does not run.
    """
    record = read(own)
    number = record.get("process")
    if not runs(own) or not isinstance(number, int):
        raise UserError("this training does not run, or was not started here")
    if not record.get("stopping"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGTERM)
        _write(own, record | {"stopping": True})


def last_line(own: Ticket) -> str:
    """The last line that it printed, but for the command to go on with: there is a button."""
    try:
        with own.output.open("rb") as file:
            file.seek(max(0, own.output.stat().st_size - TAIL))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines()]
    return next((n for n in reversed(lines) if n and not n.startswith("go on with: ")), "")
