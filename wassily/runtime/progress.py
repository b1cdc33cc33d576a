"""How far something is, and the time left: a bar on a screen, plain lines where there is none."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TextIO

from tqdm import tqdm


def write(line: str) -> None:
    """Print a line without cutting through a bar."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def is_screen(stream: TextIO) -> bool:
    """Whether a bar shows there: a terminal, and not one that says it is 0 columns wide."""
    if not stream.isatty():
        return False
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):  # no file: it is a terminal as far as it says
        return True


class Progress:
    """A bar with time left on a terminal; a plain line now and then where there is none."""

    FIRST, EVERY = 5.0, 30.0  # seconds to the first plain line, and between those after it

    def __init__(
        self, what: str, total: int, done: int = 0, shown: bool = True, unit: str = "step"
    ):
        self.what, self.total, self.done, self.shown = what, total, done, shown
        terminal = shown and is_screen(sys.stderr)
        self.bar = tqdm(
            total=total, initial=done, desc=what, unit=unit, disable=not terminal, smoothing=0.1
        )
        self.plain = shown and not terminal
        self.started, self.first = time.monotonic(), done
        self.due = self.started + self.FIRST  # when the next plain line comes
        self.rested = 0.0
        self.notes: dict[str, object] = {}

    def advance(self, count: int = 1) -> None:
        """`count` more are done."""
        self.done += count
        self.bar.update(count)
        now = time.monotonic()
        if self.plain and now >= self.due:
            self.due = now + self.EVERY
            left = self.worked() / (self.done - self.first) * (self.total - self.done)
            notes = "".join(f", {k} {v}" for k, v in self.notes.items())
            took = timedelta(seconds=round(left))
            print(f"{self.what}: {self.done} of {self.total}{notes}, {took} left", flush=True)

    def worked(self) -> float:
        """Seconds since the beginning, without those of `resting`."""
        return time.monotonic() - self.started - self.rested

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Inside nothing is advanced, and no rate or time left counts the time."""
        begun = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - begun
            self.rested += took
            if not self.bar.disable:
                self.bar.last_print_t += took  # its rate is of what was done since

    def note(self, **values: object) -> None:
        """Values to show beside the bar."""
        self.notes |= values
        self.bar.set_postfix(self.notes)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()


@contextlib.contextmanager
def progress(what: str, total: int, shown: bool = True, unit: str = "it") -> Iterator[Progress]:
    """A Progress that closes by itself."""
    bar = Progress(what, total, shown=shown, unit=unit)
    try:
        yield bar
    finally:
        bar.close()
