"""Generating images with the stock pipelines. The only file that runs them.

Two questions are apart: what a picture's embedding is made of (a text, or a mix of texts and
pictures), and what the decoder paints on (noise alone, a picture, a part of one, a hint). Each
answer to the one goes with each to the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from wassily.config import generation_checks
from wassily.data import images
from wassily.errors import UserError
from wassily.generation import pipelines, schedulers
from wassily.models import encode

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, KandinskyV22Pipeline, KandinskyV22PriorPipeline


@dataclass(frozen=True)
class Mix:
    """Texts and PIL pictures with a weight each: the embedding is the weighted sum of theirs.

    One picture of weight 1 is that picture's own embedding.
    """

    parts: tuple[str | images.Picture, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Canvas:
    """What a decoder paints on besides noise, as PIL pictures; with nothing set, noise alone.

    `image` alone is changed by `strength`, in (0, 1]; with `mask`, of the same shape, what is white
    in that is painted anew. `hint` (RGB) tells the layout, as depth does. Each is cropped to the
    shape of what is drawn, around its centre, and resized.
    """

    image: images.Picture | None = None
    mask: images.Picture | None = None
    hint: images.Picture | None = None
    strength: float = generation_checks.STRENGTH

    @property
    def kind(self) -> str:
        """The kind of decoder that it takes: "hint", "inpainting" or "plain"."""
        if self.hint is not None:
            return "hint"
        return "plain" if self.mask is None else "inpainting"

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels of the picture to paint on, if there is one."""
        picture = self.image if self.hint is None else self.hint
        return None if picture is None else picture.size


@dataclass(frozen=True)
class Drawing:
    """How to draw; the defaults are those of `wassily generate`.

    With the scheduler "stock" all of it is as in the stock pipelines; `steps` unset are as many as
    the scheduler needs.
    """

    steps: int | None = None
    prior_steps: int = 25
    guidance_scale: float = 4.0
    prior_guidance_scale: float = 4.0
    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None
    batch_size: int = 4
    canvas: Canvas = Canvas()
    scheduler: generation_checks.Scheduler = generation_checks.SCHEDULER

    def __post_init__(self) -> None:
        generation_checks.drawing(self)
        generation_checks.strength(self.canvas, generation_checks.steps(self, self.canvas))


Subject = str | Mix


def at(drawing: Drawing, side: int) -> Drawing:
    """The same, for square pictures of `side` pixels."""
    return dataclasses.replace(drawing, height=side, width=side)


def shape(pipeline: KandinskyV22Pipeline, drawing: Drawing) -> tuple[int, int]:
    """Height and width in pixels of what is drawn, multiples of `rounded_to`.

    Sides that are not given are the decoder's own; on a canvas they follow from its aspect, with
    the area of the decoder's own square where neither is given.
    """
    side, step, size = (
        pipelines.native_size(pipeline),
        pipelines.rounded_to(pipeline),
        drawing.canvas.size,
    )
    height, width = drawing.height, drawing.width
    if size is None:
        return _up(height or side, step), _up(width or side, step)
    aspect = size[0] / size[1]
    # The area of the own square in the aspect of the canvas, where no side is given.
    tall: float = height or (width / aspect if width else side / aspect**0.5)
    across: float = width or tall * aspect
    return (
        _up(height or max(1, round(tall / step)) * step, step),
        _up(width or max(1, round(across / step)) * step, step),
    )


def _up(length: int, step: int) -> int:
    # Floor division of the negative rounds up.
    return -(-length // step) * step


@torch.no_grad()
def embed(
    pipeline: KandinskyV22PriorPipeline,
    subjects: Sequence[Subject],
    generators: list[torch.Generator],
    drawing: Drawing,
) -> tuple[Tensor, Tensor]:
    """Subjects -> image embeddings and their negatives, each (B, D), with one generator a picture.

    Texts go together; with a negative prompt, or as a mix, one at a time.
    """
    options = {
        "num_inference_steps": drawing.prior_steps,
        "guidance_scale": drawing.prior_guidance_scale,
    }
    prompts = [subject for subject in subjects if isinstance(subject, str)]
    if drawing.negative_prompt is None and len(prompts) == len(subjects):
        output = pipeline(prompts, generator=generators, **options)
        return output.image_embeds, output.negative_image_embeds
    # With a negative prompt the stock pipeline draws twice the noise: only one at a time an image
    # is independent of its neighbours.
    negative = drawing.negative_prompt
    pairs = [
        pipeline(subject, negative_prompt=negative, generator=generator, **options)
        if isinstance(subject, str)
        else pipeline.interpolate(
            list(subject.parts),
            list(subject.weights),
            negative_prompt=negative or "",
            generator=generator,
            **options,
        )
        for subject, generator in zip(subjects, generators, strict=True)
    ]
    return (
        torch.cat([p.image_embeds for p in pairs]),
        torch.cat([p.negative_image_embeds for p in pairs]),
    )


def embed_all(
    prior: KandinskyV22PriorPipeline,
    subjects: Sequence[Subject],
    generators: list[torch.Generator],
    drawing: Drawing,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """`embed` for any number of subjects, N, batch by batch: (N, D), (N, D)."""
    with pipelines.on(prior, device):  # and off it again: the decoder comes next
        found = [
            embed(prior, subjects[part], generators[part], drawing)
            for part in _batches(len(subjects), drawing)
        ]
    return torch.cat([positive for positive, _ in found]), torch.cat([n for _, n in found])


def paint(
    decoder: KandinskyV22Pipeline,
    embeds: tuple[Tensor, Tensor],
    generators: list[torch.Generator],
    drawing: Drawing,
    device: torch.device,
    on_done: Callable[[int], object] = lambda count: None,
    output: Literal["pil", "latent"] = "pil",
) -> list[Any]:
    """Image embeddings and their negatives, each (N, D) -> N PIL pictures, batch by batch; or
    their latents, each (C, H/f, W/f).
    """
    painted: list[Any] = []
    even = drawing.canvas.kind == "plain" and drawing.canvas.image is not None  # for its strength
    with schedulers.exchanged(decoder, drawing.scheduler, even), pipelines.on(decoder, device):
        stock, given = onto(decoder, drawing)
        for part in _batches(len(generators), drawing):
            with _finite():
                drawn = stock(
                    image_embeds=embeds[0][part],
                    negative_image_embeds=embeds[1][part],
                    **given(len(generators[part])),
                    num_inference_steps=generation_checks.steps(drawing, drawing.canvas),
                    guidance_scale=drawing.guidance_scale,
                    generator=generators[part],
                    output_type=output,
                ).images
            painted += list(drawn)
            on_done(len(drawn))
    return painted


@contextlib.contextmanager
def _finite() -> Iterator[None]:
    """Within, an image of values that are no numbers is an error, instead of black with a warning.

    Raises UserError. It is asked of the conversion to 8 bits, so that no device is waited for.
    """
    try:
        with np.errstate(invalid="raise"):
            yield
    except FloatingPointError:
        raise UserError(
            "the generated image has values that are no numbers (NaN). Lower --guidance_scale, or "
            "use --dtype fp32."
        ) from None


def onto(
    decoder: KandinskyV22Pipeline, drawing: Drawing
) -> tuple[DiffusionPipeline, Callable[[int], dict[str, object]]]:
    """The stock pipeline that paints on a drawing's canvas, of the decoder's own parts; and what it
    is given for a batch of so many pictures.
    """
    canvas, parts = drawing.canvas, decoder.components
    pipelines.check_kind("this decoder", dict(decoder.unet.config), canvas.kind)
    height, width = shape(decoder, drawing)
    size: dict[str, object] = {"height": height, "width": width}
    if canvas.hint is not None:
        hint = images.unit_pixels(images.cropped(canvas.hint, width, height))[None]
        hint = hint.to(decoder.unet.dtype)
        return pipelines._pipeline(
            "KandinskyV22ControlnetPipeline", **parts
        ), lambda count: size | {"hint": hint.to(decoder.unet.device).repeat(count, 1, 1, 1)}
    if canvas.image is None:
        return decoder, lambda count: size
    image = images.cropped(canvas.image, width, height)
    if canvas.mask is not None:
        # Resized to the image first, so that the same crop fits both.
        mask = images.cropped(images.resized(canvas.mask, canvas.image.size), width, height)
        return pipelines._pipeline(
            "KandinskyV22InpaintPipeline", **parts
        ), lambda count: size | {"image": [image] * count, "mask_image": [mask] * count}
    # Of the same parts, so that no network is there twice.
    stock = pipelines._pipeline("KandinskyV22Img2ImgPipeline", **parts)
    if hasattr(stock, "image_processor"):
        # It resizes with height and width exchanged; the picture is of the right size already.
        stock.image_processor.register_to_config(do_resize=False)
    return stock, lambda count: size | {"image": [image] * count, "strength": canvas.strength}


def _batches(count: int, drawing: Drawing) -> list[slice]:
    return [slice(i, i + drawing.batch_size) for i in range(0, count, drawing.batch_size)]


def embed_images(
    prior: KandinskyV22PriorPipeline,
    images: Sequence[images.Picture],
    size: int,
    device: torch.device,
) -> Tensor:
    """PIL pictures in the space of a prior pipeline's image encoder, `size` at once: (N, D)."""
    processor, encoder = prior.image_processor, prior.image_encoder
    inputs = [encode.clip_pixels(picture, processor=processor) for picture in images]
    return _encoded(prior, inputs, lambda pixels: encode.image(encoder, pixels), size, device)


def embed_texts(
    prior: KandinskyV22PriorPipeline, prompts: list[str], size: int, device: torch.device
) -> Tensor:
    """Prompts in the same space, by its text encoder: (N, D)."""
    tokenizer, encoder = prior.tokenizer, prior.text_encoder
    inputs = [encode.tokens(prompt, tokenizer=tokenizer) for prompt in prompts]
    return _encoded(
        prior, inputs, lambda both: encode.text(encoder, both[:, 0], 1)[0], size, device
    )


def _encoded(
    prior: KandinskyV22PriorPipeline,
    inputs: list[Tensor],
    run: Callable[[Tensor], Tensor],
    size: int,
    device: torch.device,
) -> Tensor:
    with pipelines.on(prior, device):
        parts = [torch.stack(inputs[i : i + size]) for i in range(0, len(inputs), size)]
        return torch.cat([run(part) for part in parts])


def draw(
    prior: KandinskyV22PriorPipeline,
    decoder: KandinskyV22Pipeline,
    jobs: Sequence[tuple[Subject, int]],
    drawing: Drawing,
    device: torch.device,
    on_done: Callable[[int], object] = lambda count: None,
) -> list[images.Picture]:
    """(subject, seed) pairs -> PIL pictures in that order.

    Each picture has a generator of its own that goes through both stages, so for one picture the
    result is that of the stock combined pipeline. Each stage is on the device only while it works.
    `on_done` is called with the number of pictures finished.
    """
    # On the CPU, so that each device begins with the same noise.
    generators = [torch.Generator().manual_seed(seed) for _, seed in jobs]
    embeds = embed_all(prior, [subject for subject, _ in jobs], generators, drawing, device)
    return paint(decoder, embeds, generators, drawing, device, on_done)
