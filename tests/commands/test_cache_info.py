"""`wassily cache info` and `wassily cache prune`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from wassily.commands import cache_info
from wassily.config.commands import CacheConfig
from wassily.encodings import cache


def ragged(n: int) -> torch.Tensor:
    """Rising numbers from n on, (1..5, 1..3, 2)."""
    shape = (n % 5 + 1, n % 3 + 1, 2)
    return torch.arange(n, n + shape[0] * shape[1] * 2.0).reshape(shape)


def filled(folder: Path, names: str) -> cache.Store:
    """One entry a letter: `x` (2,) and, of a shape of its own, `r`."""
    writer = cache.Writer(folder, ragged=("r",))
    for name in names:
        n = ord(name)
        writer.add(
            cache.digest(name),
            {"x": torch.tensor([n, n + 0.5]), "r": ragged(n)},
        )
    writer.flush()
    return cache.Store(folder)


def test_info_and_prune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is unused for long goes, the rest and other folders stay."""
    root = cache.default_folder(str(tmp_path))
    filled(root / "image-1", "ab")
    filled(root / "image-2", "abc")
    (root / "mine").mkdir()
    (root / "mine" / "letter.txt").write_text("dear")
    os.utime(root / "image-1", (time.time() - 40 * 86400,) * 2)
    cache_info.info(CacheConfig(cache_dir=str(tmp_path)))
    assert "image-2" in capsys.readouterr().out
    cache_info.prune(CacheConfig(cache_dir=str(tmp_path)))
    assert sorted(p.name for p in root.iterdir()) == ["image-2", "mine"]
