"""What a new flag costs: its field in the config. What others tell of it stands at that field."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated

import pytest
from helpers import ROOT

from wassily.config import schema
from wassily.config.schema import About
from wassily.config.training import DecoderConfig, PriorConfig
from wassily.files import run_state
from wassily.reporting import run_facts
from wassily.reporting.model_card import Facts, model_card
from wassily.runtime.accelerator import Runtime


@dataclass(frozen=True, kw_only=True)
class Edges(PriorConfig):
    """A training with one flag more."""

    edge_loss: Annotated[float, About(card="edge loss", fact="edges", remarked=True)] = 0.0
    """Weight of a loss on edges."""


def _flags_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flags", ROOT / "tools" / "flags.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config(tmp_path: Path) -> Edges:
    """With that flag set."""
    (tmp_path / "pics").mkdir()
    return Edges(
        train_data_dir=str(tmp_path / "pics"), output_dir=str(tmp_path / "run"), edge_loss=0.25
    )


def test_a_resume_says_that_it_changed(config: Edges) -> None:
    """With both values; nothing where it is the same."""
    names = schema.remarked(type(config))
    saved = {"edge_loss": 0.5, "learning_rate": config.learning_rate}
    lines = run_state.changed(saved, schema.public(config) | {"seed": 1}, ["edge_loss"])
    assert lines == ["changed since the checkpoint: edge_loss 0.5 -> 0.25"]
    assert "edge_loss" in names and "seed" not in names
    assert run_state.changed(schema.public(config), schema.public(config), names) == []


def test_the_card_the_run_and_the_page_have_it(config: Edges, tmp_path: Path) -> None:
    """A row of the card, a value of run.json, a row of the flags, a line of run.toml, a flag."""
    facts = Facts("a", "prior", "b", "p", "d", "", False, 9, 7, 4, False)
    assert "| edge loss | 0.25 |" in model_card(config, facts, "no")
    run_facts.write(config, Runtime(None, 1, str(tmp_path), "logs", "none"), {})
    written = json.loads((tmp_path / "run" / run_facts.FILE).read_text("utf-8"))
    assert written["edges"] == 0.25
    assert written["command"][-2:] == ["--edge_loss", "0.25"]
    flags = _flags_tool()
    table = flags.table(Edges, flags.Words())
    assert "| `--edge_loss` | a number | `0` | Weight of a loss on edges. |" in table
    assert "edge_loss = 0.25" in schema.to_toml(config)


def test_what_is_told_of_the_flags_there_are() -> None:
    """Those that change the numbers of a resumed run; the names that readers of run.json use."""
    losses = {"learning_rate", "snr_gamma", "max_grad_norm", "adam_beta2", "lr_scheduler"}
    for cls in (PriorConfig, DecoderConfig):
        assert losses <= set(schema.remarked(cls))
        assert ("variance_loss" in schema.remarked(cls)) == (cls is DecoderConfig)
        found = schema.run_facts(cls(dataset_name="a/b", keep_best=None))
        assert found == {"prompts": (), "keep_best": None}


def test_nothing_else_lists_the_flags_that_change_the_numbers() -> None:
    """A second list would be forgotten: a name is quoted where it is checked or set, if at all."""
    users = {
        path.stem
        for path in (ROOT / "wassily").rglob("*.py")
        for name in ("snr_gamma", "adam_weight_decay", "max_grad_norm", "lr_warmup_steps")
        if f'"{name}"' in path.read_text("utf-8")
    }
    assert users <= {"training_checks", "presets"}
