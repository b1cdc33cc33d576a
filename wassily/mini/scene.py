"""A scene: the shapes of an image of `mini` and their places."""

from __future__ import annotations

from dataclasses import dataclass

Places = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scene:
    """What a picture shows: `count` equal shapes, their places in units of its side."""

    shape: str
    colour: str
    background: str
    size: str = "large"
    count: int = 1
    fill: str = "plain"
    style: str = "flat"
    places: Places = ((0.5, 0.5),)
    scale: float = 1.0

    @property
    def triple(self) -> tuple[str, str, str]:
        """The (shape, colour, background) by which the world is split."""
        return self.shape, self.colour, self.background
