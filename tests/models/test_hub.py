"""Creating and uploading, against a stand-in on this machine; tokens stay out of sight."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import run_command
from stand_in_hub import StandInHub

from wassily.models import hub as module

CALL = """
import sys
from wassily.models import hub
from wassily.errors import UserError
name, folder, token = sys.argv[1:]
try:
    full = hub.create(name, token or None)
    print("created", full)
    if folder:
        hub.upload(folder, full, token or None)
        print("uploaded")
except UserError as error:
    print("ERROR", error)
"""


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    """A stand-in, empty."""
    with StandInHub() as server:
        yield server


def _call(
    hub: StandInHub, name: str, folder: object = "", token: str = "", env_token: str | None = ""
) -> subprocess.CompletedProcess[str]:
    done = run_command("python", "-c", CALL, name, folder, token, env=hub.environment(env_token))
    assert done.returncode == 0, done.stderr
    assert hub.token not in done.stdout + done.stderr
    return done


def _run_folder(folder: Path) -> Path:
    """What a finished run looks like."""
    for name in (
        "model_index.json",
        "README.md",
        "samples.png",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "movq/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "checkpoint-5/unet/diffusion_pytorch_model.safetensors",
        "checkpoint-5/state.json",
        "pytorch_lora_weights.safetensors",
        "checkpoint-5/pytorch_lora_weights.safetensors",
        "logs/events.out",
        "log.jsonl",
        "run.toml",
        "validation/step-1/00.png",
        ".writing-checkpoint-9/unet/config.json",
        "notes.txt",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return folder


def test_only_the_pipeline_is_uploaded(hub: StandInHub, tmp_path: Path) -> None:
    """Its parts, card and samples with their bytes; no checkpoints, logs, configs, half files."""
    done = _call(hub, "my-model", _run_folder(tmp_path))
    assert "created someone/my-model" in done.stdout
    assert "uploaded" in done.stdout
    files = hub.repositories["someone/my-model"]
    assert set(files) == {
        "model_index.json",
        "README.md",
        "samples.png",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "movq/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "pytorch_lora_weights.safetensors",
    }
    assert all(content == f"content of {name}".encode() for name, content in files.items())


def test_a_repository_that_is_there_and_another_owner(hub: StandInHub) -> None:
    """Creating twice is no error; a full name stays."""
    assert "created club/x" in _call(hub, "club/x").stdout
    assert "created club/x" in _call(hub, "club/x").stdout


def test_a_token_by_flag_wins(hub: StandInHub) -> None:
    """Over none, and over a wrong one in the environment."""
    assert "created" in _call(hub, "x", token=hub.token, env_token=None).stdout
    assert "created" in _call(hub, "x", token=hub.token, env_token="hf_wrong").stdout


def test_no_credentials_is_one_line_and_no_request(hub: StandInHub) -> None:
    """With both remedies."""
    done = _call(hub, "x", env_token=None)
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("ERROR --push_to_hub: not logged in")
    assert "hf auth login" in done.stdout
    assert "HF_TOKEN" in done.stdout
    assert hub.requests == []


@pytest.mark.parametrize("way", ["flag", "environment"])
def test_a_refused_token_is_one_line_without_it(way: str, hub: StandInHub) -> None:
    """It is not echoed, neither by us nor by the library's messages."""
    wrong = "hf_thisOneIsWrong987654"
    given = {"token": wrong} if way == "flag" else {"env_token": wrong}
    done = _call(hub, "x", **given)
    assert done.stdout.count("\n") == 1
    assert "ERROR --push_to_hub: cannot create x" in done.stdout
    assert wrong not in done.stdout + done.stderr


def test_a_failed_upload_says_where_everything_is(hub: StandInHub, tmp_path: Path) -> None:
    """After days of training the folder matters."""
    hub.broken = True
    done = _call(hub, "x", _run_folder(tmp_path))
    assert done.stdout.count("\n") == 2
    assert f"the upload to someone/x failed, everything is in {tmp_path}" in done.stdout


def test_no_hub_at_all_is_one_line() -> None:
    """Nobody listens there, and offline mode."""
    with StandInHub() as gone:
        pass
    done = _call(gone, "x")
    assert done.stdout.startswith("ERROR --push_to_hub: cannot create x")
    assert done.stdout.count("\n") == 1
    env = gone.environment() | {"HF_HUB_OFFLINE": "1"}
    done = run_command("python", "-c", CALL, "x", "", "", env=env)
    assert done.stdout.startswith("ERROR --push_to_hub: cannot create x"), done.stderr


@pytest.mark.parametrize("name", ["bad name", "a/b/c", "--x", "x" * 100])
def test_an_impossible_name_is_one_line(name: str, hub: StandInHub) -> None:
    """Refused by the library before the hub is asked, or by the hub."""
    done = _call(hub, name)
    assert done.stdout.startswith("ERROR --push_to_hub"), done.stdout
    assert done.stdout.count("\n") == 1


def test_a_token_in_a_librarys_message_is_masked() -> None:
    """Whatever upstream echoes; an empty token masks nothing; one line of 300 letters at most."""
    error = RuntimeError("refused:\n  Bearer hf_abc, again hf_abc " + "x" * 500)
    shown = module._reason(error, "hf_abc")
    assert "hf_abc" not in shown
    assert shown.startswith("refused: Bearer ***, again *** xxx")
    assert len(shown) == 300
    assert module._reason(RuntimeError("a b"), "") == "a b"
