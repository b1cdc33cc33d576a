"""A training as a process of its own: started, told to stop, and found again by a later studio.

Whether it runs is asked of the system: a process of its number with its words must be there, so a
number that was given to another process deceives nobody. The lock of its files is for its start.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from wassily.errors import UserError
from wassily.files import atomic, lock, platforms, reading
from wassily.files.reading import BadFile
from wassily.studio.allowed_folders import AllowedFolders

TAIL = 4096  # bytes of the output that are looked at
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class TrainingProcess:
    """The files of one training: its process, the lock of its start, its output."""

    stem: Path

    @property
    def record(self) -> Path:
        """Its process and its words, as JSON."""
        return self.stem.with_name(self.stem.name + ".json")

    @property
    def lock(self) -> Path:
        """What is locked while it is started."""
        return self.stem.with_name(self.stem.name + ".lock")

    @property
    def output(self) -> Path:
        """What it printed."""
        return self.stem.with_name(self.stem.name + ".txt")


def process_of(allowed: AllowedFolders, folder: Path) -> TrainingProcess:
    """The process of the training of an output folder below the runs, whether it lives or not."""
    place = folder.relative_to(allowed.runs)
    return TrainingProcess(allowed.own / "trainings" / quote(place.as_posix(), safe=""))


def start(own: TrainingProcess, words: list[str]) -> int:
    """`wassily WORDS` in a session of its own, which outlives this process; its number.

    Raises UserError if this training runs, or the disk refuses.
    """
    with _files():
        own.stem.parent.mkdir(parents=True, exist_ok=True)
        handle = lock.opened(own.lock)
        try:
            if not _alone(handle) or runs(own):
                raise UserError("this training runs already")
            with open(atomic.emptied(own.output), "wb") as output:
                child = subprocess.Popen(
                    [sys.executable, *_line(words)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                    **platforms.detached(),
                )
            _write(own, {"process": child.pid, "words": words, "stopping": False})
        finally:
            os.close(handle)
    _children.append(child)
    return child.pid


def _line(words: list[str]) -> list[str]:
    """What stands behind the interpreter."""
    return ["-m", "wassily", *words]


def _alone(handle: int) -> bool:
    """Whether no other studio is starting this training; where there are no locks, the run's own
    record in its output folder refuses the second.
    """
    try:
        return lock.taken(handle)
    except OSError:
        return True


@contextlib.contextmanager
def _files() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or 'the training'}: {error.strerror or error}") from None


def _write(own: TrainingProcess, value: dict[str, object]) -> None:
    atomic.write_text(own.record, json.dumps(value))


def record_of(own: TrainingProcess) -> dict[str, object]:
    """The record that `start` wrote; empty where it never ran."""
    try:
        return reading.read_table(own.record, root=own.record.parent)
    except BadFile:
        return {}


def runs(own: TrainingProcess) -> bool:
    """Whether the process of a training lives."""
    _children[:] = [child for child in _children if child.poll() is None]  # no zombies
    record = record_of(own)
    words = record.get("words")
    return isinstance(words, list) and platforms.words_of(record.get("process"))[1:] == _line(words)


def stop(own: TrainingProcess) -> None:
    """Have it finish its step, save and end; a second time changes nothing.

    Raises UserError if it does not run.
    """
    record = record_of(own)
    number = record.get("process")
    if not runs(own) or not isinstance(number, int):
        raise UserError("this training does not run, or was not started here")
    if not record.get("stopping"):
        with contextlib.suppress(ProcessLookupError):
            platforms.ask_to_stop(number)
        _write(own, record | {"stopping": True})


def last_line(own: TrainingProcess) -> str:
    """The last line that it printed, but for the command to go on with: there is a button."""
    try:
        tail = reading.read_tail(own.output, TAIL, own.output.parent)
    except BadFile:
        return ""
    text = tail.decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines()]
    return next((n for n in reversed(lines) if n and not n.startswith("go on with: ")), "")
