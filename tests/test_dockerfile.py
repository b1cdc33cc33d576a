"""The Dockerfile, read and, by `make slow`, built without Docker; that installs packages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import ROOT

from tools import dockerfile_check as check

STEPS = check.instructions((ROOT / "Dockerfile").read_text("utf-8"))
LET_IN = check.allowed((ROOT / ".dockerignore").read_text("utf-8"))


def values(word: str) -> list[str]:
    """Of the instructions of one keyword."""
    return [value for found, value in STEPS if found == word]


def test_joined_lines() -> None:
    """Comments and continued lines, also with a comment between."""
    text = "# one\nRUN a \\\n    && b \\\n# two\n    && c\nUSER x\n"
    assert check.instructions(text) == [("RUN", "a && b && c"), ("USER", "x")]
    assert list(check.commands("a 'b c' && d")) == [["a", "b c"], ["d"]]
    with pytest.raises(SystemExit, match="only && is understood"):
        list(check.commands("a | b"))


def test_what_the_image_is() -> None:
    """A CUDA runtime, a user that is not root, volumes that this user owns, one entry point."""
    (base,) = values("FROM")
    assert base.startswith("nvidia/cuda:") and "-runtime-" in base
    assert values("USER") == ["wassily"] and STEPS.index(("USER", "wassily")) > len(STEPS) - 6
    volumes = json.loads(values("VOLUME")[0])
    made = next(words for run in values("RUN") for words in check.commands(run) if "mkdir" in words)
    owned = next(
        words for run in values("RUN") for words in check.commands(run) if "chown" in words
    )
    assert made[-2:] == owned[-2:] == volumes == ["/cache", "/runs"]
    env = dict(value.split("=", 1) for value in values("ENV"))
    assert env["HF_HOME"].startswith("/cache/") and env["XDG_CACHE_HOME"] == "/cache"
    assert json.loads(values("ENTRYPOINT")[0]) == ["wassily"]
    assert any("--constraint constraints.txt" in run for run in values("RUN"))


def test_the_context() -> None:
    """All that is copied is let in and there, and nothing else is let in."""
    copied = {source for value in values("COPY") for source in value.split()[:-1]}
    assert copied == LET_IN and all((ROOT / name).exists() for name in copied)


def test_an_ignored_source_is_named(tmp_path: Path) -> None:
    """As Docker would fail there."""
    with pytest.raises(SystemExit, match="LICENSE is not let in"):
        check.Build(tmp_path).take("COPY", "LICENSE ./", {"wassily"})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_its_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An environment of its own, the packages under constraints.txt, the entry point."""
    check.main(["--work", str(tmp_path / "image")])
    out = capsys.readouterr().out
    assert "usage: wassily COMMAND" in out
    # The versions and caches of the image, not those of this environment.
    assert str(tmp_path / "image" / "cache") in out
    assert "left out: apt-get update" in out and "left out: chown" in out
