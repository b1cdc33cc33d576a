"""Which model an adapter was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from wassily.errors import UserError
from wassily.files import atomic, output_folder, run_state
from wassily.files.run_state import Saved
from wassily.models import origins


def _adapter(folder: Path) -> Path:
    file = folder / "adapter.safetensors"
    notes = {"network": "prior", "base": "header/prior", "decoder": "header/decoder"}
    atomic.write_tensors(file, {"a": torch.zeros(1)}, notes)
    return file


def _run(folder: Path, **repositories: object) -> None:
    (folder / output_folder.RUN).write_text(json.dumps({"repositories": repositories}))


def test_the_run_around_it_knows_better_than_its_header(tmp_path: Path) -> None:
    """The facts of the run, then the state of the checkpoint, then the header of the file."""
    file = _adapter(tmp_path)
    assert origins.behind(file, "prior") == "header/prior"
    assert origins.behind(file, "decoder") == "header/decoder"
    run_state.write(tmp_path, Saved(5, "prior", {"prior": "state/prior"}))
    assert origins.behind(file, "prior") == "state/prior"
    _run(tmp_path, prior="run/prior")
    assert origins.behind(file, "prior") == "run/prior"
    assert origins.behind(file, "decoder") == "header/decoder"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"repositories": []}', '{"repositories": {"prior": 1}}']
)
@pytest.mark.parametrize("name", [output_folder.RUN, output_folder.STATE])
def test_nonsense_around_it_is_passed_over(name: str, text: str, tmp_path: Path) -> None:
    """As if there were nothing."""
    file = _adapter(tmp_path)
    (tmp_path / name).write_text(text)
    assert origins.behind(file, "prior") == "header/prior"


def test_a_folder_of_another_machine_does_not_count(tmp_path: Path) -> None:
    """One that is gone is passed over; named by a header it is refused with the flag to name it."""
    file = _adapter(tmp_path)
    _run(tmp_path, prior=str(tmp_path / "gone"))
    assert origins.behind(file, "prior") == "header/prior"
    _run(tmp_path, prior=str(tmp_path))
    assert origins.behind(file, "prior") == str(tmp_path)
    assert origins.check_here("a/b", file, "--base") == "a/b"
    with pytest.raises(UserError, match=r"'gone' of the machine .* name it with --base"):
        origins.check_here(str(tmp_path / "gone"), file, "--base")
