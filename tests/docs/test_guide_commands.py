"""The training guide's command lines, and its flags, on tiny models and drawn photographs."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e import (
    NETWORK,
    ROLES,
    assert_same_bits,
    checkpoints,
    command,
    losses,
    network,
    refused,
    train,
    wassily,
)
from helpers import ROOT, run_command

from wassily.mini.untrained import Tiny

# The guide's two commands to the letter, but for the pictures' side, the number of steps, the
# tracker, the upload and the name of the output folder.
COMMANDS = {
    "prior": """\
accelerate launch --mixed_precision="fp16"  train_text_to_image_prior.py \\
  --dataset_name=$DATASET_NAME \\
  --resolution=32 \\
  --train_batch_size=1 \\
  --gradient_accumulation_steps=4 \\
  --max_train_steps=3 \\
  --learning_rate=1e-05 \\
  --max_grad_norm=1 \\
  --checkpoints_total_limit=3 \\
  --lr_scheduler="constant" \\
  --lr_warmup_steps=0 \\
  --validation_prompts="A robot naruto, 4k photo" \\
  --report_to="tensorboard" \\
  --output_dir="$OUT" """,
    "decoder": """\
accelerate launch --mixed_precision="fp16"  train_text_to_image_decoder.py \\
  --dataset_name=$DATASET_NAME \\
  --resolution=32 \\
  --train_batch_size=1 \\
  --gradient_accumulation_steps=4 \\
  --gradient_checkpointing \\
  --max_train_steps=3 \\
  --learning_rate=1e-05 \\
  --max_grad_norm=1 \\
  --checkpoints_total_limit=3 \\
  --lr_scheduler="constant" \\
  --lr_warmup_steps=0 \\
  --validation_prompts="A robot naruto, 4k photo" \\
  --report_to="tensorboard" \\
  --output_dir="$OUT" """,
}


def _with_bytes(row: dict[str, Any]) -> dict[str, Any]:
    """As a data set on the hub has it: the picture is in the table."""
    return {"image": {"path": None, "bytes": Path(row["image"]["path"]).read_bytes()}}


def saved_dataset(photos: Path, folder: Path, form: str) -> Path:
    """The photographs as a saved `datasets` folder, or as a folder of parquet files."""
    import datasets

    table = datasets.load_dataset(
        "imagefolder", data_dir=str(photos), split="train", cache_dir=str(folder / "cache")
    )
    out = folder / form
    if form == "saved":
        table.save_to_disk(str(out))
    elif form == "saved-splits":
        datasets.DatasetDict({"train": table}).save_to_disk(str(out))
    else:
        out.mkdir()
        inside = table.cast_column("image", datasets.Image(decode=False)).map(_with_bytes)
        inside.to_parquet(str(out / "train-00000-of-00001.parquet"))
    return out


# ---------------------------------------------------------------- the two commands


@dataclass(frozen=True)
class Launched:
    """A finished launch of one of the guide's commands."""

    role: str
    out: Path
    code: int
    stdout: str
    stderr: str
    dataset: Path


@pytest.fixture(scope="module", params=ROLES)
def launched(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny: Tiny,
    photos: Path,
) -> Launched:
    """The guide's command in a shell, from the repository root; accelerate as a user has it."""
    role = request.param
    folder = tmp_path_factory.mktemp(f"guide-{role}")
    dataset = saved_dataset(photos, folder, "parquet")
    models = (
        f" --pretrained_prior_model_name_or_path={tiny.prior}"
        f" --pretrained_decoder_model_name_or_path={tiny.decoder} --seed=7"
    )
    result = run_command(
        "bash",
        "-c",
        COMMANDS[role] + models,
        cwd=ROOT,
        env={
            "DATASET_NAME": str(dataset),
            "OUT": str(folder / "run"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "ACCELERATE_USE_CPU": None,
            "PYTHONPATH": None,
        },
    )
    return Launched(role, folder / "run", result.returncode, result.stdout, result.stderr, dataset)


def test_the_command_runs(launched: Launched) -> None:
    """It ends well, with the weights, the log, the samples and the tracker's file in place."""
    assert launched.code == 0, launched.stdout + launched.stderr
    assert (launched.out / NETWORK[launched.role] / "config.json").is_file()
    assert (launched.out / "model_index.json").is_file()
    assert checkpoints(launched.out) == ["checkpoint-3"]
    assert [step for step, _, _ in losses(launched.out)] == [3]
    assert (launched.out / "validation" / "step-3" / "sheet.png").is_file()
    assert list((launched.out / "logs").rglob("events.out.tfevents.*"))


def test_it_says_what_it_does(launched: Launched) -> None:
    """fp16 without an accelerator is one line and fp32; nothing is said twice, no stack trace."""
    lines = launched.stdout.splitlines()
    assert sum("fp16 needs an accelerator" in line for line in lines) == 1
    assert any("global batch 4 = 1 x 4 accumulated x 1 process" in line for line in lines)
    assert any("precision no, seed 7" in line for line in lines)
    assert "Traceback" not in launched.stderr
    assert "Warning" not in launched.stderr, launched.stderr
    assert "torchvision" not in launched.stderr, launched.stderr


def test_the_command_of_ours_is_the_same(launched: Launched, tiny: Tiny, tmp_path: Path) -> None:
    """`wassily train` with the same flags, in this process: the same weights, to the bit."""
    out = tmp_path / "run"
    outcome = train(
        launched.role,
        out,
        tiny,
        None,
        dataset_name=launched.dataset,
        gradient_accumulation_steps=4,
        max_train_steps=3,
        learning_rate=1e-5,
        mixed_precision="fp16",
        gradient_checkpointing=launched.role == "decoder",
    )
    assert outcome.out.count("fp16 needs an accelerator") == 1
    assert_same_bits(out / "checkpoint-3", launched.out / "checkpoint-3")


def test_the_run_again_from_its_file(launched: Launched, tmp_path: Path) -> None:
    """`--config run.toml`, with another output folder on the command line, repeats the run."""
    out = tmp_path / "again"
    file = launched.out / "run.toml"
    outcome = wassily("train", launched.role, "--config", file, "--output_dir", out)
    assert outcome.code == 0, outcome.text
    assert_same_bits(out / "checkpoint-3", launched.out / "checkpoint-3")
    assert losses(out) == losses(launched.out)


# ---------------------------------------------------------------- flags


@pytest.fixture(scope="module", params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    """Both networks, one after the other."""
    return request.param


@pytest.fixture(scope="module")
def plain(role: str, tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, photos: Path) -> Path:
    """Two steps without any special flag."""
    out = tmp_path_factory.mktemp(f"plain-{role}") / "run"
    train(role, out, tiny, photos, max_train_steps=2, logging_steps=1)
    return out


def test_spellings(role: str, plain: Path, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Hyphens for underscores, `=` for a space, and --validation_prompt for one prompt."""
    words = command(role, tmp_path / "run", tiny, photos, max_train_steps=2, logging_steps=1)
    names = [w.replace("_", "-") if w.startswith("--") else w for w in words]
    joined = names[:2]
    for name, value in zip(names[2::2], names[3::2], strict=True):
        joined.append(f"{name}={value}")
    outcome = wassily(*joined, "--validation_prompt=A robot naruto, 4k photo", "--local_rank=0")
    assert outcome.code == 0, outcome.text
    assert_same_bits(plain / "checkpoint-2", tmp_path / "run" / "checkpoint-2")
    assert (tmp_path / "run" / "validation" / "step-2" / "00.png").is_file()


def test_gradient_checkpointing(
    role: str, plain: Path, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """Recomputing is the same arithmetic, for the prior too."""
    flags = {"max_train_steps": 2, "logging_steps": 1, "gradient_checkpointing": True}
    train(role, tmp_path / "run", tiny, photos, **flags)
    assert losses(tmp_path / "run") == losses(plain)
    assert_same_bits(plain / "checkpoint-2", tmp_path / "run" / "checkpoint-2")


def test_min_snr(role: str, plain: Path, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """--snr_gamma=5.0 weighs the same losses by min(snr, 5), over the snr for the decoder.

    Step 1 sees the same weights in both runs, so its losses differ by the weight alone.
    """
    import diffusers

    from wassily.maths import randomness

    train(role, tmp_path / "run", tiny, photos, max_train_steps=1, logging_steps=1, snr_gamma=5.0)
    t = randomness.timestep(7, 0, 0, 1000)
    if role == "prior":
        table = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    else:
        table = diffusers.DDPMScheduler.from_pretrained(tiny.decoder, subfolder="scheduler")
    ratio = float(table.alphas_cumprod[t] / (1 - table.alphas_cumprod[t]))
    weight = min(ratio, 5.0) / (1.0 if role == "prior" else ratio)
    assert losses(tmp_path / "run")[0][1] == pytest.approx(losses(plain)[0][1] * weight, rel=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
    ],
)
def test_schedules(name: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Each runs; the rates are diffusers' at the same optimizer step, with accumulation."""
    import torch
    from diffusers.optimization import get_scheduler

    flags = {"lr_scheduler": name, "lr_warmup_steps": 2, "max_train_steps": 5, "logging_steps": 1}
    train("prior", tmp_path / "run", tiny, photos, **flags, gradient_accumulation_steps=2)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=2, num_training_steps=5)
    expected = []
    for _ in range(5):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert [rate for _, _, rate in losses(tmp_path / "run")] == pytest.approx(expected)


def test_random_flip(role: str, plain: Path, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Steps whose coin says so see a mirrored picture; where it does not, nothing changes."""
    from wassily.maths import randomness

    flags = {"max_train_steps": 1, "logging_steps": 1, "random_flip": True}
    for seed in range(7, 20):
        if randomness.flip(seed, 0, 0):
            break
    train(role, tmp_path / "with", tiny, photos, **flags | {"seed": seed})
    train(role, tmp_path / "without", tiny, photos, **flags | {"seed": seed, "random_flip": False})
    assert losses(tmp_path / "with")[0][1] != losses(tmp_path / "without")[0][1]
    if not randomness.flip(7, 0, 0):
        train(role, tmp_path / "tails", tiny, photos, **flags)
        assert losses(tmp_path / "tails")[0] == losses(plain)[0]


def test_max_train_samples(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Only so many examples are used, and an epoch is as long as they are."""
    outcome = train(role, tmp_path / "run", tiny, photos, max_train_samples=3, num_train_epochs=1)
    assert "3 pictures, global batch 1" in outcome.out
    assert checkpoints(tmp_path / "run") == ["checkpoint-3"]


@pytest.mark.parametrize("form", ["saved", "saved-splits"])
def test_saved_datasets(
    role: str, form: str, plain: Path, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """A saved `datasets` folder gives the run of the folder that it was made from."""
    folder = saved_dataset(photos, tmp_path, form)
    flags = {"dataset_name": folder, "max_train_steps": 2, "logging_steps": 1}
    train(role, tmp_path / "run", tiny, None, **flags)
    assert losses(tmp_path / "run") == losses(plain)


def test_bf16(role: str, plain: Path, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """bf16 runs on a CPU, draws its samples, keeps fp32 weights, and is near the fp32 run."""
    import torch

    flags = {"max_train_steps": 2, "logging_steps": 1, "validation_prompts": "a cat"}
    outcome = train(role, tmp_path / "run", tiny, photos, **flags, mixed_precision="bf16")
    assert "precision bf16" in outcome.out
    assert (tmp_path / "run" / "validation" / "step-2" / "00.png").is_file()
    for (_, loss, _), (_, exact, _) in zip(losses(tmp_path / "run"), losses(plain), strict=True):
        assert loss == pytest.approx(exact, rel=0.05)
        assert loss != exact
    weights = network(tmp_path / "run" / "checkpoint-2", role)
    assert {w.dtype for w in weights.values()} == {torch.float32}


def test_launchers_precision_and_the_flags(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unset leaves the launcher's choice; the flag wins over it."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    outcome = train("prior", tmp_path / "a", tiny, photos, max_train_steps=1)
    assert "precision bf16" in outcome.out
    outcome = train("prior", tmp_path / "b", tiny, photos, max_train_steps=1, mixed_precision="no")
    assert "precision no" in outcome.out


def test_no_seed(tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """A seed is drawn, said, and used again by a resume."""
    flags: dict[str, Any] = {"seed": None, "checkpointing_steps": 1}
    first = train("prior", tmp_path / "run", tiny, photos, max_train_steps=1, **flags)
    seed = next(line for line in first.out.splitlines() if line.startswith("device")).split()[-1]
    flags["resume_from_checkpoint"] = "latest"
    again = train("prior", tmp_path / "run", tiny, photos, max_train_steps=2, **flags)
    assert f"seed {seed}" in again.out
    train("prior", tmp_path / "b", tiny, photos, max_train_steps=2, seed=int(seed))
    assert_same_bits(tmp_path / "run" / "checkpoint-2", tmp_path / "b" / "checkpoint-2")


# ---------------------------------------------------------------- optional packages


def test_xformers(role: str, plain: Path, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Without xFormers one line says that it is not needed, and the run is the same."""
    if importlib.util.find_spec("xformers"):
        pytest.skip("xFormers is installed")
    flags = {"max_train_steps": 2, "logging_steps": 1}
    flags["enable_xformers_memory_efficient_attention"] = True
    outcome = train(role, tmp_path / "run", tiny, photos, **flags)
    assert sum("xFormers is not installed" in line for line in outcome.out.splitlines()) == 1
    assert losses(tmp_path / "run") == losses(plain)


def test_8bit_adam(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Without bitsandbytes one line names the package, before anything is written."""
    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    line = refused(*command(role, tmp_path / "run", tiny, photos, use_8bit_adam=True))
    assert "bitsandbytes" in line and "pip install" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("tracker", ["wandb", "comet_ml", "trackio", "mlflow"])
def test_trackers_that_are_not_installed(
    tracker: str, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """One line names the package and the way without it, before anything is written."""
    if importlib.util.find_spec(tracker):
        pytest.skip(f"{tracker} is installed")
    line = refused(*command("prior", tmp_path / "run", tiny, photos, report_to=tracker))
    assert tracker in line and "--report_to none" in line
    assert not (tmp_path / "run").exists()
