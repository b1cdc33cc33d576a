"""What `make package`, `lowest`, `trackers` and `browser` ask pip for; they are run by hand."""

from __future__ import annotations

import argparse
import re

import pytest
from helpers import ROOT

from tools import environments


def test_lower_bounds_are_exact() -> None:
    """Each range becomes its least version; markers stay, and nothing is left open."""
    found = environments.lower_bounds(["a>=1.2", "b>=2; python_version < '3.11'"])
    assert found == ["a==1.2", "b==2; python_version < '3.11'"]
    real = environments.lower_bounds(environments.project()["dependencies"])
    assert all(re.match(r"[\w-]+==[\d.]+(;|$)", one) for one in real)


def test_what_is_named_is_there() -> None:
    """Extras, test files, make's targets, and the files of the sdist."""
    project = environments.project()
    assert {*environments.TRACKERS, "studio"} <= set(project["optional-dependencies"])
    assert list((ROOT / "tests" / "browser").glob("test_*.py"))
    for name in environments.LOWEST_TESTS.split():
        assert len(list((ROOT / "tests").rglob(f"test_{name}.py"))) == 1, name
    assert "package lowest trackers browser: $(STAMP)" in (ROOT / "Makefile").read_text("utf-8")


def test_no_chromium_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is installed."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(SystemExit, match="no Chromium here: install it"):
        environments.browser(argparse.Namespace(work=None, more=[]))


def test_a_fault_ends_it(capfd: pytest.CaptureFixture[str]) -> None:
    """With what failed, and its exit code."""
    with pytest.raises(SystemExit, match="false gave exit code 1"):
        environments.run("false")
    assert environments.run("echo", "yes", quiet=True) == "yes\n"
