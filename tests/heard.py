"""The interpreter's own account of the programs, files and connections of a piece of code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.spawn", "os.posix_spawn")
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")

_lists: list[tuple[tuple[str, ...], list[tuple[str, str]]]] = []
_installed: list[bool] = []


def _listen(event: str, values: tuple[Any, ...]) -> None:
    for events, found in _lists:
        if event in events:
            found.append((event, str(values[0]) if values else ""))


@contextlib.contextmanager
def heard(*events: str) -> Iterator[list[tuple[str, str]]]:
    """Within, a list of the audit events of these names, with the first value of each."""
    if not _installed:  # an audit hook cannot be taken off again
        sys.addaudithook(_listen)
        _installed.append(True)
    entry: tuple[tuple[str, ...], list[tuple[str, str]]] = (events, [])
    _lists.append(entry)
    try:
        yield entry[1]
    finally:
        _lists.remove(entry)
