"""The order of the examples, and how it is cut."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from wassily.data import datasets, example_order, images
from wassily.data.example_order import Split
from wassily.encodings.lookup import collate


def _take(keys: object, count: int) -> list:
    return list(itertools.islice(keys, count))  # type: ignore[call-overload]


@pytest.mark.parametrize(("count", "batch"), [(7, 2), (5, 4), (3, 8), (1, 3), (6, 3)])
def test_epochs_walk_all_examples_once(count: int, batch: int) -> None:
    """Joined, the slots are whole permutations: nothing is repeated or lost at an epoch's end,
    also where a batch is larger than the data.
    """
    steps = 3 * count
    keys = example_order.keys(0, [range(count)], Split(batch, 1, 1, 0), 0)
    line = [index for micro in _take(keys, steps) for _, _, index in micro]
    for epoch in range(len(line) // count):
        part = line[epoch * count : (epoch + 1) * count]
        assert sorted(part) == list(range(count)), epoch
    if count > 3:
        assert line[:count] != line[count : 2 * count]


def test_keys_carry_the_step_and_the_slot() -> None:
    """Slots 0..global batch - 1 of each step, each once."""
    keys = example_order.keys(0, [range(7)], Split(2, 3, 1, 0), 0)
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
    whole = example_order.keys(3, [range(count)], Split(4, 1, 1, 0), 0)
    ranks = [
        example_order.keys(3, [range(count)], Split(per_process, accumulation, world, r), 0)
        for r in range(world)
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
    whole = _take(example_order.keys(5, [range(7)], split, 0), 2 * 35)
    assert (
        _take(example_order.keys(5, [range(7)], split, start), 10)
        == whole[2 * start : 2 * start + 10]
    )


# Fewer than a global batch, one picture, none at all, and more than several batches.
BUCKETS = [[0, 9, 4], [], [7], list(range(10, 41)), [1, 2, 3, 5, 6, 8]]


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_buckets_walk_all_their_examples_once_an_epoch(batch: int) -> None:
    """Counted over 60 epochs: each bucket's steps, joined, are whole permutations of it, so
    nothing is repeated or dropped; and after each epoch it lacks less than one global batch.
    """
    epochs = 60
    line: dict[int, list[int]] = {number: [] for number in range(len(BUCKETS))}
    home = {index: number for number, bucket in enumerate(BUCKETS) for index in bucket}
    keys, taken = example_order.keys(3, BUCKETS, Split(batch, 1, 1, 0), 0), 0
    for epoch in range(1, epochs + 1):
        steps = sum(epoch * len(bucket) // batch for bucket in BUCKETS)
        for _ in range(steps - taken):
            found = [index for _, _, index in next(keys)]
            assert len({home[index] for index in found}) == 1, "one bucket a step"
            line[home[found[0]]] += found
        taken = steps
        for number, bucket in enumerate(BUCKETS):
            assert 0 <= epoch * len(bucket) - len(line[number]) < batch, (epoch, number)
    for number, bucket in enumerate(BUCKETS):
        for start in range(0, len(line[number]) - len(bucket) + 1, max(1, len(bucket))):
            part = line[number][start : start + len(bucket)]
            assert sorted(part) == sorted(bucket), (number, start)
    counts = Counter(index for part in line.values() for index in part)
    for index, number in home.items():
        lag = -(-(batch - 1) // len(BUCKETS[number]))
        assert epochs - lag <= counts[index] <= epochs, index


def test_buckets_take_turns_in_an_order_of_their_own() -> None:
    """Mixed, not one bucket after the other; other turns in another epoch and for another seed."""
    first, second, other = (
        _take(example_order.bucket_turns(seed, [40, 40], 2, start), 40)
        for seed, start in ((0, 0), (0, 40), (1, 0))
    )
    places = [[bucket for bucket, _ in turns] for turns in (first, second, other)]
    assert all(Counter(buckets) == {0: 20, 1: 20} for buckets in places)
    assert places[0] != places[1] and places[0] != places[2] and places[0] != sorted(places[0])
    assert sorted(first) == [(bucket, batch) for bucket in range(2) for batch in range(20)]


@pytest.mark.parametrize("start", [0, 1, 5, 17, 60, 123])
@pytest.mark.parametrize("cut", [(6, 1, 1), (1, 3, 2), (1, 1, 6), (3, 2, 1)])
def test_buckets_can_start_anywhere_however_they_are_cut(
    start: int, cut: tuple[int, int, int]
) -> None:
    """From `start` on, joined over ranks and micro-batches: the tail of the whole stream."""
    per_process, accumulation, world = cut
    whole = _take(example_order.keys(5, BUCKETS, Split(6, 1, 1, 0), 0), start + 20)[start:]
    ranks = [
        example_order.keys(5, BUCKETS, Split(per_process, accumulation, world, rank), start)
        for rank in range(world)
    ]
    for expected in whole:
        parts = [key for rank in ranks for micro in _take(rank, accumulation) for key in micro]
        assert sorted(parts, key=lambda key: key[1]) == expected


def test_pictures_fewer_than_a_batch_in_every_bucket() -> None:
    """Most epochs then have no step at all; the steps there are hold each picture equally."""
    keys = example_order.keys(0, [[0], [1, 2], [3]], Split(8, 1, 1, 0), 0)
    found = Counter(index for batch in _take(keys, 40) for _, _, index in batch)
    assert found == {0: 80, 1: 80, 2: 80, 3: 80}
    late = example_order.keys(0, [[0], [1, 2], [3]], Split(8, 1, 1, 0), 1000)
    assert next(late)[0][0] == 1000


def test_another_seed_is_another_order() -> None:
    """And the same seed the same one."""
    split = Split(50, 1, 1, 0)
    a, b, c = (_take(example_order.keys(seed, [range(50)], split, 0), 1) for seed in (0, 0, 1))
    assert a == b
    assert a != c


def _examples(source: datasets.Pictures) -> example_order.Examples:
    def fetch(index: int, step: int, slot: int) -> dict[str, torch.Tensor]:
        pixels = np.asarray(images.open_rgb(source[index].image).resize((4, 4)))
        return {"pixels": torch.from_numpy(pixels.copy()), "at": torch.tensor([step, slot])}

    return example_order.Examples(fetch, 9, lambda index: (2, 3), 1000)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_gives_the_streams_order(workers: int, photos: Path) -> None:
    """Stacked tensors with noise and t, in the order of the keys, with and without workers; torch's
    global generator stays where it was.
    """
    source = datasets.read_folder(str(photos), "image", None)
    examples = _examples(source)
    split = Split(2, 2, 1, 0)
    expected = _take(example_order.keys(9, [range(len(source))], split, 0), 5)
    before = torch.random.get_rng_state()
    keys = example_order.keys(9, [range(len(source))], split, 0)
    loader = example_order.loader(examples, keys, collate, workers, False)
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
