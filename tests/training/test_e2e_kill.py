"""kill -9 at any moment, and the same command again, until it is done: the same final weights.

A run dies at moments that are chosen (just before a certain file is opened, renamed or removed) and
at moments that are not (tools/chaos.py). After each death every folder that is called a checkpoint
is whole.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from e2e import (
    NETWORK,
    ROLES,
    assert_same_bits,
    checkpoints,
    command,
    finish,
    losses,
    start,
    tensors,
    train,
)

from tools import chaos
from wassily.errors import UserError
from wassily.files import atomic, checksums, output_folder, run_state
from wassily.mini.untrained import Tiny
from wassily.training import resume

STEPS = 6
FLAGS: dict[str, Any] = {
    "max_train_steps": STEPS,
    "gradient_accumulation_steps": 2,
    "checkpointing_steps": 2,
    "checkpoints_total_limit": 2,
    "logging_steps": 3,
    "use_ema": True,
    "validation_prompts": "a cat",
    "validation_epochs": 1,
    "resume_from_checkpoint": "latest",
}

# (event, end of the path) just before which a run dies; in the order of a run, so that each death
# but those at the start finds the run further on than the one before.
MOMENTS = [
    ("os.rename", ".safetensors"),  # the first shard of the cache, which is the run's own
    ("open", ".writing-run.toml"),
    ("os.mkdir", ".writing-checkpoint-2/{net}_ema"),  # a checkpoint half written
    ("os.rename", ".writing-checkpoint-2"),  # written whole, not named yet
    ("open", "log.jsonl"),
    ("os.mkdir", ".writing-checkpoint-4"),
    ("open", "validation/step-4/.writing-sheet.png"),
    ("os.rename", ".writing-checkpoint-6"),
    ("os.rename", "/checkpoint-2"),  # the rotation's: there is one more than the limit
    ("os.rmdir", ".writing-checkpoint-2"),  # moved aside, half removed
    ("open", "validation/step-6/.writing-00.png"),
    ("os.mkdir", ".writing-export/{net}"),  # the export half written
    ("os.remove", "model_index.json"),
    ("os.rename", ".writing-export/{net}"),  # the export half in place
    ("os.rename", ".writing-export/model_index.json"),
    ("os.rmdir", ".writing-export"),
]


@pytest.fixture(scope="module", params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    """Both networks, one after the other."""
    return request.param


@pytest.fixture(scope="module")
def whole(role: str, tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, photos: Path) -> Path:
    """The output folder of the run that was never killed."""
    out = tmp_path_factory.mktemp(f"whole-{role}") / "run"
    train(role, out, tiny, photos, **FLAGS)
    return out


def assert_only_whole(out: Path, whole: Path) -> None:
    """What is called a checkpoint can be resumed from, with all of the uninterrupted run's files;
    what loads as a pipeline is whole.
    """
    names = {
        str(p.relative_to(whole / "checkpoint-6")) for p in (whole / "checkpoint-6").rglob("*")
    }
    for name in checkpoints(out):
        folder = out / name
        assert {str(p.relative_to(folder)) for p in folder.rglob("*")} == names
        assert run_state.read(folder, run_state.RunState).step == int(name.split("-")[1])
        assert checksums.damage(folder) is None
        tensors(folder)
    assert len(checkpoints(out)) <= 3
    if (out / "model_index.json").is_file():
        for file in ("README.md", "scheduler/scheduler_config.json"):
            assert (out / file).is_file()


def assert_done_as(whole: Path, out: Path, role: str) -> None:
    """The same weights, averages, optimizer, export and losses; nothing half-written is left."""
    assert checkpoints(out) == checkpoints(whole) == ["checkpoint-4", "checkpoint-6"]
    for part in ("checkpoint-4", "checkpoint-6", NETWORK[role]):
        assert_same_bits(out / part, whole / part)
    assert losses(out) == losses(whole)
    names = {p.name for p in out.iterdir()}
    assert names == {p.name for p in whole.iterdir()}
    for file in ("model_index.json", "samples.png", "validation/step-6/sheet.png"):
        assert (out / file).read_bytes() == (whole / file).read_bytes()


def test_killed_at_chosen_moments(
    role: str, whole: Path, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """Once at each moment at which a file or folder is about to change its state; the two
    networks share the moments between them, for they share the code.
    """
    out = tmp_path / "run"
    words = command(role, out, tiny, photos, **FLAGS, cache_dir=tmp_path / "cache")
    for event, ending in MOMENTS[ROLES.index(role) :: 2]:
        moment = (event, ending.format(net=NETWORK[role]))
        process = start(words, tmp_path / "output.txt", moment=moment)
        code = finish(process)
        output = (tmp_path / "output.txt").read_text("utf-8")
        assert code == -signal.SIGKILL, f"it did not die at {moment}: {output}"
        assert_only_whole(out, whole)
    process = start(words, tmp_path / "output.txt")
    assert finish(process) == 0, (tmp_path / "output.txt").read_text("utf-8")
    assert_done_as(whole, out, role)


@pytest.mark.slow
def test_killed_at_random_times(capsys: pytest.CaptureFixture[str]) -> None:
    """`make chaos` in short."""
    assert chaos.main(["--kills", "6", "--seed", "2"]) == 0
    assert "6 kills of 6" in capsys.readouterr().out


def test_chaos_finds_what_is_wrong(whole: Path, tmp_path: Path) -> None:
    """A cut shard of the cache, a spoilt checkpoint, a part that is missing, another number."""
    folder = tmp_path / "killed"
    shutil.copytree(whole, folder / "run")
    cache = folder / "cache" / "a.safetensors"
    cache.parent.mkdir()
    net = next((whole / "checkpoint-6").rglob("diffusion*.safetensors"))
    shutil.copyfile(net, cache)
    chaos.check_whole(folder)
    assert chaos.check_same(folder / "run", whole) > 1000
    cache.write_bytes(net.read_bytes()[:-1])
    with pytest.raises(chaos.Wrong, match=r"a\.safetensors"):
        chaos.check_whole(folder)
    cache.unlink()
    shutil.move(folder / "run" / "scheduler", folder / "scheduler")
    with pytest.raises(chaos.Wrong, match=r"lacks \['scheduler"):
        chaos.check_whole(folder)
    shutil.move(folder / "scheduler", folder / "run" / "scheduler")
    state = folder / "run" / "checkpoint-6" / "state.json"
    state.write_text(state.read_text("utf-8") + " ", "utf-8")
    with pytest.raises(chaos.Wrong, match=r"checkpoint-6: state.json has"):
        chaos.check_whole(folder)
    log = folder / "run" / "log.jsonl"
    log.write_text(log.read_text("utf-8").replace('"train_loss": 0', '"train_loss": 1'), "utf-8")
    log.write_text(log.read_text("utf-8").replace('"train_loss": 1', '"train_loss": 2'), "utf-8")
    with pytest.raises(chaos.Wrong, match="train_loss is not that of the uninterrupted run"):
        chaos.check_same(folder / "run", whole)


def test_a_folder_without_a_state_is_no_checkpoint(tmp_path: Path) -> None:
    """A name alone is not taken for one, nor trained over; what was half-written is swept."""
    (tmp_path / "checkpoint-8" / "unet").mkdir(parents=True)
    (tmp_path / ".writing-checkpoint-9").mkdir()
    (tmp_path / ".writing-checkpoint-9" / "state.json").write_text("{}")
    (tmp_path / ".writing-run.toml").write_text("half")
    assert output_folder.checkpoints_in(tmp_path) == []
    with pytest.raises(UserError, match=r"checkpoint-8 is damaged: .*move it away to start anew"):
        resume.chosen_checkpoint("latest", tmp_path)
    atomic.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-8"]
