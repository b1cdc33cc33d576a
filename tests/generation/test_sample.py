"""Drawing against the stock combined pipeline, and that a picture does not see its neighbours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from wassily.generation import sample
from wassily.generation.pipelines import decoder_pipeline, native_size, on, prior_pipeline
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


def _stock_draw(stock: Any, prompt: str, seed: int, **options: Any) -> Image.Image:
    given = {
        "num_inference_steps": FEW["steps"],
        "prior_num_inference_steps": FEW["prior_steps"],
        "height": SIDE,
        "width": SIDE,
    }
    generator = torch.Generator().manual_seed(seed)
    return stock(prompt, generator=generator, **(given | options)).images[0]


def _draw(pipelines: Pipelines, jobs: list[tuple[str, int]], **options: Any) -> list[Image.Image]:
    given = FEW | {"height": SIDE, "width": SIDE} | options
    return sample.draw(*pipelines, jobs, Drawing(**given, scheduler="stock"), CPU)


@pytest.mark.parametrize(("prompt", "seed"), JOBS)
def test_one_picture_is_the_combined_pipelines(
    pipelines: Pipelines, stock: Any, prompt: str, seed: int
) -> None:
    """Bit for bit, one generator through both stages."""
    ours = _draw(pipelines, [(prompt, seed)])[0]
    assert ours.tobytes() == _stock_draw(stock, prompt, seed).tobytes()
    assert ours.size == (SIDE, SIDE)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"guidance_scale": 1.5}, {"guidance_scale": 1.5}),
        ({"guidance_scale": 1.0}, {"guidance_scale": 1.0}),
        ({"prior_guidance_scale": 7.0}, {"prior_guidance_scale": 7.0}),
        ({"prior_guidance_scale": 1.0}, {"prior_guidance_scale": 1.0}),
        ({"height": 48, "width": 64}, {"height": 48, "width": 64}),
        (
            {"steps": 5, "prior_steps": 4},
            {"num_inference_steps": 5, "prior_num_inference_steps": 4},
        ),
        ({"negative_prompt": "blurry, قبيح"}, {"negative_prompt": "blurry, قبيح"}),
        ({"negative_prompt": ""}, {"negative_prompt": ""}),
    ],
    ids=str,
)
def test_every_setting_is_the_combined_pipelines(
    pipelines: Pipelines, stock: Any, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    """Each reaches the stage that it is for; and each changes the picture."""
    drawn = _draw(pipelines, JOBS[:1], **ours)[0]
    assert drawn.tobytes() == _stock_draw(stock, *JOBS[0], **theirs).tobytes()
    assert drawn.tobytes() != _draw(pipelines, JOBS[:1])[0].tobytes()


@pytest.mark.parametrize("negative", [None, "blurry"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_a_picture_does_not_depend_on_its_neighbours(
    pipelines: Pipelines, batch_size: int, negative: str | None
) -> None:
    """In any batch and any order: the same picture but for rounding (at most 2 of 255)."""
    alone = [_draw(pipelines, [job], negative_prompt=negative)[0] for job in JOBS]
    together = _draw(pipelines, JOBS[::-1], batch_size=batch_size, negative_prompt=negative)[::-1]
    for a, b in zip(alone, together, strict=True):
        difference = np.asarray(a).astype(int) - np.asarray(b).astype(int)
        assert np.abs(difference).max() <= 2
    assert len({picture.tobytes() for picture in alone}) == len(JOBS)


def test_the_same_again_and_the_global_generator_stays(pipelines: Pipelines) -> None:
    """Same seed, same picture; training draws go on as if nothing had been drawn."""
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = _draw(pipelines, JOBS, batch_size=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(4)
    again = _draw(pipelines, JOBS, batch_size=2)
    assert [a.tobytes() for a in first] == [b.tobytes() for b in again]


def test_progress_counts_every_picture(pipelines: Pipelines) -> None:
    """By batches."""
    counts: list[int] = []
    drawing = Drawing(steps=1, prior_steps=2, batch_size=2)
    sample.draw(*pipelines, JOBS, drawing, CPU, counts.append)
    assert counts == [2, 1]


def test_the_native_size_is_the_default(pipelines: Pipelines) -> None:
    """sample_size of the UNet times the factor of the MoVQ, where the stock pipeline says 512."""
    assert native_size(pipelines[1]) == SIDE
    drawn = sample.draw(*pipelines, JOBS[:1], Drawing(steps=1, prior_steps=2), CPU)
    assert drawn[0].size == (SIDE, SIDE)


def test_the_encoders_are_gone_before_the_decoder_comes(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device holds the networks of one stage at a time, however many batches there are."""
    stages: list[tuple[str, str]] = []

    @contextlib.contextmanager
    def watched(pipeline: Any, device: torch.device) -> Iterator[None]:
        stages.append(("come", type(pipeline).__name__))
        with on(pipeline, device):
            yield
        stages.append(("go", type(pipeline).__name__))

    monkeypatch.setattr("wassily.generation.pipelines.on", watched)
    _draw(pipelines, JOBS, batch_size=1)
    prior, decoder = (type(pipeline).__name__ for pipeline in pipelines)
    assert stages == [("come", prior), ("go", prior), ("come", decoder), ("go", decoder)]
