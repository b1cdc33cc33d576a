"""The seeded stream of training examples: which, in what order, cut into whose micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from wassily import draws


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
            first = (micro * split.world + split.rank) * split.per_process
            slots = range(first, first + split.per_process)
            yield [(step, slot, index(base + slot)) for slot in slots]


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
        for place, bucket in enumerate(turns[draws.turns(seed, epoch, len(turns))].tolist()):
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
            for old in [e for e in orders if e < epoch - 1]:
                del orders[old]
            orders[epoch] = draws.order(seed, epoch, len(bucket), number)
        return int(bucket[orders[epoch][offset]])

    return index


class Examples(Dataset):
    """Key -> tensors of one example: what `fetch` gives, its `noise` and its timestep `t`.

    `noise_shape` maps the index of an example to the shape of its noise.
    """

    def __init__(
        self,
        fetch: Callable[[int, int, int], dict[str, torch.Tensor]],
        seed: int,
        noise_shape: Callable[[int], tuple[int, ...]],
        timesteps: int,
    ):
        self.fetch, self.seed = fetch, seed
        self.noise_shape, self.timesteps = noise_shape, timesteps

    def __getitem__(self, key: Key) -> dict[str, torch.Tensor]:
        step, slot, index = key
        example = self.fetch(index, step, slot)
        example["noise"] = draws.noise(self.seed, step, slot, self.noise_shape(index))
        example["t"] = torch.tensor(draws.timestep(self.seed, step, slot, self.timesteps))
        return example


def loader(
    examples: Examples,
    stream: Iterator[list[Key]],
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
