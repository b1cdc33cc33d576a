"""Which sources of images may be named together."""

from __future__ import annotations

import pytest

from wassily.config.training import PriorConfig
from wassily.errors import UserError


def test_a_source_of_pictures_is_needed() -> None:
    """One, and only one."""
    with pytest.raises(UserError, match="--train_data_dir FOLDER or --dataset_name NAME"):
        PriorConfig()
    assert PriorConfig(dataset_name="me/pics", dataset_config_name="en").dataset_name == "me/pics"
