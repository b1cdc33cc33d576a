"""Scores at each validation: which are asked for, and that seeds are the same each time."""

from __future__ import annotations

import pytest
import torch

from wassily.config.training import PriorConfig
from wassily.evaluation import validation_scores
from wassily.evaluation.metrics import Estimate
from wassily.evaluation.validation_scores import SeededPipelines
from wassily.generation import pipelines
from wassily.generation.sample import Drawing
from wassily.mini.untrained import SIDE, Tiny

CPU = torch.device("cpu")


def test_none_is_measured_unless_asked_for(tiny: Tiny) -> None:
    """With --validation_scores N, N generic prompts; without held-out images nothing else."""
    config = PriorConfig(dataset_name="a/b")
    assert validation_scores.scores_asked_for(config, None, str(tiny.prior), 3) is None
    config = PriorConfig(dataset_name="a/b", validation_scores=4)
    asked = validation_scores.scores_asked_for(config, None, str(tiny.prior), 3)
    assert asked is not None
    assert (len(asked.prompts), len(asked.captions), len(asked.pictures)) == (4, 0, 0)
    assert asked.count() == 4
    assert asked.seed == 3


def test_a_row_of_the_log_by_hand() -> None:
    """Each score with its interval and its sample size."""
    row = validation_scores.as_row(7, {"kept": Estimate(0.5, 0.25, 0.75, 4)})
    assert row == {
        "step": 7,
        "event": "scores",
        "kept": 0.5,
        "kept_low": 0.25,
        "kept_high": 0.75,
        "kept_n": 4,
    }


@pytest.mark.parametrize("batch", [1, 3])
def test_the_seed_of_a_prompt_is_that_of_its_place(batch: int, tiny: Tiny) -> None:
    """The third of three has seed 2, as if it were the first one with that seed."""
    where = (torch.float32, None)
    both = (
        pipelines.prior_pipeline(str(tiny.prior), *where),
        pipelines.decoder_pipeline(str(tiny.decoder), *where),
    )
    size = Drawing(1, 2, height=SIDE, width=SIDE, batch_size=batch, scheduler="stock")
    three = SeededPipelines(*both, CPU, size, 0).of_prompts(["a", "b", "c"])
    one = SeededPipelines(*both, CPU, size, 2).of_prompts(["c"])
    torch.testing.assert_close(three.pair[0][2], one.pair[0][0])
    assert not torch.allclose(three.pair[0][0], one.pair[0][0])
