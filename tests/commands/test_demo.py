"""`wassily demo`."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import run_cli

from wassily.commands import demo
from wassily.config.commands import DemoConfig
from wassily.mini import judge, world

PROMPTS = 32  # held-out ones; the card has the figures for 256


@pytest.mark.parametrize("language", ["en", "ar"])
def test_it_draws_what_it_is_told(language: str) -> None:
    """Combinations that it never saw in training, scored by the judge."""
    jobs = world.prompts(3, PROMPTS, language=language)
    drawn = demo.drawn_with("mini", "mini", "mini", {"old": jobs}, DemoConfig())["old"]
    scores = judge.score(drawn, [scene for _, scene in jobs])
    assert scores["colour"] >= 0.9
    assert scores["background"] >= 0.9
    assert scores["count"] >= 0.85
    assert scores["shape"] >= 0.7


def test_the_demo_replaces_only_what_a_demo_wrote(tmp_path: Path) -> None:
    """Someone's runs and captions stay; a path that cannot be made is one line."""
    mine = tmp_path / "runs" / "prior" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    for flag, folder in (
        ("--output_dir", mine.parents[1]),
        ("--write_data", mine.parent),
        ("--output_dir", mine),
        ("--write_data", mine),
    ):
        done = run_cli("demo", flag, folder, "--pictures", 2)
        assert done.code == 2
        assert done.err.startswith(f"wassily: error: {flag} {folder}: ")
        assert done.err.count("\n") == 1
    assert mine.read_text() == "precious"
    assert demo.made_room("output_dir", tmp_path / "new", demo.MARK).is_dir()
    (tmp_path / "new" / demo.MARK).touch()
    assert demo.made_room("output_dir", tmp_path / "new", demo.MARK).is_dir()
