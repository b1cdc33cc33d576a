"""The little world: seeded, split, well drawn, well said."""

import json

import numpy as np
import pytest
from PIL import Image

from wassily.mini import world
from wassily.mini.scene import Scene


def test_the_same_seed_gives_the_same_scenes():
    assert world.scenes(3, 50) == world.scenes(3, 50)
    assert world.scenes(3, 50) != world.scenes(4, 50)


def test_a_tenth_of_the_triples_is_held_out_and_never_trained_on():
    pairs = [(c, b) for c in world.COLOURS for b in world.BACKGROUNDS if c != b]
    triples = {(s, c, b) for s in world.SHAPES for c, b in pairs}
    out = {t for t in triples if world.is_held_out(*t)}
    assert 0.08 < len(out) / len(triples) < 0.12
    assert not out & {s.triple for s in world.scenes(0, 1000)}
    assert {s.triple for s in world.scenes(0, 60, "held_out")} <= out
    # The split must leave every single word in the training set.
    for i, values in enumerate((world.SHAPES, world.COLOURS, world.BACKGROUNDS)):
        assert {t[i] for t in triples - out} == set(values)


def test_everything_that_can_be_asked_for_occurs():
    seen = world.scenes(0, 500)
    for name, values in {
        "shape": world.SHAPES,
        "colour": world.COLOURS,
        "background": world.BACKGROUNDS,
        "size": world.SIZES,
        "count": (1, 2, 3),
        "fill": world.FILLS,
    }.items():
        assert {getattr(s, name) for s in seen} == set(values)


def test_shapes_lie_inside_and_apart():
    for scene in world.scenes(1, 60, "all"):
        covered = world.coverage(scene)
        assert max(covered[0].max(), covered[-1].max()) < 0.2
        alone = [
            world.coverage(Scene(**{**vars(scene), "places": (place,)})) for place in scene.places
        ]
        np.testing.assert_allclose(sum(alone), covered, atol=0.02)


def test_a_circle_covers_what_a_circle_covers():
    scene = Scene("circle", "red", "white", places=((0.5, 0.5),))
    radius = 0.97 * world.RADIUS["large"] * world.SIZE
    assert world.coverage(scene).sum() == pytest.approx(np.pi * radius**2, rel=0.03)


def test_edges_are_smooth_and_a_larger_picture_shows_the_same():
    scene = Scene("triangle", "black", "white")
    small, large = world.draw(scene), world.draw(scene, 128)
    assert len(np.unique(np.asarray(small)[..., 0])) > 10
    back = np.asarray(large.resize((32, 32), Image.Resampling.BOX), float)
    assert np.abs(back - np.asarray(small)).mean() < 3


def test_the_new_things_differ_only_where_they_should():
    flat = Scene("circle", "red", "white")
    inked = Scene("circle", "red", "white", style="inked")
    changed = np.abs(np.asarray(world.draw(flat), int) - np.asarray(world.draw(inked))).max(-1) > 9
    assert 0.05 < changed.mean() < 0.3 and not changed[16, 16]
    zorb = np.asarray(world.draw(Scene("zorb", "red", "white")))
    assert tuple(zorb[16, 16]) == world.COLOURS["white"]


def test_an_image_folder_is_written(tmp_path):
    world.write(tmp_path, "zorb", 6, seed=1)
    lines = (tmp_path / "metadata.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 6
    assert all(("zorb" in r["text"]) or ("زورب" in r["text"]) for r in rows)
    first = world.scenes(1, 1, "all", "zorb")[0]
    np.testing.assert_array_equal(Image.open(tmp_path / rows[0]["file_name"]), world.draw(first))
