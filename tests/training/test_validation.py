"""Validations of a run: which images are generated, and that the training stays as it was."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from middle_run import PROMPTS, make_validator
from PIL import Image

from wassily.mini.untrained import SIDE, Tiny
from wassily.models.adapters import trained_parameters
from wassily.models.parts import load
from wassily.training import validation


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "VALIDATION_STEPS", 2)


@pytest.mark.parametrize("home", ["prior", "decoder"])
def test_samples_are_the_stock_pipelines(home: str, tiny: Tiny, tmp_path: Path) -> None:
    """With the weights in training and the run's seed, at its resolution; to the bit."""
    validator, net = make_validator(home, tiny, tmp_path)
    validator.validate(3)
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
    validator, net = make_validator(home, tiny, tmp_path, averaged=True)
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    validator.validate(3)
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
    base, net = make_validator("decoder", tiny, tmp_path / "base")
    net.load_state_dict(load("unet", str(tiny.decoder)).state_dict())
    base.validate(1)
    moved, _ = make_validator("decoder", tiny, tmp_path / "moved")
    moved.validate(1)
    averaged, _ = make_validator("decoder", tiny, tmp_path / "averaged", averaged=True)
    averaged.validate(1)
    first = {
        name: _pixels(tmp_path / name / "validation" / "step-1" / "00.png")
        for name in ("base", "moved", "averaged")
    }
    assert (first["averaged"] == first["base"]).all()
    assert (first["moved"] != first["base"]).any()


def test_no_prompts_no_samples(tiny: Tiny, tmp_path: Path) -> None:
    """Nothing but the report is written, no pipeline is built."""
    validator, _ = make_validator("prior", tiny, tmp_path, validation_prompts=())
    validator.validate(1)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
