"""Examples read from shards in training: the `training_set.TrainingSet` of a stream.

How many there are is not known, so they cannot be looked at before the first step: what is wrong
with one shows at its turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from wassily.config import training
from wassily.config.training import TrainConfig
from wassily.data import aspect_buckets, entries, images
from wassily.data.datasets import Record
from wassily.data.example_order import Split
from wassily.data.shards import Cell, Shards, read_shards
from wassily.data.stream_order import Lanes
from wassily.encodings import definitions, lookup
from wassily.encodings.definitions import EncoderContext
from wassily.encodings.fill import Encoding
from wassily.errors import UserError
from wassily.maths.losses import Batch
from wassily.runtime.accelerator import Runtime

BLANK = b"P6 1 1 255 \0\0\0"  # the smallest picture: stands for a bad one, and counts nothing
SAID = 10  # bad examples that are named each; after that every hundredth is


def open_shards(config: TrainConfig, runtime: Runtime) -> Shards:
    """The shards that a config names. Raises UserError."""
    assert config.dataset_name  # the config was checked
    caption = config.caption_column if isinstance(config, training.PriorConfig) else None
    columns = (config.image_column, caption)
    where = (config.dataset_name, config.dataset_config_name, *columns, config.cache_dir)
    if runtime.world > 1:  # one process first: what is not there is told once
        runtime.shared(lambda: bool(read_shards(*where)))
    shards = read_shards(*where)
    entries.tell(shards.remarks, config.dataset_name, runtime.say)
    return shards


class StreamedSet:
    """The examples of shards in the order of their lanes; encoded at their turn."""

    count = None  # of the examples: nobody has read them all

    def __init__(
        self,
        config: TrainConfig,
        context: EncoderContext,
        wanted: list[Encoding],
        shards: Shards,
        seed: int,
    ):
        self.shards, self.seed, self.config = shards, seed, config
        self.captioned = shards.caption_column is not None
        choice = lookup.ExampleDraws(seed, config.random_flip, config.condition_dropout)
        self.live = lookup.Live(wanted, choice)
        [self.square] = definitions.crop_shapes(context)
        self.blank = Record("", BLANK, ("",))
        self.bad = 0

    def begin(self, split: Split, saved: dict[str, Any] | None) -> None:
        """Deal the shards to lanes, or go on from what a checkpoint has of `state`."""
        self.lanes = Lanes(self.shards, self.seed, self.config.shuffle_buffer, split, saved)

    def first(self, most: int) -> list[Cell]:
        """A few examples, whatever the order is. Raises UserError."""
        return list(itertools.islice(self.shards.rows(0), most))

    def shape(self, cell: Cell) -> aspect_buckets.Size:
        """The shape of an example's crop: a square."""
        return self.square

    def keys(self, split: Split, start: int) -> Iterator[list[tuple[int, int, Cell]]]:
        """This rank's micro-batches from optimizer step `start` on."""
        return self.lanes.keys(start)

    def names_at(self, step: int, split: Split) -> list[str]:
        """The examples of a step that this process has read."""
        return self.lanes.names_at(step)

    def fetch(self, cell: Cell, step: int, slot: int) -> dict[str, Any]:
        """What the encoders are given; of a bad example a blank one, and the reason as `bad`."""
        try:
            return self.live(cell.record(self.captioned), step, slot)
        except images.BadPicture as error:
            reason = f"{cell.where}: {error}"
        except UserError as error:
            reason = str(error)
        # Told by `finish`: this may be a reader's process, whose errors arrive as many lines.
        return {**self.live(self.blank, step, slot), "bad": reason}

    def collate(self, rows: list[Any]) -> list[Any]:
        """Rows travel as they are: the encoders are in this process, not in a reader's."""
        return rows

    def finish(self, rows: list[dict[str, Any]]) -> Batch:
        """Rows to a batch. Raises UserError at a bad example, unless it is to be skipped."""
        reasons = [row.pop("bad", None) for row in rows]
        for reason in filter(None, reasons):
            if not self.config.skip_bad_images:
                raise UserError(f"{reason}; mend or remove it, or add --skip_bad_images")
            self._say(reason)
        batch = lookup.collate(self.live.encode(rows))
        if self.config.skip_bad_images:
            good = batch["t"].new_tensor([reason is None for reason in reasons]).float()
            batch["weight"] = batch.get("weight", 1.0) * good
        return batch

    def _say(self, reason: str) -> None:
        self.bad += 1
        if self.bad <= SAID or self.bad % 100 == 0:
            print(f"left out ({self.bad} by now): {reason}", flush=True)

    def state(self, done: int, runtime: Runtime) -> dict[str, Any]:
        """Where the stream goes on after so many steps; the processes meet here."""
        return self.lanes.saved(runtime.gathered(self.lanes.state(done)))

    def signature(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be gone on with."""
        return {
            "data set": self.shards.fingerprint(),
            "pictures": None,
            "shards": len(self.shards),
            "shuffle_buffer": self.config.shuffle_buffer,
        }

    def shapes(self, split: Split) -> list[str]:
        """No lines: they are all squares."""
        return []

    def described(self, batch: int, stop: int) -> tuple[str, str]:
        """What is read, and how often in so many global batches; two ends of a line."""
        lanes = self.lanes.dealt.lanes
        return (
            f"a stream of {len(self.shards)} shards in {lanes} lane(s)",
            f"{stop * batch} examples",
        )
