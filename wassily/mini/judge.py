"""Says what a picture of the little world shows, from its pixels alone: no network, no training.

Background by the border, objects by components, colour and fill by their pixels, shape by template
matching, style by drawing both hypotheses and keeping the one nearer to the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from wassily.mini import world
from wassily.mini.scene import Scene

NONE = "none"
JUDGED = ("shape", "colour", "background", "size", "count", "fill", "style")
CANDIDATES = (*world.SHAPES, world.NEW_SHAPE)
FAR = 70.0  # from every colour of the palette, Euclidean, of 0..255: no colour at all
MIN_CONTRAST = 40.0  # from the background, to be an object
MIN_AREA = 10.0  # in pixels of a 32 px picture: smaller specks are no objects
MIN_FIT = 0.7  # mean soft intersection over union of the objects with their template
MIN_EACH = 0.6  # and that of the worst of them
MIN_LEAD = 0.05  # before the next best template: what fits two shapes alike is neither
DARK = 64.0  # luminance of ink
LUMINANCE = np.array((0.299, 0.587, 0.114))
Spot = tuple[float, float, float]  # x, y in [0, 1], radius in pixels of a 32 px picture
RADII = np.linspace(3.0, 14.0, 45)  # in pixels of a 32 px picture


@dataclass(frozen=True)
class Verdict:
    """What a picture shows; `fit` in [0, 1] is how well its objects match their template."""

    shape: str = NONE
    colour: str = NONE
    background: str = NONE
    size: str = NONE
    count: int = 0
    fill: str = NONE
    style: str = NONE
    fit: float = 0.0


def judge(picture: Image.Image) -> Verdict:
    """The Verdict on a PIL picture of the size at which `mini` draws."""
    pixels = np.asarray(picture.convert("RGB"), float)
    background, behind = _background(pixels)
    if background == NONE:
        return Verdict()
    contrast = np.linalg.norm(pixels - behind, axis=-1)
    readings = [_read(pixels, contrast, background, "flat")]
    if _has_dark_edges(pixels, contrast):
        readings.append(_read(pixels, contrast, background, "inked"))
    return min(readings, key=lambda reading: reading[1])[0]


def score(pictures: Sequence[Image.Image], scenes: Sequence[Scene]) -> dict[str, float]:
    """Fraction of pictures that show what their scenes say, for each of JUDGED: {name: float}."""
    pairs = [(judge(p), s) for p, s in zip(pictures, scenes, strict=True)]
    return {a: float(np.mean([getattr(v, a) == getattr(s, a) for v, s in pairs])) for a in JUDGED}


def _background(pixels: np.ndarray) -> tuple[str, np.ndarray]:
    """Name of the colour that fills most of the border, and its median there, (3,)."""
    border = np.concatenate([pixels[:2], pixels[-2:], pixels[2:-2, :2], pixels[2:-2, -2:]], None)
    border = border.reshape(-1, 3)
    palette = np.array([world.COLOURS[b] for b in world.BACKGROUNDS], float)
    distance = np.linalg.norm(border[:, None] - palette, axis=-1)
    nearest = np.where(distance.min(1) < FAR, distance.argmin(1), len(palette))
    votes = np.bincount(nearest, minlength=len(palette) + 1)
    best = int(votes[:-1].argmax())
    if votes[best] < len(border) / 2:
        return NONE, np.zeros(3)
    return world.BACKGROUNDS[best], np.median(border[nearest == best], axis=0)


def _read(
    pixels: np.ndarray, contrast: np.ndarray, background: str, style: str
) -> tuple[Verdict, float]:
    """The Verdict under the hypothesis of a style, and how far its drawing is from the pixels."""
    nothing = Verdict(background=background, style=style), math.inf
    if style == "flat":
        colour, fill = _paint(pixels, contrast)
        if colour in (NONE, background):
            return nothing
        alpha = _flat_coverage(contrast, background, colour, fill)
    else:
        alpha = _inked_coverage(contrast, background)
    objects = _objects(alpha)
    if not objects:
        return nothing
    shape, fits, spots, lead = _match(objects, style)
    is_shape = np.mean(fits) >= MIN_FIT and min(fits) >= MIN_EACH and lead >= MIN_LEAD
    if style == "inked":
        colour, fill = _paint_within_ink(pixels, shape, spots, background)
    if colour == NONE:
        return nothing
    verdict = Verdict(
        shape=shape if is_shape else NONE,
        colour=colour,
        background=background,
        size=_size(float(np.mean([r for _, _, r in spots]))),
        count=len(objects),
        fill=fill,
        style=style,
        fit=float(np.mean(fits)),
    )
    return verdict, _distance(pixels, shape, spots, verdict)


def _flat_coverage(contrast: np.ndarray, background: str, colour: str, fill: str) -> np.ndarray:
    """Coverage (H, W) of what is painted in a colour: contrast over the least full contrast."""
    paints = [world.COLOURS[colour]]
    paints += [world.stripe_colour(colour)] if fill == "striped" else []
    full = min(math.dist(p, world.COLOURS[background]) for p in paints)
    return np.clip(contrast / full, 0, 1)


def _inked_coverage(contrast: np.ndarray, background: str) -> np.ndarray:
    """Coverage (H, W) of what has an outline of ink: its edge is a blend of ink and background."""
    inside = _all_around(contrast > MIN_CONTRAST, 8)
    full = math.dist(world.INK, world.COLOURS[background])
    return np.where(inside, 1, np.clip(contrast / full, 0, 1))


def _has_dark_edges(pixels: np.ndarray, contrast: np.ndarray) -> bool:
    """Whether the outermost pixels of the objects are mostly dark: (H, W, 3), (H, W) -> bool."""
    inside = contrast > MIN_CONTRAST
    edge = inside & ~_all_around(inside)
    dark = pixels @ LUMINANCE < DARK
    near = ~_all_around(~dark)
    return bool(edge.any()) and near[edge].mean() > 0.5


def _paint(pixels: np.ndarray, contrast: np.ndarray) -> tuple[str, str]:
    """Colour and fill whose pixels are nearest to those within the objects."""
    inside = contrast > MIN_CONTRAST
    core = inside & _all_around(inside)
    if core.sum() < 8:
        # Thin things have no core: take what differs most from the background.
        core = contrast >= np.quantile(contrast, 0.97)
    found, options = pixels[core], []
    for name, rgb in world.COLOURS.items():
        plain = np.linalg.norm(found - rgb, axis=-1)
        other = np.linalg.norm(found - world.stripe_colour(name), axis=-1)
        share = float(np.mean(other < plain))
        options.append((np.minimum(plain, FAR).mean(), name, "plain"))
        if 0.25 <= share <= 0.75:
            # Two colours always fit better than one: stripes must be clearly the better account.
            both = np.minimum(np.minimum(plain, other), FAR).mean()
            options.append((both + 8, name, "striped"))
    distance, name, fill = min(options)
    return (name, fill) if distance < FAR * 0.75 else (NONE, NONE)


def _paint_within_ink(
    pixels: np.ndarray, shape: str, spots: list[Spot], background: str
) -> tuple[str, str]:
    """Colour and fill with which the inked scene, drawn again, is nearest to the pixels."""
    options = []
    for colour in world.COLOURS:
        for fill in world.FILLS:
            if world.visible(colour, background, fill, "inked"):
                guess = Verdict(shape, colour, background, fill=fill, style="inked")
                away = _distance(pixels, shape, spots, guess)
                options.append((away * (1.1 if fill == "striped" else 1), colour, fill))
    if not options:
        return NONE, NONE
    _, colour, fill = min(options)
    return colour, fill


def _objects(alpha: np.ndarray) -> list[np.ndarray]:
    """The connected things of a picture: list of (H, W) coverages in [0, 1], one for each."""
    labels = _components(alpha > 0.5)
    floor = MIN_AREA * (len(alpha) / 32) ** 2
    kept = [k for k in range(1, labels.max() + 1) if alpha[labels == k].sum() >= floor]
    things = []
    for k in kept:
        own = ~_all_around(labels != k, 8)  # with the soft pixels next to it
        things.append(np.where(own & ((labels == k) | (labels == 0)), alpha, 0))
    return things


def _components(mask: np.ndarray) -> np.ndarray:
    """Labels 1.. of the 4-connected parts of a mask, 0 elsewhere: (H, W) int."""
    labels = np.zeros(mask.shape, int)
    todo = {tuple(p) for p in np.argwhere(mask).tolist()}
    while todo:
        stack, label = [todo.pop()], labels.max() + 1
        while stack:
            y, x = stack.pop()
            labels[y, x] = label
            around = {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} & todo
            todo -= around
            stack += around
    return labels


def _match(objects: list[np.ndarray], style: str) -> tuple[str, list[float], list[Spot], float]:
    """The shape that fits all objects best: name, fits, spots, and its lead before the next."""
    results = []
    for shape in CANDIDATES:
        spots = [_spot(shape, style, thing) for thing in objects]
        pairs = zip(objects, spots, strict=True)
        fits = [_overlap(thing, _template(shape, style, s, len(thing))) for thing, s in pairs]
        results.append((float(np.mean(fits)), shape, fits, spots))
    second, (best, shape, fits, spots) = sorted(results)[-2:]
    return shape, fits, spots, best - second[0]


def _spot(shape: str, style: str, thing: np.ndarray) -> Spot:
    """Where a shape of equal area and centre of mass lies: x, y in [0, 1], radius in px of 32."""
    size, area = len(thing), thing.sum()
    areas, drops = _measures(shape, style)
    radius = float(np.interp(area * (32 / size) ** 2, areas, RADII))
    drop = float(np.interp(radius, RADII, drops))
    place = np.arange(size) + 0.5
    x, y = thing.sum(0) @ place / area, thing.sum(1) @ place / area
    return x / size, y / size - drop / 32, radius


@cache
def _measures(shape: str, style: str) -> tuple[np.ndarray, np.ndarray]:
    """Area, and drop of the centre of mass below the shape's own centre, at each of RADII."""
    areas, drops = [], []
    for radius in RADII:
        drawn = _template(shape, style, (0.5, 0.5, radius), 32)
        areas.append(drawn.sum())
        drops.append(drawn.sum(1) @ (np.arange(32) - 15.5) / drawn.sum())
    return np.array(areas), np.array(drops)


def _template(shape: str, style: str, spot: Spot, size: int) -> np.ndarray:
    """Coverage (size, size) of a shape at a spot."""
    scene = Scene(
        shape, "black", "white", style=style, places=(spot[:2],), scale=_scale("large", spot[2])
    )
    return world.coverage(scene, size)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Soft intersection over union of two coverages."""
    return float(np.minimum(a, b).sum() / np.maximum(a, b).sum())


def _distance(pixels: np.ndarray, shape: str, spots: list[Spot], verdict: Verdict) -> float:
    """Mean squared difference of the pixels from the verdict's own picture."""
    radius = float(np.mean([r for _, _, r in spots]))
    scene = Scene(
        shape,
        verdict.colour,
        verdict.background,
        fill=verdict.fill,
        style=verdict.style,
        places=tuple(s[:2] for s in spots),
        scale=_scale("large", radius),
    )
    return float(np.mean((np.asarray(world.draw(scene, len(pixels)), float) - pixels) ** 2))


def _size(radius: float) -> str:
    """The name of the nearest size, if one is near."""
    off = {name: abs(math.log(_scale(name, radius))) for name in world.SIZES}
    best = min(off, key=lambda name: off[name])
    return best if off[best] < math.log(1.3) else NONE


def _scale(size: str, radius: float) -> float:
    return radius / 32 / world.RADIUS[size]


def _all_around(mask: np.ndarray, neighbours: int = 4) -> np.ndarray:
    """Where a mask holds on a pixel and on its 4 or 8 neighbours; outside counts as true."""
    padded = np.pad(mask, 1, constant_values=True)
    height, width = mask.shape
    result = np.ones_like(mask)
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            if neighbours == 8 or 1 in (dy, dx):
                result &= padded[dy : dy + height, dx : dx + width]
    return result
