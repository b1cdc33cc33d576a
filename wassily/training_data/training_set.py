"""The composition of one network with its data: a config becomes what the loop needs.

Prior and decoder are known apart here, and in `encoders`; nowhere below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from wassily.config.training import TrainConfig
from wassily.data import aspect_buckets, datasets, entries, example_order
from wassily.data.aspect_buckets import Size
from wassily.encodings import definitions, fill, lookup
from wassily.encodings.definitions import EncoderContext
from wassily.encodings.fill import Encoding, Row
from wassily.errors import UserError, listed
from wassily.maths import randomness
from wassily.maths.losses import Batch
from wassily.models.trainable import Kit
from wassily.runtime.accelerator import Runtime
from wassily.runtime.progress import progress

# ---------------------------------------------------------------- data


class NamesPictures(Protocol):
    """A config that names a source of images."""

    @property
    def train_data_dir(self) -> str | None:
        """A folder."""

    @property
    def dataset_name(self) -> str | None:
        """A data set."""

    @property
    def dataset_config_name(self) -> str | None:
        """Its configuration."""

    @property
    def image_column(self) -> str:
        """The column of the images."""

    @property
    def cache_dir(self) -> str | None:
        """Where downloads are retained."""


def open_pictures(config: TrainConfig) -> datasets.Pictures:
    """The source that a config names, with captions where the network reads them."""
    caption = config.caption_column if config.reads_captions else None
    if config.instance_data_dir:
        prompt = config.instance_prompt if caption else None
        return datasets.read_prompted(config.instance_data_dir, prompt)
    return named_pictures(config, caption)


def named_pictures(config: NamesPictures, caption: str | None) -> datasets.Pictures:
    """The folder or data set that a config names; `caption` is the column, where one is read."""
    if config.train_data_dir:
        return datasets.read_folder(config.train_data_dir, config.image_column, caption)
    assert config.dataset_name  # the config was checked
    return datasets.read_dataset(
        config.dataset_name,
        config.dataset_config_name,
        config.image_column,
        caption,
        config.cache_dir,
    )


def chosen_pictures(config: TrainConfig, seed: int, runtime: Runtime) -> datasets.Pictures:
    """The source, or as many of its examples as the config wants."""
    if runtime.world > 1:
        # One process reads first, so that a download or a conversion happens once.
        runtime.shared(lambda: bool(open_pictures(config)))
    source = open_pictures(config)
    entries.tell(source.remarks, source.root, runtime.say)
    if config.max_train_samples is not None and config.max_train_samples < len(source):
        return source.select(randomness.subset(seed, len(source), config.max_train_samples))
    return source


class ExampleSet(Protocol):
    """The examples that a network learns from, in their order: `TrainingSet`, or `StreamedSet`.

    An example is named by whatever `keys` and `first` give.
    """

    @property
    def count(self) -> int | None:
        """How many examples there are; None where nobody has read them all."""

    def begin(self, split: example_order.Split, saved: dict[str, Any] | None) -> None:
        """Start, or resume from what a checkpoint has of `state`."""

    def first(self, most: int) -> list[Any]:
        """The names of a few examples, whatever the order is."""

    def shape(self, which: Any) -> Size:
        """Width and height of an example's crop."""

    def keys(self, split: example_order.Split, start: int) -> Iterator[list[tuple[int, int, Any]]]:
        """This rank's micro-batches from optimizer step `start` on."""

    def names_at(self, step: int, split: example_order.Split) -> list[str]:
        """The images of the global batch of a step."""

    def fetch(self, which: Any, step: int, slot: int) -> Row:
        """An example at its turn."""

    def collate(self, rows: list[Row]) -> Any:
        """Rows to what a reader's process hands over."""

    def finish(self, found: Any) -> Batch:
        """What was handed over to a batch, in the training's process."""

    def state(self, done: int, runtime: Runtime) -> dict[str, Any] | None:
        """What a checkpoint has to know besides the number of steps."""

    def signature(self) -> dict[str, Any]:
        """What must be the same for a resume."""

    def shapes(self, split: example_order.Split) -> list[str]:
        """Lines on the shapes of the crops, if there are several."""

    def told(self, batch: int, stop: int) -> tuple[str, str]:
        """What is read, and how often in so many global batches; two ends of a line."""


@dataclass(frozen=True)
class TrainingSet:
    """The readable source and its buckets, `fetch` of one example, rows to a batch.

    The order is drawn by `seed`.
    """

    source: datasets.Pictures
    buckets: aspect_buckets.Buckets
    fetch: Callable[[int, int, int], Row]
    collate: Callable[[list[Row]], Any]
    finish: Callable[[Any], Batch]
    seed: int
    also: dict[str, str] = field(default_factory=dict)  # what else its rows depend on

    @property
    def count(self) -> int:
        """How many examples there are."""
        return len(self.source)

    def begin(self, split: example_order.Split, saved: dict[str, Any] | None) -> None:
        """Go on from what a checkpoint has of `state`: nothing, for every place is known.

        Raises UserError for a place in a stream.
        """
        if saved is not None:
            raise UserError(
                "--resume_from_checkpoint: the checkpoint is of a stream, and this is none. Add "
                "--streaming, or name another checkpoint."
            )

    def first(self, most: int) -> list[int]:
        """A few examples, as `fetch` names them, whatever the order is."""
        return list(range(min(most, len(self.source))))

    def shape(self, index: int) -> Size:
        """The shape of an example's crop."""
        return self.buckets.shape(index)

    def keys(self, split: example_order.Split, start: int) -> Iterator[list[example_order.Key]]:
        """This rank's micro-batches from optimizer step `start` on."""
        return example_order.keys(self.seed, self.buckets.members(), split, start)

    def names_at(self, step: int, split: example_order.Split) -> list[str]:
        """The pictures of the global batch of a step."""
        whole = example_order.Split(split.global_batch, 1, 1, 0)
        return [self.source[index].name for _, _, index in next(self.keys(whole, step))]

    def state(self, done: int, runtime: Runtime) -> None:
        """What a checkpoint has to know besides the number of steps."""

    def signature(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be gone on with."""
        counted = {"data set": self.source.fingerprint(), "pictures": len(self.source)}
        return counted | self.also

    def shapes(self, split: example_order.Split) -> list[str]:
        """Lines on the buckets, if there are several."""
        return self.buckets.described(split.global_batch)

    def told(self, batch: int, stop: int) -> tuple[str, str]:
        """What is read, and how often in so many global batches; two ends of a line."""
        return f"{self.count} pictures", f"{stop * batch / self.count:.1f} epochs"


def make_reading(
    wanted: list[Encoding],
    source: datasets.Pictures,
    seed: int,
    context: EncoderContext,
    *,
    flips: bool = False,
    skip_bad: bool = False,
) -> TrainingSet:
    """Encodings from the cache, filled first; or made as they are needed. Raises UserError.

    `flips`: images are mirrored at random. `skip_bad` leaves unreadable ones out.
    """
    runtime, root = context.runtime, context.root
    choice = lookup.ExampleDraws(seed, flips, context.condition_dropout)
    if context.no_cache:
        mine = range(runtime.rank, len(source), runtime.world)
        with progress("checking pictures", len(mine), runtime.main, "picture") as bar:
            found = runtime.gathered(datasets.opened(source, mine, bar.advance))
        bad = {index: reason for index, reason in found.items() if isinstance(reason, str)}
        source, kept = readable(source, bad, skip_bad, runtime)
        shaped = in_buckets(context, len(source), lambda: np.array([found[i] for i in kept]))
        live = lookup.Live(wanted, choice)

        def fetch(index: int, step: int, slot: int) -> Row:
            return live(source[index], step, slot)

        def finish(rows: list[Row]) -> Batch:
            return lookup.collate(live.encode(rows))

        # Rows travel as they are: the encoders are in this process, not in a reader's.
        return TrainingSet(source, shaped, fetch, list, finish, seed)
    noted = [fill.size_encoding()] if context.bucket else []
    filled = fill.fill([*noted, *wanted], source, root, runtime, flips=flips)
    source, kept = readable(source, filled.bad, skip_bad, runtime)
    contents = filled.contents[kept]
    shaped = in_buckets(context, len(source), lambda: fill.known_sizes(contents, root))
    cached = lookup.Cached(wanted, source, contents, root, choice)
    return TrainingSet(source, shaped, cached, lookup.collate, lambda batch: batch, seed)


def in_buckets(
    context: EncoderContext, count: int, sizes: Callable[[], np.ndarray]
) -> aspect_buckets.Buckets:
    """The pictures by the shape of their crop; `sizes` gives (count, 2), and is asked if needed."""
    shapes = definitions.crop_shapes(context)
    if not context.bucket:
        return aspect_buckets.Buckets(shapes, np.zeros(count, np.int64))
    return aspect_buckets.sorted_into(sizes(), shapes)


def readable(
    source: datasets.Pictures, bad: dict[int, str], skip: bool, runtime: Runtime
) -> tuple[datasets.Pictures, list[int]]:
    """The source without its unreadable pictures, and the indices kept.

    Raises UserError with the list of them, unless they are to be skipped.
    """
    if not bad:
        return source, list(range(len(source)))
    if not skip:
        names = listed([bad[index] for index in sorted(bad)])
        raise UserError(
            f"{len(bad)} of {len(source)} pictures cannot be read: {names}; mend or remove them, "
            "or add --skip_bad_images"
        )
    runtime.say(f"left out {len(bad)} of {len(source)} pictures that cannot be read")
    kept = [i for i in range(len(source)) if i not in bad]
    if not kept:
        raise UserError("no picture can be read")
    return source.select(kept), kept


def make_examples(reading: ExampleSet, kit: Kit, seed: int) -> example_order.Examples:
    """What the loader reads: each example with noise in the shape of its crop, and a timestep."""

    def noise_shape(which: Any) -> tuple[int, ...]:
        return kit.noise_shape(reading.shape(which))

    timesteps = len(kit.objective.alpha_bars)
    return example_order.Examples(reading.fetch, seed, noise_shape, timesteps)


def batches(reading: ExampleSet, loader: Iterable[Any], runtime: Runtime) -> Iterator[Batch]:
    """Micro-batches as the objective reads them, on the device."""
    for found in loader:
        yield runtime.to_device(reading.finish(found))
