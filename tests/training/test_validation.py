"""The log, the samples and the exported folder of a run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from helpers import read_jsonl
from PIL import Image
from torch import nn

from wassily.config.training import DecoderConfig, PriorConfig
from wassily.evaluation.variance_drift import NoDrift
from wassily.maths.ema import Ema, NoEma
from wassily.mini.untrained import SIDE, Tiny
from wassily.models.adapters import Whole, trained_parameters
from wassily.models.parts import TRAINED, fingerprint, load
from wassily.reporting import run_log
from wassily.reporting.model_card import Facts
from wassily.reporting.run_log import LOG
from wassily.runtime.accelerator import Runtime
from wassily.training import validation
from wassily.training.setup import Setup
from wassily.training.validation import Measures, Results
from wassily.training.weights import Weights

PROMPTS = ("a red cat", "قطة حمراء")


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "VALIDATION_STEPS", 2)


def _results(
    home: str, tiny: Tiny, out: Path, *, averaged: bool = False, **values: Any
) -> tuple[Results, nn.Module]:
    """A run in its middle: the network has moved, and its average stayed behind."""
    cls = {"prior": PriorConfig, "decoder": DecoderConfig}[home]
    base = {
        "train_data_dir": str(tiny.prior),
        "output_dir": str(out),
        "validation_prompts": PROMPTS,
        "resolution": SIDE,
        "seed": 4,
    }
    config = cls(**(base | values))
    role = TRAINED[home]
    net = load(role, str(getattr(tiny, home)))
    trained = trained_parameters(net)
    ema: Ema | NoEma = Ema(trained) if averaged else NoEma()
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.1)
    repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    out.mkdir(parents=True, exist_ok=True)
    runtime = Runtime(None, 1, str(out), "logs", "none")
    weights = Weights(SimpleNamespace(net=net), trained, ema)
    setup = Setup(config, repositories, out, runtime, 4)
    return Results(setup, weights, Whole(role), Measures(NoDrift())), net


def _facts(home: str, tiny: Tiny, out: Path) -> Facts:
    base = str(getattr(tiny, home))
    prior, decoder = str(tiny.prior), str(tiny.decoder)
    return Facts(str(out), home, base, prior, decoder, "pics", False, 9, 7, 4, True)


# ---------------------------------------------------------------- numbers


def test_log_is_one_object_a_line(tiny: Tiny, tmp_path: Path) -> None:
    """Floats to the bit."""
    results, _ = _results("prior", tiny, tmp_path)
    results.log(10, {"train_loss": 0.1 + 0.2, "lr": 1e-5})
    results.log(20, {"train_loss": 0.25, "lr": 1e-5})
    assert list(read_jsonl(tmp_path / LOG)) == [
        {"step": 10, "train_loss": 0.1 + 0.2, "lr": 1e-5},
        {"step": 20, "train_loss": 0.25, "lr": 1e-5},
    ]


def test_rewind_drops_what_a_killed_run_logged_ahead(tiny: Tiny, tmp_path: Path) -> None:
    """Later steps and a torn last line; the log then goes on."""
    results, _ = _results("prior", tiny, tmp_path)
    run_log.rewind(tmp_path, 5)  # no log yet
    for step in (5, 10, 15):
        results.log(step, {"train_loss": 1.0})
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 20, "tra')
    run_log.rewind(tmp_path, 10)
    results.log(15, {"train_loss": 2.0})
    got = [(row["step"], row["train_loss"]) for row in read_jsonl(tmp_path / LOG)]
    assert got == [(5, 1.0), (10, 1.0), (15, 2.0)]


# ---------------------------------------------------------------- samples


@pytest.mark.parametrize("home", ["prior", "decoder"])
def test_samples_are_the_stock_pipelines(home: str, tiny: Tiny, tmp_path: Path) -> None:
    """With the weights in training and the run's seed, at its resolution; to the bit."""
    results, net = _results(home, tiny, tmp_path)
    results.validate(3)
    folder = tmp_path / "validation" / "step-3"
    assert sorted(p.name for p in folder.iterdir()) == ["00.png", "01.png", "sheet.png"]
    assert (tmp_path / "samples.png").read_bytes() == (folder / "sheet.png").read_bytes()
    stock = diffusers.AutoPipelineForText2Image.from_pretrained(
        tiny.decoder, **{"prior_prior" if home == "prior" else "unet": net.eval()}
    )
    for number, prompt in enumerate(PROMPTS):
        drawn = stock(
            prompt,
            num_inference_steps=2,
            height=SIDE,
            width=SIDE,
            generator=torch.Generator().manual_seed(4),
        ).images[0]
        with Image.open(folder / f"{number:02d}.png") as picture:
            assert picture.tobytes() == drawn.tobytes()
            assert picture.text["prompt"] == prompt
            assert (picture.text["step"], picture.text["seed"]) == ("3", "4")


@pytest.mark.parametrize("home", ["prior", "decoder"])
def test_validation_leaves_the_training_as_it_was(home: str, tiny: Tiny, tmp_path: Path) -> None:
    """Weights to the bit, gradients asked for, training mode, torch's generator."""
    results, net = _results(home, tiny, tmp_path, averaged=True)
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    results.validate(3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert net.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    names = {name for name, p in net.named_parameters() if p.requires_grad}
    assert names == set(trained_parameters(net))
    assert all(p.device.type == "cpu" for p in net.parameters())


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).copy()


def test_averaged_weights_are_what_is_drawn_with(tiny: Tiny, tmp_path: Path) -> None:
    """The average is still the base model's: the picture is the base's, not the moved one's."""
    base, net = _results("decoder", tiny, tmp_path / "base")
    net.load_state_dict(load("unet", str(tiny.decoder)).state_dict())
    base.validate(1)
    moved, _ = _results("decoder", tiny, tmp_path / "moved")
    moved.validate(1)
    averaged, _ = _results("decoder", tiny, tmp_path / "averaged", averaged=True)
    averaged.validate(1)
    first = {
        name: _pixels(tmp_path / name / "validation" / "step-1" / "00.png")
        for name in ("base", "moved", "averaged")
    }
    assert (first["averaged"] == first["base"]).all()
    assert (first["moved"] != first["base"]).any()


def test_no_prompts_no_samples(tiny: Tiny, tmp_path: Path) -> None:
    """Nothing but the report is written, no pipeline is built."""
    results, _ = _results("prior", tiny, tmp_path, validation_prompts=())
    results.validate(1)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


# ---------------------------------------------------------------- export


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("home", ["prior", "decoder"])
def test_export_is_a_stock_folder(
    home: str, averaged: bool, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """diffusers loads it as the pipeline of that network; its weights are those in training, or
    their average; the frozen parts are the base's to the bit.
    """
    results, net = _results(home, tiny, tmp_path, averaged=averaged)
    moved = {name: value.clone() for name, value in net.state_dict().items()}
    results.export(_facts(home, tiny, tmp_path), results.weights)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    kinds = {"prior": "KandinskyV22PriorPipeline", "decoder": "KandinskyV22Pipeline"}
    assert type(pipeline).__name__ == kinds[home]
    role = TRAINED[home]
    base = load(role, str(getattr(tiny, home))).state_dict()
    expected = base if averaged else moved
    for name, value in getattr(pipeline, role).state_dict().items():
        assert torch.equal(value, expected[name]), name
    for name, value in net.state_dict().items():
        assert torch.equal(value, moved[name]), name
    for frozen in {"prior": ["text_encoder", "image_encoder"], "decoder": ["movq"]}[home]:
        ours, stock = getattr(pipeline, frozen), load(frozen, str(getattr(tiny, home)))
        assert fingerprint(ours) == fingerprint(stock)
    assert "CLIPImageProcessorPil" not in (tmp_path / "model_index.json").read_text()


def test_an_exported_decoder_finds_its_prior(tiny: Tiny, tmp_path: Path) -> None:
    """`AutoPipelineForText2Image.from_pretrained(output_dir)`, all local, as the guide's snippet;
    and an exported prior goes beside it by its components.
    """
    decoder, _ = _results("decoder", tiny, tmp_path / "d")
    decoder.export(_facts("decoder", tiny, tmp_path / "d"), decoder.weights)
    pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(tmp_path / "d")
    assert isinstance(pipeline, diffusers.KandinskyV22CombinedPipeline)
    prior, net = _results("prior", tiny, tmp_path / "p")
    prior.export(_facts("prior", tiny, tmp_path / "p"), prior.weights)
    parts = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "p").components
    both = diffusers.AutoPipelineForText2Image.from_pretrained(
        tmp_path / "d", **{f"prior_{key}": value for key, value in parts.items()}
    )
    assert fingerprint(both.prior_prior) == fingerprint(net)
    drawn = both("a", num_inference_steps=1, prior_num_inference_steps=2, height=SIDE, width=SIDE)
    assert drawn.images[0].size == (SIDE, SIDE)


def test_state_of_the_log_is_plain_json(tiny: Tiny, tmp_path: Path) -> None:
    """A reader needs no code of ours."""
    results, _ = _results("prior", tiny, tmp_path)
    results.log(1, {"train_loss": 0.5})
    assert json.loads((tmp_path / LOG).read_text()) == {"step": 1, "train_loss": 0.5}
