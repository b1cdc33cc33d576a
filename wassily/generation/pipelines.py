"""Building, checking and moving the diffusers pipelines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from wassily import loading
from wassily.errors import UserError
from wassily.models import kinds, parts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, KandinskyV22Pipeline, KandinskyV22PriorPipeline

INPAINTING = "kandinsky-community/kandinsky-2-2-decoder-inpaint"
HINTED = "kandinsky-community/kandinsky-2-2-controlnet-depth"


def prior_pipeline(
    repository: str, dtype: torch.dtype, cache_dir: str | None, **given: object
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
    own = {r: given.get(r) or parts.load(r, repository, dtype, cache_dir) for r in roles}
    scheduler = own.pop("prior_scheduler")
    return _pipeline("KandinskyV22PriorPipeline", scheduler=scheduler, **own)


def decoder_pipeline(
    repository: str, dtype: torch.dtype, cache_dir: str | None, **given: object
) -> KandinskyV22Pipeline:
    """The stock decoder pipeline of a repository; parts in `given` (by role) replace its own."""
    roles = ("unet", "movq", "scheduler")
    own = {r: given.get(r) or parts.load(r, repository, dtype, cache_dir) for r in roles}
    return _pipeline("KandinskyV22Pipeline", **own)


def _pipeline(name: str, **components: Any) -> Any:
    """A stock pipeline of these parts, without a progress bar. Its file is imported here, for a
    training may do without; the parts are there, so the libraries' advice is switched off by now.
    """
    with loading.uncollected():
        import diffusers

        stock = getattr(diffusers, name)
    pipeline = stock(**components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def native_size(pipeline: KandinskyV22Pipeline) -> int:
    """The side in pixels that the decoder was made for."""
    sample = pipeline.unet.config.sample_size
    return int(sample or 64) * pipeline.movq_scale_factor


def rounded_to(pipeline: KandinskyV22Pipeline) -> int:
    """Height and width of what a decoder draws are multiples of so many pixels."""
    return int(pipeline.movq_scale_factor) ** 2


def check_kind(name: str, config: Mapping[str, object], wanted: str) -> None:
    """Raise UserError unless a UNet of this configuration is of the wanted kind (`Canvas.kind`).

    `name` is what the message calls the decoder.
    """
    kind = kinds.decoder_kind(config)
    if kind == wanted:
        return
    if wanted == "hint":
        raise UserError(f"--control: {name} reads no hint; name one that does, as {HINTED}")
    if wanted == "inpainting":
        raise UserError(
            f"--mask: {name} has {config.get('in_channels')} input channels, and inpainting takes "
            f"9; name a decoder made for it, as {INPAINTING}"
        )
    needs = "--control PICTURE" if kind == "hint" else "--image PICTURE with --mask PICTURE"
    raise UserError(f"{name}: a decoder that draws with {needs} only")


@contextlib.contextmanager
def on(pipeline: DiffusionPipeline, device: torch.device) -> Iterator[None]:
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
