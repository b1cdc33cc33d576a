"""The command of the studio and its flags."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import run_cli

from wassily.commands import extras
from wassily.config.commands import StudioConfig
from wassily.errors import UserError
from wassily.files import atomic
from wassily.mini.untrained import Tiny
from wassily.models import names

# ---------------------------------------------------------------- the command


def test_without_gradio_it_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = run_cli("studio", "--runs", tmp_path)
    assert done.code == 2
    remedy = extras.install("studio")
    assert done.text == f"wassily: error: the studio needs gradio: {remedy}\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": 65536}, "--port: 65536 is not between"),
        ({"runs": __file__}, "a file; name a folder"),
        ({"data": ("/no/where",)}, "--data /no/where: no such folder"),
        ({"language": "fr"}, "one of en, ar"),
    ],
)
def test_bad_flags(given: dict[str, Any], message: str) -> None:
    """Are refused before anything is loaded."""
    with pytest.raises(UserError, match=message):
        StudioConfig(**given)


# ---------------------------------------------------------------- models


@pytest.fixture
def runs(tmp_path: Path, tiny: Tiny) -> Path:
    """A prior, a checkpoint of a decoder, an adapter, and what is none of them."""
    shutil.copytree(tiny.prior, tmp_path / "one" / "prior-run")
    step = tmp_path / "decoder-run" / "checkpoint-5"
    shutil.copytree(Path(tiny.decoder) / "unet", step / "unet")
    (step / "state.json").write_text(
        json.dumps({"step": 5, "role": "decoder", "repositories": {}}), "utf-8"
    )
    (tmp_path / "adapter").mkdir()
    notes = {"network": "decoder", "base": "mini"}
    atomic.write_tensors(tmp_path / "adapter" / names.ADAPTER, {}, notes)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / names.ADAPTER).write_bytes(b"nothing")
    shutil.copytree(tiny.prior, tmp_path / "studio" / "not-this")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    return tmp_path
