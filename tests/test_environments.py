"""What `make package`, `lowest` and `trackers` ask pip for; the environments are made by hand."""

from __future__ import annotations

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
    assert set(environments.TRACKERS) <= set(project["optional-dependencies"])
    for name in environments.LOWEST_TESTS.split():
        assert (ROOT / "tests" / f"test_{name}.py").is_file(), name
    assert "package lowest trackers: $(STAMP)" in (ROOT / "Makefile").read_text("utf-8")


def test_a_fault_ends_it(capfd: pytest.CaptureFixture[str]) -> None:
    """With what failed, and its exit code."""
    with pytest.raises(SystemExit, match="false gave exit code 1"):
        environments.run("false")
    assert environments.run("echo", "yes", quiet=True) == "yes\n"
