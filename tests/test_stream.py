"""The order of the examples, and how it is cut."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from wassily import data, stream
from wassily.encodings import collate
from wassily.stream import Split


def _take(keys: object, count: int) -> list:
    return list(itertools.islice(keys, count))  # type: ignore[call-overload]


@pytest.mark.parametrize(("count", "batch"), [(7, 2), (5, 4), (3, 8), (1, 3), (6, 3)])
def test_epochs_walk_all_examples_once(count: int, batch: int) -> None:
    """Joined, the slots are whole permutations: nothing is repeated or lost at an epoch's end,
    also where a batch is larger than the data.
    """
    steps = 3 * count
    keys = stream.keys(0, count, Split(batch, 1, 1, 0), 0)
    line = [index for micro in _take(keys, steps) for _, _, index in micro]
    for epoch in range(len(line) // count):
        part = line[epoch * count : (epoch + 1) * count]
        assert sorted(part) == list(range(count)), epoch
    if count > 3:
        assert line[:count] != line[count : 2 * count]


def test_keys_carry_the_step_and_the_slot() -> None:
    """Slots 0..global batch - 1 of each step, each once."""
    keys = stream.keys(0, 7, Split(2, 3, 1, 0), 0)
    for step in range(4):
        found = [key for micro in _take(keys, 3) for key in micro]
        assert [key[:2] for key in found] == [(step, slot) for slot in range(6)]


@pytest.mark.parametrize("count", [7, 8, 3])
@pytest.mark.parametrize("cut", [(1, 1, 4), (1, 2, 2), (2, 2, 1), (2, 1, 2), (1, 4, 1)])
def test_however_it_is_cut_it_is_the_same_global_batch(
    cut: tuple[int, int, int], count: int
) -> None:
    """Processes and accumulation only slice: per step, the union over ranks and micro-batches is
    that of one process with one batch of 4.
    """
    per_process, accumulation, world = cut
    whole = stream.keys(3, count, Split(4, 1, 1, 0), 0)
    ranks = [
        stream.keys(3, count, Split(per_process, accumulation, world, r), 0) for r in range(world)
    ]
    for _ in range(6):
        expected = next(whole)
        parts = [key for r in ranks for micro in _take(r, accumulation) for key in micro]
        assert Counter(parts) == Counter(expected)
        assert sorted(parts, key=lambda key: key[1]) == expected


@pytest.mark.parametrize("start", [0, 1, 3, 4, 29])
def test_a_stream_can_start_anywhere(start: int) -> None:
    """In the middle of an epoch, at its border, far along: the tail of the whole stream."""
    split = Split(1, 2, 2, 1)
    whole = _take(stream.keys(5, 7, split, 0), 2 * 35)
    assert _take(stream.keys(5, 7, split, start), 10) == whole[2 * start : 2 * start + 10]


def test_another_seed_is_another_order() -> None:
    """And the same seed the same one."""
    a, b, c = (_take(stream.keys(seed, 50, Split(50, 1, 1, 0), 0), 1) for seed in (0, 0, 1))
    assert a == b
    assert a != c


def _examples(source: data.Pictures) -> stream.Examples:
    def fetch(index: int, step: int, slot: int) -> dict[str, torch.Tensor]:
        pixels = np.asarray(data.pictures.open_rgb(source[index].image).resize((4, 4)))
        return {"pixels": torch.from_numpy(pixels.copy()), "at": torch.tensor([step, slot])}

    return stream.Examples(fetch, 9, (2, 3), 1000)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_gives_the_streams_order(workers: int, photos: Path) -> None:
    """Stacked tensors with noise and t, in the order of the keys, with and without workers; torch's
    global generator stays where it was.
    """
    source = data.read_folder(str(photos), "image", None)
    examples = _examples(source)
    split = Split(2, 2, 1, 0)
    expected = _take(stream.keys(9, len(source), split, 0), 5)
    before = torch.random.get_rng_state()
    keys = stream.keys(9, len(source), split, 0)
    loader = stream.loader(examples, keys, collate, workers, False)
    iterator = iter(loader)
    for keys in expected:
        batch = next(iterator)
        assert batch["at"].tolist() == [list(key[:2]) for key in keys]
        wanted = torch.stack([examples[key]["noise"] for key in keys])
        assert torch.equal(batch["noise"], wanted)
        assert batch["noise"].shape == (2, 2, 3)
        assert batch["t"].tolist() == [int(examples[key]["t"]) for key in keys]
        assert batch["t"].dtype == torch.int64
        assert torch.equal(batch["pixels"][1], examples[keys[1]]["pixels"])
    assert torch.equal(torch.random.get_rng_state(), before)
