"""The order of examples that come as a stream, and the place where it goes on after a stop.

The shards are dealt to lanes. A lane is a line without end: the epochs of its shards, each in an
order of its own, one after the other. An epoch is cut into blocks of as many examples as the buffer
holds, and each block is shuffled. So the order is a function of the seed, and a place in it is
found again by reading one block, wherever the run was stopped.

Each process reads the lanes that its places in the global batch are filled from: a lane of its own
where the shards can be dealt evenly, else all read one lane, and each takes its own examples of it.
"""

from __future__ import annotations

import collections
import itertools
import os
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from typing import Any

from wassily.data.example_order import Split
from wassily.data.shards import Cell, Shards
from wassily.errors import UserError
from wassily.maths import randomness

REMEMBERED = 1000  # micro-batches whose pictures can still be named


@dataclass(frozen=True)
class Mark:
    """Where a block begins: its first example's place in the lane, and where that one is read.

    `shard` counts in the order that the epoch has for the lane's shards; `row` is in that shard.
    """

    position: int = 0
    epoch: int = 0
    block: int = 0
    shard: int = 0
    row: int = 0


@dataclass(frozen=True)
class Dealt:
    """How many lanes there are, and how many slots of a global batch in a row are filled from one.

    The first `stripe` slots are of lane 0, the next of lane 1, and so on by turns.
    """

    lanes: int
    stripe: int

    def place(self, step: int, slot: int, batch: int) -> tuple[int, int]:
        """(lane, position in it) of a slot in a global batch of `batch`."""
        turn, within = divmod(slot, self.stripe)
        before, lane = divmod(turn, self.lanes)
        return lane, step * (batch // self.lanes) + before * self.stripe + within


def dealt(shards: int, split: Split) -> Dealt:
    """One lane for each process where the shards can be dealt evenly, else one for all."""
    if shards % split.world:
        return Dealt(1, split.global_batch)
    return Dealt(split.world, split.per_process)


class Lane:
    """One line of examples; they are asked for in ascending places."""

    def __init__(self, shards: Shards, seed: int, number: int, lanes: int, size: int, mark: Mark):
        self.shards, self.seed, self.number, self.lanes = shards, seed, number, lanes
        self.size, self.marks, self.position = size, collections.deque([mark]), mark.position
        self.upcoming = self._line(mark)

    def at(self, position: int) -> Cell:
        """The example at a place; those before it are passed over."""
        for _ in range(position - self.position):
            next(self.upcoming)
        self.position = position + 1
        return next(self.upcoming)

    def mark(self, position: int) -> Mark:
        """The last one not after a place; those before it are forgotten."""
        while len(self.marks) > 1 and self.marks[1].position <= position:
            self.marks.popleft()
        return self.marks[0]

    def _line(self, mark: Mark) -> Iterator[Cell]:
        while True:
            rest = self._epoch(mark)
            block: list[Any] = list(itertools.islice(rest, self.size))
            if not block:
                raise UserError(
                    f"--streaming: {os.path.basename(self.shards.names[0])}: there is no example "
                    "in it or in the other shards; name others"
                )
            while block:
                order = randomness.block(self.seed, mark.epoch, self.number, mark.block, len(block))
                following: list[Any] = []
                for place in order.tolist():
                    yield block[place][2]
                    block[place] = None
                    # One is read for each that goes: the memory of one block serves both.
                    following += itertools.islice(rest, 1)
                after = mark.position + len(block)
                if following:
                    mark = Mark(after, mark.epoch, mark.block + 1, *following[0][:2])
                else:
                    mark = Mark(after, mark.epoch + 1)
                self.marks.append(mark)
                block = following

    def _epoch(self, mark: Mark) -> Iterator[tuple[int, int, Cell]]:
        """(shard, row, example) from a mark to the end of its epoch."""
        order = randomness.order(self.seed, mark.epoch, len(self.shards))[self.number :: self.lanes]
        for place, shard in enumerate(order.tolist()):
            first = mark.row if place == mark.shard else 0
            if place >= mark.shard:
                for row, cell in enumerate(self.shards.rows(shard, first), first):
                    yield place, row, cell


class Lanes:
    """The stream of a run: which example stands where in the global batches of all steps."""

    def __init__(
        self, shards: Shards, seed: int, size: int, split: Split, saved: dict[str, Any] | None
    ):
        """`saved` is what `state` gave before a stop. Raises UserError if it is not that."""
        self.shards, self.seed, self.size, self.split = shards, seed, size, split
        self.dealt, self.marks = dealt(len(shards), split), dict[int, Mark]()
        if saved is not None:
            self.dealt, self.marks = _restored(saved, split.global_batch)
        self.open: dict[int, Lane] = {}
        self.names: collections.deque[tuple[int, list[str]]] = collections.deque(maxlen=REMEMBERED)

    def keys(self, start: int) -> Iterator[list[tuple[int, int, Cell]]]:
        """This rank's micro-batches from optimizer step `start` on, each key with its example."""
        for step in itertools.count(start):
            for micro in range(self.split.accumulation):
                keys = [(step, slot, self._at(step, slot)) for slot in self.split.slots(micro)]
                self.names.append((step, [cell.where for _, _, cell in keys]))
                yield keys

    def _at(self, step: int, slot: int) -> Cell:
        number, position = self.dealt.place(step, slot, self.split.global_batch)
        if number not in self.open:
            mark = self.marks.get(number, Mark())
            own = (self.shards, self.seed, number, self.dealt.lanes, self.size)
            self.open[number] = Lane(*own, mark)
        return self.open[number].at(position)

    def names_at(self, step: int) -> list[str]:
        """The examples of a late step that this process has read."""
        return [name for at, names in self.names if at == step for name in names]

    def state(self, done: int) -> dict[int, Mark]:
        """Where the lanes that this process reads go on after so many steps."""
        each = self.split.global_batch // self.dealt.lanes
        return {number: lane.mark(done * each) for number, lane in self.open.items()}

    def saved(self, marks: dict[int, Mark]) -> dict[str, object]:
        """The states of all processes as plain values."""
        return asdict(self.dealt) | {"marks": {str(n): astuple(m) for n, m in marks.items()}}


def _restored(saved: Any, batch: int) -> tuple[Dealt, dict[int, Mark]]:
    try:
        found = Dealt(saved["lanes"], saved["stripe"])
        marks = {int(number): Mark(*mark) for number, mark in saved["marks"].items()}
        numbers = [found.lanes, found.stripe, *(n for m in marks.values() for n in astuple(m))]
        if not all(type(n) is int and n >= 0 for n in numbers) or batch % found.lanes:
            raise ValueError(f"{numbers[:8]} for a global batch of {batch}")
        if sorted(marks) != list(range(found.lanes)) or found.stripe < 1:
            raise ValueError(f"{len(marks)} of {found.lanes} lanes")
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UserError(
            f"the checkpoint's place in the stream: {error!r}; name another checkpoint"
        ) from None
    return found, marks
