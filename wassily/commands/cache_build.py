"""`wassily cache build`: encode what a training would encode, before it.

Apart from `cache_info`, which loads no model.
"""

from __future__ import annotations

import contextlib

from wassily.config.training import TrainConfig
from wassily.encodings import cache, definitions
from wassily.errors import UserError
from wassily.planning import plan
from wassily.runtime.accelerator import Runtime
from wassily.training import setup
from wassily.training.stopping import StopSignals
from wassily.training_data import extra_sources, generated_embeddings, training_set


def build_cache(config: TrainConfig) -> None:
    """Encode what a training with this config would encode, and stop there. Raises UserError."""
    if config.no_cache:
        raise UserError("cache build with --no_cache: nothing to do")
    if config.streaming:
        raise UserError("cache build with --streaming: a stream is encoded as it comes, not kept")
    repositories = setup.check_surroundings(config)
    root = cache.default_folder(config.cache_dir)
    with StopSignals(extra_sources.retained_remark(config, root)), contextlib.ExitStack() as held:
        runtime = Runtime(config.mixed_precision, 1, config.output_dir, config.logging_dir, "none")
        held.callback(runtime.end)
        seed = setup.seed_of(config, None, runtime)
        context = definitions.of_training(config, repositories, runtime, root)
        source = training_set.chosen_images(config, seed, runtime)
        wanted = definitions.make_encodings(context)
        flips, skip = config.random_flip, config.skip_bad_images
        own = training_set.make_reading(wanted, source, seed, context, flips=flips, skip_bad=skip)
        reading = generated_embeddings.mixed(own, config, context)
        beside = [
            f"{one.total} {one.name}"
            for one in extra_sources.sources(wanted, seed, config, context)
        ]
        counted = " and ".join([f"{len(reading.source)} pictures", *beside])
        runtime.say(f"the encodings of {counted} are in {context.root}")
        size, count = plan.cut(config, fused=True)
        for line in reading.buckets.described(size * count * runtime.world):
            runtime.say(line)
