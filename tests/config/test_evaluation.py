"""Flags of evaluate and sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wassily.config.evaluation import EvaluateConfig, SweepConfig
from wassily.errors import UserError

SWEEP: dict[str, Any] = {"base": ("mini",), "tuned": ("a",), "learned_prompts": "new.txt"}


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"prior_steps": 1}, "--prior_steps"),
        ({"steps": 1001}, "--steps"),
        ({"resolution": 12}, "--resolution"),
        ({"holdout": 0.1}, "--holdout"),
        ({"holdout": 1.0, "dataset_name": "a/b"}, "--holdout"),
        ({"dataset_config_name": "c"}, "--dataset_config_name"),
        ({"train_data_dir": "gone"}, "--train_data_dir"),
        ({"out": "scores.txt"}, "--out"),
    ],
)
def test_evaluate_refuses(values: dict[str, Any], flag: str) -> None:
    """In one line that begins with the flag."""
    with pytest.raises(UserError, match=f"^{flag}"):
        EvaluateConfig(**values)


def test_one_source_of_images(tmp_path: Path) -> None:
    """A folder or a data set."""
    EvaluateConfig(train_data_dir=str(tmp_path), holdout=0.5)
    with pytest.raises(UserError, match="name one source"):
        EvaluateConfig(train_data_dir=str(tmp_path), dataset_name="a/b")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tuned": ()}, "--tuned"),
        ({"tuned": ("a", "b", "c")}, "--tuned"),
        ({"base": ()}, "--base"),
        ({"alphas": (0.5,)}, "--alphas"),
        ({"alphas": (0.5, 1.5)}, "1.5 is not"),
        ({"alphas": (0.5, 0.5)}, "named twice"),
        ({"learned_prompts": None}, "name one of them"),
        ({"dataset_name": "a/b"}, "name one of them"),
        ({"json": "table"}, "--json"),
    ],
)
def test_sweep_refuses(values: dict[str, Any], words: str) -> None:
    """What makes no row of shares, or no measure."""
    SweepConfig(**SWEEP)
    with pytest.raises(UserError, match=words):
        SweepConfig(**(SWEEP | values))
