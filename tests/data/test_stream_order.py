"""The order of a stream: every example once an epoch, and found again from any step."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shard_files

from wassily.data import stream_order
from wassily.data.example_order import Split
from wassily.data.shards import Cell, Shards, read_shards
from wassily.data.stream_order import Dealt, Lanes, Mark
from wassily.errors import UserError


class Counted:
    """Shards of so many examples; what is read of them is counted."""

    def __init__(self, *sizes: int):
        self.sizes, self.read = sizes, 0
        self.names = [str(shard) for shard in range(len(sizes))]

    def __len__(self) -> int:
        return len(self.sizes)

    def rows(self, shard: int, first: int = 0) -> Iterator[Cell]:
        """Their names are `shard/row`."""
        for row in range(first, self.sizes[shard]):
            self.read += 1
            yield Cell(f"{shard}/{row}", b"x", None)


def _lanes(shards: Any, split: Split, saved: Any = None, size: int = 4, seed: int = 5) -> Lanes:
    return Lanes(shards, seed, size, split, saved)


def _steps(found: Lanes, start: int, count: int) -> dict[tuple[int, int], str]:
    """(step, slot) -> name, of so many steps."""
    micros = itertools.islice(found.keys(start), count * found.split.accumulation)
    return {(step, slot): cell.where for keys in micros for step, slot, cell in keys}


def _whole(shards: Any, splits: list[Split], count: int) -> dict[tuple[int, int], str]:
    """The global batches of all ranks together; no place is filled twice."""
    parts = [_steps(_lanes(shards, split), 0, count) for split in splits]
    together = {key: name for part in parts for key, name in part.items()}
    assert len(together) == sum(map(len, parts)) == count * splits[0].global_batch
    return together


def _ranks(per_process: int, accumulation: int, world: int) -> list[Split]:
    return [Split(per_process, accumulation, world, rank) for rank in range(world)]


def _line(batches: dict[tuple[int, int], str]) -> list[str]:
    return [batches[key] for key in sorted(batches)]


@pytest.mark.parametrize("sizes", [(5, 3, 8), (16,), (1, 0, 9, 2, 4)])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_each_epoch_has_every_example_once(sizes: tuple[int, ...], size: int) -> None:
    """However full the buffer is, and in another order each time."""
    total = sum(sizes)
    line = _line(_steps(_lanes(Counted(*sizes), Split(1, 1, 1, 0), size=size), 0, 3 * total))
    epochs = [line[n * total : (n + 1) * total] for n in range(3)]
    every = {f"{shard}/{row}" for shard, rows in enumerate(sizes) for row in range(rows)}
    for epoch in epochs:
        assert Counter(epoch) == Counter(every)
    if size > 1:
        assert epochs[0] != epochs[1] != epochs[2]
    other = _line(_steps(_lanes(Counted(*sizes), Split(1, 1, 1, 0), size=size, seed=6), 0, total))
    assert size == 1 or other != epochs[0]


@pytest.mark.parametrize("kind", ["parquet", "tars"])
@pytest.mark.parametrize(
    ("sizes", "world"), [((6, 6, 6, 6), 1), ((6, 6, 6, 6), 2), ((7, 2, 11), 2)]
)
def test_counted_over_processes(
    kind: str, sizes: tuple[int, ...], world: int, tmp_path: Path
) -> None:
    """Of real files: what all processes of a run read in an epoch is every example once."""
    folder = getattr(shard_files, kind)(tmp_path / "shards", sizes)
    columns = ("image", "text") if kind == "parquet" else ("jpg", "txt")
    total = sum(sizes)
    found = []
    for split in _ranks(1, 2, world):
        shards = read_shards(str(folder), None, *columns, None)
        own = _steps(_lanes(shards, split), 0, total // split.global_batch)
        found += list(own.values())
        if len(sizes) % world == 0:  # a lane each: nobody opens the shards of another
            mine = {name.partition(",")[0] for name in own.values()}
            assert len(mine) == len(sizes) // world
    names = [file.name for file in sorted(folder.iterdir())]
    assert Counter(found) == Counter(
        f"{name}, example {row}"
        for name, rows in zip(names, sizes, strict=True)
        for row in range(rows)
    )


def test_shards_that_cannot_be_dealt_make_one_order_for_any_processes() -> None:
    """3 shards: the global batches are the same, whoever fills which place."""
    alone = _whole(Counted(5, 3, 9), _ranks(4, 1, 1), 10)
    for cut in (_ranks(2, 1, 2), _ranks(1, 2, 2), _ranks(1, 1, 4), _ranks(1, 4, 1)):
        assert _whole(Counted(5, 3, 9), cut, 10) == alone


@pytest.mark.parametrize("sizes", [(5, 3, 9), (5, 7, 5, 7)])
@pytest.mark.parametrize("stop", [1, 4, 5, 13])
@pytest.mark.parametrize("before", [_ranks(2, 1, 2), _ranks(1, 2, 2)])
@pytest.mark.parametrize("after", [_ranks(2, 1, 2), _ranks(1, 4, 1), _ranks(1, 1, 4)])
def test_a_stop_anywhere(
    sizes: tuple[int, ...], stop: int, before: list[Split], after: list[Split]
) -> None:
    """What a checkpoint knows, as JSON, is enough for any number of processes: the same batches."""
    whole = _whole(Counted(*sizes), before, 20)
    marks, saved = {}, {}
    for split in before:
        reads = _lanes(Counted(*sizes), split)
        _steps(reads, 0, stop + 1)  # a reader is ahead of the steps
        marks |= reads.state(stop)
        saved = reads.saved(marks)
    kept = json.loads(json.dumps(saved))
    rest = {}
    for split in after:
        rest |= _steps(_lanes(Counted(*sizes), split, kept), stop, 20 - stop)
    assert rest == {key: name for key, name in whole.items() if key[0] >= stop}


def test_going_on_reads_little() -> None:
    """Not from the beginning: one buffer, and what the steps take."""
    sizes, split = (50,) * 20, Split(4, 1, 1, 0)
    reads = _lanes(Counted(*sizes), split, size=8)
    _steps(reads, 0, 200)
    kept = reads.saved(reads.state(200))
    again = Counted(*sizes)
    _steps(_lanes(again, split, kept, size=8), 200, 1)
    assert again.read <= 3 * 8 + 4


def test_memory_is_that_of_the_buffer() -> None:
    """No more examples are read ahead than it holds."""
    shards = Counted(40, 40)
    reads = _lanes(shards, Split(1, 1, 1, 0), size=10)
    for done, _ in enumerate(itertools.islice(reads.keys(0), 60), start=1):
        assert shards.read <= done + 10
    assert [len(lane.marks) for lane in reads.open.values()] == [6]
    reads.state(60)
    assert len(reads.open[0].marks) == 1


def test_nothing_to_read() -> None:
    """An end without end is an error."""
    with pytest.raises(UserError, match="no example in it or in the other shards"):
        next(_lanes(Counted(0, 0), Split(1, 1, 1, 0)).keys(0))


@pytest.mark.parametrize(
    "saved",
    [
        {},
        [],
        {"lanes": 0, "stripe": 1, "marks": {}},
        {"lanes": 1, "stripe": 0, "marks": {"0": [0, 0, 0, 0, 0]}},
        {"lanes": 2, "stripe": 1, "marks": {"0": [0, 0, 0, 0, 0]}},
        {"lanes": 1, "stripe": 1, "marks": {"0": [0, 0, 0, 0]}, "x": 1} | {"stripe": "1"},
        {"lanes": 1, "stripe": 1, "marks": {"0": [-1, 0, 0, 0, 0]}},
        {"lanes": 3, "stripe": 1, "marks": {str(n): [0] * 5 for n in range(3)}},
    ],
)
def test_a_checkpoint_of_nonsense(saved: Any) -> None:
    with pytest.raises(UserError, match="place in the stream"):
        _lanes(Counted(3), Split(1, 1, 1, 0), saved)


def test_places_by_hand() -> None:
    """2 processes of 2 and 2 micro-batches: slots 0, 1, 4, 5 are of the first one's lane."""
    found = [Dealt(2, 2).place(3, slot, 8) for slot in range(8)]
    assert found == [(0, 12), (0, 13), (1, 12), (1, 13), (0, 14), (0, 15), (1, 14), (1, 15)]
    assert stream_order.dealt(4, Split(2, 2, 2, 1)) == Dealt(2, 2)
    assert stream_order.dealt(3, Split(2, 2, 2, 1)) == Dealt(1, 8)
    assert Mark() == Mark(0, 0, 0, 0, 0)


def test_names_of_late_steps() -> None:
    """They are remembered, for a step that is skipped."""
    reads = _lanes(Counted(9), Split(2, 2, 1, 0))
    batches = _steps(reads, 0, 3)
    assert reads.names_at(1) == [batches[1, slot] for slot in range(4)]
    assert reads.names_at(7) == []


def test_shards_are_told_by_their_files(tmp_path: Path) -> None:
    """A resume compares names and sizes."""
    one = read_shards(
        str(shard_files.parquet(tmp_path / "one", (2, 2))), None, "image", "text", None
    )
    two = read_shards(
        str(shard_files.parquet(tmp_path / "two", (2, 3))), None, "image", "text", None
    )
    assert one.fingerprint() != two.fingerprint()
    assert isinstance(one, Shards) and len(one) == 2
