"""A name that is no folder here: mistyped, or on the hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import run_command

from wassily.errors import UserError
from wassily.models import missing, names

NAMES = ("kandinsky-community/kandinsky-2-2-prior", "someone/else", "me/other", "runs/evening")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("runs/prior", "runs/decoder", "kandinsky-community/kandinsky-2-2-decoder", "me"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["runs/prior", "runs/decoder/", *NAMES])
def test_what_is_here_or_may_be_on_the_hub(name: str) -> None:
    """Nothing is said of it, though a folder of the released model's owner is here."""
    assert missing.absent(name) is None


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("run/prior", "runs/prior"),
        ("runs/piror", "runs/prior"),
        ("./runs/decodr", "runs/decoder"),
        ("runs/decoders/", "runs/decoder"),
        ("../none/x", None),
        ("run", "runs"),
        ("runs/prior/checkpoint-5", None),
        ("~/none", None),
        ("تجارب/أولي", None),
    ],
)
def test_what_can_only_be_a_mistake(name: str, near: str | None) -> None:
    """It is said, with the folder that was meant; models say the same."""
    told = missing.absent(name)
    assert told is not None
    assert told.startswith(f"{name}: no such folder")
    assert told.partition("; did you mean ")[2] == (f"{near}?" if near else "")
    with pytest.raises(UserError) as caught:
        names.resolve(name, "prior")
    assert str(caught.value) == told


def test_it_is_said_before_anything_slow(tmp_path: Path) -> None:
    """One line, and no library of models was imported for it."""
    code = (
        "import sys\nfrom wassily.cli import main\n"
        "code = main(['generate', 'a', '--prior', 'run/prior'])\n"
        "print(code, sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))\n"
    )
    done = run_command("python", "-c", code, cwd=tmp_path)
    assert done.stdout == "2 []\n"
    line = "wassily: error: run/prior: no such folder; did you mean runs/prior?\n"
    assert done.stderr == line
