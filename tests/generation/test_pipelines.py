"""Stock pipelines, and the device that they are on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from wassily.generation import sample
from wassily.generation.pipelines import decoder_pipeline, on, prior_pipeline
from wassily.generation.sample import Drawing
from wassily.mini.untrained import SIDE, Tiny

CPU = torch.device("cpu")


FEW = {"steps": 3, "prior_steps": 2}


JOBS = [("a cat", 5), ("قطة حمراء", 6), ("a very long prompt about a dog in a hat", 5)]


Pipelines = tuple[diffusers.KandinskyV22PriorPipeline, diffusers.KandinskyV22Pipeline]


@pytest.fixture(scope="module")
def pipelines(tiny: Tiny) -> Pipelines:
    """Ours."""
    return (
        prior_pipeline(str(tiny.prior), torch.float32, None),
        decoder_pipeline(str(tiny.decoder), torch.float32, None),
    )


@pytest.fixture(scope="module")
def stock(tiny: Tiny) -> diffusers.KandinskyV22CombinedPipeline:
    """diffusers' own, found through the card of the decoder."""
    pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(tiny.decoder)
    for part in (pipeline, pipeline.prior_pipe, pipeline.decoder_pipe):
        part.set_progress_bar_config(disable=True)
    return pipeline


def _draw(pipelines: Pipelines, jobs: list[tuple[str, int]], **options: Any) -> list[Image.Image]:
    given = FEW | {"height": SIDE, "width": SIDE} | options
    return sample.draw(*pipelines, jobs, Drawing(**given, scheduler="stock"), CPU)


def test_given_parts_replace_the_folders(pipelines: Pipelines, tiny: Tiny) -> None:
    """The network in training is drawn with as the object it is."""
    net = pipelines[0].prior
    given = prior_pipeline(str(tiny.prior), torch.float32, None, prior=net)
    assert given.prior is net
    assert given.text_encoder is not pipelines[0].text_encoder
    unet = pipelines[1].unet
    assert decoder_pipeline(str(tiny.decoder), torch.float32, None, unet=unet).unet is unet


def test_the_schedulers_are_the_repositories(pipelines: Pipelines, stock: Any) -> None:
    """Class and configuration."""
    for ours, theirs in (
        (pipelines[0].scheduler, stock.prior_scheduler),
        (pipelines[1].scheduler, stock.scheduler),
    ):
        assert type(ours) is type(theirs)
        assert dict(ours.config) == dict(theirs.config)


def test_a_saved_pipeline_is_a_stock_folder(pipelines: Pipelines, tmp_path: Path) -> None:
    """diffusers loads what `save_pretrained` writes, and it draws the same."""
    for pipeline, name in zip(pipelines, ("prior", "decoder"), strict=True):
        pipeline.save_pretrained(tmp_path / name)
    prior = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "prior")
    decoder = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "decoder")
    for part in (prior, decoder):
        part.set_progress_bar_config(disable=True)
    assert _draw((prior, decoder), JOBS[:1])[0].tobytes() == (
        _draw(pipelines, JOBS[:1])[0].tobytes()
    )


class _Net(torch.nn.Module):
    """A network that notes where it is sent."""

    def __init__(self, device: str):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, device=device))
        self.moves: list[str] = []

    def to(self, device: object) -> _Net:  # type: ignore[override]
        self.moves.append(str(device))
        return self


class _Pipeline:
    def __init__(self, **components: object):
        self.components = components


def test_a_stage_is_on_the_device_only_while_it_works() -> None:
    """Also when drawing fails. A network that was there already, in training, stays there."""
    frozen, training = _Net("cpu"), _Net("meta")
    pipeline = _Pipeline(frozen=frozen, training=training, tokenizer=object())
    with pytest.raises(ZeroDivisionError), on(pipeline, torch.device("meta")):
        assert frozen.moves == ["meta"]
        raise ZeroDivisionError
    assert frozen.moves == ["meta", "cpu"]
    assert training.moves == []


def test_nothing_moves_on_a_cpu_or_where_a_pipeline_offloads_by_itself() -> None:
    """diffusers sets this mark in `enable_model_cpu_offload`."""
    net = _Net("cpu")
    with on(_Pipeline(net=net), CPU):
        pass
    pipeline = _Pipeline(net=net)
    pipeline._offload_device = torch.device("cpu")  # type: ignore[attr-defined]
    with on(pipeline, torch.device("meta")):
        pass
    assert net.moves == []
