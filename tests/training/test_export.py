"""The pipeline folder that a run leaves: a stock one."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import torch
from middle_run import facts_of_run, make_validator

from wassily.mini.untrained import SIDE, Tiny
from wassily.models.parts import TRAINED, fingerprint, load
from wassily.reporting.model_card import Facts
from wassily.training.export import export
from wassily.training.validation import Validator


def _export(run: Validator, facts: Facts) -> None:
    export(run.setup, run.weights, run.adaptation, facts)


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("home", ["prior", "decoder"])
def test_export_is_a_stock_folder(
    home: str, averaged: bool, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """diffusers loads it as the pipeline of that network; its weights are those in training, or
    their average; the frozen parts are the base's to the bit.
    """
    validator, net = make_validator(home, tiny, tmp_path, averaged=averaged)
    moved = {name: value.clone() for name, value in net.state_dict().items()}
    _export(validator, facts_of_run(home, tiny, tmp_path))
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
    decoder, _ = make_validator("decoder", tiny, tmp_path / "d")
    _export(decoder, facts_of_run("decoder", tiny, tmp_path / "d"))
    pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(tmp_path / "d")
    assert isinstance(pipeline, diffusers.KandinskyV22CombinedPipeline)
    prior, net = make_validator("prior", tiny, tmp_path / "p")
    _export(prior, facts_of_run("prior", tiny, tmp_path / "p"))
    parts = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "p").components
    both = diffusers.AutoPipelineForText2Image.from_pretrained(
        tmp_path / "d", **{f"prior_{key}": value for key, value in parts.items()}
    )
    assert fingerprint(both.prior_prior) == fingerprint(net)
    drawn = both("a", num_inference_steps=1, prior_num_inference_steps=2, height=SIDE, width=SIDE)
    assert drawn.images[0].size == (SIDE, SIDE)
