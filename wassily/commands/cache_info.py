"""`wassily cache info` and `wassily cache prune`: the encodings that are stored."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from wassily.config.commands import CacheConfig
from wassily.encodings import cache
from wassily.encodings.cache import Store


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
