"""What the commands besides `train` may be asked: configs like those of `wassily/config.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wassily.config import PRIOR
from wassily.schema import at_least, check_types, require


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
    """Side of the square the training will use, in pixels; what is too small depends on it."""
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
