"""Flags of `merge`, `data check`, `report`, `cache`, `studio`, `doctor` and `demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wassily.config.schema import at_least, check_types, require
from wassily.config.training import PRIOR


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """Fold an adapter into its base, or mix a base with its full fine-tune: a pipeline folder.

    Example: wassily merge --lora runs/decoder --lora_scale 0.8 --out runs/decoder-merged
    """

    base: str | None = None
    """Model to fold into: a pipeline folder, a hub name, or mini; the adapter's own if unset."""
    lora: str | None = None
    """Adapter: an output folder, a checkpoint folder, a file or a hub name."""
    lora_scale: float | None = None
    """How strongly the adapter acts; 1, as it was trained, if unset."""
    tuned: str | None = None
    """Full fine-tune of the base to mix with it: an output folder or a checkpoint folder."""
    alpha: float | None = None
    """Share of the fine-tune's weights (arXiv 2109.01903): 0 is the base, 1 the fine-tune."""
    out: str = "merged"
    """Folder for the result; nothing may be there yet."""
    cache_dir: str | None = None
    """Where downloaded models are kept; the hub's own default if unset."""

    def __post_init__(self) -> None:
        check_types(self)
        require(
            (self.lora is None) != (self.tuned is None),
            "merge takes either --lora ADAPTER or --tuned FOLDER with --alpha",
        )
        at_least(self, 0, "lora_scale")
        require(self.lora_scale is None or self.lora is not None, "--lora_scale needs --lora")
        require(self.alpha is None or self.tuned is not None, "--alpha needs --tuned")
        if self.tuned is not None:
            require(self.base is not None, "--tuned needs --base: the model it was trained from")
            alpha = self.alpha
            require(alpha is not None, "--tuned needs --alpha: its share, from 0 to 1")
            require(0 <= (alpha or 0) <= 1, f"--alpha: {alpha} is not between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class DataCheckConfig:
    """Look through a folder of pictures for what would harm a training. Nothing in it is changed.

    The exit code is 1 if there are errors (broken pictures, wrong metadata), else 0.

    Example: wassily data check pics --resolution 768
    """

    folder: Annotated[str, tyro.conf.Positional] = ""
    """The folder: pictures with their captions, a saved data set, or parquet files."""
    holdout_dir: str | None = None
    """Another such folder, of pictures kept for judging; what also stands in it is reported."""
    image_column: str = "image"
    """Column that holds the pictures."""
    caption_column: str = "text"
    """Column that holds the captions, each a text or a list of texts."""
    no_captions: bool = False
    """Look at the pictures alone, as the training of the decoder does."""
    resolution: int = 512
    """Side of the square the training will use, in pixels, at which the pictures are judged."""
    train_batch_size: int = 1
    """Pictures per process and micro-batch of the training, to count its steps."""
    gradient_accumulation_steps: int = 1
    """Micro-batches per optimizer step of the training, to count its steps."""
    pretrained_prior_model_name_or_path: str = PRIOR
    """Prior whose tokenizer tells which captions are cut; mini works without a network."""
    cache_dir: str | None = None
    """Where downloaded tokenizers and converted data sets are kept; the usual places if unset."""
    json: str | None = None
    """A file that takes the whole report as JSON; not in the folder that is checked."""
    verbose: bool = False
    """List every file of every finding instead of the first ten."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "train_batch_size", "gradient_accumulation_steps")
        require(
            self.resolution >= 8 and self.resolution % 8 == 0,
            f"--resolution: {self.resolution} is not a multiple of 8 from 8 on",
        )
        require(bool(self.folder), "nothing to check: name a folder, wassily data check pics")
        for flag, name in (("", self.folder), ("--holdout_dir ", self.holdout_dir)):
            require(name is None or Path(name).exists(), f"{flag}{name}: no such folder")
            require(name is None or Path(name).is_dir(), f"{flag}{name}: not a folder")
        same = self.caption_column == self.image_column
        require(not same, f"--caption_column and --image_column are both {self.image_column!r}")
        self._check_holdout()
        self._check_json()

    def _check_holdout(self) -> None:
        if self.holdout_dir is None:
            return
        inside = Path(self.holdout_dir).resolve().is_relative_to(Path(self.folder).resolve())
        where = f"it lies in {self.folder}, which a training would read whole; move it out"
        require(not inside, f"--holdout_dir {self.holdout_dir}: {where}")

    def _check_json(self) -> None:
        if self.json is None:
            return
        file = Path(self.json)
        require(not file.is_dir(), f"--json {file}: a folder; name a file")
        require(file.parent.is_dir(), f"--json {file}: no folder {file.parent}")
        for name in filter(None, (self.folder, self.holdout_dir)):
            inside = file.resolve().is_relative_to(Path(name).resolve())
            require(not inside, f"--json {file}: it lies in {name}, where nothing is changed")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write report.html of a training anew, from what lies in its output folder.

    Example: wassily report runs/prior
    """

    folder: Annotated[str, tyro.conf.Positional] = ""
    """The output folder."""

    def __post_init__(self) -> None:
        check_types(self)
        require(bool(self.folder), "nothing to report on: name a folder, wassily report runs/prior")
        require(Path(self.folder).is_dir(), f"{self.folder}: no such folder")


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """The encodings on this disk: what there is, or what of it to remove.

    Example: wassily cache prune --unused_days 7
    """

    cache_dir: str | None = None
    """The folder given to the training as --cache_dir; the usual place if unset."""
    unused_days: float = 30.0
    """prune removes what no run has used for so many days; 0 removes everything."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 0, "unused_days")


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Tell versions, device, memory and caches of this machine, and what is missing. No secrets.

    Example: wassily doctor
    """

    cache_dir: str | None = None
    """Where downloaded models and encodings are kept; the usual places if unset."""

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class StudioConfig:
    """Draw, compare, train and look at data in the browser, on this machine alone.

    Example: wassily studio --runs runs --data pics
    """

    runs: str = "runs"
    """Folder of trainings: models are found below it, and what the studio makes goes there."""
    data: tuple[str, ...] = ()
    """Folders of pictures to look at and to train on; the studio sees no other ones."""
    port: int = 7860
    """Port on 127.0.0.1, which no other machine reaches; 0 takes a free one."""
    language: Literal["en", "ar"] = "en"
    """Language of the page whose address is printed: English or Arabic; each links to the other."""
    open: bool = False
    """Also open the page in this machine's browser."""
    cache_dir: str | None = None
    """Where downloaded models are kept; the hub's own default if unset."""

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.port < 65536, f"--port: {self.port} is not between 0 and 65535")
        file = Path(self.runs)
        require(not file.exists() or file.is_dir(), f"--runs {file}: a file; name a folder")
        for name in self.data:
            require(Path(name).is_dir(), f"--data {name}: no such folder")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Fine-tune the bundled model on a small example, offline, and draw before and after."""

    thing: Literal["inked", "zorb", "world"] = "inked"
    """What is new: a style (inked), a shape (zorb); world is what the model knows already."""
    output_dir: str = "runs/demo"
    """Where the pictures, the runs and the picture sheet go."""
    write_data: str | None = None
    """Only write the captioned pictures into this folder."""
    pictures: int = 200
    """How many pictures to learn from."""
    prior_steps: int | None = None
    """Optimizer steps of the prior; as many as the bundled model needs if unset."""
    decoder_steps: int | None = None
    """Optimizer steps of the decoder; as many as the bundled model needs if unset."""
    learning_rate: float = 1e-4
    """Learning rate of both."""
    judged: int = 32
    """How many prompts of each kind are drawn and judged, before and after."""
    seed: int = 0
    """Seed of the pictures, the training and the drawings."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "pictures", "prior_steps", "decoder_steps", "judged")
        at_least(self, 0, "seed")
        require(self.learning_rate > 0, f"--learning_rate: {self.learning_rate} is not above 0")
