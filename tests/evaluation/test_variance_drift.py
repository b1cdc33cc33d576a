"""The drift of what no loss holds: by hand, and of a decoder's variance half in whole runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from e2e import command, train, wassily
from helpers import read_jsonl

from wassily.config.training import DecoderConfig
from wassily.encodings import definitions
from wassily.evaluation import variance_drift
from wassily.evaluation.variance_drift import Drift, NoDrift
from wassily.mini.untrained import SIDE, Tiny
from wassily.models.trainable import make_trainable
from wassily.runtime.accelerator import Runtime
from wassily.training_data import training_set

FLAGS: dict[str, Any] = {
    "max_train_steps": 10,
    "train_batch_size": 2,
    "checkpointing_steps": 4,
    "validation_epochs": 1,
    "learning_rate": 1e-2,
}


def test_drift_is_the_mean_change() -> None:
    """|1 - 0| and |-3 - 1| over two values; again from the first reading, not from the last."""
    state = [torch.tensor([0.0, 1.0])]
    drift = Drift("moved", lambda _: state[0], None)
    assert drift.measure(None) == {"moved": 0.0}
    for _ in range(2):
        state[0] = torch.tensor([1.0, -3.0])
        assert drift.measure(None) == {"moved": 2.5}
    assert NoDrift().measure(None) == {}


def drifts(out: Path) -> list[tuple[int, float]]:
    """(step, value) of the log's lines that have one."""
    rows = read_jsonl(out / "log.jsonl")
    return [(row["step"], row["variance_drift"]) for row in rows if "variance_drift" in row]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, photos: Path) -> Path:
    """A decoder's run without a loss on the variance half."""
    out = tmp_path_factory.mktemp("drift") / "run"
    train("decoder", out, tiny, photos, **FLAGS)
    return out


def test_the_variance_half_against_the_base(
    whole: Path, tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """After epochs 0 and 1 of 7 pictures in twos, and at the end. The last value is what stock
    networks and a stock scheduler give on the first four pictures.
    """
    found = drifts(whole)
    assert [step for step, _ in found] == [4, 7, 10]
    assert all(value > 0 for _, value in found)
    config = DecoderConfig(
        pretrained_prior_model_name_or_path=str(tiny.prior),
        pretrained_decoder_model_name_or_path=str(tiny.decoder),
        train_data_dir=str(photos),
        resolution=SIDE,
    )
    runtime = Runtime(None, 1, str(tmp_path), "logs", "none")
    repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    context = definitions.of_training(config, repositories, runtime, tmp_path / "cache")
    source = training_set.chosen_images(config, 7, runtime)
    reading = training_set.make_reading(
        definitions.make_encodings(context),
        source,
        7,
        context,
        flips=config.random_flip,
        skip_bad=config.skip_bad_images,
    )
    examples = training_set.make_examples(reading, make_trainable(config, repositories), 7)
    scheduler = DDPMScheduler.from_pretrained(tiny.decoder, subfolder="scheduler")
    base, trained = (
        UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
        for folder in (tiny.decoder, whole)
    )
    changes = []
    for n, t in enumerate([125, 375, 625, 875]):
        example = examples[(variance_drift.PROBED_STEP, n, n)]
        noisy = scheduler.add_noise(
            example["latents"][None], example["noise"][None], torch.tensor([t])
        )
        given = {"image_embeds": example["image_embeds"][None]}
        with torch.no_grad():
            one, two = (
                net(noisy, t, None, added_cond_kwargs=given).sample[:, 4:]
                for net in (base, trained)
            )
        changes.append((one - two).abs().mean())
    assert found[-1][1] == pytest.approx(float(torch.stack(changes).mean()), rel=1e-4)


@pytest.mark.parametrize("way", [{}, {"no_cache": True}], ids=["cached", "live"])
def test_a_resumed_run_measures_from_the_same_base(
    whole: Path, tmp_path: Path, tiny: Tiny, photos: Path, way: dict[str, Any]
) -> None:
    """From checkpoint-4 the values, of its own step too, are those of the run that was never
    stopped, to the bit; and a finished run that is started again writes its last one once.
    """
    out = tmp_path / "run"
    out.mkdir()
    shutil.copytree(whole / "checkpoint-4", out / "checkpoint-4")
    words = command("decoder", out, tiny, photos, **FLAGS | way, resume_from_checkpoint="latest")
    for _ in range(2):
        assert wassily(*words).code == 0
        assert drifts(out) == drifts(whole)


def test_the_average_is_what_is_measured(
    whole: Path, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """With --use_ema it is that of the weights that are drawn with and exported."""
    train("decoder", tmp_path / "run", tiny, photos, **FLAGS, use_ema=True, ema_sigma_rel=0.25)
    for (step, average), (other, last) in zip(drifts(tmp_path / "run"), drifts(whole), strict=True):
        assert step == other
        assert 0 < average < last


def test_nothing_is_measured_where_there_is_a_loss_or_no_variance(
    whole: Path, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """The prior has no variance half; with --variance_loss it is meant to move, and does so
    otherwise than without; a fixed variance is not read by anything.
    """
    train("prior", tmp_path / "prior", tiny, photos, **FLAGS)
    assert drifts(tmp_path / "prior") == []
    train("decoder", tmp_path / "loss", tiny, photos, **FLAGS, variance_loss=0.001)
    assert drifts(tmp_path / "loss") == []
    rows = [
        [r["train_loss"] for r in read_jsonl(f / "log.jsonl") if "train_loss" in r]
        for f in (whole, tmp_path / "loss")
    ]
    assert rows[0] != rows[1]
    fixed = tmp_path / "fixed"
    shutil.copytree(tiny.decoder, fixed)
    file = fixed / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text("utf-8").replace("learned_range", "fixed_small"), "utf-8")
    given = {"pretrained_decoder_model_name_or_path": fixed}
    train(
        "decoder", tmp_path / "fixed-run", tiny, photos, **FLAGS | {"max_train_steps": 2}, **given
    )
    assert drifts(tmp_path / "fixed-run") == []
