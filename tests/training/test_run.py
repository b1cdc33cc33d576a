"""One training in this process: what it checks first, says, and leaves."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Outcome, read_jsonl, run_cli, write_folder

from wassily.config import training
from wassily.config.training import DecoderConfig, PriorConfig
from wassily.data import datasets, example_order
from wassily.errors import UserError
from wassily.files import checksums
from wassily.mini.untrained import SIDE, Tiny
from wassily.models import parts
from wassily.runtime import accelerator
from wassily.training import setup
from wassily.training.best import LastIsBest
from wassily.training.validation import Validations, sample_lines


def _train(home: str, tiny: Tiny, folder: Path, out: Path, *words: object) -> Outcome:
    base = {
        "--pretrained_prior_model_name_or_path": tiny.prior,
        "--pretrained_decoder_model_name_or_path": tiny.decoder,
        "--train_data_dir": folder,
        "--output_dir": out,
        "--resolution": SIDE,
        "--report_to": "none",
        "--max_train_steps": 3,
        "--logging_steps": 1,
    }
    flags = [word for pair in base.items() for word in pair]
    return run_cli("train", home, *flags, *words)


@pytest.mark.parametrize("home", ["prior", "decoder"])
def test_a_short_run(home: str, tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """What it says before the first step, and every file it leaves; the weights moved, the
    statistics did not.
    """
    out = tmp_path / "out"
    done = _train(home, tiny, photos, out, "--checkpointing_steps", 2, "--seed", 7)
    assert done.code == 0, done.err
    count = len(datasets.read_folder(str(photos), "image", None))
    role = parts.TRAINED[home]
    base = parts.load(role, str(getattr(tiny, home)))
    trained = [p for n, p in base.named_parameters() if n not in ("clip_mean", "clip_std")]
    assert f"in {len(trained)} tensors" in done.out
    assert (
        f"{count} pictures, global batch 1 = 1 x 1 accumulated x 1 process(es), 3 steps" in done.out
    )
    assert "device cpu, precision no, seed 7" in done.out
    # Of the config only what is not the default, and where the rest is.
    lines = done.out.splitlines()
    assert "  max_train_steps = 3" in lines and "  seed = 7" in lines
    assert not any("learning_rate" in line for line in lines)
    assert any(line.endswith(f"the whole is in {out / 'run.toml'}") for line in lines)
    assert "learning_rate = 0.0001" in (out / "run.toml").read_text("utf-8")
    assert ("captions are longer than 77 tokens" in done.out) == (home == "prior")
    assert "samples of" not in done.out
    names = {p.name for p in out.iterdir()}
    assert {"checkpoint-2", "checkpoint-3", "log.jsonl", "run.toml", "README.md"} <= names
    assert "model_index.json" in names
    assert not {n for n in names if n.startswith(".writing")}
    for path in out.rglob("*"):
        assert path.suffix not in (".bin", ".pt", ".pkl", ".pth", ".ckpt"), path
    rows = [row for row in read_jsonl(out / "log.jsonl") if "train_loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(math.isfinite(row["train_loss"]) for row in rows)
    before, after = base.state_dict(), parts.load(role, str(out)).state_dict()
    last = parts.load_network(out / "checkpoint-3" / role, role).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not moved & {"clip_mean", "clip_std"}
    assert all(torch.equal(after[name], last[name]) for name in after)


def test_a_resolution_far_from_the_models_is_remarked(tiny: Tiny, tmp_path: Path) -> None:
    """More than twice or less than half of its own; not where no picture has that size."""
    repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}

    def said(cls: Any, side: int, *prompts: str) -> list[str]:
        config = cls(train_data_dir=str(tmp_path), resolution=side, validation_prompts=prompts)
        return setup.resolution_lines(config, repositories)

    (line,) = said(DecoderConfig, 512)
    assert line.startswith("--resolution is 512") and f"--resolution {SIDE}" in line
    assert said(PriorConfig, 512, "a cat") == [line]
    assert said(PriorConfig, 512) == said(DecoderConfig, 2 * SIDE) == []
    assert len(said(DecoderConfig, SIDE // 2 - 8)) == 1


def test_the_first_loss_is_the_objectives(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """Nothing between the batch and the log changes it: two runs with different rates log the same
    first loss, and another seed another one.
    """
    losses = []
    for number, (rate, seed) in enumerate([("1e-4", 1), ("1e-2", 1), ("1e-4", 2)]):
        out = tmp_path / str(number)
        words = ("--learning_rate", rate, "--seed", seed, "--max_train_steps", 1)
        assert _train("decoder", tiny, photos, out, *words).code == 0
        losses.append(next(read_jsonl(out / "log.jsonl"))["train_loss"])
    assert losses[0] == losses[1] != losses[2]


def test_a_run_is_not_trained_over_but_gone_on_with(
    tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """Refused without a wish; `latest` goes on; the end is said; a changed batch is refused."""
    out = tmp_path / "out"
    assert _train("prior", tiny, photos, out).code == 0
    done = _train("prior", tiny, photos, out)
    assert done.code == 2
    assert "--resume_from_checkpoint latest" in done.err
    latest = ("--resume_from_checkpoint", "latest")
    file = out / "checkpoint-3" / "state.json"
    state = json.loads(file.read_text("utf-8"))
    state["config"]["adam_beta2"] = 0.999  # as it was written while that was its default
    file.write_text(json.dumps(state), "utf-8")
    checksums.seal(file.parent)
    done = _train("prior", tiny, photos, out, *latest, "--max_train_steps", 5)
    assert done.code == 0, done.err
    assert "changed since" not in done.out
    assert "at step 3" in done.out
    assert [row["step"] for row in read_jsonl(out / "log.jsonl")] == [1, 2, 3, 4, 5]
    done = _train("prior", tiny, photos, out, *latest, "--max_train_steps", 4)
    assert (done.code, "raise --max_train_steps" in done.err) == (2, True)
    done = _train("prior", tiny, photos, out, *latest, "--train_batch_size", 2)
    assert (done.code, "global batch was 1" in done.err) == (2, True)
    done = _train("decoder", tiny, photos, out, *latest)
    assert (done.code, "network was 'prior'" in done.err) == (2, True)


def test_a_checkpoint_tells_where_it_is(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """Plain JSON: step, repositories, signature, config without secrets."""
    out = tmp_path / "out"
    assert _train("prior", tiny, photos, out, "--seed", 7).code == 0
    state = json.loads((out / "checkpoint-3" / "state.json").read_text("utf-8"))
    assert (state["step"], state["role"]) == (3, "prior")
    assert state["repositories"] == {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    assert state["signature"]["seed"] == 7
    assert state["config"]["learning_rate"] == 1e-4
    assert "hub_token" not in state["config"]


def test_bad_pictures_stop_before_the_model_is_loaded(tiny: Tiny, tmp_path: Path) -> None:
    """Exit code 2 with the list; nothing but the config was written."""
    folder = write_folder(tmp_path / "pics", ["a", "b", "c"])
    (folder / "01.png").write_bytes(b"oops")
    done = _train("decoder", tiny, folder, tmp_path / "out")
    assert done.code == 2
    assert "01.png: not a picture" in done.err
    assert {p.name for p in (tmp_path / "out").iterdir()} <= {"run.toml"}


# ---------------------------------------------------------------- checks before anything is loaded


def _config(cls: type, tiny: Tiny, **values: Any) -> Any:
    base = {
        "pretrained_prior_model_name_or_path": str(tiny.prior),
        "pretrained_decoder_model_name_or_path": str(tiny.decoder),
        "train_data_dir": str(tiny.prior),
        "report_to": "none",
    }
    return cls(**(base | values))


def test_surroundings(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repositories resolved; a missing tracker, 8-bit Adam without its package."""
    found = setup.check_surroundings(_config(PriorConfig, tiny))
    assert found == {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    monkeypatch.setattr(accelerator.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        setup.check_surroundings(_config(PriorConfig, tiny, report_to="wandb"))
    with pytest.raises(UserError, match="bitsandbytes"):
        setup.check_surroundings(_config(PriorConfig, tiny, use_8bit_adam=True))


def test_a_pushed_decoder_needs_a_prior_that_others_have(tiny: Tiny) -> None:
    """A local prior is named by --hub_prior_id; a hub's is its own name; a prior needs none."""
    with pytest.raises(UserError, match="--hub_prior_id"):
        setup.check_surroundings(_config(DecoderConfig, tiny, push_to_hub=True))
    setup.check_surroundings(
        _config(DecoderConfig, tiny, push_to_hub=True, hub_prior_id="me/prior")
    )
    setup.check_surroundings(_config(PriorConfig, tiny, push_to_hub=True))
    setup.check_surroundings(
        _config(
            DecoderConfig,
            tiny,
            push_to_hub=True,
            pretrained_prior_model_name_or_path=training.PRIOR,
            pretrained_decoder_model_name_or_path=training.DECODER,
        )
    )


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("scheduler/scheduler_config", {"variance_type": "fixed_small"}),
        ("unet/config", {"out_channels": 4}),
    ],
)
def test_a_variance_loss_needs_a_learned_variance(
    tiny: Tiny, tmp_path: Path, part: str, change: dict[str, Any]
) -> None:
    """Told from the two configurations, in one line; without the flag such a decoder is trained."""
    folder = tmp_path / "fixed"
    shutil.copytree(tiny.decoder, folder)
    setup.check_surroundings(_config(DecoderConfig, tiny, variance_loss=0.001))
    file = folder / f"{part}.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change), "utf-8")
    values = {"pretrained_decoder_model_name_or_path": str(folder)}
    setup.check_surroundings(_config(DecoderConfig, tiny, **values))
    with pytest.raises(
        UserError, match=r"--variance_loss: .*fixed has no learned variance"
    ) as caught:
        setup.check_surroundings(_config(DecoderConfig, tiny, **values, variance_loss=0.001))
    assert "\n" not in str(caught.value)


def test_an_output_folder_that_cannot_be_made(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """One line."""
    (tmp_path / "file").write_text("x")
    done = _train("prior", tiny, photos, tmp_path / "file" / "out")
    assert done.code == 2
    assert "--output_dir" in done.err
    assert done.err.count("\n") == 1


# ---------------------------------------------------------------- arithmetic


def _announced(out: str) -> tuple[list[int], str]:
    """The steps that a run announces samples of, and where they will lie."""
    (line,) = [line for line in out.splitlines() if line.startswith("samples of 2 prompts")]
    steps, _, where = line.partition(" at step ")[2].partition(": in ")
    return [int(step) for step in steps.split(", ") if step != "..."], where


def test_samples_come_where_they_are_announced(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """Before the first step; the steps of a run that goes on are those that it adds."""
    out = tmp_path / "out"
    flags = ("--validation_prompts", "a", "b", "--validation_steps", 2)
    there: set[int] = set()
    for last, more in ((3, ()), (6, ("--resume_from_checkpoint", "latest"))):
        done = _train("prior", tiny, photos, out, "--max_train_steps", last, *flags, *more)
        assert done.code == 0, done.err
        steps, where = _announced(done.out)
        remark = " (drawn with the decoder as it is, untuned)"
        assert where == f"{out / 'validation'}, the newest as {out / 'samples.png'}{remark}"
        now = {int(path.name.removeprefix("step-")) for path in (out / "validation").iterdir()}
        assert sorted(now - there) == steps
        there = now
    assert there == {0, 2, 3, 4, 6}


def test_many_samples_are_announced_in_short(tiny: Tiny, tmp_path: Path) -> None:
    """The first of them and the last; by epochs of 5 steps, or at the ends where none is counted;
    where a run stopped before its samples they are made up for.
    """
    config = _config(PriorConfig, tiny, validation_prompts=("a",), validation_epochs=2)
    for pictures, *span, steps in (
        (10, 0, 100, "0, 5, 15, ..., 100"),
        (10, 5, 15, "5, 15"),
        (10, 6, 16, "15, 16"),
        (None, 0, 100, "0, 100"),
    ):
        (line,) = sample_lines(config, 2, pictures, *span, tmp_path)
        assert line.startswith(f"samples of 1 prompt at step {steps}: in {tmp_path}/validation")
    silent = dataclasses.replace(config, validation_prompts=())
    assert sample_lines(silent, 2, 10, 0, 100, tmp_path) == []


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(("pictures", "batch"), [(7, 2), (8, 2), (3, 8), (10, 1), (5, 4)])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_validation_follows_epochs(
    pictures: int, batch: int, every: int, world: int, tiny: Tiny
) -> None:
    """After the step that ends epoch 0, every, 2 every, ... (counted from 0), once a step."""
    split = example_order.Split(batch, 1, world, 0)
    config = _config(PriorConfig, tiny, validation_epochs=every)
    size = split.global_batch
    expected = set()
    for epoch in range(0, 40, every):
        expected.add(math.ceil((epoch + 1) * pictures / size))
    found = Validations(config, None, LastIsBest(), size, pictures)  # type: ignore[arg-type]
    assert {done for done in range(max(expected) + 1) if found.due(done)} == expected
