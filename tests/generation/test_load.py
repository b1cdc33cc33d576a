"""Networks that are located once, then loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import Outcome, run_cli

from wassily.generation import metadata, pipelines
from wassily.mini.untrained import Tiny
from wassily.models import names
from wassily.runtime import compile

FEW = ("--steps", 2, "--prior_steps", 2)


def _run(tiny: Tiny, out: Path, *words: object) -> Outcome:
    where = ("--prior", tiny.prior, "--decoder", tiny.decoder, "--out", out)
    return run_cli("generate", *where, *FEW, *words)  # the last of a flag wins


def test_compiling_is_for_the_decoder(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it can be done is known before a weight is loaded; the picture says that it was."""
    done: list[str] = []
    usual = pipelines.prior_pipeline

    def prior_pipeline(*given: object, **named: object) -> object:
        done.append("loaded")
        return usual(*given, **named)

    monkeypatch.setattr("wassily.generation.load.prior_pipeline", prior_pipeline)
    monkeypatch.setattr(compile, "check", lambda device: done.append("checked"))
    monkeypatch.setattr(compile, "compile_in_place", lambda net: done.append(type(net).__name__))
    assert _run(tiny, tmp_path / "a.png", "a", "--seed", 1).code == 0
    assert done == ["loaded"]
    assert _run(tiny, tmp_path / "b.png", "a", "--seed", 1, "--compile").code == 0
    assert done[1:] == ["checked", "loaded", "UNet2DConditionModel"]
    assert metadata.read_provenance(str(tmp_path / "b.png")).config.compile


def test_each_network_is_located_once(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its headers and states are read from the disk once for a command."""
    homes: list[str] = []
    locate = names.locate

    def counted(name: str, home: str) -> names.Trained:
        homes.append(home)
        return locate(name, home)

    monkeypatch.setattr(names, "locate", counted)
    assert _run(tiny, tmp_path / "a.png", "a", "--seed", 1).code == 0
    assert homes == ["prior", "decoder"]
