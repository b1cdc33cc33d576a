"""One example at its turn: flip, caption and condition dropout drawn, its encodings looked up.

`Cached` looks them up and `Live` makes them: the same rows, on a CPU to the bit. `collate` makes a
batch of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wassily.data import images
from wassily.data.datasets import Pictures, Record
from wassily.encodings import cache
from wassily.encodings.cache import UNCONDITIONAL, caption_key, mirrored
from wassily.encodings.fill import Encode, Encoding, Row, encode_fixed
from wassily.maths import randomness


@dataclass(frozen=True)
class ExampleDraws:
    """The random draws of one example: which of its captions, whether it is mirrored, and whether
    it is learnt without its condition.
    """

    seed: int
    random_flip: bool
    condition_dropout: float = 0.0

    def flip(self, step: int, slot: int) -> bool:
        """Whether the picture is mirrored."""
        # Asked for by step and slot, so that a resume needs no state.
        return self.random_flip and randomness.flip(self.seed, step, slot)

    def caption(self, record: Record, step: int, slot: int) -> str:
        """One of the record's captions."""
        return record.captions[randomness.choice(self.seed, step, slot, len(record.captions))]

    def instead(self, encoding: Encoding, step: int, slot: int) -> Tensor | None:
        """The unconditional, where it takes the place of this encoding; None: it stays."""
        item = encoding.unconditional
        drops = item is not None and randomness.drops(self.seed, step, slot, self.condition_dropout)
        return item if drops else None


class Cached:
    """index -> the encodings of that example, read from the cache."""

    def __init__(
        self,
        encodings: Sequence[Encoding],
        source: Pictures,
        contents: np.ndarray,
        root: Path,
        choice: ExampleDraws,
    ):
        self.encodings = encodings
        self.source, self.contents, self.choice = source, contents, choice
        self.stores = {e.name: cache.Store(e.folder(root)) for e in encodings}
        for encoding in encodings:
            # `wassily cache prune` goes by the last use.
            cache.mark_used(encoding.folder(root))

    def __call__(self, index: int, step: int, slot: int) -> Row:
        """All fields of all encodings, each (...) or (L, ...)."""
        row: Row = {}
        for encoding in self.encodings:
            if self.choice.instead(encoding, step, slot) is not None:
                key = UNCONDITIONAL
            elif encoding.reads == "caption":
                key = caption_key(self.choice.caption(self.source[index], step, slot))
            else:
                content = self.contents[index : index + 1]
                flip = self.choice.flip(step, slot)
                key = (mirrored(content) if flip else content).tobytes()
            row |= self.stores[encoding.name][key]
        return row


class Live:
    """record -> what the encoders would be given; `encode` then does the work, batch by batch."""

    def __init__(self, encodings: Sequence[Encoding], choice: ExampleDraws):
        self.encodings, self.choice = encodings, choice
        self._encode: dict[str, Encode] = {}

    def __call__(self, record: Record, step: int, slot: int) -> Row:
        """The prepared item of each encoding under its name. Raises BadPicture."""
        row: Row = {}
        for encoding in self.encodings:
            item = self.choice.instead(encoding, step, slot)
            if item is None:
                item = self._prepared(encoding, record, step, slot)
            row[encoding.name] = item
        return row

    def _prepared(self, encoding: Encoding, record: Record, step: int, slot: int) -> Tensor:
        if encoding.reads == "caption":
            return encoding.prepare(self.choice.caption(record, step, slot))
        item = images.open_rgb(record.image)
        return encoding.prepare(images.mirror(item) if self.choice.flip(step, slot) else item)

    def encode(self, rows: list[Row]) -> list[Row]:
        """Prepared items -> encodings; the rest of a row is kept, and a row may have no items."""
        done = [dict(row) for row in rows]
        for encoding in self.encodings:
            if encoding.name not in self._encode:
                # Loaded at the first batch, in the process that encodes.
                self._encode[encoding.name] = encoding.load()
            mine = [row for row in done if encoding.name in row]
            items = [row.pop(encoding.name) for row in mine]
            found = encode_fixed(self._encode[encoding.name], items, encoding.batch)
            for row, made in zip(mine, found, strict=True):
                row |= made
        return done


def collate(rows: list[Row]) -> Row:
    """Rows -> a batch; `text_states` (L, D) are padded to the longest, with `text_mask` (B, L).

    A field that only rows of one source have is zero in the others.
    """
    batch: Row = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        there = next(row[name] for row in rows if name in row)
        # What a row lacks has to have a shape all the same.
        values = [row[name] if name in row else torch.zeros_like(there) for row in rows]
        if name == "text_states":
            # To the longest of the batch: padding beyond it changes no result.
            batch[name] = pad_sequence(values, batch_first=True)
            lengths = torch.tensor([len(value) for value in values])
            batch["text_mask"] = torch.arange(batch[name].shape[1])[None] < lengths[:, None]
        else:
            batch[name] = torch.stack(values)
    return batch
