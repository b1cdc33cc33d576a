"""The trackers: how each logs images. The only file that knows their packages.

Numbers and the config go through accelerate, which has no common way for pictures.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np


class Tracker(Protocol):
    """What is used of accelerate's GeneralTracker; `tracker` is the package's own object."""

    name: str
    tracker: Any

    def log(self, values: dict[str, object], *, step: int) -> None:
        """Send values."""

    def log_images(self, values: dict[str, np.ndarray], *, step: int, dataformats: str) -> None:
        """Send arrays of images."""


@contextlib.contextmanager
def without_words() -> Iterator[None]:
    """Inside, a tracker that begins does not see the command line, which it would keep, with a
    token in it, too. What it says is in the config, but for that.
    """
    words = sys.argv
    sys.argv = words[:1]
    try:
        yield
    finally:
        sys.argv = words


def show(
    tracker: Tracker, name: str, pictures: Sequence[object], captions: list[str], step: int
) -> bool:
    """Send PIL pictures of one size to an accelerate tracker; whether it takes any."""
    ways = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio, "mlflow": _mlflow}
    way = ways.get(tracker.name)
    if way is not None:
        way(tracker, name, pictures, captions, step)
    return way is not None


def _tensorboard(
    tracker: Tracker, name: str, pictures: Sequence[object], captions: list[str], step: int
) -> None:
    """Side by side; the prompts beneath them, in the same order, under Text."""
    stack = np.stack([np.asarray(picture) for picture in pictures])
    tracker.log_images({name: stack}, step=step, dataformats="NHWC")
    tracker.tracker.add_text(name, "\n\n".join(captions), global_step=step)


def _wandb(
    tracker: Tracker, name: str, pictures: Sequence[object], captions: list[str], step: int
) -> None:
    import wandb

    pairs = zip(pictures, captions, strict=True)
    tracker.log({name: [wandb.Image(p, caption=c) for p, c in pairs]}, step=step)


def _trackio(
    tracker: Tracker, name: str, pictures: Sequence[object], captions: list[str], step: int
) -> None:
    import trackio

    pairs = enumerate(zip(pictures, captions, strict=True))
    tracker.log({f"{name}/{n}": trackio.Image(p, caption=c) for n, (p, c) in pairs}, step=step)


def _mlflow(
    tracker: Tracker, name: str, pictures: Sequence[object], captions: list[str], step: int
) -> None:
    """Files of the run, as in the output folder: a folder for each step, the prompts in a text."""
    import mlflow

    for number, picture in enumerate(pictures):
        mlflow.log_image(picture, artifact_file=f"{name}/step-{step}/{number:02d}.png")
    mlflow.log_text("\n".join(captions) + "\n", artifact_file=f"{name}/step-{step}/prompts.txt")
