"""Flags of `generate` and `mix`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from wassily.config import generation_checks
from wassily.config.schema import at_least, at_most, check_prompts, check_types, require
from wassily.config.training import DECODER, PRIOR


@dataclass(frozen=True, kw_only=True)
class DrawConfig:
    """What is the same however a picture is asked for."""

    image: str | None = None
    """Picture to start from: it is changed, not drawn from nothing."""
    strength: float | None = None
    """How much of --image is changed: above 0, which is nothing, to 1, which is all; 0.3, the stock
    pipeline's, if unset."""
    mask: str | None = None
    """Picture that is white where --image is painted anew, black where it stays; for a decoder made
    for inpainting."""
    control: str | None = None
    """Picture of the layout, as depth; for a decoder that reads such a hint."""
    prior: str = PRIOR
    """Prior: an output folder, a checkpoint folder, a hub name, or mini."""
    decoder: str = DECODER
    """Decoder: an output folder, a checkpoint folder, a hub name, or mini."""
    prior_lora: str | None = None
    """Adapter of the prior: an output folder, a checkpoint folder, a file or a hub name."""
    decoder_lora: str | None = None
    """Adapter of the decoder, likewise."""
    lora_scale: float = 1.0
    """How strongly adapters act: 0 not at all, 1 as they were trained."""
    negative_prompt: str | None = None
    """What should not be in the picture."""
    num_images: int = 1
    """Pictures per prompt; the second has the seed + 1, and so on."""
    scheduler: generation_checks.Scheduler = generation_checks.SCHEDULER
    """Way from noise to picture: the decoder's own, which is slow, or one of three fast ones."""
    steps: int | None = None
    """Denoising steps of the decoder; if unset as many as the scheduler needs: 100 stock, 25 ddim,
    20 dpm++, 10 unipc; 50 for these three where --image is changed."""
    prior_steps: int = 25
    """Denoising steps of the prior."""
    guidance_scale: float = 4.0
    """How closely the decoder follows the embedding; 1 switches guidance off."""
    prior_guidance_scale: float = 4.0
    """How closely the prior follows the text; 1 switches guidance off."""
    height: int | None = None
    """Height in pixels; the model's own if unset."""
    width: int | None = None
    """Width in pixels; the model's own if unset."""
    seed: int | None = None
    """Seed of the first picture; drawn and printed if unset."""
    batch_size: int = 4
    """Pictures drawn at once."""
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Arithmetic; auto is fp16 on an accelerator and fp32 on a CPU."""
    compile: bool = False
    """Compile the decoder's blocks: a long wait before the first picture, then faster ones; for
    long lists on a GPU."""
    offload: bool = False
    """Keep each network on the accelerator only while it works: less memory, more time."""
    cache_dir: str | None = None
    """Where downloaded models are kept; the hub's own default if unset."""
    out: str = "pictures"
    """A folder, or a .png file: of one picture, or with --grid of the sheet of several."""
    grid: bool = False
    """Also save all pictures as one labelled sheet."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "num_images")
        at_most(self, generation_checks.MOST_IMAGES, "num_images")
        check_prompts("--negative_prompt", [self.negative_prompt])
        at_least(self, 0, "lora_scale", "seed")
        generation_checks.drawing(self)
        last = (self.seed or 0) + self.num_images
        require(last < 2**63, f"--seed: {self.seed} is too large; seeds go up to 2**63")
        generation_checks.canvas(self)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(DrawConfig):
    """Draw pictures from prompts with the stock pipelines.

    Example: wassily generate "a robot naruto, 4k photo" --prior runs/prior --decoder runs/decoder
    """

    prompts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Prompts, each in quotes."""
    prompts_file: str | None = None
    """A text file with one prompt a line, UTF-8; drawn after the prompts of the command line."""
    variations: str | None = None
    """Picture to draw others like: from its own embedding, instead of a prompt's."""
    from_picture: Annotated[str | None, tyro.conf.arg(aliases=["--from"])] = None
    """PNG that wassily drew, to draw it again from its notes, to the bit on the same machine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.from_picture is not None:
            generation_checks.drawn_again(self)
            return
        check_prompts("prompts", self.prompts)
        asked = bool(self.prompts) or self.prompts_file is not None
        require(
            asked or self.variations is not None,
            'nothing to draw: give a prompt, wassily generate "a red cat", or --prompts_file',
        )
        require(
            not (asked and self.variations is not None),
            f"--variations {self.variations} takes no prompt; a text and a picture together: "
            f'wassily mix "a red cat:0.5" {self.variations}:0.5',
        )


@dataclass(frozen=True, kw_only=True)
class MixConfig(DrawConfig):
    """Draw pictures from several texts and pictures at once: the weighted sum of their embeddings.

    Example: wassily mix "a cat:0.3" photo.png:0.7
    """

    parts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Texts and picture files, each with a colon and its weight at the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.parts) > 1,
            'mix takes two parts or more, each with its weight: wassily mix "a cat:0.3" '
            "photo.png:0.7",
        )
        check_prompts("mix", self.parts)
        for part in self.parts:
            generation_checks.weighted(part)
