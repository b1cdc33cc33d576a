"""Schedulers and their steps, as flags and as a `Drawing`."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from wassily.config import generation_checks
from wassily.errors import UserError
from wassily.generation import schedulers
from wassily.generation.sample import Canvas, Drawing

FAST = tuple(schedulers.KINDS)


def test_names_are_the_same_everywhere() -> None:
    assert set(generation_checks.STEPS) == {"stock", *FAST}
    with pytest.raises(UserError, match="'euler' is none of stock, ddim"):
        Drawing(scheduler="euler")  # type: ignore[arg-type]


def test_steps_that_are_not_named() -> None:
    """As many as the scheduler needs; on a picture enough that a share of them is some."""
    on, part = Canvas(Image.new("RGB", (8, 8))), Canvas(*[Image.new("RGB", (8, 8))] * 2)
    for name, usual in generation_checks.STEPS.items():
        drawing: Any = Drawing(scheduler=name)  # type: ignore[arg-type]
        assert (
            generation_checks.steps(drawing, Canvas())
            == generation_checks.steps(drawing, part)
            == usual
        )
        assert generation_checks.steps(drawing, on) == (100 if name == "stock" else 50)
    assert generation_checks.steps(Drawing(7), on) == 7
