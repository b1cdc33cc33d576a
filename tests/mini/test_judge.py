"""The judge against pictures whose scene is known, and against what is no such picture."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from wassily.mini import judge, world
from wassily.mini.scene import Scene


def disturbed(picture, rng):
    """A little blur and noise, as a decoder leaves."""
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.4)), float)
    return Image.fromarray((soft + rng.normal(0, 5, soft.shape)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("kind", "least"), [("world", 0.98), ("inked", 0.97), ("zorb", 0.98)])
def test_it_reads_real_pictures(kind, least):
    scenes = world.scenes(11, 80, "all", kind)
    pictures = [world.draw(s) for s in scenes]
    assert min(judge.score(pictures, scenes).values()) >= least


def test_it_bears_blur_and_noise():
    rng = np.random.default_rng(0)
    scenes = world.scenes(12, 80, "all")
    pictures = [disturbed(world.draw(s), rng) for s in scenes]
    assert min(judge.score(pictures, scenes).values()) >= 0.95


@pytest.mark.parametrize("name", ["shape", "colour", "background", "size"])
def test_it_is_not_content_with_another_picture(name):
    scene = Scene("star", "red", "white", "medium")
    other = {"shape": "ring", "colour": "pink", "background": "blue", "size": "small"}[name]
    wrong = replace(scene, **{name: other})
    assert getattr(judge.judge(world.draw(wrong)), name) != getattr(scene, name)


def test_a_blob_is_not_a_star():
    rng = np.random.default_rng(0)
    grid = np.stack(np.mgrid[:32, :32], -1)
    for _ in range(20):
        # A lump whose outline wavers at random: nothing of the world.
        angle = np.arctan2(*(grid - 16).transpose(2, 0, 1))
        waves = sum(rng.normal(0, 0.22) * np.cos(k * angle + rng.uniform(0, 6)) for k in (2, 3, 4))
        inside = np.linalg.norm(grid - 16, axis=-1) < 7 * (1 + waves)
        blob = np.where(inside[..., None], world.COLOURS["red"], world.COLOURS["white"])
        assert judge.judge(Image.fromarray(blob.astype(np.uint8))).shape not in ("star", "cross")


def test_what_is_half_a_star_and_half_a_circle_is_neither():
    star, circle = Scene("star", "red", "white"), Scene("circle", "red", "white")
    share = world.coverage(star).sum() / world.coverage(circle).sum()
    circle = replace(circle, scale=share**0.5)  # of the same area
    mixed = np.mean([np.asarray(world.draw(s), float) for s in (star, circle)], 0)
    assert judge.judge(Image.fromarray(mixed.astype(np.uint8))).shape == judge.NONE


def test_noise_and_empty_pictures_show_nothing():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert judge.judge(Image.fromarray(noise)).shape == judge.NONE
    empty = judge.judge(Image.new("RGB", (32, 32), world.COLOURS["blue"]))
    assert (empty.background, empty.count, empty.shape) == ("blue", 0, judge.NONE)


def test_two_that_touch_are_one():
    scene = Scene("square", "red", "white", "small", 2, places=((0.4, 0.5), (0.6, 0.5)))
    assert judge.judge(world.draw(scene)).count == 1
