"""What `evaluate` and `sweep` may be asked: configs like those of `training.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wassily.config.schema import at_least, check_types, require
from wassily.config.training import DECODER, PRIOR


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """What is measured on, and how it is drawn."""

    train_data_dir: str | None = None
    """Folder of captioned pictures, as in the training."""
    dataset_name: str | None = None
    """Data set on the hub, or a local folder with a saved data set or parquet files."""
    dataset_config_name: str | None = None
    """Configuration of that data set, if it has several."""
    image_column: str = "image"
    """Column that holds the pictures."""
    caption_column: str = "text"
    """Column that holds the captions."""
    holdout: float = 0.0
    """Take only the pictures that a training with this --holdout left out; 0 takes all."""
    max_pictures: int = 200
    """Take at most so many pictures, those with the lowest digests."""

    prompts: str = "builtin"
    """Generic prompts: a text file, one a line; or builtin, 100 in English and the same in Arabic,
    those of its own world for the bundled model; or mini, these."""
    max_prompts: int | None = None
    """Take at most so many prompts, of each language alike; all if unset."""

    steps: int = 25
    """Denoising steps of the decoder."""
    prior_steps: int = 25
    """Denoising steps of the prior."""
    guidance_scale: float = 4.0
    """How closely the decoder follows the embedding; 1 switches guidance off."""
    prior_guidance_scale: float = 4.0
    """How closely the prior follows the text; 1 switches guidance off."""
    resolution: int | None = None
    """Side of the pictures in pixels; the decoder's own if unset."""
    seed: int = 0
    """Seed of the drawings, the losses and the resamples."""
    batch_size: int = 8
    """Pictures drawn at once."""
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Arithmetic; auto is fp16 on an accelerator and fp32 on a CPU."""
    cache_dir: str | None = None
    """Where downloaded models and encodings are kept; the usual places if unset."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "steps", "batch_size")
        at_least(self, 2, "prior_steps", "max_pictures", "max_prompts")
        at_least(self, 0, "guidance_scale", "prior_guidance_scale", "seed")
        for name in ("steps", "prior_steps"):
            value = getattr(self, name)
            require(value <= 1000, f"--{name}: {value} is more than the 1000 of the schedule")
        side = self.resolution
        require(
            side is None or (side >= 8 and side % 8 == 0),
            f"--resolution: {side} is not a multiple of 8 from 8 on",
        )
        require(0 <= self.holdout < 1, f"--holdout: {self.holdout:g} is not in [0, 1)")
        source = self.dataset_name or self.train_data_dir
        require(
            not (self.dataset_name and self.train_data_dir),
            "--dataset_name and --train_data_dir were both given: name one source of pictures",
        )
        folder = self.train_data_dir
        require(
            folder is None or Path(folder).is_dir(), f"--train_data_dir {folder}: no such folder"
        )
        require(
            not (self.dataset_config_name and not self.dataset_name),
            "--dataset_config_name belongs to --dataset_name",
        )
        require(
            bool(source) or not self.holdout,
            "--holdout without pictures: give --train_data_dir FOLDER or --dataset_name NAME",
        )


def _check_json(flag: str, name: str | None) -> None:
    if name is not None:
        whole = Path(name).suffix == ".json" and not Path(name).is_dir()
        require(whole, f"--{flag} {name}: name a .json file")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(MeasureConfig):
    """Measure what two networks have learnt from pictures, and what they kept of their base's.

    Example: wassily evaluate --prior runs/prior --decoder runs/decoder --base_prior mini
    --base_decoder mini --train_data_dir pics --holdout 0.1 --out scores.json
    """

    prior: str = PRIOR
    """Prior: an output folder, a checkpoint folder, a hub name, or mini."""
    decoder: str = DECODER
    """Decoder: an output folder, a checkpoint folder, a hub name, or mini."""
    base_prior: str | None = None
    """Prior to compare with, which the training began from; the same prior if unset."""
    base_decoder: str | None = None
    """Decoder to compare with, which the training began from; the same decoder if unset."""

    out: str | None = None
    """Also write the scores into this JSON file."""
    save_pictures: str | None = None
    """Also save every drawn picture below this folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_json("out", self.out)


@dataclass(frozen=True, kw_only=True)
class SweepConfig(MeasureConfig):
    """Measure shares of a fine-tune between its base and itself, and name the best.

    Example: wassily sweep --base mini --tuned runs/prior --train_data_dir pics --holdout 0.1
    --out runs/prior-mixed
    """

    base: tuple[str, ...] = ()
    """Model that the fine-tune began from: a pipeline folder, a hub name, or mini; of two
    fine-tunes one for both, or one of each in the same order."""
    tuned: tuple[str, ...] = ()
    """Output or checkpoint folder of a fine-tune or an adapter; of both networks, one of each."""
    alphas: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Shares to measure: 0 is the base, 1 the fine-tune; of an adapter its scale."""
    prior: str | None = None
    """Prior to draw with, if none is tuned; the one of --base mini, or the released one, if
    unset."""
    decoder: str | None = None
    """Decoder to draw with, if none is tuned; likewise."""
    learned_prompts: str | None = None
    """Text file of prompts for what is new, one a line, in place of held-out pictures."""
    out: str | None = None
    """Also write the best as a pipeline folder; of two networks, as two folders in it."""
    json: str | None = None
    """Also write the table into this JSON file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= len(self.tuned) <= 2, "sweep needs --tuned FOLDER, or one of each network")
        require(
            len(self.base) in {1, len(self.tuned)},
            "sweep needs --base MODEL: what the fine-tune began from",
        )
        require(len(self.alphas) > 1, "--alphas: at least 2 shares make a row")
        for alpha in self.alphas:
            require(0 <= alpha <= 1, f"--alphas: {alpha:g} is not between 0 and 1")
        require(len(set(self.alphas)) == len(self.alphas), "--alphas: a share is named twice")
        pictures = self.train_data_dir or self.dataset_name
        require(
            bool(pictures) != bool(self.learned_prompts),
            "sweep measures what was learned on --train_data_dir FOLDER (with its --holdout), or "
            "by --learned_prompts FILE: name one of them",
        )
        _check_json("json", self.json)
