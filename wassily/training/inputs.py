"""All that a run reads: training images, held-out images, extra sources."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from wassily.config.training import TrainConfig
from wassily.data import captions
from wassily.data.datasets import Pictures
from wassily.encodings import definitions, fill
from wassily.encodings.definitions import EncoderContext
from wassily.evaluation import heldout_loss
from wassily.evaluation.heldout_loss import HeldOutLoss
from wassily.models import parts
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
    source = training_set.chosen_images(config, seed, runtime)
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
    return Inputs(reading, probe, beside, data_facts(reading.source, context, held))


def _streamed(config: TrainConfig, context: EncoderContext, seed: int) -> Inputs:
    """Nothing of a stream is held out or counted."""
    shards = streamed_set.open_shards(config, context.runtime)
    beside = extra_sources.sources([], seed, config, context)
    wanted = definitions.make_encodings(dataclasses.replace(context, no_cache=True))
    reading = streamed_set.StreamedSet(config, context, wanted, shards, seed)
    return Inputs(reading, None, beside, {"shards": len(shards)})


def data_facts(
    source: Pictures, context: EncoderContext, held_out: Pictures | None
) -> dict[str, int]:
    """Counts of what is trained on: pictures, and if they are kept in the cache, the equal ones
    among them; captions, the different ones and the cut ones, where the network reads them.
    """
    runtime = context.runtime
    found = {"pictures": len(source)}
    if not context.no_cache:
        contents, _ = fill.image_contents(source, context.root, runtime)
        found["duplicates"] = len(contents) - len(np.unique(contents, axis=0))
    if context.role == "prior":
        home = context.repositories["prior"]
        tokenizer = parts.load("tokenizer", home, cache_dir=context.cache_dir)
        cut, total = runtime.shared(lambda: captions.count_cut(source.all_captions(), tokenizer))
        different = runtime.shared(lambda: len({hash(text) for text in source.all_captions()}))
        found |= {"captions": total, "different_captions": different, "cut_captions": cut}
        found["longest_caption_in_tokens"] = tokenizer.model_max_length
    return found | ({"held_out": len(held_out)} if held_out else {})


def count_lines(found: dict[str, int]) -> list[str]:
    """What of these counts is said before the first step."""
    lines = []
    if found.get("duplicates"):
        lines.append(f"{found['duplicates']} of {found['pictures']} pictures are copies of others")
    if "captions" in found:
        limit = found["longest_caption_in_tokens"]
        counted = f"{found['cut_captions']} of {found['captions']} captions"
        lines.append(f"{counted} are longer than {limit} tokens and are cut there")
    return lines
