"""Extra sources of examples beside the training images: which, how many, with which weight.

Order and draws of each come from a seed of its own, so that they change nothing for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wassily.config.training import TrainConfig
from wassily.data.example_order import Examples, ExtraExamples
from wassily.encodings import cache
from wassily.encodings.definitions import EncoderContext
from wassily.encodings.fill import Encoding
from wassily.maths import randomness
from wassily.models.trainable import Trainable
from wassily.training_data import base_predictions, class_images, training_set

CLASS_PICTURES, OLD = 0, 1  # the number of a source gives its seed
CLASS_RATIO = 1.0  # one class picture for each own one, as diffusers has it


@dataclass(frozen=True)
class ExtraSource:
    """`total` examples beside the own: `ratio` of them for each own one, their mean loss times
    `weight`. `name` says what they are, and which.
    """

    name: str
    examples: Callable[[Trainable], Examples]
    total: int
    ratio: float
    weight: float


def sources(
    wanted: list[Encoding], seed: int, config: TrainConfig, context: EncoderContext
) -> list[ExtraSource]:
    """The sources that a config names, their encodings made. Raises UserError."""
    found = []
    if config.with_prior_preservation:
        found.append(_class_pictures(wanted, seed, config, context))
    if config.preserve:
        answers = base_predictions.answers(config, context, randomness.side_seed(seed, OLD))
        name = f"answers of the base ({answers.store.folder.name})"
        counts = (len(answers), _old_ratio(config), config.preserve_weight)
        found.append(ExtraSource(name, answers.examples, *counts))
    return found


def retained_remark(config: TrainConfig, root: Path) -> str:
    """What to say of a run that is stopped before all examples are made."""
    also = f", class pictures in {config.class_data_dir}" if config.with_prior_preservation else ""
    return cache.retained_remark(root) + also


def _class_pictures(
    wanted: list[Encoding], seed: int, config: TrainConfig, context: EncoderContext
) -> ExtraSource:
    own = randomness.side_seed(seed, CLASS_PICTURES)
    found = class_images.gather(config, context.repositories, context.runtime)
    reading = training_set.make_reading(
        wanted, found, own, context, flips=config.random_flip, skip_bad=config.skip_bad_images
    )
    name = f"class pictures ({reading.source.fingerprint()})"

    def examples(trainable: Trainable) -> Examples:
        return training_set.make_examples(reading, trainable, own)

    return ExtraSource(name, examples, len(reading.source), CLASS_RATIO, config.prior_loss_weight)


def _old_ratio(config: TrainConfig) -> float:
    return config.preserve_share / (1 - config.preserve_share)


def streams(
    found: Sequence[ExtraSource], trainable: Trainable, global_batch: int
) -> list[ExtraExamples]:
    """The sources as what is mixed into the own stream."""
    return [
        ExtraExamples(
            s.name, s.examples(trainable), s.total, counted(s.ratio, global_batch), s.weight
        )
        for s in found
    ]


def counted(ratio: float, own: int) -> int:
    """How many examples of a source come with `own` own ones: one at least."""
    return max(1, round(ratio * own))


def ratios(config: TrainConfig) -> list[float]:
    """How many examples each source of a config has for one own example."""
    classes = [CLASS_RATIO] if config.with_prior_preservation else []
    return classes + ([_old_ratio(config)] if config.preserve else [])
