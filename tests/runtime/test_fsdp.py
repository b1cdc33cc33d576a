"""FSDP2 on two gloo processes against one process: the same losses, checkpoints that each goes on
with, the same results; and what it does not go with.

torch shards on a CPU as on a GPU, and the launcher's environment is its own function's.
"""

from __future__ import annotations

import os
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e import (
    ROLES,
    checkpoints,
    command,
    free_port,
    losses,
    ranks,
    refused,
    tensors,
    train,
)
from helpers import ROOT, read_jsonl, run_command
from torch import nn

from wassily.config import training
from wassily.mini.untrained import Tiny
from wassily.models import parts
from wassily.runtime import fsdp

# Why Adam's epsilon is so large: see test_processes.
FLAGS: dict[str, Any] = {
    "logging_steps": 1,
    "checkpointing_steps": 2,
    "use_ema": True,
    "condition_dropout": 0.3,
    "adam_epsilon": 0.01,
    "learning_rate": 0.01,
    "resume_from_checkpoint": "latest",
    "validation_steps": 2,
}
# What measures, draws and keeps: all of it asks for whole weights.
LOOKS: dict[str, Any] = {"holdout": 0.3, "keep_best": "loss", "validation_prompts": "a cat"}


def launcher(*flags: str) -> dict[str, str]:
    """What `accelerate launch FLAGS` puts into the environment of each process."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    words = ["--num_processes", "2", *flags, "-m", "wassily"]
    args = _validate_launch_command(launch_command_parser().parse_args(words))[0]
    made = prepare_multi_gpu_env(args)
    return {name: value for name, value in made.items() if os.environ.get(name) != value}


FSDP = launcher("--use_fsdp", "--fsdp_version", "2")


def spread(words: list[str], folder: Path, **variables: str) -> str:
    """A command on two processes with FSDP2, which must succeed; what the first one said."""
    found = ranks(2, words, folder, **FSDP | variables)
    assert [code for code, _ in found] == [0, 0], found
    return found[0][1]


def assert_near(one: Path, two: Path) -> None:
    """The same tensors, up to the order of summing."""
    a, b = tensors(one), tensors(two)
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("role", ROLES)
def test_as_one_process_and_back(
    role: str, lora: bool, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """Two steps spread, two alone, two spread, in one folder, against six steps alone: the losses,
    what was measured, and in the end every tensor of checkpoint, best weights and export.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    flags = FLAGS | {"lora": lora} | ({} if lora else LOOKS)

    def words(steps: int) -> list[str]:
        return command(role, two, tiny, photos, **flags, max_train_steps=steps)

    said = spread(words(2), tmp_path / "first")
    assert said.count("engine: FSDP2, 2 processes") == 1
    whole = flags | {"train_batch_size": 2}
    said = train(role, two, tiny, photos, **whole, max_train_steps=4).out
    assert "at step 2" in said and "engine: one process" in said
    assert "at step 4" in spread(words(6), tmp_path / "last")
    train(role, one, tiny, photos, **whole, max_train_steps=6)
    for (step, loss, rate), (step2, other, rate2) in zip(losses(one), losses(two), strict=True):
        assert (step, rate) == (step2, rate2)
        assert loss == pytest.approx(other, rel=1e-5), f"step {step}"
    for name in ("loss", "variance_drift"):
        rows = [[r[name] for r in read_jsonl(f / "log.jsonl") if name in r] for f in (one, two)]
        assert rows[0] == pytest.approx(rows[1], rel=1e-4), name
    assert checkpoints(two) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    assert_near(one, two)
    assert not [p for p in two.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".distcp")]


@pytest.mark.slow
def test_two_machines(tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Two launch groups that meet on the loopback, each by `accelerate launch` itself, as the page
    on scale shows it; micro-batches are computed one after the other, and recomputed.
    """
    shown = (ROOT / "docs" / "scale.md").read_text("utf-8").partition("## Several machines")[2]
    command_line = shown.partition("```bash\n")[2].partition("```")[0].replace("\\\n", " ")
    launch = shlex.split(command_line.partition("-m wassily")[0])
    flags = {"max_train_steps": 2, "adam_epsilon": 0.01, "gradient_checkpointing": True}
    flags |= {"gradient_accumulation_steps": 2, "fuse_accumulation": "off"}
    words = ["-m", "wassily", *command("prior", tmp_path / "run", tiny, photos, **flags)]
    values = {"10.0.0.1": "127.0.0.1", "29500": str(free_port()), "16": "2"}
    launch = [values.get(word, word) for word in launch]
    with ThreadPoolExecutor(2) as both:
        at = launch.index("--machine_rank") + 1
        lines = [[*launch[:at], rank, *launch[at + 1 :], *words] for rank in ("0", "1")]
        env = {"ACCELERATE_USE_CPU": "true"}
        results = list(both.map(lambda line: run_command(*line, env=env), lines))
    assert [r.returncode for r in results] == [0, 0], results
    assert "engine: FSDP2, 2 processes" in results[0].stdout
    assert (tmp_path / "run" / "model_index.json").is_file()
    train("prior", tmp_path / "one", tiny, photos, **flags, train_batch_size=2)
    assert_near(*(tmp_path / name / "checkpoint-2" / "prior" for name in ("one", "run")))


# ---------------------------------------------------------------- what the launcher asks for


@pytest.mark.parametrize("name", ["DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_other_engines_are_refused(
    name: str, tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a whole run, before it makes a folder; whether they are installed or not."""
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    line = refused(*command("prior", tmp_path / "run", tiny, photos, max_train_steps=1))
    assert "was asked for by the launcher" in line
    assert "accelerate launch --use_fsdp --fsdp_version 2" in line
    assert not (tmp_path / "run").exists()


def test_one_process_alone_is_not_what_was_asked_for(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP2 on one process would be silently nothing: refused."""
    for name, value in FSDP.items():
        if name.startswith(("ACCELERATE_USE_FSDP", "FSDP_")):
            monkeypatch.setenv(name, value)
    line = refused(*command("prior", tmp_path / "run", tiny, photos, max_train_steps=1))
    assert "one process alone" in line


# ---------------------------------------------------------------- in parts and whole


def test_what_is_not_spread_goes_through() -> None:
    """The same tensors, a copy where one is to be made, in the memory order of the parameter."""
    value = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert fsdp.whole(value) is value
    assert fsdp.own(value) is value
    striped = nn.Parameter(torch.zeros(1, 2, 3, 4).contiguous(memory_format=torch.channels_last))
    made = fsdp.like(value, striped)
    assert torch.equal(made, value)
    assert made.stride() == striped.stride()


def test_an_outline_has_no_weights_of_its_own() -> None:
    """Filled it computes as the original, which stays as it was; cleared it holds nothing."""
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    outline = fsdp.Outline(net)
    assert all(p.is_meta for p in outline.module.parameters())
    outline.fill(before)
    x = torch.randn(4, 3)
    assert torch.equal(outline.module(x), net(x))
    outline.clear()
    assert all(p.is_meta for p in outline.module.parameters())
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())


# ---------------------------------------------------------------- the page that counts


@pytest.mark.parametrize(
    ("role", "part", "parameters", "largest"),
    [("prior", "prior", "1.026", "50 M"), ("decoder", "unet", "1.253", "381 M")],
)
def test_the_page_on_scale_counts_right(
    role: str, part: str, parameters: str, largest: str
) -> None:
    """Its figures, from the released model's own configuration."""
    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    repository = {"prior": training.PRIOR, "decoder": training.DECODER}[role]
    with torch.device("meta"):
        net = parts.skeleton(part, repository)
    count = sum(p.numel() for p in net.parameters())
    block = max(sum(p.numel() for p in b.parameters()) for b in fsdp.blocks(net))
    assert f"{count / 1e9:.3f}" == parameters and parameters in page
    assert f"{block / 1e6:.0f} M" == largest and largest in page
    travels = [f"{factor * count / 1e9:.1f} GB" for factor in (8, 12, 6)]
    columns = [
        line.split("|")[3 + (role == "decoder")].strip()
        for line in page.splitlines()
        if "(N-1)/N" in line
    ]
    assert columns == travels
    if role == "prior":
        assert f"{2 * 1280 * (2 + 18) / 1e3:.1f} kB" in page
        return
    for side in (512, 768):
        values = net.config.in_channels * (side // 8) ** 2 + net.config.encoder_hid_dim
        assert f"4 x {side // 8} x {side // 8} + 1280 | {2 * values / 1e3:.1f} kB" in page
