"""Which images are held out."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import write_folder

from wassily.data import datasets
from wassily.runtime.accelerator import Runtime
from wassily.training_data import holdout


def _contents(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16), np.uint8)


def test_the_share_is_met_and_grows() -> None:
    """5 % of 20,000 within 5 standard deviations; a larger share adds to a smaller one; in the
    order of the digests.
    """
    contents = _contents(20_000)
    out = holdout.held_out(contents, 0.05)
    assert abs(len(out) - 1000) < 5 * math.sqrt(20_000 * 0.05 * 0.95)
    assert set(out) < set(holdout.held_out(contents, 0.1))
    keys = [contents[index].tobytes() for index in out]
    assert keys == sorted(keys)
    assert holdout.held_out(contents, 1.0).__len__() == 20_000


def test_neither_order_nor_others_matter() -> None:
    """The same digests from a shuffled table and from half of it; twins go together."""
    contents = _contents(500)
    contents[7], contents[13] = contents[300], contents[301]
    keys = {contents[i].tobytes() for i in holdout.held_out(contents, 0.2)}
    mixed = contents[np.random.default_rng(1).permutation(500)]
    assert {mixed[i].tobytes() for i in holdout.held_out(mixed, 0.2)} == keys
    half = contents[:250]
    assert {half[i].tobytes() for i in holdout.held_out(half, 0.2)} == keys & {
        row.tobytes() for row in half
    }
    out = set(holdout.held_out(contents, 0.2))
    assert (7 in out) == (300 in out)
    assert (13 in out) == (301 in out)


def test_at_least_two_are_held_out_and_never_one_that_cannot_be_read() -> None:
    """The two lowest, with their twins; zeros stand for a file that could not be read."""
    contents = _contents(10) | 128
    contents[[2, 6]], contents[8] = 128, 129
    contents[4] = 0
    assert holdout.held_out(contents, 1e-6) == [2, 6, 8]
    assert holdout.held_out(contents[4:5], 0.5) == []
    assert 4 not in holdout.held_out(contents, 0.999)


@pytest.mark.parametrize("cached", [True, False])
def test_a_split_by_bytes(cached: bool, tmp_path: Path) -> None:
    """Files copied under other names into a folder read the other way round: the same pictures are
    held out, copies with the original; with and without a cache.
    """
    folder = write_folder(tmp_path / "one", [f"c{n}" for n in range(12)])
    other = tmp_path / "two"
    other.mkdir()
    for n in range(12):
        shutil.copyfile(folder / f"{n:02d}.png", other / f"{90 - n}.png")
        shutil.copyfile(folder / f"{n:02d}.png", other / f"copy_{n}.png")
    runtime = Runtime(None, 1, str(tmp_path), "logs", "none")

    def sides(where: Path) -> list[list[bytes]]:
        source = datasets.read_folder(str(where), "image", None)
        both = holdout.split(source, 0.3, tmp_path / "cache", runtime, cached)
        return [[Path(str(r.image)).read_bytes() for r in side or ()] for side in both]

    kept, out = sides(folder)
    assert len(kept) + len(out) == 12
    assert kept
    assert out
    again_kept, again_out = sides(other)
    assert set(again_kept) == set(kept)
    assert again_out == [content for content in out for _ in range(2)]
