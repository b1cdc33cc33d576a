"""The fast schedulers: from the decoder's own schedule, right without its variance half."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from helpers import run_cli
from PIL import Image

from wassily.config import generation_checks
from wassily.data import png
from wassily.errors import UserError
from wassily.generation import metadata, sample, schedulers
from wassily.generation.pipelines import decoder_pipeline, prior_pipeline
from wassily.generation.sample import Canvas, Drawing
from wassily.mini.untrained import SIDE, Tiny, make_decoder
from wassily.models import parts

CPU = torch.device("cpu")
FAST = tuple(schedulers.KINDS)


@pytest.fixture(scope="module")
def released() -> diffusers.DDPMScheduler:
    """Of the released decoder's configuration."""
    return parts.skeleton("scheduler", "kandinsky-community/kandinsky-2-2-decoder")


def test_the_stock_one_is_the_decoders_own(released: Any) -> None:
    assert schedulers.make("stock", released) is released


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_schedule_is_the_decoders(name: str, kind: str, released: Any) -> None:
    """Every noise level, and what the network predicts; not the variance."""
    stock = diffusers.DDPMScheduler.from_config(released.config, prediction_type=kind)
    made = schedulers.make(name, stock)
    assert torch.equal(made.alphas_cumprod, stock.alphas_cumprod)
    assert made.config.prediction_type == kind
    assert getattr(made.config, "variance_type", None) is None


def _answer(kind: str, x: torch.Tensor, alpha_bar: torch.Tensor, spread: float) -> torch.Tensor:
    """What a perfect network says of pictures that are normal with that spread, from theory.

    x = sqrt(a) x0 + sqrt(1 - a) e, x0 ~ N(0, s^2): E[x0 | x] = sqrt(a) s^2 x / (a s^2 + 1 - a).
    """
    a, s2 = alpha_bar, spread**2
    clean = a.sqrt() * s2 * x / (a * s2 + 1 - a)
    noise = (x - a.sqrt() * clean) / (1 - a).sqrt()
    return {
        "sample": clean,
        "epsilon": noise,
        "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * clean,
    }[kind]


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [10, 20])
def test_they_solve_the_equation(name: str, kind: str, steps: int, released: Any) -> None:
    """Of normal pictures the solution is known: x0 is the noise times their spread, as the
    probability flow keeps quantiles (arXiv 2011.13456, section 4.3). The end is reached: no noise
    of the last step is left in it.
    """
    spread = 0.5
    stock = diffusers.DDPMScheduler.from_config(released.config, prediction_type=kind)
    scheduler = schedulers.make(name, stock)
    scheduler.set_timesteps(steps)
    start = x = torch.linspace(-2, 2, 64).view(1, 4, 4, 4)
    for t in scheduler.timesteps:
        answer = _answer(kind, x, stock.alphas_cumprod[int(t)], spread)
        x = scheduler.step(answer, t, x, generator=None)[0]
    error = ((x - spread * start) / (spread * start)).abs().max()
    assert error < {"ddim": 0.6, "dpm++": 0.15, "unipc": 0.15}[name] * 10 / steps


@pytest.mark.parametrize("name", FAST)
def test_a_schedule_that_it_does_not_know(name: str) -> None:
    stock = diffusers.DDPMScheduler(beta_schedule="sigmoid")
    with pytest.raises(UserError, match=f"--scheduler {name.replace('+', '.')}: not for this"):
        schedulers.make(name, stock)


def _by_hand(tiny: Tiny, name: str, steps: int, guidance: float) -> Image.Image:
    """diffusers' own pipelines with a scheduler put in as its documentation does."""
    stock = diffusers.AutoPipelineForText2Image.from_pretrained(tiny.decoder)
    kind = {
        "ddim": diffusers.DDIMScheduler,
        "dpm++": diffusers.DPMSolverMultistepScheduler,
    }[name]
    own = {k: v for k, v in stock.decoder_pipe.scheduler.config.items() if k != "variance_type"}
    own["use_karras_sigmas"] = True
    stock.decoder_pipe.scheduler = kind.from_config(own)
    drawn = stock(
        "a cat",
        generator=torch.Generator().manual_seed(3),
        num_inference_steps=steps,
        prior_num_inference_steps=2,
        guidance_scale=guidance,
        height=SIDE,
        width=SIDE,
    )
    return drawn.images[0]


@pytest.fixture(scope="module")
def pipelines(tiny: Tiny) -> tuple[Any, Any]:
    """Ours."""
    return (
        prior_pipeline(str(tiny.prior), torch.float32, None),
        decoder_pipeline(str(tiny.decoder), torch.float32, None),
    )


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_pictures_are_those_of_plain_diffusers(
    name: Any, guidance: float, pipelines: tuple[Any, Any], tiny: Tiny
) -> None:
    """To the bit, with and without guidance; the pipeline has its own scheduler again after it."""
    own = pipelines[1].scheduler
    drawing = Drawing(4, 2, guidance, scheduler=name)
    drawn = sample.draw(*pipelines, [("a cat", 3)], drawing, CPU)[0]
    assert drawn.tobytes() == _by_hand(tiny, name, 4, guidance).tobytes()
    assert pipelines[1].scheduler is own


def test_the_stock_scheduler_is_back_after_an_error(pipelines: tuple[Any, Any]) -> None:
    own = pipelines[1].scheduler
    with pytest.raises(ZeroDivisionError), schedulers.exchanged(pipelines[1], "dpm++"):
        assert pipelines[1].scheduler is not own
        raise ZeroDivisionError
    assert pipelines[1].scheduler is own


@pytest.mark.parametrize("name", FAST)
def test_even_steps_are_a_share_of_the_way(name: str, released: Any) -> None:
    """The last 3 of 10 begin where the stock scheduler's do, at 0.3 of the schedule or so."""
    stock = diffusers.DDPMScheduler.from_config(released.config)
    made = schedulers.make(name, stock, even=True)
    for scheduler in (stock, made):
        scheduler.set_timesteps(10)
    assert abs(int(made.timesteps[-3]) - int(stock.timesteps[-3])) <= 100


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("kind", ["image", "mask", "hint"])
def test_every_canvas_takes_every_scheduler(
    name: Any, kind: str, tiny: Tiny, pipelines: tuple[Any, Any], tmp_path: Path
) -> None:
    """A picture of something, and of another number of steps another."""
    picture = Image.fromarray(np.full((SIDE, SIDE, 3), 200, np.uint8))
    canvas, decoder = Canvas(picture, strength=0.5), pipelines[1]
    if kind != "image":
        folder = make_decoder(tmp_path / kind, {"mask": "inpainting", "hint": "hint"}[kind])
        decoder = decoder_pipeline(str(folder), torch.float32, None)
        canvas = Canvas(hint=picture) if kind == "hint" else Canvas(picture, picture)
    embeds = (torch.zeros(1, decoder.unet.config.encoder_hid_dim),) * 2
    made = [
        sample.paint(
            decoder,
            embeds,
            [torch.Generator().manual_seed(1)],
            Drawing(steps, scheduler=name, canvas=canvas),
            CPU,
        )[0]
        for steps in (4, 8)
    ]
    assert all(np.asarray(one).std() > 0 for one in made)
    assert made[0].tobytes() != made[1].tobytes()


def test_the_command_line_tells_it(tiny: Tiny, tmp_path: Path) -> None:
    """The default is the fast one with its steps; the stock one alone has 100; each picture draws
    itself again.
    """
    where = ("--prior", tiny.prior, "--decoder", tiny.decoder, "--prior_steps", 2, "--seed", 4)
    found = {}
    for words in ((), ("--scheduler", "stock"), ("--scheduler", "unipc", "--steps", 3)):
        out = tmp_path / f"{len(found)}.png"
        done = run_cli("generate", "a cat", *where, *words, "--out", out)
        assert done.code == 0, done.err
        with Image.open(out) as picture:
            found[picture.text["scheduler"], picture.text["steps"]] = picture.tobytes()
        assert _again(out) == list(found.values())[-1]
    default = (
        generation_checks.SCHEDULER,
        str(generation_checks.STEPS[generation_checks.SCHEDULER]),
    )
    assert list(found) == [default, ("stock", "100"), ("unipc", "3")]
    assert len(set(found.values())) == 3


def _again(file: Path) -> bytes:
    """The pixels of a picture that is drawn again."""
    done = run_cli("generate", "--from", file, "--out", file.with_name("again.png"))
    assert done.code == 0, done.err
    with Image.open(file.with_name("again.png")) as picture:
        return picture.tobytes()


def test_a_picture_from_before_there_was_a_choice(tiny: Tiny, tmp_path: Path) -> None:
    """Its notes name no scheduler: it was the stock one."""
    file = tmp_path / "old.png"
    where = ("--prior", tiny.prior, "--decoder", tiny.decoder, "--prior_steps", 2, "--seed", 4)
    words = ("--scheduler", "stock", "--steps", 3, "--out", file)
    assert run_cli("generate", "a cat", *where, *words).code == 0
    with Image.open(file) as picture:
        text, pixels = dict(picture.text), picture.tobytes()
        whole = json.loads(text[metadata.KEY])
        del whole["config"]["scheduler"]
        png.save_png(picture.copy(), file, text | {metadata.KEY: json.dumps(whole)})
    assert _again(file) == pixels
