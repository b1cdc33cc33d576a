"""All that a run reads: its own examples, those held out of them, and those that come beside."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

from wassily.config.training import TrainConfig
from wassily.encodings import definitions
from wassily.encodings.definitions import EncoderContext
from wassily.evaluation import heldout_loss
from wassily.evaluation.heldout_loss import HeldOutLoss
from wassily.reporting import run_facts
from wassily.training_data import (
    extra_sources,
    generated_embeddings,
    holdout,
    streamed_set,
    training_set,
)
from wassily.training_data.extra_sources import ExtraSource
from wassily.training_data.training_set import ExampleSet


@dataclass(frozen=True)
class Inputs:
    """What is trained on, what is only measured on, what comes beside, and counts of it all."""

    reading: ExampleSet
    probe: HeldOutLoss | None
    beside: list[ExtraSource]
    facts: dict[str, int]


def gather(config: TrainConfig, context: EncoderContext, seed: int) -> Inputs:
    """Open the sources of a config; look up or make the encodings of all but a stream.

    The encoders come and go before the network in training takes its memory. Raises UserError.
    """
    if config.streaming:
        return _streamed(config, context, seed)
    runtime, root = context.runtime, context.root
    source = training_set.chosen_pictures(config, seed, runtime)
    wanted = definitions.make_encodings(context)
    source, held = holdout.split(source, config.holdout, root, runtime, not config.no_cache)
    # Held-out pictures are measured as they are: nothing is mirrored or dropped.
    still = dataclasses.replace(context, condition_dropout=0.0)
    skip = config.skip_bad_images
    reading_of = functools.partial(
        training_set.make_reading, wanted, seed=seed, context=still, skip_bad=skip
    )
    probe = heldout_loss.small_held_out_loss(held, reading_of, seed, config.train_batch_size)
    own = training_set.make_reading(
        wanted, source, seed, context, flips=config.random_flip, skip_bad=skip
    )
    reading = generated_embeddings.mixed(own, config, context)
    beside = extra_sources.sources(wanted, seed, config, context)
    return Inputs(reading, probe, beside, run_facts.of_data(reading.source, context, held))


def _streamed(config: TrainConfig, context: EncoderContext, seed: int) -> Inputs:
    """Nothing of a stream is held out or counted."""
    shards = streamed_set.open_shards(config, context.runtime)
    beside = extra_sources.sources([], seed, config, context)
    wanted = definitions.make_encodings(dataclasses.replace(context, no_cache=True))
    reading = streamed_set.StreamedSet(config, context, wanted, shards, seed)
    return Inputs(reading, None, beside, {"shards": len(shards)})
