"""The parts of a training that were made apart, in one run, stopped and gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from e2e import ROLES, assert_same_bits, losses, train

from wassily.files import run_state
from wassily.mini.untrained import Tiny

ALL: dict[str, Any] = {
    "lora": True,
    "rank": 2,
    "lora_dropout": 0.1,
    "condition_dropout": 0.3,
    "use_ema": True,
    "ema_sigma_rel": 0.2,
    "holdout": 0.3,
    "snr_gamma": 5.0,
    "gradient_accumulation_steps": 2,
    "learning_rate": 0.01,
    "max_train_steps": 4,
    "checkpointing_steps": 2,
    "logging_steps": 1,
    "validation_epochs": 1,
}


def _measured(out: Path) -> list[dict[str, Any]]:
    """The lines of the log after the checkpoint that hold no training loss."""
    rows = map(json.loads, (out / "log.jsonl").read_text("utf-8").splitlines())
    return [row for row in rows if row["step"] > 2 and "train_loss" not in row]


@pytest.mark.parametrize("role", ROLES)
def test_an_adapter_with_everything(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """A resumed run has the bits of the whole one, its held-out losses and its drift from the base;
    the checkpoint knows every setting that it depends on.
    """
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    train(role, whole, tiny, photos, **ALL)
    shutil.copytree(whole / "checkpoint-2", rest / "checkpoint-2")
    train(role, rest, tiny, photos, **ALL, resume_from_checkpoint="latest")
    assert_same_bits(whole / "checkpoint-4", rest / "checkpoint-4")
    assert [row for row in losses(whole) if row[0] > 2] == losses(rest)
    names = {name for row in _measured(whole) for name in row}
    assert ("loss" in names, "variance_drift" in names) == (True, role == "decoder")
    assert _measured(whole) == _measured(rest)
    signature = run_state.read(whole / "checkpoint-4", run_state.RunState).signature
    given = ("lora", "rank", "lora_dropout", "condition_dropout", "ema_sigma_rel", "holdout")
    assert {name: signature[name] for name in given} == {name: ALL[name] for name in given}
    assert {"bucket", "optimizer", "weights_dtype", "lora_targets", "base model"} <= set(signature)
