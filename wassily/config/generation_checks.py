"""Which schedulers, steps, strengths and start images are valid."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from wassily.config.schema import at_least, at_most, require

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

STRENGTH = 0.3  # how much of a picture is changed, as the stock pipeline has it
Scheduler = Literal["stock", "ddim", "dpm++", "unipc"]
SCHEDULER: Final = "unipc"  # of `wassily generate`; benchmarks/draw_steps.py measures why
STEPS = {"stock": 100, "ddim": 25, "dpm++": 20, "unipc": 10}  # of the decoder, by scheduler
LONGEST_SIDE = 4096  # pixels: memory grows with the area, and the model was trained on 768
STRONGEST_GUIDANCE = 100.0  # far above any in use; at 1e38 an image is NaN
MOST_IN_A_BATCH, MOST_IMAGES = 1024, 1_000_000
EVEN_STEPS = 50  # where the fast ones change a picture, and a share of the steps is taken


def drawing(config: Any) -> None:
    """Raise UserError for steps, guidance, sizes and batches out of range."""
    at_least(config, 1, "steps", "batch_size", "height", "width")
    at_most(config, LONGEST_SIDE, "height", "width")
    at_most(config, MOST_IN_A_BATCH, "batch_size")
    at_most(config, STRONGEST_GUIDANCE, "guidance_scale", "prior_guidance_scale")
    at_least(config, 2, "prior_steps")  # its scheduler divides by one less
    at_least(config, 0, "guidance_scale", "prior_guidance_scale")
    known = ", ".join(STEPS)
    require(config.scheduler in STEPS, f"--scheduler: {config.scheduler!r} is none of {known}")
    for name in ("steps", "prior_steps"):
        value = getattr(config, name) or 0
        require(value <= 1000, f"--{name}: {value} is more than the 1000 of the schedule")


class Steps(Protocol):
    """How many steps a config or a `Drawing` asks for, and of which scheduler."""

    @property
    def steps(self) -> int | None:
        """None: as many as the scheduler needs."""

    @property
    def scheduler(self) -> str:
        """One of STEPS."""


class Canvas(Protocol):
    """What a config or a `Canvas` says of the image to paint on."""

    @property
    def image(self) -> object | None:
        """The image, or its name."""

    @property
    def mask(self) -> object | None:
        """The part of it."""

    @property
    def strength(self) -> float | None:
        """How much of it is changed."""


def steps(drawing: Steps, canvas: Canvas) -> int:
    """The decoder's steps: those asked for, or as many as the scheduler wants for such a canvas."""
    usual = STEPS[drawing.scheduler]
    changed = canvas.image is not None and canvas.mask is None
    even = EVEN_STEPS if changed and drawing.scheduler != "stock" else usual
    return int(drawing.steps or even)


def canvas(config: Any) -> None:
    """Raise UserError for contradictions among the pictures that are painted on."""
    if config.mask is not None:
        require(config.image is not None, "--mask needs --image: the picture that is mended")
        require(config.strength is None, "--strength has no part in --mask: leave it out")
    if config.control is not None:
        require(config.image is None, "--control and --image were both given: keep one")
    if config.strength is not None:
        require(config.image is not None, "--strength needs --image: the picture that is changed")
    strength(config, steps(config, config))


def strength(canvas: Canvas, steps: int) -> None:
    """Raise UserError if a picture would not be changed by one step, or by more than all."""
    value = STRENGTH if canvas.strength is None else canvas.strength
    require(0 < value <= 1, f"--strength: {value:g} is not in (0, 1]")
    require(
        canvas.image is None or canvas.mask is not None or int(steps * value) >= 1,
        f"--strength: {value:g} of {steps} steps is no step; take {1 / steps:.2g} or more, or more "
        "--steps",
    )


def drawn_again(config: DataclassInstance) -> None:
    """Raise UserError if anything is asked of a picture drawn again besides where it goes."""
    free = {"from_picture", "out", "offload", "cache_dir"}
    for field in dataclasses.fields(config):
        same = field.name in free or getattr(config, field.name) == field.default
        name = f"--{field.name}" if field.name != "prompts" else "a prompt"
        require(same, f"--from draws a picture as it was drawn: leave {name} out")


def weighted(part: str) -> tuple[str, float]:
    """A part of a mix, "a cat:0.3", as its text and its weight. Raises UserError."""
    text, colon, number = part.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    require(bool(colon), f"mix: {part!r} has no weight; write {part + ':0.5'!r}")
    require(math.isfinite(weight), f"mix: {part!r}: {number!r} after the colon is no weight")
    require(bool(text.strip()), f"mix: {part!r}: nothing stands before the weight")
    return text, weight
