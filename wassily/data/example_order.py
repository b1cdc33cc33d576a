"""The seeded stream of training examples: which, in what order, cut into whose micro-batches.

A run has one stream of its own, and may have others beside it, each with a weight.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from wassily.maths import randomness


@dataclass(frozen=True)
class Split:
    """How a global batch is cut: size of a micro-batch, micro-batches, processes, this rank."""

    per_process: int
    accumulation: int
    world: int
    rank: int

    @property
    def global_batch(self) -> int:
        """Examples per optimizer step."""
        return self.per_process * self.accumulation * self.world

    def slots(self, micro: int) -> range:
        """This rank's places in the global batch, of one micro-batch."""
        # Micro-batch by micro-batch over the processes: two of them see together what one of
        # twice the batch sees.
        first = (micro * self.world + self.rank) * self.per_process
        return range(first, first + self.per_process)


Key = tuple[int, int, int]  # optimizer step, slot in the global batch, index of the example
Bucket = Sequence[int] | np.ndarray  # indices of the examples that may stand in one batch


def keys(seed: int, buckets: Sequence[Bucket], split: Split, start: int) -> Iterator[list[Key]]:
    """This rank's micro-batches from optimizer step `start` on, without end.

    The examples of a bucket are one line: its permutations of epoch 0, 1, 2, ... joined and cut
    into global batches, so what does not fill one is completed from the bucket's next epoch, and
    nothing is repeated or dropped. With a single bucket that is the plain stream.
    """
    lines = [_line(seed, number, bucket) for number, bucket in enumerate(buckets)]
    turns = bucket_turns(seed, [len(bucket) for bucket in buckets], split.global_batch, start)
    for step, (bucket, batch) in enumerate(turns, start):
        index, base = lines[bucket], batch * split.global_batch
        for micro in range(split.accumulation):
            yield [(step, slot, index(base + slot)) for slot in split.slots(micro)]


def bucket_turns(
    seed: int, counts: Sequence[int], batch: int, start: int
) -> Iterator[tuple[int, int]]:
    """(bucket, which of its global batches) of each optimizer step from `start` on, without end.

    After e epochs a bucket of n examples has had floor(e n / batch) steps. Those of one epoch come
    in an order drawn for it.
    """

    def had(epochs: int) -> np.ndarray:
        return np.array([epochs * count // batch for count in counts])

    epoch = start * batch // sum(counts)  # not later than the epoch of `start`
    while had(epoch + 1).sum() <= start:
        epoch += 1
    skipped = start - int(had(epoch).sum())
    while True:
        next_of = had(epoch)
        turns = np.repeat(np.arange(len(counts)), had(epoch + 1) - next_of)
        for place, bucket in enumerate(turns[randomness.turns(seed, epoch, len(turns))].tolist()):
            if place >= skipped:
                yield bucket, int(next_of[bucket])
            next_of[bucket] += 1
        epoch, skipped = epoch + 1, 0


def _line(seed: int, number: int, bucket: Bucket) -> Callable[[int], int]:
    """Position in the line of a bucket -> index of the example there."""
    orders: dict[int, np.ndarray] = {}

    def index(position: int) -> int:
        epoch, offset = divmod(position, len(bucket))
        if epoch not in orders:
            # Positions only grow, so old permutations are not asked for again.
            for old in [e for e in orders if e < epoch - 1]:
                del orders[old]
            orders[epoch] = randomness.order(seed, epoch, len(bucket), number)
        return int(bucket[orders[epoch][offset]])

    return index


def epochs_ended(done: int, batch: int, count: int) -> range:
    """The epochs, from 0, that the optimizer step before `done` steps ended; of step 0 none."""
    return range(max(0, done - 1) * batch // count, done * batch // count)


class Examples(Dataset):
    """Key -> tensors of one example: what `fetch` gives, its `noise` and its timestep `t`.

    `noise_shape` maps the index of an example to the shape of its noise. Where `fetch` brings a
    `noise` or a `t`, that is taken.
    """

    def __init__(
        self,
        fetch: Callable[[Any, int, int], dict[str, torch.Tensor]],
        seed: int,
        noise_shape: Callable[[Any], tuple[int, ...]],
        timesteps: int,
    ):
        self.fetch, self.seed = fetch, seed
        self.noise_shape, self.timesteps = noise_shape, timesteps

    def __getitem__(self, key: tuple[int, int, object]) -> dict[str, torch.Tensor]:
        step, slot, index = key
        noise = randomness.noise(self.seed, step, slot, self.noise_shape(index))
        t = torch.tensor(randomness.timestep(self.seed, step, slot, self.timesteps))
        # Last, so that a source with noise or a timestep of its own wins.
        return {"noise": noise, "t": t, **self.fetch(index, step, slot)}


# ---------------------------------------------------------------- other sources beside the own


@dataclass(frozen=True)
class ExtraExamples:
    """A source of `total` examples besides the own: `count` of them come with each global batch.

    `weight` is what the mean of their losses counts, that of the own examples counting 1. The seed
    of `examples` is the source's own (`randomness.side_seed`). `name` says what they are.
    """

    name: str
    examples: Examples
    total: int
    count: int
    weight: float

    def described(self) -> str:
        """What a checkpoint remembers of it, and the user is told."""
        return f"{self.count} of {self.total} {self.name} a step, weight {self.weight:g}"


def side_keys(seed: int, total: int, count: int, split: Split, start: int) -> Iterator[list[Key]]:
    """This rank's part of a side's examples for each micro-batch from step `start` on, endless.

    Its global batches of `count` are one line of permutations, as those of `keys` are; the slots
    of a step are dealt to the micro-batches of all processes as evenly as they can be.
    """
    index = _line(seed, 0, range(total))
    pieces = split.accumulation * split.world
    for step in itertools.count(start):
        for micro in range(split.accumulation):
            piece = micro * split.world + split.rank
            # Shares that differ by one at most, whatever the number of processes.
            slots = range(piece * count // pieces, (piece + 1) * count // pieces)
            yield [(step, slot, index(step * count + slot)) for slot in slots]


Weighted = tuple[int, float, Key]  # 0 for the own source or the number of a side, weight, key


def mixed(
    own: Iterator[list[Key]], sides: Sequence[ExtraExamples], split: Split, start: int
) -> Iterator[list[Weighted]]:
    """The own micro-batches, each with its part of every side's examples behind it.

    A loop takes the mean over a micro-batch and the mean of these over the P micro-batches of a
    step. With B own and K other examples in one, of C of a side of weight w in the whole step, the
    weights (B + K) / B and w (B + K) P / C make that
        mean over the own examples + sum over the sides of w times the mean over its examples.
    """
    pieces = split.accumulation * split.world
    lines = [side_keys(s.examples.seed, s.total, s.count, split, start) for s in sides]
    for keys in own:
        parts = [next(line) for line in lines]
        size = len(keys) + sum(map(len, parts))
        batch: list[Weighted] = [(0, size / len(keys), key) for key in keys]
        for number, (side, part) in enumerate(zip(sides, parts, strict=True), start=1):
            weight = side.weight * size * pieces / side.count
            batch += [(number, weight, key) for key in part]
        yield batch


class Mixed(Dataset):
    """Weighted key -> the example of its source, with its `weight`."""

    def __init__(self, own: Examples, sides: Sequence[ExtraExamples]):
        self.sources = [own, *(side.examples for side in sides)]

    def __getitem__(self, key: Weighted) -> dict[str, torch.Tensor]:
        number, weight, plain = key
        return {**self.sources[number][plain], "weight": torch.tensor(weight)}


def beside(
    own: Examples,
    keys: Iterator[list[Key]],
    sides: Sequence[ExtraExamples],
    split: Split,
    start: int,
) -> tuple[Dataset, Iterator[list[Any]]]:
    """Examples and their order with those of the sides; what was given if there are none."""
    if not sides:
        return own, keys
    return Mixed(own, sides), mixed(keys, sides, split, start)


def loader(
    examples: Dataset,
    stream: Iterator[list[Any]],
    collate: Callable[[list[dict[str, torch.Tensor]]], Any],
    workers: int,
    pin: bool,
) -> DataLoader:
    """Micro-batches on the CPU, made by `collate` from their examples, in the order of `stream`."""
    return DataLoader(
        examples,
        batch_sampler=stream,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        # A generator of its own: torch's global one stays as the training left it.
        generator=torch.Generator().manual_seed(0),
    )
