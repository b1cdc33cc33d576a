"""When a run saves and when it ends early: Ctrl-C, SIGTERM, a closed terminal, and the clock."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

from wassily.errors import Stopped
from wassily.files import platforms
from wassily.runtime.accelerator import Runtime


class StopSignals:
    """The signals that stop a run, while this is entered: the first ends it by `Stopped`, at once
    or, within `patience`, when the run asks for it; the second ends the process immediately.

    `remark` is what the line says that is left by then.
    """

    def __init__(self, remark: str = "nothing was written"):
        self.remark = remark
        self.caught = 0  # the signal's number
        self.told = 0  # that of another process, whom this one follows
        self._patient, self._process = False, os.getpid()
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            numbers = platforms.stop_signals()
            self._before = {number: signal.signal(number, self._take) for number in numbers}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if platforms.hung_up(number):
            platforms.drop_lost_terminal()
            if self.caught:  # the kernel and the shell each send one: the second is no request
                return
        if self.caught:
            os._exit(128 + number)
        self.caught = number
        if os.getpid() != self._process:
            return  # a forked reader: the step that is to be finished may need it
        if not self._patient:
            self.check()
        if os.environ.get("LOCAL_RANK", "0") in ("0", "-1"):
            # Not by print: the signal may have come in the middle of one.
            name = signal.Signals(number).name
            line = f"\nwassily: {name}: finishing the step, then saving; again leaves at once\n"
            with contextlib.suppress(OSError):  # a closed pipe does not cost the checkpoint
                os.write(2, line.encode())

    @contextlib.contextmanager
    def patience(self) -> Iterator[None]:
        """Only note the first signal; `check` afterwards."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def check(self) -> None:
        """Raise Stopped if a signal has come, here or to another process."""
        number = self.caught or self.told
        if number:
            name = signal.Signals(number).name
            raise Stopped(f"stopped by {name}: {self.remark}", 128 + number)


class SaveSchedule:
    """After which steps a run saves, and after which it stops: on all processes the same ones."""

    def __init__(self, steps: int, minutes: float | None, signals: StopSignals, runtime: Runtime):
        self.steps, self.signals, self.runtime = steps, signals, runtime
        self.seconds = float("inf") if minutes is None else 60 * minutes
        self._saved, self._late = time.monotonic(), 0

    def stop_at(self, done: int) -> bool:
        """Whether any process was told to stop; asked once after each step, before `save_at`."""
        late = time.monotonic() - self._saved > self.seconds
        told, self._late = self.runtime.most(self.signals.caught, int(late))
        self.signals.told = told
        return bool(told)

    def save_at(self, done: int) -> bool:
        """Whether it is time for a checkpoint, by steps or by the clock."""
        due = bool(self._late) or done % self.steps == 0
        if due:
            self._saved = time.monotonic()
        return due
