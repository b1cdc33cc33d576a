"""The sources of examples that a run has beside its own pictures: which, how many, what they count.

Order and draws of each come from a seed of its own, so that they change nothing for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wassily import draws, dreambooth, recipes
from wassily.config import TrainConfig
from wassily.encoders import Frozen
from wassily.encodings import Encoding
from wassily.recipes import Kit, Reading
from wassily.stream import Side

CLASS_PICTURES = 0  # the number of a source gives its seed
CLASS_RATIO = 1.0  # one class picture for each own one, as diffusers has it


@dataclass(frozen=True)
class Source:
    """Examples beside the own: `ratio` of them for each own one, their mean loss times `weight`.

    `name` says what they are, and which. `seed` is the source's own (`draws.side_seed`).
    """

    name: str
    reading: Reading
    seed: int
    ratio: float
    weight: float


def sources(wanted: list[Encoding], seed: int, frozen: Frozen) -> list[Source]:
    """The sources that a config names, their encodings made. Raises UserError."""
    config = frozen.config
    if not config.with_prior_preservation:
        return []
    found = dreambooth.class_pictures(config, frozen.repositories, frozen.runtime)
    own = draws.side_seed(seed, CLASS_PICTURES)
    reading = recipes.make_reading(wanted, found, own, frozen)
    name = f"class pictures ({reading.source.fingerprint()})"
    return [Source(name, reading, own, CLASS_RATIO, config.prior_loss_weight)]


def streams(found: Sequence[Source], kit: Kit, global_batch: int) -> list[Side]:
    """The sources as what is mixed into the own stream."""
    return [
        Side(
            s.name,
            recipes.make_examples(s.reading, kit, s.seed),
            len(s.reading.source),
            counted(s.ratio, global_batch),
            s.weight,
        )
        for s in found
    ]


def counted(ratio: float, own: int) -> int:
    """How many examples of a source come with `own` own ones: one at least."""
    return max(1, round(ratio * own))


def ratios(config: TrainConfig) -> list[float]:
    """How many examples each source of a config has for one own example."""
    return [CLASS_RATIO] if config.with_prior_preservation else []
