"""The queue of generations."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import draw_picture, run_cli
from PIL import Image

from wassily.config.generation import GenerateConfig
from wassily.errors import UserError
from wassily.mini.untrained import Tiny
from wassily.studio import generation_queue
from wassily.studio.generation_queue import Cancelled, GenerationQueue, Job


def config_for(tiny: Tiny, out: Path, **changes: Any) -> GenerateConfig:
    values: dict[str, Any] = {"prompts": ("a", "b"), "num_images": 2, "seed": 5, "batch_size": 3}
    values |= {"prior_steps": 3, "steps": 4, "prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    return GenerateConfig(**(values | {"out": str(out)} | changes))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_queue_draws_what_generate_does(tiny: Tiny, tmp_path: Path) -> None:
    """To the bit, with the same notes; again from the notes of one; its progress rises to its
    end, by every pass of both networks.
    """
    told: list[float] = []
    queue = GenerationQueue()
    config = config_for(tiny, tmp_path / "studio")
    found = queue.draw(config, Job(told.append))
    assert [seed for _, seed in found] == [5, 6, 5, 6]
    words = ["a", "b", "--num_images", 2, "--seed", 5, "--batch_size", 3, "--steps", 4]
    words += ["--prior_steps", 3, "--prior", tiny.prior, "--decoder", tiny.decoder]
    assert run_cli("generate", *words, "--out", tmp_path / "same").code == 0
    for (mine, _), theirs in zip(found, sorted((tmp_path / "same").glob("*.png")), strict=True):
        assert (pixels(mine) == pixels(theirs)).all()
        assert Image.open(mine).text["wassily"] == Image.open(theirs).text["wassily"]
    assert told == [n / 14 for n in range(14)]

    loaded = queue._loaded
    old = generation_queue.provenance_of(found[3][0])
    again = queue.again(old, tmp_path / "studio", None, Job())
    assert (pixels(again) == pixels(found[3][0])).all()
    assert queue._loaded is loaded  # nothing of it has changed
    assert generation_queue.history(tmp_path / "studio")[0] == again
    assert len(generation_queue.history(tmp_path / "studio")) == 5


def test_a_cancelled_drawing_leaves_nothing(tiny: Tiny, tmp_path: Path) -> None:
    """Whether it is in its middle or waits for its turn; the next one is whole."""
    queue, event = GenerationQueue(), threading.Event()

    def tell(share: float) -> None:
        if share > 0.5:
            event.set()

    config = config_for(tiny, tmp_path / "out")
    with pytest.raises(Cancelled):
        queue.draw(config, Job(tell, event))
    with pytest.raises(Cancelled):
        queue.draw(config, Job(lambda share: None, event))
    assert not list((tmp_path / "out").glob("*"))
    assert len(queue.draw(dataclasses.replace(config, num_images=1), Job())) == 2


def test_a_model_that_was_written_anew_is_loaded_anew(tiny: Tiny, tmp_path: Path) -> None:
    """A training may have exported meanwhile."""
    queue = GenerationQueue()
    queue.draw(config_for(tiny, tmp_path), Job())
    loaded = queue._loaded
    file = Path(tiny.decoder) / "unet" / "config.json"
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    queue.draw(config_for(tiny, tmp_path), Job())
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert queue._loaded is not loaded


def test_pictures_of_others_are_not_followed(tiny: Tiny, tmp_path: Path) -> None:
    """A PNG in the history that was drawn on another file is not drawn again here."""
    draw_picture(1).save(tmp_path / "in.png")
    words = ["--image", tmp_path / "in.png", "--steps", 4, "--seed", 1, "--prior_steps", 2]
    words += ["--prior", tiny.prior, "--decoder", tiny.decoder, "--strength", 0.5]
    assert run_cli("generate", "a", *words, "--out", tmp_path / "h.png").code == 0
    with pytest.raises(UserError, match="drawn from other pictures; wassily generate --from"):
        generation_queue.provenance_of(tmp_path / "h.png")
