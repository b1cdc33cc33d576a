"""Parts -> the two stock pipelines -> pictures. The only file that draws with diffusers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import KandinskyV22Pipeline, KandinskyV22PriorPipeline
from torch import Tensor

from wassily import models


@dataclass(frozen=True)
class Drawing:
    """How to draw; the defaults are the stock pipelines'."""

    steps: int = 100
    prior_steps: int = 25
    guidance_scale: float = 4.0
    prior_guidance_scale: float = 4.0
    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None
    batch_size: int = 4


def at(drawing: Drawing, side: int) -> Drawing:
    """The same, for square pictures of `side` pixels."""
    return dataclasses.replace(drawing, height=side, width=side)


def prior_pipeline(
    repository: str, dtype: torch.dtype, cache_dir: str | None, **given: Any
) -> KandinskyV22PriorPipeline:
    """The stock prior pipeline of a repository; parts in `given` (by role) replace its own."""
    roles = (
        "prior",
        "image_encoder",
        "text_encoder",
        "tokenizer",
        "image_processor",
        "prior_scheduler",
    )
    parts = {r: given.get(r) or models.load(r, repository, dtype, cache_dir) for r in roles}
    scheduler = parts.pop("prior_scheduler")
    return _silent(KandinskyV22PriorPipeline(scheduler=scheduler, **parts))


def decoder_pipeline(
    repository: str, dtype: torch.dtype, cache_dir: str | None, **given: Any
) -> KandinskyV22Pipeline:
    """The stock decoder pipeline of a repository; parts in `given` (by role) replace its own."""
    roles = ("unet", "movq", "scheduler")
    parts = {r: given.get(r) or models.load(r, repository, dtype, cache_dir) for r in roles}
    return _silent(KandinskyV22Pipeline(**parts))


def _silent(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def native_size(pipeline: KandinskyV22Pipeline) -> int:
    """The side in pixels that the decoder was made for."""
    sample = pipeline.unet.config.sample_size
    return int(sample or 64) * pipeline.movq_scale_factor


def rounded_to(pipeline: KandinskyV22Pipeline) -> int:
    """Height and width of what a decoder draws are multiples of so many pixels."""
    return int(pipeline.movq_scale_factor) ** 2


@contextlib.contextmanager
def on(pipeline: Any, device: torch.device) -> Iterator[None]:
    """The networks of a pipeline on `device` inside; after it, back where each of them was.

    So a network in training stays on its device and the frozen ones leave it. A pipeline that
    offloads by itself is left alone.
    """
    networks = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    if getattr(pipeline, "_offload_device", None) is not None:
        networks = []
    moved = [net for net in networks if next(net.parameters()).device.type != device.type]
    for net in moved:
        net.to(device)
    try:
        yield
    finally:
        for net in moved:
            net.to("cpu")


@torch.no_grad()
def embed(
    pipeline: KandinskyV22PriorPipeline,
    prompts: list[str],
    generators: list[torch.Generator],
    drawing: Drawing,
) -> tuple[Tensor, Tensor]:
    """Prompts -> image embeddings and their negatives, each (B, D), with one generator a picture.

    A negative prompt goes one picture at a time: the stock pipeline then draws twice the noise, and
    only so is a picture independent of its neighbours.
    """
    options = {
        "num_inference_steps": drawing.prior_steps,
        "guidance_scale": drawing.prior_guidance_scale,
    }
    if drawing.negative_prompt is None:
        output = pipeline(prompts, generator=generators, **options)
        return output.image_embeds, output.negative_image_embeds
    pairs = [
        pipeline(prompt, negative_prompt=drawing.negative_prompt, generator=generator, **options)
        for prompt, generator in zip(prompts, generators, strict=True)
    ]
    return (
        torch.cat([p.image_embeds for p in pairs]),
        torch.cat([p.negative_image_embeds for p in pairs]),
    )


def embed_all(
    prior: KandinskyV22PriorPipeline,
    prompts: list[str],
    generators: list[torch.Generator],
    drawing: Drawing,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """`embed` for any number of prompts, N, batch by batch: (N, D), (N, D)."""
    with on(prior, device):
        found = [
            embed(prior, prompts[part], generators[part], drawing)
            for part in _batches(len(prompts), drawing)
        ]
    return torch.cat([positive for positive, _ in found]), torch.cat([n for _, n in found])


def paint(
    decoder: KandinskyV22Pipeline,
    embeds: tuple[Tensor, Tensor],
    generators: list[torch.Generator],
    drawing: Drawing,
    device: torch.device,
    on_done: Callable[[int], Any] = lambda count: None,
    output: Literal["pil", "latent"] = "pil",
) -> list[Any]:
    """Image embeddings and their negatives, each (N, D) -> N PIL pictures, batch by batch; or
    their latents, each (C, H/f, W/f).
    """
    size = native_size(decoder)
    pictures: list[Any] = []
    with on(decoder, device):
        for part in _batches(len(generators), drawing):
            drawn = decoder(
                image_embeds=embeds[0][part],
                negative_image_embeds=embeds[1][part],
                height=drawing.height or size,
                width=drawing.width or size,
                num_inference_steps=drawing.steps,
                guidance_scale=drawing.guidance_scale,
                generator=generators[part],
                output_type=output,
            ).images
            pictures += list(drawn)
            on_done(len(drawn))
    return pictures


def _batches(count: int, drawing: Drawing) -> list[slice]:
    return [slice(i, i + drawing.batch_size) for i in range(0, count, drawing.batch_size)]


def draw(
    prior: KandinskyV22PriorPipeline,
    decoder: KandinskyV22Pipeline,
    jobs: list[tuple[str, int]],
    drawing: Drawing,
    device: torch.device,
    on_done: Callable[[int], Any] = lambda count: None,
) -> list[Any]:
    """(prompt, seed) pairs -> PIL pictures in that order.

    Each picture has a generator of its own that goes through both stages, so for one picture the
    result is that of the stock combined pipeline. Each stage is on the device only while it works.
    `on_done` is called with the number of pictures finished.
    """
    generators = [torch.Generator().manual_seed(seed) for _, seed in jobs]
    embeds = embed_all(prior, [prompt for prompt, _ in jobs], generators, drawing, device)
    return paint(decoder, embeds, generators, drawing, device, on_done)
