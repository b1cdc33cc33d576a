"""Flags that do not go with the engine of a launch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wassily.config import launch_checks, training
from wassily.errors import UserError


@pytest.mark.parametrize(
    ("flags", "precision", "named"),
    [
        ({"compile": True}, "no", "--compile"),
        ({"use_8bit_adam": True}, "no", "--optimizer adamw8bit"),
        ({"optimizer": "adafactor"}, "no", "--optimizer adafactor"),
        ({}, "fp16", "--mixed_precision fp16"),
    ],
)
def test_what_it_does_not_go_with(
    flags: dict[str, Any], precision: str, named: str, photos: Path
) -> None:
    """Refused by name; gradient release is refused on several processes anyway."""
    config = training.PriorConfig(train_data_dir=str(photos), **flags)
    launch_checks.check_launch(config, precision, 2)
    with pytest.raises(UserError, match=f"^{named} does not go with FSDP2"):
        launch_checks.check_launch(config, precision, 2, sharded=True)
