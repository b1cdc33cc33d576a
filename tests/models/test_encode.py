"""The frozen maps against what the stock pipelines compute."""

from __future__ import annotations

import diffusers
import pytest
import torch
from helpers import draw_picture
from PIL import Image

from wassily.data import images
from wassily.mini.untrained import EMBEDDING, FACTOR, SIDE, TOKENS, Tiny
from wassily.models import encode


@pytest.fixture(scope="module")
def pipelines(
    tiny: Tiny,
) -> tuple[diffusers.KandinskyV22PriorPipeline, diffusers.KandinskyV22Pipeline]:
    """Loaded as diffusers does."""
    return (
        diffusers.KandinskyV22PriorPipeline.from_pretrained(tiny.prior),
        diffusers.KandinskyV22Pipeline.from_pretrained(tiny.decoder),
    )


def test_text_is_what_the_prior_pipeline_reads(pipelines: tuple) -> None:
    """`_encode_prompt` of the stock pipeline; captions in two scripts embed differently."""
    prior = pipelines[0]
    prompts = ["a red cat", "قطة حمراء"]
    embeds, states, mask = prior._encode_prompt(prompts, torch.device("cpu"), 1, False)
    ids = prior.tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
    ours_embeds, ours_states = encode.text(prior.text_encoder, ids, 20)
    assert torch.equal(ours_embeds, embeds)
    assert torch.equal(ours_states, states[:, :20])
    assert mask.shape[1] == TOKENS
    assert (ours_embeds[0] - ours_embeds[1]).abs().max() > 1e-3


def test_image_is_what_interpolate_reads(pipelines: tuple) -> None:
    """The stock pipeline's way from a PIL picture to an embedding; raw, not whitened."""
    prior = pipelines[0]
    pixels = prior.image_processor(draw_picture(1), return_tensors="pt").pixel_values
    expected = prior.image_encoder(pixels).image_embeds
    ours = encode.image(prior.image_encoder, pixels)
    assert ours.shape == (1, EMBEDDING)
    assert torch.equal(ours, expected)
    assert not ours.requires_grad


def test_zero_image_is_get_zero_embed(pipelines: tuple) -> None:
    """The unconditional is the embedding of an all-zero pixel tensor, and no zero vector."""
    prior = pipelines[0]
    ours = encode.zero_image(prior.image_encoder)
    assert torch.equal(ours, prior.get_zero_embed(1))
    assert ours.abs().max() > 1e-3


def test_latents_are_unquantised_and_unscaled(pipelines: tuple) -> None:
    """`movq.encode(x).latents`, as the guide; they decode through the stock class."""
    movq = pipelines[1].movq
    pixels = images.centre_pixels(draw_picture(2), SIDE, SIDE)[None]
    ours = encode.latents(movq, pixels)
    assert ours.shape == (1, 4, SIDE // FACTOR, SIDE // FACTOR)
    assert torch.equal(ours, movq.encode(pixels).latents)
    quantised = movq.quantize(ours)[0]
    assert not torch.equal(ours, quantised)


def test_results_are_fp32_whatever_the_encoder(pipelines: tuple) -> None:
    """A bf16 encoder takes fp32 pixels, and gives fp32 that is close to the fp32 encoder's."""
    prior, decoder = pipelines
    pixels = prior.image_processor(draw_picture(3), return_tensors="pt").pixel_values
    exact = encode.image(prior.image_encoder, pixels)
    half = diffusers.KandinskyV22PriorPipeline.from_pretrained(
        prior.config._name_or_path, torch_dtype=torch.bfloat16
    )
    ours = encode.image(half.image_encoder, pixels)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, exact, atol=0.05, rtol=0.05)
    assert encode.text(half.text_encoder, torch.zeros(1, 5, dtype=torch.long), 3)[1].dtype == (
        torch.float32
    )
    assert encode.latents(decoder.movq, torch.zeros(1, 3, 16, 16)).dtype == torch.float32


def test_a_white_picture_is_at_the_top_of_the_range() -> None:
    """Pixels in [-1, 1]: white is 1, black is -1."""
    for colour, value in (("white", 1.0), ("black", -1.0)):
        picture = Image.new("RGB", (9, 9), colour)
        assert images.centre_pixels(picture, 4, 4).unique().tolist() == [value]
