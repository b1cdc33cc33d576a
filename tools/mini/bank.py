"""The training pictures of `mini`, drawn once and kept in one file."""

import json
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wassily.mini import world

ATTRIBUTES = {
    "shape": world.SHAPES,
    "colour": tuple(world.COLOURS),
    "background": world.BACKGROUNDS,
    "size": world.SIZES,
    "count": (1, 2, 3),
    "fill": world.FILLS,
}
CHUNK = 4000
MASK = 16  # side of the coverage maps
CAPTIONS = 2  # in each language


@dataclass(frozen=True)
class Bank:
    """pictures (N, 32, 32, 3) uint8, masks (N, 16, 16) uint8, labels (N, 6) ints, texts N lists."""

    pictures: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    texts: list[list[str]]


def labels_of(scene):
    """The scene's place in each list of ATTRIBUTES: (6,) ints."""
    return [values.index(getattr(scene, name)) for name, values in ATTRIBUTES.items()]


def make(seed, n, split="train"):
    """Draws n scenes of a split."""
    rng = np.random.default_rng([seed, 3])
    scenes = world.scenes(seed, n, split)
    pictures = np.stack([np.asarray(world.draw(s)) for s in scenes])
    masks = np.stack([world.coverage(s, MASK) for s in scenes])
    texts = [[world.caption(s, rng, w) for w in ("en", "ar") * CAPTIONS] for s in scenes]
    labels = np.array([labels_of(s) for s in scenes])
    return Bank(pictures, (masks * 255).astype(np.uint8), labels, texts)


def load(folder, seed, n, split="train"):
    """The bank of (seed, n, split), drawn on two cores the first time."""
    path = Path(folder) / f"bank_{split}_{seed}_{n}.npz"
    if not path.exists():
        jobs = [(seed * 1000 + i, min(CHUNK, n - i * CHUNK), split) for i in range(-(-n // CHUNK))]
        with Pool(2) as pool:
            parts = pool.starmap(make, jobs)
        stacked = {k: np.concatenate([getattr(p, k) for p in parts]) for k in ARRAYS}
        texts = json.dumps([t for p in parts for t in p.texts], ensure_ascii=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".part"), "wb") as file:
            np.savez(file, texts=np.frombuffer(texts.encode(), np.uint8), **stacked)
        path.with_suffix(".part").replace(path)
    with np.load(path) as kept:
        texts = json.loads(kept["texts"].tobytes())
        return Bank(*(kept[k] for k in ARRAYS), texts)


ARRAYS = ("pictures", "masks", "labels")


def doodles(rng, n):
    """Random blots with holes and outlines, to keep encoders honest about what has no name.

    Pictures (n, 32, 32, 3) uint8 and masks (n, 16, 16) uint8.
    """
    pairs = [_doodle(rng) for _ in range(n)]
    return np.stack([p for p, _ in pairs]), np.stack([m for _, m in pairs])


def _doodle(rng, side=4 * world.SIZE):
    paints = [tuple(int(v) for v in c) for c in rng.integers(0, 256, (3, 3))]
    picture, mask = Image.new("RGB", (side, side), paints[0]), Image.new("L", (side, side), 0)
    pens = ImageDraw.Draw(picture), ImageDraw.Draw(mask)
    for _ in range(rng.integers(1, 4)):
        centre, radius = rng.uniform(0.2, 0.8, 2) * side, rng.uniform(0.12, 0.36) * side
        corners = rng.integers(3, 13)
        reach = np.where(np.arange(corners) % 2, rng.uniform(0.35, 1), 1) * radius
        angle = np.arange(corners) * 2 * np.pi / corners + rng.uniform(0, 7)
        blot = centre + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        hole = centre + 0.4 * (blot - centre) if rng.random() < 0.4 else blot[:0]
        ink = int(rng.random() < 0.4) * rng.integers(3, 9)
        for pen, inside, outside, line in (
            (pens[0], paints[1], paints[0], (8, 8, 8)),
            (pens[1], 255, 0, 255),
        ):
            _blot(pen, (blot, inside), (hole, outside), (int(ink), line))
    return np.asarray(picture.reduce(4)), np.asarray(mask.reduce(8))


def _blot(pen, body, hole, ink):
    for points, paint in (body, hole):
        corners = list(map(tuple, points.tolist()))
        if corners:
            pen.polygon(corners, fill=paint)
        if corners and ink[0]:
            pen.line([*corners, *corners[:2]], fill=ink[1], width=ink[0], joint="curve")
