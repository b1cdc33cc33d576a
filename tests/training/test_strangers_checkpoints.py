"""A checkpoint that is whole and cannot be loaded: `latest` takes the one before it and says so, a
named one is refused in one line. The tests bear the numbers of the findings that they close.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e import NETWORK, assert_same_bits, checkpoints, command, refused, train
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from wassily.files import checksums
from wassily.mini.untrained import Tiny
from wassily.training.optimizer_state import OPTIMIZER

ADAPTER = "pytorch_lora_weights.safetensors"
FLAGS: dict[str, Any] = {"max_train_steps": 3, "checkpointing_steps": 1, "seed": 1, "use_ema": True}
Spoil = Callable[[Path], None]


@pytest.fixture(scope="module", params=["whole", "lora"])
def flags(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Those of a training of the whole prior, and of an adapter."""
    return FLAGS | ({"lora": True, "rank": 2} if request.param == "lora" else {})


@pytest.fixture(scope="module")
def whole(
    flags: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, photos: Path
) -> Path:
    """The output folder of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train("prior", out, tiny, photos, **flags)
    return out


@pytest.fixture
def stopped(whole: Path, tmp_path: Path) -> Path:
    """The same run after step 2."""
    out = tmp_path / "run"
    out.mkdir()
    for name in ("checkpoint-1", "checkpoint-2"):
        shutil.copytree(whole / name, out / name)
    return out


def _weights(folder: Path, averaged: bool = False) -> Path:
    end = "_ema" if averaged else ""
    if (folder / ADAPTER).exists():
        return folder / ADAPTER.replace(".safetensors", f"{end}.safetensors")
    [file] = (folder / f"{NETWORK['prior']}{end}").glob("*.safetensors")
    return file


def _changed(file: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """One tensor of a file, the first whose name has `name`, made another, or left out."""
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        notes = opened.metadata()
    key = next(key for key in tensors if name in key)
    made = change(tensors.pop(key))
    save_file(tensors if made is None else tensors | {key: made}, file, metadata=notes)


def _state(folder: Path, **values: object) -> None:
    file = folder / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _nan(value: torch.Tensor) -> torch.Tensor:
    return torch.full_like(value, torch.nan)


def _twice(value: torch.Tensor) -> torch.Tensor:
    return torch.cat([value, value])


SPOILT: dict[str, Spoil] = {
    "no network": lambda f: _weights(f).unlink(),
    "no averages": lambda f: _weights(f, averaged=True).unlink(),
    "a tensor is missing": lambda f: _changed(_weights(f), "", lambda v: None),
    "another shape": lambda f: _changed(_weights(f), "", _twice),
    "another shape of an average": lambda f: _changed(_weights(f, True), "", _twice),
    "not finite": lambda f: _changed(_weights(f), "", _nan),
    "no optimizer": lambda f: (f / OPTIMIZER).unlink(),
    "int8 moments": lambda f: _changed(f / OPTIMIZER, "::exp_avg", lambda v: v.to(torch.int8)),
    "long moments": lambda f: _changed(f / OPTIMIZER, "::exp_avg_sq", _twice),
    "double moments": lambda f: _changed(f / OPTIMIZER, "::exp_avg", lambda v: v.double()),
    "steps of no number": lambda f: _changed(f / OPTIMIZER, "::step", _nan),
    "best": lambda f: _state(f, best="x"),
    "config": lambda f: _state(f, config={"learning_rate": [1]}),
    "repositories": lambda f: _state(f, repositories=5),
    "stream": lambda f: _state(f, stream=5),
}


def _spoilt(folder: Path, what: str) -> None:
    SPOILT[what](folder)
    (folder / checksums.NAME).unlink()
    checksums.seal(folder)
    assert checksums.damage(folder) is None


@pytest.mark.parametrize("what", SPOILT)
def test_finding_26_latest_steps_back(
    what: str, flags: dict[str, Any], whole: Path, stopped: Path, tiny: Tiny, photos: Path
) -> None:
    """The run from the checkpoint before is that which was never stopped, bit for bit; the one that
    cannot be loaded is kept under another name. Named, it is refused in one line.
    """
    _spoilt(stopped / "checkpoint-2", what)
    named = stopped / "checkpoint-2"
    words = command("prior", stopped, tiny, photos, **flags, resume_from_checkpoint=str(named))
    assert "checkpoint-2" in refused(*words)
    said = train("prior", stopped, tiny, photos, **flags, resume_from_checkpoint="latest").text
    assert "checkpoint-2 cannot be loaded: " in said and "going on from checkpoint-1" in said
    assert_same_bits(stopped / "checkpoint-3", whole / "checkpoint-3")
    assert checkpoints(stopped) == checkpoints(whole)
    assert (stopped / "damaged-checkpoint-2").is_dir()


def test_finding_26_no_checkpoint_can_be_loaded(
    flags: dict[str, Any], stopped: Path, tiny: Tiny, photos: Path
) -> None:
    """One line that names the newest; nothing is trained over, and nothing is renamed."""
    for name in ("checkpoint-1", "checkpoint-2"):
        _spoilt(stopped / name, "int8 moments")
    words = command("prior", stopped, tiny, photos, **flags, resume_from_checkpoint="latest")
    line = refused(*words)
    assert "checkpoint-2 cannot be loaded: " in line and "int8" in line
    assert checkpoints(stopped) == ["checkpoint-1", "checkpoint-2"]


def test_finding_29_a_value_that_is_not_trained_is_finite(
    tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """`clip_mean` is saved with the prior and not trained, and an export would hold its NaN."""
    flags = FLAGS | {"max_train_steps": 1}
    train("prior", tmp_path, tiny, photos, **flags)
    folder = tmp_path / "checkpoint-1"
    _changed(_weights(folder), "clip_mean", _nan)
    (folder / checksums.NAME).unlink()
    checksums.seal(folder)
    flags |= {"max_train_steps": 2, "resume_from_checkpoint": "latest"}
    assert "clip_mean" in refused(*command("prior", tmp_path, tiny, photos, **flags))


def test_finding_29_a_place_in_a_stream_is_of_a_stream(
    flags: dict[str, Any], stopped: Path, tiny: Tiny, photos: Path
) -> None:
    """A run that reads no stream takes none from a checkpoint."""
    _state(stopped / "checkpoint-2", stream={"lanes": 1})
    (stopped / "checkpoint-2" / checksums.NAME).unlink()
    checksums.seal(stopped / "checkpoint-2")
    words = command("prior", stopped, tiny, photos, **flags, resume_from_checkpoint="latest")
    assert "is of a stream" in refused(*words)
