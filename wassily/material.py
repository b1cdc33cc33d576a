"""All that a run reads: its own examples, those held out of them, and those that come beside."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

from wassily import drawn, encoders, heldout, recipes, sides, streaming, summary
from wassily.encoders import Frozen
from wassily.heldout import HeldOutLoss
from wassily.recipes import Reading
from wassily.sides import ExtraSource
from wassily.streaming import StreamedSet


@dataclass(frozen=True)
class Inputs:
    """What is trained on, what is only measured on, what comes beside, and counts of it all."""

    reading: Reading | StreamedSet
    probe: HeldOutLoss | None
    beside: list[ExtraSource]
    facts: dict[str, int]


def gather(frozen: Frozen, seed: int) -> Inputs:
    """Open the sources of a config; look up or make the encodings of all but a stream.

    The encoders come and go before the network in training takes its memory. Raises UserError.
    """
    if frozen.config.streaming:
        return _streamed(frozen, seed)
    config, runtime, root = frozen.config, frozen.runtime, frozen.root
    source = recipes.chosen_pictures(config, seed, runtime)
    wanted = encoders.make_encodings(frozen)
    source, held = heldout.split(source, config.holdout, root, runtime, not config.no_cache)
    # Held-out pictures are measured as they are: nothing is mirrored or dropped.
    plain = dataclasses.replace(config, random_flip=False, condition_dropout=0.0)
    still = dataclasses.replace(frozen, config=plain)
    reading_of = functools.partial(recipes.make_reading, wanted, seed=seed, frozen=still)
    probe = heldout.small_held_out_loss(held, reading_of, seed, config.train_batch_size)
    reading = drawn.mixed(recipes.make_reading(wanted, source, seed, frozen), frozen)
    beside = sides.sources(wanted, seed, frozen)
    return Inputs(reading, probe, beside, summary.of_data(reading.source, frozen, held))


def _streamed(frozen: Frozen, seed: int) -> Inputs:
    """Nothing of a stream is held out or counted."""
    shards = streaming.open_shards(frozen.config, frozen.runtime)
    beside = sides.sources([], seed, frozen)
    wanted = encoders.make_encodings(dataclasses.replace(frozen, live=True))
    reading = streaming.StreamedSet(wanted, shards, seed, frozen)
    return Inputs(reading, None, beside, {"shards": len(shards)})
