"""`wassily cache`: build, info and prune."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from wassily.config.commands import CacheConfig
from wassily.config.training import TrainConfig
from wassily.encodings import cache, definitions
from wassily.encodings.cache import Store
from wassily.errors import UserError
from wassily.planning import plan
from wassily.runtime.accelerator import Runtime
from wassily.training import setup
from wassily.training.stopping import StopSignals
from wassily.training_data import extra_sources, generated_embeddings, training_set


def info(config: CacheConfig) -> None:
    """Print each kind of entry with its number, size and last use."""
    root = cache.default_folder(config.cache_dir)
    print(f"{root}")
    total = 0
    for folder in _kinds(root):
        store = Store(folder)
        total += store.bytes()
        days = (time.time() - folder.stat().st_mtime) / 86400
        size = f"{store.bytes() / 1e6:10.1f} MB"
        print(f"  {folder.name:28s} {len(store):10d} entries {size}  used {days:.1f} days ago")
    print(f"  {total / 1e6:.1f} MB in all")


def prune(config: CacheConfig) -> None:
    """Remove the kinds of entries that no run has used for `unused_days`."""
    root = cache.default_folder(config.cache_dir)
    oldest = time.time() - config.unused_days * 86400
    removed = [f for f in _kinds(root) if f.stat().st_mtime <= oldest]
    freed = sum(Store(folder).bytes() for folder in removed)
    for folder in removed:
        shutil.rmtree(folder)
    print(f"removed {len(removed)} of the kinds in {root}: {freed / 1e6:.1f} MB")


def _kinds(root: Path) -> list[Path]:
    # Only folders that hold shards: a wrong --cache_dir must not cost anybody a folder.
    found = root.iterdir() if root.is_dir() else []
    return sorted(f for f in found if f.is_dir() and cache.shard_files(f))


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
        source = training_set.chosen_pictures(config, seed, runtime)
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
