"""What a picture is drawn from: texts, mixes, and the pictures on this disk that they name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wassily.config import generation_checks
from wassily.config.generation import DrawConfig, GenerateConfig, MixConfig
from wassily.data import images
from wassily.data.images import Picture
from wassily.errors import UserError
from wassily.files import reading
from wassily.files.reading import BadFile
from wassily.generation.sample import Canvas, Mix, Subject

ASPECT = 0.02  # how far the shape of a mask may be from its picture's


@dataclass(frozen=True)
class Task:
    """Subjects, as `words` would say them, and what they are painted on.

    `digests` tells of each picture that was read its SHA-256 in 16 letters.
    """

    subjects: list[Subject]
    words: list[str]
    canvas: Canvas
    digests: dict[str, str]


def task(config: DrawConfig) -> Task:
    """All that a config names, read and checked; no model is. Raises UserError."""
    opened = OpenedImages()
    if isinstance(config, MixConfig):
        parts = [generation_checks.weighted(part) for part in config.parts]
        mixed = tuple(opened.text_or_picture(text) for text, _ in parts)
        subjects: list[Subject] = [Mix(mixed, tuple(weight for _, weight in parts))]
        words = [" ".join(config.parts)]
    elif isinstance(config, GenerateConfig) and config.variations is not None:
        subjects = [Mix((opened.open("--variations", config.variations),), (1.0,))]
        words = [f"variations of {Path(config.variations).name}"]
    else:
        assert isinstance(config, GenerateConfig)
        words = prompts(config)
        subjects = list(words)
    return Task(subjects, words, _canvas(config, opened), opened.digests)


def prompts(config: GenerateConfig) -> list[str]:
    """The prompts of the command line, then those of the file. Raises UserError."""
    found = list(config.prompts)
    if config.prompts_file is not None:
        try:
            text = reading.read_text(Path(config.prompts_file))
        except BadFile as error:
            raise UserError(f"--prompts_file {error}") from None
        found += [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise UserError(f"--prompts_file {config.prompts_file}: no prompt in it")
    if not all(prompt.strip() for prompt in found):
        raise UserError("a prompt is empty")
    return found


@dataclass
class OpenedImages:
    """Images that were opened, and the digest of each by its name."""

    digests: dict[str, str] = field(default_factory=dict)

    def open(
        self, flag: str, name: str, how: Callable[[bytes], images.Picture] = images.open_rgb
    ) -> images.Picture:
        """A picture as RGB. Raises UserError that names the flag."""
        try:
            content = images.file_bytes(name)
            picture = how(content)
        except images.BadPicture as error:
            raise UserError(f"{flag} {name}: {error}") from None
        self.digests[name] = hashlib.sha256(content).hexdigest()[:16]
        return picture

    def text_or_picture(self, part: str) -> str | Picture:
        """A part of a mix: a picture if its name is a picture's or there is such a file."""
        path = Path(os.path.expanduser(part))
        try:
            picture = path.is_file() or path.suffix.lower() in images.SUFFIXES
        except (OSError, ValueError):  # no name that a file can have
            picture = False
        return self.open("mix:", part) if picture else part


def _canvas(config: DrawConfig, opened: OpenedImages) -> Canvas:
    """The pictures to paint on, opened. Raises UserError for a mask of another shape."""
    if config.control is not None:
        return Canvas(hint=opened.open("--control", config.control))
    if config.image is None:
        return Canvas()
    image = opened.open("--image", config.image)
    if config.mask is None:
        return Canvas(image, strength=config.strength or generation_checks.STRENGTH)
    mask = opened.open("--mask", config.mask, images.open_mask)
    (width, height), (across, down) = image.size, mask.size
    if abs(across * height / (down * width) - 1) > ASPECT:
        raise UserError(
            f"--mask {config.mask}: {across} x {down}, and --image is {width} x {height}: a mask "
            "has the shape of its picture, at any size"
        )
    return Canvas(image, mask)
