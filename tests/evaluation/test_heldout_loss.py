"""The loss on images that are never trained on."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e import assert_same_bits, command, ranks, refused, rows_of, train, write_rows
from helpers import draw_picture, read_jsonl, write_folder

from wassily.config.training import DecoderConfig, PriorConfig
from wassily.data import datasets, example_order
from wassily.encodings import definitions
from wassily.evaluation import heldout_loss
from wassily.maths import diffusion, losses, randomness
from wassily.mini.untrained import Tiny
from wassily.models import parts
from wassily.models.trainable import make_trainable
from wassily.runtime.accelerator import Runtime
from wassily.training_data import holdout, training_set


def _trainable(cls: type, tiny: Tiny, pics: Path, tmp: Path, **given: Any) -> tuple[Any, Any, Any]:
    config = cls(
        pretrained_prior_model_name_or_path=str(tiny.prior),
        pretrained_decoder_model_name_or_path=str(tiny.decoder),
        train_data_dir=str(pics),
        resolution=32,
        **given,
    )
    repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    runtime = Runtime(None, 1, str(tmp), "logs", "none")
    context = definitions.of_training(config, repositories, runtime, tmp / "cache")
    source = training_set.chosen_images(config, 3, runtime)
    wanted = definitions.make_encodings(context)
    probe = heldout_loss.small_held_out_loss(
        source,
        lambda few: training_set.make_reading(
            wanted, few, 3, context, flips=config.random_flip, skip_bad=config.skip_bad_images
        ),
        3,
        config.train_batch_size,
    )
    return make_trainable(config, repositories), probe, runtime


@pytest.mark.parametrize("cls", [PriorConfig, DecoderConfig])
def test_the_loss_is_the_objectives(cls: type, tiny: Tiny, tmp_path: Path) -> None:
    """Example by example and band by band through the plain objective, whatever the weights of the
    training's; the same for any chunk and each time; the global generator is left alone.
    """
    pics = write_folder(tmp_path / "pics", ["one", "a longer caption", "x"])
    trainable, probe, runtime = _trainable(
        cls, tiny, pics, tmp_path, snr_gamma=5.0, train_batch_size=4
    )
    state = torch.random.get_rng_state()
    found = probe.losses(trainable.objective, runtime).values
    assert torch.equal(state, torch.random.get_rng_state())
    assert found.shape == (3, heldout_loss.BANDS)
    whole = heldout_loss.HeldOutLoss(probe.batches, probe.seed)
    np.testing.assert_allclose(whole.losses(trainable.objective, runtime).values, found, rtol=1e-4)
    bare = heldout_loss.plain(trainable.objective)
    assert bare.net is trainable.net
    for number in (0, 2):
        batch = probe.batches[number]
        shape = batch.get("latents", batch["image_embeds"]).shape[1:]
        for band in (0, 9):
            t = randomness.probe_timestep(3, number, band, 10, 1000)
            assert 100 * band <= t < 100 * (band + 1)
            noise = randomness.probe_noise(3, number, band, tuple(shape))[None]
            with torch.no_grad():
                loss = bare(batch, noise, torch.tensor([t]))
            assert found[number, band] == pytest.approx(float(loss), rel=1e-4)


def test_plain_is_without_weights() -> None:
    """A network that always says 0: the loss is the mean square of the noise, at every timestep."""

    class Zero(torch.nn.Module):
        def forward(self, x: torch.Tensor, *_: object, **__: object) -> Any:
            self.sample = torch.zeros(len(x), 8, *x.shape[2:])
            return self

    bars = parts.prior_alpha_bars()
    weighted = losses.Decoder(Zero(), bars, "epsilon", 5.0)  # type: ignore[arg-type]
    batch = {"latents": torch.ones(2, 4, 2, 2), "image_embeds": torch.ones(2, 3)}
    noise, t = torch.randn(2, 4, 2, 2), torch.tensor([1, 900])
    wanted = diffusion.squared_error(noise, torch.zeros_like(noise))
    torch.testing.assert_close(heldout_loss.plain(weighted)(batch, noise, t), wanted)
    assert not torch.allclose(weighted(batch, noise, t), wanted)


def test_the_summary_by_hand() -> None:
    """Means over pictures and bands; the standard error is that over the pictures' means."""
    values = np.array([[1.0, 3.0], [3.0, 5.0], [5.0, 7.0]])
    found = heldout_loss.Losses(values).summary()
    assert found == pytest.approx(
        {"loss": 4, "standard_error": 2 / math.sqrt(3), "band_0": 3, "band_1": 5}
    )
    assert heldout_loss.Losses(values[:1]).summary()["standard_error"] == 0


# ---------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def pics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("held") / "pics", [f"c{n}" for n in range(10)])


@pytest.mark.parametrize("role", ["prior", "decoder"])
def test_a_run_with_held_out_pictures(role: str, tiny: Tiny, pics: Path, tmp_path: Path) -> None:
    """Nothing is trained on them: the weights are those of a run that never had them. The log has
    the base's loss, that of each validation and that of the end; the training's lines are as ever.
    """
    flags = {"holdout": 0.3, "max_train_steps": 4, "train_batch_size": 2, "logging_steps": 2}
    flags |= {"bucket": True} if role == "decoder" else {}
    done = train(role, tmp_path / "out", tiny, pics, validation_epochs=1, **flags)
    source = datasets.read_folder(str(pics), "image", None)
    out = holdout.held_out(holdout.contents_of(source), 0.3)
    assert f"{10 - len(out)} pictures, global batch 2" in done.out
    rows = list(read_jsonl(tmp_path / "out" / "log.jsonl"))
    measured = [row for row in rows if row.get("event") == "held_out"]
    steps = [row["step"] for row in measured]
    assert (steps[0], steps[-1]) == (0, 4)
    assert [row["step"] for row in rows if "train_loss" in row] == [2, 4]
    assert measured[0]["loss"] != measured[-1]["loss"]
    bands = [measured[-1][f"band_{n}"] for n in range(10)]
    assert measured[-1]["loss"] == pytest.approx(np.mean(bands))
    assert f"step 0: held-out loss {measured[0]['loss']:.4f} ±" in done.out

    alone = tmp_path / "alone"
    shutil.copytree(pics, alone)
    gone = {Path(str(source[index].image)).name for index in out}
    write_rows(alone, [row for row in rows_of(pics) if row["file_name"] not in gone])
    train(role, tmp_path / "two", tiny, alone, **(flags | {"holdout": 0}))
    assert_same_bits(tmp_path / "out" / parts.TRAINED[role], tmp_path / "two" / parts.TRAINED[role])


def test_a_resumed_run_measures_the_same(tiny: Tiny, pics: Path, tmp_path: Path) -> None:
    """Cut after 2 of 4 steps: the same log and weights as the uninterrupted run; without the cache,
    too. Another share is another run.
    """
    flags = {"holdout": 0.3, "validation_epochs": 100, "checkpointing_steps": 2}
    train("prior", tmp_path / "whole", tiny, pics, max_train_steps=4, **flags)
    train("prior", tmp_path / "cut", tiny, pics, max_train_steps=2, **flags)
    resume = {"resume_from_checkpoint": "latest", "max_train_steps": 4, "no_cache": True}
    train("prior", tmp_path / "cut", tiny, pics, **flags, **resume)
    train("prior", tmp_path / "cut", tiny, pics, **flags, **resume)  # its end, once more

    def log(name: str) -> list[dict[str, Any]]:
        rows = [r for r in read_jsonl(tmp_path / name / "log.jsonl") if "event" in r]
        return [row for row in rows if row["step"] in (0, 4)]

    assert json.dumps(log("whole")) == json.dumps(log("cut"))
    assert len(log("whole")) == 2
    assert_same_bits(tmp_path / "whole" / "checkpoint-4", tmp_path / "cut" / "checkpoint-4")
    words = ["train", "prior", "--train_data_dir", pics, "--output_dir", tmp_path / "cut"]
    words += ["--pretrained_prior_model_name_or_path", tiny.prior, "--report_to", "none"]
    words += ["--pretrained_decoder_model_name_or_path", tiny.decoder, "--seed", 7]
    words += ["--resume_from_checkpoint", "latest", "--max_train_steps", 4]
    assert "checkpoint-4 is of another run" in refused(*words)


def test_two_processes_measure_what_one_does(tiny: Tiny, pics: Path, tmp_path: Path) -> None:
    """Each half of the pictures; the same losses before and after the same training."""
    flags = {"holdout": 0.4, "max_train_steps": 2}
    train("prior", tmp_path / "one", tiny, pics, train_batch_size=2, **flags)
    words = command("prior", tmp_path / "two", tiny, pics, train_batch_size=1, **flags)
    for code, text in ranks(2, words, tmp_path / "said"):
        assert code == 0, text

    def losses(name: str) -> list[float]:
        rows = read_jsonl(tmp_path / name / "log.jsonl")
        return [row["loss"] for row in rows if "event" in row]

    assert len(losses("one")) == 2
    assert losses("two") == pytest.approx(losses("one"), rel=1e-4)


def test_nothing_left_to_train_on(tiny: Tiny, tmp_path: Path) -> None:
    """One line."""
    folder = tmp_path / "pics"
    folder.mkdir()
    draw_picture(0).save(folder / "a.png")
    words = ["train", "decoder", "--train_data_dir", folder, "--output_dir", tmp_path / "out"]
    words += ["--pretrained_prior_model_name_or_path", tiny.prior, "--report_to", "none"]
    words += ["--pretrained_decoder_model_name_or_path", tiny.decoder, "--resolution", 32]
    assert "--holdout 0.05: none of 1 pictures is left" in refused(*words, "--holdout", 0.05)


def test_the_loader_never_yields_one(tiny: Tiny, pics: Path, tmp_path: Path) -> None:
    """Every index of two epochs is of the kept side."""
    source = datasets.read_folder(str(pics), "image", None)
    runtime = Runtime(None, 1, str(tmp_path), "logs", "none")
    kept, out = holdout.split(source, 0.3, tmp_path / "cache", runtime, True)
    assert out is not None
    names = {record.name for record in out}
    keys = example_order.keys(0, [range(len(kept))], example_order.Split(2, 1, 1, 0), 0)
    seen = {kept[index].name for _ in range(10) for _, _, index in next(keys)}
    assert not seen & names
