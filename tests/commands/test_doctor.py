"""`wassily doctor`: one screen, the truth, and no secret."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest
import torch
from helpers import run_cli

import wassily
from wassily.commands import doctor, extras
from wassily.config.commands import DoctorConfig

TOKEN = "hf_" + "Qx9" * 11


def _told(**given: str) -> dict[str, str]:
    """The first line about each thing."""
    found: dict[str, str] = {}
    for name, words in doctor.facts_of_machine(DoctorConfig(**given)):
        found.setdefault(name, words)
    return found


def test_it_is_one_screen_and_true(tmp_path: Path) -> None:
    done = run_cli("doctor", "--cache_dir", tmp_path)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 160
    assert f"{wassily.__version__}, Python {sys.version.split()[0]}" in lines[0]
    for name in ("diffusers", "transformers", "datasets"):
        assert f"{name} {importlib.metadata.version(name)}" in done.out
    assert torch.__version__ in done.out
    assert f"tensorboard {importlib.metadata.version('tensorboard')}" in done.out


def test_no_token_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _told(cache_dir=str(tmp_path))["hub"].startswith("logged in: no;")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", TOKEN)
    done = run_cli("doctor", "--cache_dir", tmp_path)
    assert "logged in: yes; offline: yes" in done.out
    assert TOKEN not in done.out and TOKEN[:8] not in done.out


def test_caches_are_measured(tmp_path: Path) -> None:
    """Bytes of files, those of links once; the released model is found where the hub puts it."""
    told = _told(cache_dir=str(tmp_path))
    assert told["released"] == "prior not downloaded yet, decoder not downloaded yet, mini here"
    assert told["models"] == f"0.0 MiB in {tmp_path}"
    folder = tmp_path / "models--kandinsky-community--kandinsky-2-2-prior"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc", "utf-8")
    shot = folder / "snapshots" / "abc" / "prior"
    shot.mkdir(parents=True)
    (folder / "blob").write_bytes(bytes(3 * 2**20))
    (shot / "config.json").symlink_to(folder / "blob")
    told = _told(cache_dir=str(tmp_path))
    assert told["released"].startswith("prior in the cache, decoder not")
    assert told["models"].startswith("3.0 MiB in")


def test_what_is_missing_has_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each extra is either there or missing, and every extra of the package is known."""
    lines = [words for _, words in doctor.facts_of_machine(DoctorConfig(cache_dir=str(tmp_path)))]
    text = "\n".join(lines)
    for name, (extra, _) in doctor.EXTRAS.items():
        missing = f"{name}: {extras.install(extra) if extra else f'pip install {name}'} for" in text
        assert missing == (doctor.importlib.util.find_spec(name) is None)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    told = _told(cache_dir=str(tmp_path))
    assert told["extras"] == "none" and told["missing"].startswith("tensorboard: pip install")


def test_a_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and memory, as torch gives them."""

    class Card:
        name, total_memory = "A Card", 24 * 2**30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Card)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert len(doctor._devices()) == 2
    assert doctor._devices()[0].startswith("A Card, 24.0 GiB, bf16, ")
