"""The studio as a process of its own, and what a person does on its pages."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import helpers

Open = Callable[..., Any]
SHOTS = os.environ.get("WASSILY_SHOTS")  # a folder for pictures of the pages
PATIENCE = 200  # seconds that anything may take; where it is there sooner, nobody waits
BUTTONS = ("draw-go", "compare-go", "train-start", "data-go")  # of the tabs
QUEUE = "/gradio_api/queue/"


@dataclass
class Studio:
    """A studio that runs, the folders it was given, and what its pages asked of others.

    `address` is that of the English page, without the token.
    """

    address: str
    token: str
    runs: Path
    data: Path
    process: subprocess.Popen[str]
    elsewhere: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rstrip("/").rpartition(":")[2])

    @property
    def cookie(self) -> str:
        """What a browser sends after its first visit."""
        return f"wassily-studio-{self.port}={self.token}"


@contextlib.contextmanager
def running_studio(runs: Path, data: Path, *words: str) -> Iterator[Studio]:
    """`wassily studio` on a free port, once it says where it is; ended by Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "wassily", "studio"),
            *("--runs", runs, "--data", data, "--port", "0", *words),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=helpers.clean_environment(),
        cwd=runs.parent,
    )
    assert process.stdout is not None
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if line.startswith("the studio is at "):
                address, _, token = line.split()[4].partition("?token=")
                yield Studio(address, token, runs, data, process)
                process.send_signal(signal.SIGINT)
                assert process.wait(PATIENCE) in (0, 130, -signal.SIGINT, 143)
                return
        raise AssertionError("".join(said))
    finally:
        process.kill()  # where a test failed


class Pending:
    """What a page asked and has not heard yet: gradio asks by `join`, and hears by `data`."""

    def __init__(self, page: Any):
        self._open: set[Any] = set()
        self.owed = False
        self.heard = 0  # how often it has heard the end of all that it waited for
        self._before: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        page.on("request", self._begun)
        page.on("requestfinished", self._ended)
        page.on("requestfailed", self._ended)  # the page itself closes what it has heard
        page.on("framenavigated", self._left)

    def __bool__(self) -> bool:
        return bool(self._open) or self.owed

    def _begun(self, request: Any) -> None:
        if QUEUE in request.url:
            self._open.add(request)
            self.owed = True
            self._before[request] = self.heard

    def _ended(self, request: Any) -> None:
        """Of several that are asked at once the last answer may come before the last question
        is done with; where it has not come, the page listens again.
        """
        if request not in self._open:  # no question, or one of the page before
            return
        self._open.discard(request)
        if f"{QUEUE}data" in request.url:
            self.heard, self.owed = self.heard + 1, False
        elif self._before.get(request) == self.heard:
            self.owed = True

    def _left(self, frame: Any) -> None:
        """Nobody answers a page that is gone."""
        self._open.clear()
        self.owed = False


_pending: WeakKeyDictionary[Any, Pending] = WeakKeyDictionary()


def listen(page: Any) -> None:
    """To what it asks, for `settle`."""
    _pending[page] = Pending(page)


def settle(page: Any) -> None:
    """Wait until it has heard all that it asked, and asks nothing more because of that."""
    end, quiet = time.monotonic() + PATIENCE, 0
    while quiet < 3:
        quiet = 0 if _pending[page] else quiet + 1
        assert time.monotonic() < end, "the page still waits for an answer"
        page.wait_for_timeout(100)


def tab(page: Any, number: int) -> None:
    """Show the tab of this number: draw, compare, train, data."""
    tabs = page.locator("#tabs [role=tab]:visible")
    if (shown := tabs.count()) > number:
        tabs.nth(number).click()
    else:  # no room for it: it is in the menu behind
        page.locator("#tabs .overflow-menu > button").click()
        page.locator("#tabs .overflow-dropdown button").nth(number - shown).click()
    page.locator(f"#{BUTTONS[number]}").wait_for()
    if BUTTONS[number] == "train-start":  # it asks for the command last
        page.locator("#command pre, #command [role=alert]").first.wait_for()
    settle(page)


def choose(page: Any, name: str, *shown: str) -> None:
    """Choose what a dropdown shows by these words."""
    for words in shown:
        page.locator(f"#{name} input").click()
        page.get_by_role("option", name=words, exact=True).click()
    page.keyboard.press("Escape")
    page.get_by_role("option").first.wait_for(state="hidden")  # before another list opens


def wait_for(holds: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What it gives, as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
    return found


def shot(page: Any, name: str) -> None:
    """A picture of the whole page, where somebody wants to look at it."""
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)
