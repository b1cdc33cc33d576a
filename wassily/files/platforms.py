"""Differences between operating systems: stop signals, detached processes, the flush to the disk.

Only Linux was tried. Windows and macOS follow the documentation of Python.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

import psutil

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # no system has all of them
LARGEST = 2**31 - 1  # of a process number
STARTING = 100  # hundredths of a second in which a started program gets its words
# subprocess.CREATE_NEW_PROCESS_GROUP, which that module has on Windows alone. It is not imported
# here, because only one file of the package may start a process.
NEW_PROCESS_GROUP = 0x200


def stop_signals() -> list[signal.Signals]:
    """Signals after which a run saves and ends. Under nohup, which ignores SIGHUP, without it."""
    found = [signal.Signals[name] for name in STOPPING if name in signal.Signals.__members__]
    return [n for n in found if n.name != "SIGHUP" or signal.getsignal(n) != signal.SIG_IGN]


def hung_up(number: int) -> bool:
    """Whether a signal says that the terminal is gone: the kernel and the shell each send one."""
    return number == getattr(signal, "SIGHUP", None)


def drop_lost_terminal() -> None:
    """Send the output of a closed terminal to nowhere, so that a print cannot end the run."""
    for handle in (1, 2):
        with contextlib.suppress(OSError):
            # A terminal that was hung up is still a device, but does not answer as a terminal.
            if stat.S_ISCHR(os.fstat(handle).st_mode) and not os.isatty(handle):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, handle)
                os.close(nowhere)


def detached() -> dict[str, Any]:
    """Arguments of `subprocess.Popen` for a process that the end of this terminal does not end."""
    if sys.platform == "win32":
        return {"creationflags": NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def ask_to_stop(process: int) -> None:
    """Have a `detached` process save and end. Raises ProcessLookupError where it has ended."""
    if sys.platform == "win32":  # where os.kill with SIGTERM ends a process at once
        os.kill(process, signal.CTRL_BREAK_EVENT)
    else:
        os.kill(process, signal.SIGTERM)


def is_alive(process: object) -> bool:
    """Whether a process of this machine has this number; never for a value that is no number."""
    # A number below 1 addresses a group of processes, and True is 1.
    number = process if isinstance(process, int) and not isinstance(process, bool) else 0
    return 0 < number <= LARGEST and psutil.pid_exists(number)


def words_of(process: object) -> list[str]:
    """The command line of a living process of this user; empty for any other value."""
    if not isinstance(process, int) or not is_alive(process):
        return []
    try:
        found = psutil.Process(process)
        for _ in range(STARTING):
            # A program that has just been started has no words for a moment, and a zombie never.
            if (words := found.cmdline()) or found.status() == psutil.STATUS_ZOMBIE:
                return words
            time.sleep(0.01)
    except psutil.Error:  # ended just now, or another user's
        pass
    return []


def total_memory() -> int:
    """Bytes of main memory in this machine."""
    return int(psutil.virtual_memory().total)


def flush(path: Path) -> None:
    """Have a file or folder on the disk before anything else happens. Raises OSError."""
    windows = sys.platform == "win32"
    if windows and path.is_dir():
        return  # Windows opens no folder as a file, and flushes no handle that only reads
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
