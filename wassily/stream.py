"""The seeded stream of training examples: which, in what order, cut into whose micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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


def keys(seed: int, count: int, split: Split, start: int) -> Iterator[list[Key]]:
    """This rank's micro-batches from optimizer step `start` on, without end.

    The examples of all steps are one line: the permutations of epoch 0, 1, 2, ... joined, so an
    epoch's last global batch is completed from the next epoch and nothing is repeated or dropped.
    """
    orders: dict[int, Any] = {}

    def index(position: int) -> int:
        epoch, offset = divmod(position, count)
        if epoch not in orders:
            for old in [e for e in orders if e < epoch - 1]:
                del orders[old]
            orders[epoch] = draws.order(seed, epoch, count)
        return int(orders[epoch][offset])

    step = start
    while True:
        base = step * split.global_batch
        for micro in range(split.accumulation):
            first = (micro * split.world + split.rank) * split.per_process
            slots = range(first, first + split.per_process)
            yield [(step, slot, index(base + slot)) for slot in slots]
        step += 1


class Examples(Dataset):
    """Key -> tensors of one example: what `fetch` gives, its `noise` and its timestep `t`."""

    def __init__(
        self,
        fetch: Callable[[int, int, int], dict[str, torch.Tensor]],
        seed: int,
        noise_shape: tuple[int, ...],
        timesteps: int,
    ):
        self.fetch, self.seed = fetch, seed
        self.noise_shape, self.timesteps = noise_shape, timesteps

    def __getitem__(self, key: Key) -> dict[str, torch.Tensor]:
        step, slot, index = key
        example = self.fetch(index, step, slot)
        example["noise"] = draws.noise(self.seed, step, slot, self.noise_shape)
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
