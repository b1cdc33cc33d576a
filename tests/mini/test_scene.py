"""A scene of `mini`."""

from __future__ import annotations

from wassily.mini import world
from wassily.mini.scene import Scene


def test_the_world_is_split_by_the_triple() -> None:
    """Size, number, filling and style do not move a scene to the other side."""
    plain = Scene("star", "red", "white")
    other = Scene("star", "red", "white", "small", 2, "striped", "inked", ((0.2, 0.5), (0.7, 0.5)))
    assert plain.triple == other.triple == ("star", "red", "white")
    assert world.is_held_out(*plain.triple) == world.is_held_out(*other.triple)
