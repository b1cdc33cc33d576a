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
    """The output folder of one training, and the studio's files about it: its process, the lock of
    its start, its output.
    """

    folder: Path
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
    """The process of the training of an output folder below the runs, whether it lives or not.

    Raises ValueError for a name that is no UTF-8.
    """
    place = folder.relative_to(allowed.runs)
    return TrainingProcess(folder, allowed.trainings / quote(place.as_posix(), safe=""))


def start(own: TrainingProcess, words: list[str]) -> int:
    """`wassily WORDS` in a session of its own, which outlives this process; its number.

    Raises UserError if this training runs, or the disk refuses.
    """
    with _files():
        own.stem.parent.mkdir(parents=True, exist_ok=True)
        if own.stem.parent.is_symlink():
            raise UserError(f"{own.stem.parent}: a link, and the studio writes into it. Remove it.")
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
    return _living(record_of(own)) is not None


def _living(record: dict[str, object]) -> int | None:
    """The number of the process of a record, None where it does not live."""
    _children[:] = [child for child in _children if child.poll() is None]  # no zombies
    number, words = record.get("process"), record.get("words")
    # 1 is the first process of the machine, and a number below it addresses a group of processes.
    if type(number) is not int or number < 2 or not isinstance(words, list):
        return None
    return number if platforms.words_of(number)[1:] == _line(words) else None


def stop(own: TrainingProcess) -> None:
    """Have it finish its step, save and end; a second time changes nothing.

    Raises UserError if it does not run, or if neither this studio started the process of the record
    nor that process holds the lock of the output folder: the record may be a stranger's.
    """
    record = record_of(own)
    number = _living(record)
    if number is None:
        raise UserError("this training does not run, or was not started here")
    started_here = number in [child.pid for child in _children]
    if not started_here and lock.holder(own.folder) != number:
        raise UserError(
            f"{own.folder}: the process {number} does not write there yet. Try again in a minute."
        )
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
