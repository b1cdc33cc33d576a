"""What commit 57f1af8 wrote: its checkpoints resume, its cache is used, its exports load.

The data and how they were made: `tests/compatibility/57f1af8`. The last bits of a result depend on
the processor and on PyTorch, so losses are compared to 1e-6, and hashes only where both are the
same.
"""

from __future__ import annotations

import importlib.util
import json
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
from e2e import losses, train, wassily
from helpers import ROOT, tree

from wassily.mini.untrained import Tiny

DATA = ROOT / "tests" / "compatibility" / "57f1af8"


def _made() -> ModuleType:
    """The module that made the data: its runs and its digests."""
    spec = importlib.util.spec_from_file_location("made_at_57f1af8", DATA / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made = _made()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data, unpacked."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(DATA / "data.tar.xz") as file:
        file.extractall(folder, filter="data")
    return folder


def _encodings(old: Path) -> dict[str, bytes]:
    """The cache but for the notes on which file has which content: those name places."""
    found = tree(old / "cache" / "wassily")
    return {name: content for name, content in found.items() if not name.startswith("files/")}


@pytest.mark.parametrize("name", ["prior", "decoder", "adapter"])
def test_it_resumes(name: str, old: Path) -> None:
    """The next three losses, and to the bit on the machine that made them; nothing is encoded."""
    role, flags = made.RUNS[name]
    out, before = old / "runs" / name, _encodings(old)
    models = Tiny(old / "models" / "prior", old / "models" / "decoder")
    given = made.SAME | flags | {"cache_dir": old / "cache", "resume_from_checkpoint": "latest"}
    outcome = train(role, out, models, old / "pics", **given)
    assert "checkpoint-4" in outcome.out and "step 4" in outcome.out
    wanted = json.loads((DATA / "expected.json").read_text("utf-8"))
    assert losses(out) == [pytest.approx(row, rel=1e-6) for row in wanted[name]["losses"]]
    assert _encodings(old) == before
    if made.place() == wanted["place"]:
        assert made.digest(out / "checkpoint-7") == wanted[name]["sha256"]


def test_its_exports_are_drawn_with(old: Path, tmp_path: Path) -> None:
    """Both pipeline folders, and the adapter on its base."""
    words = ["generate", "a cat", "--steps", 2, "--prior_steps", 2, "--seed", 1]
    pipelines = ["--prior", old / "export" / "prior", "--decoder", old / "export" / "decoder"]
    outcome = wassily(*words, *pipelines, "--out", tmp_path / "a.png")
    assert outcome.code == 0, outcome.text
    pipelines[-1] = old / "models" / "decoder"
    adapter = ["--decoder_lora", old / "export" / "adapter"]
    outcome = wassily(*words, *pipelines, *adapter, "--out", tmp_path / "b.png")
    assert outcome.code == 0, outcome.text
    assert (tmp_path / "a.png").is_file() and (tmp_path / "b.png").is_file()
