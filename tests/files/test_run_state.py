"""state.json: what is written is read back, what is of other types is refused in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from wassily.errors import UserError
from wassily.files import output_folder, run_state
from wassily.files.run_state import RunState, Saved

SIGNATURE = {"network": "prior", "base model": "ab12", "global batch": 4, "use_ema": False}
STATE = RunState(
    step=3,
    role="prior",
    repositories={"prior": "mini", "decoder": "/قطة"},
    signature={**SIGNATURE, "seed": 7},
    config={"learning_rate": 1e-4, "lora_targets": None},
    fused=True,
    best={"metric": "loss", "step": 2},
    pending_loss=(0.1 + 0.2, 2),
    skipped_steps=1,
    scaler={"scale": 65536.0},
    stream=None,
)
# The fields of a state.json of format 1, in their order: what others read and what is read back.
FIELDS = "format step role repositories signature config fused best pending_loss skipped_steps"
FIELDS += " scaler stream"


def test_round_trip(tmp_path: Path) -> None:
    """Floats to the bit, Arabic, None; the file has the fields of its format and no other."""
    run_state.write(tmp_path, STATE)
    assert run_state.read(tmp_path, RunState) == STATE
    assert run_state.read(tmp_path, Saved) == Saved(STATE.step, STATE.role, STATE.repositories)
    values = json.loads((tmp_path / output_folder.STATE).read_text("utf-8"))
    assert list(values) == FIELDS.split()
    assert values["format"] == 1 and values["pending_loss"] == [0.1 + 0.2, 2]


def test_the_weights_alone(tmp_path: Path) -> None:
    """What best-<N> holds is no state to resume from."""
    saved = Saved(5, "decoder", {"decoder": "mini"})
    run_state.write(tmp_path, saved)
    assert run_state.read(tmp_path, Saved) == saved
    with pytest.raises(UserError, match=r"state\.json: not the state of a checkpoint"):
        run_state.read(tmp_path, RunState)


@pytest.mark.parametrize("name", [one.name for one in dataclasses.fields(RunState)])
def test_each_field_has_its_type(name: str) -> None:
    """A text where there is to be a number, a list where there is to be an object, and so on."""
    values = STATE.to_json()
    wrong: Any = 5 if name == "role" else "x"
    if name in ("best", "stream"):  # their owners check them; older checkpoints have none
        del values[name]
        assert getattr(RunState.from_json(values), name) is None
        return
    with pytest.raises((TypeError, ValueError)):
        RunState.from_json({**values, name: wrong})
    del values[name]
    with pytest.raises(KeyError):
        RunState.from_json(values)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": "x", "role": "prior"}', '{"step": 1}'])
@pytest.mark.parametrize("kind", [Saved, RunState])
def test_a_torn_state_is_one_line(kind: type[Saved], text: str, tmp_path: Path) -> None:
    """It names the file."""
    (tmp_path / output_folder.STATE).write_text(text)
    with pytest.raises(UserError, match=r"state\.json: not the state of a checkpoint"):
        run_state.read(tmp_path, kind)


def test_a_renamed_checkpoint(tmp_path: Path) -> None:
    """The step is in the folder's name, too, and both have to agree."""
    folder = tmp_path / "checkpoint-4"
    folder.mkdir()
    run_state.write(folder, STATE)
    with pytest.raises(UserError, match="says step 3, in a folder of another step"):
        run_state.to_resume(folder)
    assert run_state.to_resume(folder.rename(tmp_path / "checkpoint-3")) == STATE
    assert run_state.to_resume(None) is None


@pytest.mark.parametrize("field", list(SIGNATURE))
def test_another_run_is_refused_by_field(field: str, tmp_path: Path) -> None:
    """Both values and the checkpoint are named; the same run passes, after JSON too."""
    folder = tmp_path / "checkpoint-3"
    saved = RunState.from_json(json.loads(json.dumps(STATE.to_json())))
    assert saved.differs(SIGNATURE) is None
    run_state.check_same(saved, SIGNATURE, folder)
    with pytest.raises(UserError, match=rf"checkpoint-3 .*{field} was .* and is 'other' now"):
        run_state.check_same(saved, {**SIGNATURE, field: "other"}, folder)
    rest = {name: value for name, value in SIGNATURE.items() if name != field}
    lacking = dataclasses.replace(saved, signature=rest)
    assert str(lacking.differs(SIGNATURE)).startswith(f"{field} was None")
