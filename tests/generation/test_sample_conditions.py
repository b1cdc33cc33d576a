"""What a picture is made of and painted on, each against the stock pipeline called by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from helpers import draw_picture
from PIL import Image

from wassily.errors import UserError
from wassily.generation import pipelines, sample
from wassily.generation.sample import Canvas, Drawing, Mix
from wassily.mini.untrained import SIDE, Tiny, make_decoder
from wassily.models.parts import load_config

CPU = torch.device("cpu")
SEED = 5
STEPS = {"num_inference_steps": 4, "guidance_scale": 3.0}
PRIOR = {"num_inference_steps": 2, "guidance_scale": 2.0}
DRAWING: dict[str, Any] = {
    "steps": 4,
    "prior_steps": 2,
    "guidance_scale": 3.0,
    "prior_guidance_scale": 2.0,
    "scheduler": "stock",
}


@pytest.fixture(scope="module")
def decoders(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a decoder of each kind."""
    out = tmp_path_factory.mktemp("decoders")
    others = {kind: make_decoder(out / kind, kind) for kind in ("inpainting", "hint")}
    return {"plain": tiny.decoder} | others


@pytest.fixture(scope="module")
def stock_prior(tiny: Tiny) -> diffusers.KandinskyV22PriorPipeline:
    """diffusers' own."""
    return _quiet(diffusers.KandinskyV22PriorPipeline.from_pretrained(tiny.prior))


def _quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _stock(kind: str, folder: Path) -> Any:
    return _quiet(getattr(diffusers, f"KandinskyV22{kind}Pipeline").from_pretrained(folder))


@functools.cache
def _prior(folder: Path) -> Any:
    return pipelines.prior_pipeline(str(folder), torch.float32, None)


@functools.cache
def _decoder(folder: Path) -> Any:
    return pipelines.decoder_pipeline(str(folder), torch.float32, None)


def _draw(
    tiny: Tiny, decoder: Path, subject: sample.Subject, canvas: Canvas, **more: Any
) -> Image.Image:
    prior = _prior(tiny.prior)
    pipeline = _decoder(decoder)
    drawing = Drawing(**DRAWING | more, canvas=canvas)
    return sample.draw(prior, pipeline, [(subject, SEED)], drawing, CPU)[0]


def _mask() -> Image.Image:
    """Its left half is to be painted anew."""
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[:, : SIDE // 2] = 255
    return Image.fromarray(values).convert("RGB")


PICTURE = draw_picture(3, SIDE, SIDE)
STEP = 64  # the hint decoder has 8 pixels to a latent, and draws multiples of 8 x 8
HINT = draw_picture(4, STEP, STEP)
BY_HAND: list[tuple[str, Canvas, str, Callable[[], dict[str, Any]]]] = [
    (
        "plain",
        Canvas(PICTURE, strength=0.6),
        "Img2Img",
        lambda: {"image": PICTURE, "strength": 0.6},
    ),
    (
        "inpainting",
        Canvas(PICTURE, _mask()),
        "Inpaint",
        lambda: {"image": PICTURE, "mask_image": _mask()},
    ),
    (
        "hint",
        Canvas(hint=HINT),
        "Controlnet",
        lambda: {"hint": torch.from_numpy(np.array(HINT) / np.float32(255)).permute(2, 0, 1)[None]},
    ),
]


@pytest.mark.parametrize(("kind", "canvas", "name", "given"), BY_HAND, ids=lambda v: str(v)[:10])
def test_each_canvas_is_the_stock_pipelines(
    kind: str,
    canvas: Canvas,
    name: str,
    given: Callable[[], dict[str, Any]],
    tiny: Tiny,
    decoders: dict[str, Path],
    stock_prior: Any,
) -> None:
    """Bit for bit, one generator through both stages; and the canvas is seen in what is drawn."""
    ours = _draw(tiny, decoders[kind], "a cat", canvas)
    generator = torch.Generator().manual_seed(SEED)
    embeds = stock_prior("a cat", generator=generator, **PRIOR)
    side = STEP if kind == "hint" else SIDE
    size = {"height": side, "width": side}
    stock = _stock(name, decoders[kind])
    theirs = stock(**embeds, **given(), **size, **STEPS, generator=generator).images[0]
    assert ours.tobytes() == theirs.tobytes()
    turned = {f: getattr(canvas, f) for f in ("image", "mask", "hint")}
    turned = {f: p and p.transpose(Image.Transpose.ROTATE_90) for f, p in turned.items()}
    other = _draw(tiny, decoders[kind], "a cat", Canvas(**turned, strength=canvas.strength))
    assert ours.tobytes() != other.tobytes()


@pytest.mark.parametrize("negative", [None, "blurry"])
def test_a_mix_is_the_stock_interpolation(
    negative: str | None, tiny: Tiny, decoders: dict[str, Path], stock_prior: Any
) -> None:
    """Of a text and a picture; and a picture alone, which is that picture's own embedding."""
    for parts, weights in ((("a cat", PICTURE), (0.3, 0.7)), ((PICTURE,), (1.0,))):
        mix = Mix(parts, weights)
        ours = _draw(tiny, decoders["plain"], mix, Canvas(), negative_prompt=negative)
        generator = torch.Generator().manual_seed(SEED)
        embeds = stock_prior.interpolate(
            list(parts), list(weights), negative_prompt=negative or "", generator=generator, **PRIOR
        )
        size = {"height": SIDE, "width": SIDE}
        stock = _stock("", decoders["plain"])
        theirs = stock(**embeds, **size, **STEPS, generator=generator).images[0]
        assert ours.tobytes() == theirs.tobytes()
    pixels = stock_prior.image_processor(PICTURE, return_tensors="pt").pixel_values
    own = stock_prior.image_encoder(pixels).image_embeds
    assert torch.equal(embeds.image_embeds, own)


def test_what_is_painted_on_goes_with_what_is_drawn(tiny: Tiny, decoders: dict[str, Path]) -> None:
    """Variations of one picture on another, with a hint, in a part: all draw, all differ."""
    seen = {
        _draw(tiny, decoders[kind], Mix((HINT,), (1.0,)), canvas).tobytes()
        for kind, canvas, _, _ in BY_HAND
    }
    assert len(seen) == len(BY_HAND)


@pytest.mark.parametrize("kind", ["plain", "inpainting", "hint"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_batch_is_its_pictures(
    kind: str, guidance: float, tiny: Tiny, decoders: dict[str, Path]
) -> None:
    """But for rounding, at most 2 of 255; also without guidance."""
    canvas = next(canvas for of, canvas, _, _ in BY_HAND if of == kind)
    prior = _prior(tiny.prior)
    pipeline = _decoder(decoders[kind])
    drawing = Drawing(**DRAWING | {"guidance_scale": guidance}, canvas=canvas)
    jobs = [("a", 1), ("b", 2), ("c", 3)]
    together = sample.draw(prior, pipeline, jobs, drawing, CPU)
    for job, picture in zip(jobs, together, strict=True):
        alone = sample.draw(prior, pipeline, [job], drawing, CPU)[0]
        assert np.abs(np.asarray(alone).astype(int) - np.asarray(picture)).max() <= 2


@pytest.mark.parametrize("kind", ["plain", "inpainting", "hint"])
def test_a_wide_canvas_is_drawn_wide(kind: str, tiny: Tiny, decoders: dict[str, Path]) -> None:
    """Of the area of the decoder's square; or as one says. A mask may be of another size."""
    wide = draw_picture(3, 4 * STEP, STEP)
    mask = Image.new("RGB", (8 * STEP, 2 * STEP), "white")
    canvas = {
        "plain": Canvas(wide),
        "inpainting": Canvas(wide, mask),
        "hint": Canvas(hint=wide),
    }[kind]
    step = STEP if kind == "hint" else 16
    drawn = _draw(tiny, decoders[kind], "a", canvas)
    assert drawn.size == ((STEP, STEP) if kind == "hint" else (2 * SIDE, SIDE // 2))
    drawn = _draw(tiny, decoders[kind], "a", canvas, height=step, width=3 * step)
    assert drawn.size == (3 * step, step)


def test_img2img_of_a_wide_picture_keeps_its_layout(decoders: dict[str, Path]) -> None:
    """The stock pipeline exchanges height and width as it resizes; ours gives it what it encodes
    whole: the latents are those of the picture itself.
    """
    wide = draw_picture(3, 2 * SIDE, SIDE)
    pipeline = _decoder(decoders["plain"])
    drawing = Drawing(canvas=Canvas(wide), height=SIDE, width=2 * SIDE)
    stock, given = sample.onto(pipeline, drawing)
    values = given(1)
    pixels = stock.image_processor.preprocess(values["image"], values["width"], values["height"])
    assert torch.equal(pixels[0], torch.from_numpy(np.array(wide)).permute(2, 0, 1) / 127.5 - 1)


@pytest.mark.parametrize(
    ("size", "given", "wanted"),
    [
        ((96, 96), {}, (32, 32)),
        ((400, 100), {}, (64, 16)),
        ((100, 400), {}, (16, 64)),
        ((100000, 1), {}, (10112, 16)),
        ((200, 100), {"height": 32}, (64, 32)),
        ((200, 100), {"width": 32}, (32, 16)),
        ((200, 100), {"width": 40, "height": 33}, (48, 48)),
    ],
)
def test_the_shape_follows_the_canvas(
    size: tuple[int, int], given: dict[str, int], wanted: tuple[int, int], decoders: dict[str, Path]
) -> None:
    """Width by height, in multiples of 16 as this MoVQ wants them."""
    pipeline = _decoder(decoders["plain"])
    drawing = Drawing(canvas=Canvas(Image.new("RGB", size)), **given)
    assert sample.shape(pipeline, drawing) == wanted[::-1]


def test_a_decoder_of_another_kind_is_refused(decoders: dict[str, Path]) -> None:
    """With the name of a released one that would do."""
    canvases = {
        "plain": Canvas(),
        "inpainting": Canvas(PICTURE, _mask()),
        "hint": Canvas(hint=HINT),
    }
    words = {"inpainting": pipelines.INPAINTING, "hint": pipelines.HINTED, "plain": "only"}
    for kind, folder in decoders.items():
        config = load_config("unet", str(folder))
        for wanted, canvas in canvases.items():
            if canvas.kind == kind:
                pipelines.check_kind("x", config, canvas.kind)
                continue
            with pytest.raises(UserError, match=words[wanted]):
                pipelines.check_kind("x", config, canvas.kind)
