"""Flags of generate and mix."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from wassily.config import generation_checks
from wassily.config.generation import GenerateConfig
from wassily.errors import UserError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "nothing to draw"),
        ({"prompts": ("a",), "num_images": 0}, "--num_images"),
        ({"prompts": ("a",), "steps": 0}, "--steps"),
        ({"prompts": ("a",), "prior_steps": 1}, "--prior_steps"),
        ({"prompts": ("a",), "batch_size": 0}, "--batch_size"),
        ({"prompts": ("a",), "height": 0}, "--height"),
        ({"prompts": ("a",), "width": -64}, "--width"),
        ({"prompts": ("a",), "seed": -1}, "--seed"),
        ({"prompts": ("a",), "guidance_scale": -1.0}, "--guidance_scale"),
        ({"prompts": ("a",), "dtype": "fp8"}, "--dtype"),
        ({"prompts": ("a",), "lora_scale": -0.5}, "--lora_scale"),
    ],
)
def test_generate_refuses(values: dict[str, Any], message: str) -> None:
    """Before a model is loaded."""
    with pytest.raises(UserError, match=message):
        GenerateConfig(**values)


def test_generate_has_the_pipelines_defaults() -> None:
    """Steps and guidance of the stock combined pipeline, read from its signature."""
    from diffusers import KandinskyV22CombinedPipeline

    stock = inspect.signature(KandinskyV22CombinedPipeline.__call__).parameters
    ours = GenerateConfig(prompts=("a",), scheduler="stock")
    assert generation_checks.steps(ours, ours) == stock["num_inference_steps"].default
    assert ours.prior_steps == stock["prior_num_inference_steps"].default
    assert ours.guidance_scale == stock["guidance_scale"].default
    assert ours.prior_guidance_scale == stock["prior_guidance_scale"].default
