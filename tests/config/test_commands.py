"""Flags of the commands besides training and generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wassily.config import commands
from wassily.config.training import PriorConfig
from wassily.errors import UserError


def _make(cls: type, folder: Path, **values: Any) -> Any:
    return cls(**({"train_data_dir": str(folder)} | values))


def test_a_cache_is_verified_or_not_used(tmp_path: Path) -> None:
    """Not both; and days are not negative."""
    with pytest.raises(UserError, match="--no_cache and --verify_cache"):
        _make(PriorConfig, tmp_path, no_cache=True, verify_cache=True)
    assert commands.CacheConfig().unused_days == 30
    with pytest.raises(UserError, match="--unused_days"):
        commands.CacheConfig(unused_days=-1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "either --lora ADAPTER or --tuned"),
        ({"lora": "a", "tuned": "b"}, "either --lora ADAPTER or --tuned"),
        ({"lora": "a", "lora_scale": -1.0}, "--lora_scale"),
        ({"lora": "a", "alpha": 0.5}, "--alpha needs --tuned"),
        ({"base": "a", "tuned": "b", "alpha": 0.5, "lora_scale": 1.0}, "--lora_scale needs --lora"),
        ({"tuned": "b", "alpha": 0.5}, "--tuned needs --base"),
        ({"base": "a", "tuned": "b"}, "--tuned needs --alpha"),
        ({"base": "a", "tuned": "b", "alpha": 1.1}, "--alpha"),
    ],
)
def test_merge_refuses(values: dict[str, Any], message: str) -> None:
    """Before a model is loaded."""
    with pytest.raises(UserError, match=message):
        commands.MergeConfig(**values)
