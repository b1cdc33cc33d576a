"""A config becomes the parts of a run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from wassily.config.training import PriorConfig
from wassily.mini.untrained import Tiny
from wassily.training import assemble


def _config(cls: type, tiny: Tiny, **values: Any) -> Any:
    base = {
        "pretrained_prior_model_name_or_path": str(tiny.prior),
        "pretrained_decoder_model_name_or_path": str(tiny.decoder),
        "train_data_dir": str(tiny.prior),
        "report_to": "none",
    }
    return cls(**(base | values))


@pytest.mark.parametrize(
    ("pictures", "batch", "epochs", "steps"),
    [(7, 2, 1, 4), (7, 2, 2, 7), (8, 2, 3, 12), (3, 8, 1, 1), (3, 8, 10, 4), (1, 1, 5, 5)],
)
def test_steps_of_epochs(pictures: int, batch: int, epochs: int, steps: int, tiny: Tiny) -> None:
    """ceil(epochs pictures / batch): epochs are joined, and only the last batch is rounded up."""
    config = _config(PriorConfig, tiny, num_train_epochs=epochs)
    assert assemble.steps_in_all(config, pictures, batch) == steps
    both = dataclasses.replace(config, max_train_steps=9)
    assert assemble.steps_in_all(both, pictures, batch) == 9
