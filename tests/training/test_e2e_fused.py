"""The micro-batches of a step run as one batch: the same training, and the same after a resume."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e import ROLES, assert_same_bits, losses, network, train

from wassily.files import run_state
from wassily.mini.untrained import Tiny

SAME: dict[str, Any] = {
    "max_train_steps": 4,
    "train_batch_size": 2,
    "gradient_accumulation_steps": 3,
    "checkpointing_steps": 2,
    "logging_steps": 1,
    "condition_dropout": 0.3,  # drawn for each example by its place in the global batch
    "adam_epsilon": 1e-4,  # gradients that are zero but for rounding shall not move weights
}


@pytest.mark.parametrize("role", ROLES)
def test_one_batch_is_its_micro_batches(
    role: str, tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses and weights agree up to rounding; a resume does as its checkpoint did, with whatever
    memory there is now, and gives the same bits.
    """
    apart, whole = tmp_path / "apart", tmp_path / "whole"
    said = train(role, apart, tiny, photos, **SAME, fuse_accumulation="off").out
    assert "3 micro-batches a step, one after the other (--fuse_accumulation off)" in said
    said = train(role, whole, tiny, photos, **SAME).out
    assert "3 micro-batches a step, as one batch (as one batch they take less than" in said
    for one, two in zip(losses(apart), losses(whole), strict=True):
        assert one == pytest.approx(two, rel=1e-5)
    a, b = network(apart, role), network(whole, role)
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-5, rtol=1e-3, msg=name)
    assert any(not torch.equal(a[name], b[name]) for name in a)

    monkeypatch.setattr("wassily.planning.memory.available", lambda: 1)
    again = tmp_path / "again"
    again.mkdir()
    shutil.copytree(whole / "checkpoint-2", again / "checkpoint-2")
    assert run_state.read(again / "checkpoint-2", run_state.RunState).fused
    said = train(role, again, tiny, photos, **SAME, resume_from_checkpoint="latest").out
    assert "as one batch (as before)" in said
    assert_same_bits(whole / "checkpoint-4", again / "checkpoint-4")


def test_too_little_memory(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay apart when one batch would not fit, or nobody knows; a wish is followed."""
    usual = {**SAME, "max_train_steps": 1}
    for number, (free, flags, wanted) in enumerate(
        [
            (10**6, {}, "one after the other (as one batch they would take about 0.6 of 0.0 GB)"),
            (None, {}, "one after the other (free memory is not known)"),
            (10**6, {"fuse_accumulation": "on"}, "as one batch (--fuse_accumulation on)"),
        ]
    ):
        monkeypatch.setattr("wassily.planning.memory.available", lambda free=free: free)
        said = train("prior", tmp_path / str(number), tiny, photos, **usual, **flags).out
        assert wanted in said
