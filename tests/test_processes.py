"""Several processes against one: the same losses, and no process that trains alone.

7 pictures and a global batch of 2 or 4: an epoch's last batch is completed from the next epoch, so
that the processes never see unequal numbers of examples. Numbers agree up to the order of summing.
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e import (
    NETWORK,
    ROLES,
    assert_same_bits,
    checkpoints,
    command,
    finish,
    losses,
    network,
    ranks,
    refused,
    start_ranks,
    train,
    wassily,
)
from helpers import ROOT, run_command

from wassily.mini.untrained import Tiny

STEPS = 5  # of a global batch of 2: into the second epoch of 7 pictures
# With Adam's usual epsilon a gradient that is zero but for rounding (that of a key's bias) makes a
# full step in a random direction: with this one a step is in proportion to its gradient.
FLAGS: dict[str, Any] = {
    "max_train_steps": STEPS,
    "logging_steps": 1,
    "use_ema": True,
    "condition_dropout": 0.3,
    "adam_epsilon": 0.01,
    "learning_rate": 0.01,
}


@pytest.fixture(scope="module", params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    """Both networks, one after the other."""
    return request.param


@pytest.fixture(scope="module")
def alone(role: str, tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, photos: Path) -> Path:
    """One process with a batch of 2."""
    out = tmp_path_factory.mktemp(f"alone-{role}") / "run"
    train(role, out, tiny, photos, **FLAGS, train_batch_size=2)
    return out


@dataclass(frozen=True)
class Launched:
    """A finished `accelerate launch`."""

    out: Path
    code: int
    stdout: str
    stderr: str


def launch(words: list[str], out: Path) -> Launched:
    """Two processes: of the prior by `accelerate launch` itself, with the guide's script from the
    repository root; of the decoder with the launcher's environment alone.
    """
    if words[1] == "decoder":
        results = ranks(2, words, out.parent / "output")
        return Launched(out, max(c for c, _ in results), "".join(t for _, t in results), "")
    script = ["train_text_to_image_prior.py", *words[2:]]
    result = run_command(
        *("accelerate", "launch", "--multi_gpu", "--num_processes", "2", *script),
        cwd=ROOT,
        env={"ACCELERATE_USE_CPU": "true"},
    )
    return Launched(out, result.returncode, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def launched(
    role: str, tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, photos: Path
) -> Launched:
    """Two processes of batch 1, as a user of two GPUs starts them; with samples and a tracker."""
    out = tmp_path_factory.mktemp(f"launched-{role}") / "run"
    words = command(
        role, out, tiny, photos, **FLAGS | {"report_to": "tensorboard"}, validation_prompts="a cat"
    )
    return launch(words, out)


def near(one: Path, two: Path, role: str, step: int) -> None:
    """Losses and weights agree up to the order of summing."""
    for (s, loss, rate), (s2, other, rate2) in zip(losses(one), losses(two), strict=True):
        assert (s, rate) == (s2, rate2)
        assert loss == pytest.approx(other, rel=1e-5), f"step {s}"
    a, b = (network(folder / f"checkpoint-{step}", role) for folder in (one, two))
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-4, atol=1e-5)


def test_two_processes_ran(launched: Launched) -> None:
    """The run itself counts its processes, and says each thing once."""
    assert launched.code == 0, launched.stdout + launched.stderr
    counts = re.findall(r"global batch (\d+) = 1 x 1 accumulated x (\d+) process", launched.stdout)
    assert counts == [("2", "2")], launched.stdout
    assert launched.stdout.count("device cpu") == 1
    assert launched.stdout.count("engine: DDP, 2 processes") == 1
    assert "Traceback" not in launched.stdout + launched.stderr


def test_losses_of_one_process(launched: Launched, alone: Path, role: str) -> None:
    """Two processes of batch 1 have the losses and weights of one of batch 2."""
    near(alone, launched.out, role, STEPS)


def test_one_of_them_writes(launched: Launched, role: str) -> None:
    """One checkpoint, one export, one set of samples, one tracker's file with the run's numbers."""
    assert checkpoints(launched.out) == [f"checkpoint-{STEPS}"]
    assert (launched.out / NETWORK[role] / "config.json").is_file()
    assert (launched.out / "validation" / f"step-{STEPS}" / "00.png").is_file()
    files = list((launched.out / "logs" / "text2image-fine-tune").glob("events.out.tfevents.*"))
    assert len(files) == 1, files


def test_going_on_with_two(
    alone: Path, role: str, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """Begun by one process and ended by two of the same global batch, against one all through."""
    out, flags = tmp_path / "run", FLAGS | {"resume_from_checkpoint": "latest"}
    train(role, out, tiny, photos, **flags | {"max_train_steps": 2}, train_batch_size=2)
    results = ranks(2, command(role, out, tiny, photos, **flags), tmp_path / "output")
    assert [code for code, _ in results] == [0, 0], results
    assert "at step 2" in results[0][1]
    near(alone, out, role, STEPS)


def test_going_on_alone(
    launched: Launched, alone: Path, role: str, tiny: Tiny, photos: Path
) -> None:
    """A run of two processes goes on with one of the same global batch."""
    more = FLAGS | {"max_train_steps": STEPS + 2, "resume_from_checkpoint": "latest"}
    train(role, launched.out, tiny, photos, **more, train_batch_size=2)
    train(role, alone, tiny, photos, **more, train_batch_size=2)
    near(alone, launched.out, role, STEPS + 2)


def test_accumulation_on_two_processes(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """2 processes x 2 accumulated x 1 against 1 x 1 x 4; the processes read with workers."""
    flags = FLAGS | {"max_train_steps": 4, "logging_steps": 2}
    words = command(
        role,
        tmp_path / "two",
        tiny,
        photos,
        **flags,
        gradient_accumulation_steps=2,
        dataloader_num_workers=1,
    )
    for code, output in ranks(2, words, tmp_path / "output"):
        assert code == 0, output
    train(role, tmp_path / "one", tiny, photos, **flags, train_batch_size=4)
    near(tmp_path / "one", tmp_path / "two", role, 4)


def test_accumulation(role: str, alone: Path, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Two accumulated micro-batches of 1 against one of 2, on one process."""
    train(role, tmp_path / "run", tiny, photos, **FLAGS, gradient_accumulation_steps=2)
    for (_, loss, _), (_, other, _) in zip(
        losses(tmp_path / "run"), losses(alone)[:STEPS], strict=False
    ):
        assert loss == pytest.approx(other, rel=1e-5)


def test_a_mistake_is_said_by_one(tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """What is refused after the start ends all processes with code 2, and is said once."""
    broken = tmp_path / "pics"
    broken.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (broken / name).write_bytes(b"no picture")
        (broken / name).with_suffix(".txt").write_text("a caption")
    words = command("prior", tmp_path / "run", tiny, broken, max_train_steps=1)
    results = ranks(2, words, tmp_path / "output")
    assert [code for code, _ in results] == [2, 2], results
    said = [line for _, output in results for line in output.splitlines() if "error:" in line]
    assert len(said) == 1, said
    assert "a.jpg" in said[0] and "b.jpg" in said[0]


def test_the_same_bits_after_a_resume(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Two processes that go on from checkpoint-2, in the middle of a logging window and of an
    epoch, against two that were never stopped.
    """
    flags = FLAGS | {"checkpointing_steps": 2, "logging_steps": 3}
    for out in (tmp_path / "whole", tmp_path / "run"):
        words = command(role, out, tiny, photos, **flags, resume_from_checkpoint="latest")
        assert [code for code, _ in ranks(2, words, tmp_path / "output")] == [0, 0]
        if out.name == "run":
            for name in (f"checkpoint-{STEPS}", "checkpoint-4"):
                shutil.rmtree(out / name)
            results = ranks(2, words, tmp_path / "output")
            assert [code for code, _ in results] == [0, 0]
            assert "at step 2" in results[0][1]
    assert_same_bits(tmp_path / "whole", tmp_path / "run")
    assert losses(tmp_path / "whole") == losses(tmp_path / "run")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the processes find each other here")
def test_processes_that_do_not_find_each_other(tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """On a CPU without ACCELERATE_USE_CPU each would train alone: refused, with the remedy."""
    words = command("prior", tmp_path / "run", tiny, photos, max_train_steps=1)
    results = ranks(2, words, tmp_path / "output", ACCELERATE_USE_CPU="false")
    assert [code for code, _ in results] == [2, 2], results
    said = [line for _, output in results for line in output.splitlines()]
    assert len(said) == 1, said
    assert "2 processes were launched" in said[0] and "ACCELERATE_USE_CPU=true" in said[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.accelerator.device_count() > 1, reason="the launcher counts devices here")
def test_a_launcher_that_starts_only_one(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate launch --cpu --num_processes 2` starts one process, with the environment that
    its own function makes: refused, with the way that starts two.
    """
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    words = command("prior", tmp_path / "run", tiny, photos, max_train_steps=1)
    launcher = launch_command_parser()

    def started(*flags: str) -> dict[str, str]:
        args = launcher.parse_args([*flags, "-m", "wassily", *words])
        return prepare_simple_launcher_cmd_env(_validate_launch_command(args)[0])[1]

    for name, value in started("--cpu", "--num_processes", "2").items():
        monkeypatch.setenv(name, value)
    line = refused(*words)
    assert "several processes were launched" in line and "ACCELERATE_USE_CPU=true" in line
    assert not (tmp_path / "run").exists()
    monkeypatch.delenv("MASTER_ADDR")
    assert wassily(*words).code == 0


# ---------------------------------------------------------------- one of them dies


def dies(rank: int, step: int) -> str:
    """A program: wassily, of whose first start a process is killed, as by kill -9, after a step."""
    return f"""
import os, signal, sys
from wassily import cli
from wassily.training import loop

before = loop.Progress.advance

def advance(self, count=1):
    before(self, count)
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if first and self.what == "training" and self.done == {step} and os.environ["RANK"] == "{rank}":
        os.kill(os.getpid(), signal.SIGKILL)

loop.Progress.advance = advance
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_killed_process_restarts_the_job(tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """`torchrun --max-restarts 1`: the process that holds the folder's lock is killed after step 3;
    the launcher starts both again, they go on from checkpoint-2, and end with the bits of two that
    were not killed.
    """
    flags = FLAGS | {"checkpointing_steps": 2, "resume_from_checkpoint": "latest"}
    program = tmp_path / "dies.py"
    program.write_text(dies(rank=0, step=3), "utf-8")
    result = run_command(
        *("torchrun", "--nproc_per_node", "2", "--max-restarts", "1", program),
        *command("prior", tmp_path / "run", tiny, photos, **flags),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.findall(r"going on from .*checkpoint-(\d+)", result.stdout) == ["2"]
    words = command("prior", tmp_path / "whole", tiny, photos, **flags)
    assert [code for code, _ in ranks(2, words, tmp_path / "output")] == [0, 0]
    assert_same_bits(tmp_path / "whole", tmp_path / "run")
    assert losses(tmp_path / "whole") == losses(tmp_path / "run")


def test_the_others_do_not_wait_for_a_dead_one(tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Without a launcher that would end it, the process that is left ends by itself, in one line
    with what can be gone on with.
    """
    out = tmp_path / "run"
    flags = FLAGS | {"checkpointing_steps": 2, "max_train_steps": 5000}
    words = command("prior", out, tiny, photos, **flags, checkpoints_total_limit=2)
    left, killed = start_ranks(2, words, tmp_path / "output")
    while left.is_alive() and not checkpoints(out):
        time.sleep(0.02)
    killed.kill()
    code = finish(left, timeout=240)
    said = (tmp_path / "output" / "0.txt").read_text("utf-8")
    assert code == 2, said
    lines = [line for line in said.splitlines() if "error" in line.lower()]
    assert len(lines) == 1 and "Traceback" not in said, said
    assert re.fullmatch(
        r"wassily: error: another process of this run is gone: checkpoint-\d+ is whole "
        r"\(--resume_from_checkpoint latest\); repeat the command",
        lines[0],
    )


@pytest.mark.slow
def test_the_best_of_several_processes(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """A run whose rate spoils it: both processes end after the same validation without a gain, and
    the weights that are exported are those that one process of the same global batch exports.
    """
    flags = FLAGS | {"holdout": 0.3, "validation_steps": 1, "keep_best": "loss", "patience": 2}
    flags |= {"learning_rate": 0.1, "use_ema": False, "max_train_steps": 12}
    words = command(role, tmp_path / "two", tiny, photos, **flags)
    for code, output in ranks(2, words, tmp_path / "output"):
        assert code == 0, output
    done = train(role, tmp_path / "one", tiny, photos, **flags, train_batch_size=2)
    stopped = re.search(r"stopped at step (\d+) of 12", done.out)
    assert stopped, done.out
    assert stopped[0] in (tmp_path / "output" / "0.txt").read_text("utf-8")
    kept = [[p.name for p in (tmp_path / name).glob("best-*")] for name in ("one", "two")]
    assert kept[0] == kept[1] and len(kept[0]) == 1
    one, two = (network(tmp_path / name, role) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-3)
