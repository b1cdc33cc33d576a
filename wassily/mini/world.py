"""The little world that `mini` knows: pictures of coloured shapes, and captions in two languages.

A `Scene` says what is to be seen; `draw` turns it into a picture, `caption` into a sentence. All of
it follows from a seed. A tenth of the (shape, colour, background) triples is never trained on.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

from wassily.mini.language import sentence
from wassily.mini.scene import Places, Scene

T = TypeVar("T")

SIZE = 32  # pixels a side: the size at which `mini` draws
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
NEW_SHAPE = "zorb"
SIZES = ("small", "medium", "large")
FILLS = ("plain", "striped")
STYLES = ("flat", "inked")
KINDS = ("world", "inked", "zorb")
COLOURS = {
    "red": (214, 30, 38),
    "orange": (250, 138, 20),
    "yellow": (250, 226, 54),
    "green": (34, 150, 58),
    "blue": (32, 76, 212),
    "purple": (128, 44, 172),
    "pink": (250, 156, 194),
    "brown": (122, 70, 32),
    "black": (22, 22, 22),
    "white": (248, 248, 248),
    "grey": (138, 138, 138),
    "turquoise": (48, 204, 204),
}
BACKGROUNDS = ("white", "black", "grey", "blue", "green", "yellow", "pink", "turquoise")
RADIUS = {"small": 5.4 / 32, "medium": 7.1 / 32, "large": 10.6 / 32}  # of the picture's side
COUNTS_OF = {"small": (1, 2, 3), "medium": (1, 2), "large": (1,)}  # what fits side by side
FILLS_OF = {"small": FILLS[:1], "medium": FILLS, "large": FILLS}  # stripes need some room
INK = (8, 8, 8)
INK_WIDTH = 1.6 / 32
STRIPE = 2 / 32  # width of one stripe
REACH = 1.06  # how far the shapes go to the sides, in radii
CORNER = 1.12  # how far their corners go
GAP = 1.2 / 32
MIN_CONTRAST = 75  # between a stripe and the background, Euclidean, of 0..255
SUPERSAMPLING = 6


def is_held_out(shape: str, colour: str, background: str) -> bool:
    """True for the tenth of all triples that is never trained on; the same on every machine."""
    return zlib.crc32(f"{shape}/{colour}/{background}".encode()) % 10 == 3


def stripe_colour(colour: str) -> tuple[int, int, int]:
    """The second colour of a striped shape: (r, g, b), lighter for dark colours, else darker."""
    rgb = np.array(COLOURS[colour], float)
    light = rgb @ (0.299, 0.587, 0.114) > 125
    mixed = rgb * 0.45 if light else rgb + (255 - rgb) * 0.55
    red, green, blue = mixed.round().astype(int).tolist()
    return red, green, blue


@cache
def outlines(shape: str) -> tuple[np.ndarray, ...]:
    """Outer and inner polygons of a shape, each (N, 2), in radii around its centre, y downwards."""
    inner = {"ring": 0.52, "zorb": 0.33}
    outer = {
        "circle": _wheel(0.97),
        "ring": _wheel(1.0),
        "square": _box(0.8, 0.8),
        "triangle": np.array([(0, -0.95), (1.02, 0.85), (-1.02, 0.85)]),
        "star": _star(),
        "zorb": _star(inner=0.68),
        "cross": _cross(1.0, 0.34),
    }[shape]
    return (outer, _wheel(inner[shape])) if shape in inner else (outer,)


def draw(scene: Scene, size: int = SIZE) -> Image.Image:
    """The scene as an RGB picture of size x size pixels, edges smoothed by supersampling."""
    side = size * SUPERSAMPLING
    picture = Image.new("RGB", (side, side), COLOURS[scene.background])
    picture.paste(_fill(scene, side), mask=_stencil(scene, side))
    _ink(picture, scene, INK)
    return picture.reduce(SUPERSAMPLING)


def coverage(scene: Scene, size: int = SIZE) -> np.ndarray:
    """How much of each pixel the shapes, ink included, cover: (size, size) float32 in [0, 1]."""
    stencil = _stencil(scene, size * SUPERSAMPLING)
    _ink(stencil, scene, 255)
    return np.asarray(stencil.reduce(SUPERSAMPLING), np.float32) / 255


def caption(scene: Scene, rng: np.random.Generator, language: str = "en") -> str:
    """One of the sentences that describe the scene; language is "en" or "ar"."""
    return sentence(scene, rng, language)


def scenes(seed: int, n: int, split: str = "train", kind: str = "world") -> list[Scene]:
    """n scenes, a list; split is "train", "held_out" or "all", kind one of KINDS."""
    rng = np.random.default_rng([seed, KINDS.index(kind), zlib.crc32(split.encode())])
    found: list[Scene] = []
    while len(found) < n:
        scene = _random_scene(rng, kind)
        if split == "all" or is_held_out(*scene.triple) == (split == "held_out"):
            found.append(scene)
    return found


def prompts(
    seed: int, n: int, split: str = "held_out", kind: str = "world", language: str = "en"
) -> list[tuple[str, Scene]]:
    """n pairs (prompt, scene) of a split; the scene is what the prompt asks for."""
    rng = np.random.default_rng([seed, 1])
    chosen = scenes(seed, n, split, kind)
    return [(sentence(scene, rng, language, plain=True), scene) for scene in chosen]


def write(
    folder: str | Path, kind: str = "world", n: int = 200, seed: int = 0, size: int = SIZE
) -> Path:
    """Writes n pictures, captioned in both languages, as an image folder with metadata.jsonl."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 2])
    split = "train" if kind == "world" else "all"
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as lines:
        for i, scene in enumerate(scenes(seed, n, split, kind)):
            name = f"{kind}_{i:05d}.png"
            draw(scene, size).save(folder / name)
            text = caption(scene, rng, "ar" if i % 2 else "en")
            lines.write(json.dumps({"file_name": name, "text": text}, ensure_ascii=False) + "\n")
    return folder


def scatter(size: str, count: int, scale: float, rng: np.random.Generator) -> Places:
    """Places for `count` shapes of a size, apart and inside: ((x, y), ...) in [0, 1]."""
    radius = RADIUS[size] * scale
    low = REACH * radius + 0.5 / 32
    while True:
        places = (low + (1 - 2 * low) * rng.random((count, 2))).round(4).tolist()
        pairs = [(a, b) for i, a in enumerate(places) for b in places[:i]]
        if all(math.dist(a, b) > 2 * CORNER * radius + GAP for a, b in pairs):
            return tuple((x, y) for x, y in places)


def visible(colour: str, background: str, fill: str, kind: str = "world") -> bool:
    """Whether all of a shape stands out from what is behind it."""
    if colour == background or (kind == "inked" and "black" in (colour, background)):
        return False
    distance = math.dist(stripe_colour(colour), COLOURS[background])
    return fill == "plain" or distance >= MIN_CONTRAST


def _random_scene(rng: np.random.Generator, kind: str) -> Scene:
    pick = _Picker(rng)
    shape = NEW_SHAPE if kind == "zorb" else pick(SHAPES)
    size = pick(SIZES, (0.45, 0.75, 1))
    count = pick(COUNTS_OF[size])
    fill = pick(FILLS_OF[size], (0.7, 1))
    colour = background = ""
    while not colour or not visible(colour, background, fill, kind):
        colour, background = pick(tuple(COLOURS)), pick(BACKGROUNDS)
    style = "inked" if kind == "inked" else "flat"
    scale = round(0.97 + 0.06 * rng.random(), 3)
    places = scatter(size, count, scale, rng)
    return Scene(shape, colour, background, size, count, fill, style, places, scale)


@dataclass(frozen=True)
class _Picker:
    """Quick draws from short tuples: uniform, or by cumulative weights."""

    rng: np.random.Generator

    def __call__(self, options: Sequence[T], upto: Sequence[float] | None = None) -> T:
        u = self.rng.random()
        if upto is None or len(options) == 1:
            return options[int(u * len(options))]
        return options[sum(u >= edge for edge in upto)]


def _stencil(scene: Scene, side: int) -> Image.Image:
    stencil = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(stencil)
    for points, is_hole in _placed(scene, side):
        pen.polygon(points, fill=0 if is_hole else 255)
    return stencil


def _ink(canvas: Image.Image, scene: Scene, ink: int | tuple[int, int, int]) -> None:
    """Draws a thick line along every edge of an inked scene."""
    if scene.style != "inked":
        return
    pen = ImageDraw.Draw(canvas)
    for points, _ in _placed(scene, canvas.width):
        closed = [*points, *points[:2]]
        pen.line(closed, fill=ink, width=round(INK_WIDTH * canvas.width), joint="curve")


def _placed(scene: Scene, side: int) -> Iterator[tuple[list[tuple[float, float]], bool]]:
    """The scene's polygons in pixels of the canvas, each with whether it is a hole."""
    radius = RADIUS[scene.size] * scene.scale
    for place in scene.places:
        for i, outline in enumerate(outlines(scene.shape)):
            points = (outline * radius + place) * side
            yield [(x, y) for x, y in points.tolist()], i > 0


def _fill(scene: Scene, side: int) -> Image.Image:
    """What shows through the shapes: a plain colour, or upright stripes."""
    if scene.fill == "plain":
        return Image.new("RGB", (side, side), COLOURS[scene.colour])
    width = round(STRIPE * side)
    first = (np.arange(side) // width) % 2 == 0
    row = np.where(first[:, None], COLOURS[scene.colour], stripe_colour(scene.colour))
    return Image.fromarray(np.broadcast_to(row.astype(np.uint8), (side, side, 3)).copy())


def _wheel(radius: float, n: int = 40) -> np.ndarray:
    angle = np.arange(n) * 2 * math.pi / n
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _box(x: float, y: float) -> np.ndarray:
    return np.array([(-x, -y), (x, -y), (x, y), (-x, y)])


def _star(points: int = 5, inner: float = 0.46, outer: float = 1.1) -> np.ndarray:
    angle = np.arange(2 * points) * math.pi / points - math.pi / 2
    radius = np.where(np.arange(2 * points) % 2 == 0, outer, inner)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle) + 0.08], 1)


def _cross(length: float, width: float) -> np.ndarray:
    corner = [(-width, -length), (width, -length), (width, -width)]
    turns = [[(x, y), (-y, x), (-x, -y), (y, -x)] for x, y in corner]
    return np.array([turn[k] for k in range(4) for turn in turns])
