"""The composition of one network with its data: a config becomes what the loop needs.

The only place that knows prior and decoder apart.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wassily import (
    buckets,
    cache,
    data,
    draws,
    encode,
    encodings,
    models,
    objectives,
    optim,
    pictures,
    stream,
)
from wassily import config as configs
from wassily import runtime as runtimes
from wassily.config import TrainConfig
from wassily.encodings import Encoding, Row
from wassily.errors import UserError, listed
from wassily.runtime import Runtime
from wassily.train import Batch

PICTURE_BATCH, CAPTION_BATCH = 4, 32  # of the encoders, whatever the batch of the training


# ---------------------------------------------------------------- the networks


Load = Callable[..., Any]  # as models.load


@dataclass(frozen=True)
class Kit:
    """What one network brings to the loop; `noise_shape` is of a picture of (width, height)."""

    net: nn.Module
    objective: nn.Module
    noise_shape: Callable[[buckets.Size], tuple[int, ...]]


def prior_kit(config: configs.PriorConfig, repositories: dict[str, str], load: Load) -> Kit:
    """The prior and its objective."""
    net = load("prior", repositories["prior"], cache_dir=config.cache_dir)
    alpha_bars, recompute = models.prior_alpha_bars(), config.gradient_checkpointing
    objective = objectives.Prior(net, alpha_bars, "sample", config.snr_gamma, recompute)
    return Kit(net, objective, lambda size: (net.config.embedding_dim,))


def decoder_kit(config: configs.DecoderConfig, repositories: dict[str, str], load: Load) -> Kit:
    """The decoder and its objective, on the noise schedule of its repository."""
    repository = repositories["decoder"]
    net = load("unet", repository, cache_dir=config.cache_dir)
    scheduler = load("scheduler", repository, cache_dir=config.cache_dir)
    if optim.name(config) != "adamw8bit":  # turns them back: a resume would begin otherwise
        _channels_last(net)
    factor = latent_factor(config, repository)
    if config.gradient_checkpointing:
        net.enable_gradient_checkpointing()
    schedule, weights = scheduler.alphas_cumprod, (config.snr_gamma, config.variance_loss)
    objective = objectives.Decoder(net, schedule, scheduler.config.prediction_type, *weights)
    channels = net.config.in_channels
    return Kit(net, objective, lambda size: (channels, size[1] // factor, size[0] // factor))


def _channels_last(net: nn.Module) -> None:
    """Weights as convolutions read them; the same numbers."""
    for weight in net.parameters():
        if weight.ndim == 4:  # one by one: as a whole, a fake network cannot be moved
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def make_kit(config: TrainConfig, repositories: dict[str, str], load: Load = models.load) -> Kit:
    """The kit of the network that a config trains, its parts by `load` (or `models.skeleton`)."""
    if isinstance(config, configs.PriorConfig):
        return prior_kit(config, repositories, load)
    assert isinstance(config, configs.DecoderConfig)
    return decoder_kit(config, repositories, load)


def latent_factor(config: TrainConfig, repository: str) -> int:
    """Pixels to a latent. Raises UserError if the configured resolution is no multiple of it."""
    factor = halved("movq", config, repository)
    if config.resolution % factor:
        raise UserError(f"--resolution: {config.resolution} is not a multiple of {factor}")
    return factor


def halved(role: str, config: TrainConfig, repository: str) -> int:
    """How many times smaller than its input the smallest map in a network of blocks is."""
    blocks = models.load_config(role, repository, config.cache_dir)["block_out_channels"]
    return 2 ** (len(blocks) - 1)


def bucketed(config: TrainConfig) -> bool:
    """Whether the pictures of a run have several shapes."""
    return isinstance(config, configs.DecoderConfig) and config.bucket


def crop_shapes(config: TrainConfig, repository: str) -> list[buckets.Size]:
    """The shapes that pictures are cropped to: the square, or the buckets around it.

    Their sides are multiples of what MoVQ and decoder halve together, 64 px for the real ones.
    Raises UserError if the resolution is none.
    """
    side = config.resolution
    if not bucketed(config):
        return [(side, side)]
    step = halved("movq", config, repository) * halved("unet", config, repository)
    if side % step:
        raise UserError(f"--bucket: --resolution {side} is not a multiple of {step}")
    return buckets.shapes(side, step)


def use_xformers(net: Any, runtime: Runtime) -> None:
    """Attention by xFormers where it is installed; else say that PyTorch's own does."""
    try:
        import xformers  # noqa: F401
    except ImportError:
        runtime.say(
            "xFormers is not installed: PyTorch's own attention is memory-efficient already"
        )
        return
    net.enable_xformers_memory_efficient_attention()


# ---------------------------------------------------------------- the encodings


def cropped_pixels(picture: Any, *, shapes: list[buckets.Size]) -> Tensor:
    """A picture as the MoVQ's input, (3, H, W), in the shape that loses the fewest pixels of it."""
    number = buckets.nearest(np.array([picture.size]), shapes)[0]
    return pictures.centre_pixels(picture, *shapes[number])


@dataclass(frozen=True)
class Frozen:
    """Where the frozen parts of a run come from, and how they are loaded."""

    config: TrainConfig
    repositories: dict[str, str]
    runtime: Runtime
    root: Path

    def load(self, role: str) -> Any:
        """A part; a network is put on the device, in the precision of the run."""
        repository = self.repositories[models.PARTS[role].home]
        part = models.load(role, repository, self.runtime.weight_dtype, self.config.cache_dir)
        return part.to(self.runtime.device) if isinstance(part, nn.Module) else part

    def space(self, *roles: str, also: tuple[Any, ...] = ()) -> str:
        """A digest of the parts' files, the precision, and what else an encoding depends on."""
        if self.config.no_cache:
            return "live"

        def make() -> str:
            contents = cache.Contents(self.root)
            found: list[bytes | str | int] = []
            for role in roles:
                home = models.PARTS[role].home
                paths = models.files(role, self.repositories[home], self.config.cache_dir)
                known = contents.known([str(path) for path in paths])
                for path, digest in zip(paths, known, strict=True):
                    name, read = str(path), digest.any()
                    found.append(path.name)
                    found.append(digest.tobytes() if read else contents.read(name, name))
            contents.writer.flush()
            return cache.digest(*found, str(self.runtime.weight_dtype), *also).hex()[:16]

        return self.runtime.shared(make)


def image_encoding(frozen: Frozen) -> Encoding:
    """Pictures -> `image_embeds` (D,), by the CLIP image encoder; serves both networks.

    It is the decoder's condition, and what the prior learns to make.
    """
    processor = frozen.load("image_processor")
    drops = frozen.config.role == "decoder" and frozen.config.condition_dropout > 0

    def load() -> encodings.Encode:
        encoder, dtype = frozen.load("image_encoder"), frozen.runtime.weight_dtype

        def run(pixels: Tensor) -> list[Row]:
            return [{"image_embeds": e} for e in encode.image(encoder, pixels).to(dtype).cpu()]

        return run

    return Encoding(
        name="image",
        space=frozen.space("image_processor", "image_encoder", also=(PICTURE_BATCH,)),
        reads="picture",
        prepare=functools.partial(encode.clip_pixels, processor=processor),
        load=load,
        batch=PICTURE_BATCH,
        unconditional=encode.zero_pixels(processor) if drops else None,
    )


def latents_encoding(frozen: Frozen) -> Encoding:
    """Pictures -> `latents` (C, H/f, W/f) of their centre, by the MoVQ.

    A picture's shape follows from its bytes and from all shapes that there are, so the key of the
    bytes in a space of those shapes says it all.
    """
    config, several = frozen.config, bucketed(frozen.config)
    shapes = crop_shapes(config, frozen.repositories["decoder"])
    crop = ("buckets", str(shapes)) if several else ("centre square", config.resolution)

    def load() -> encodings.Encode:
        movq, dtype = frozen.load("movq"), frozen.runtime.weight_dtype

        def run(pixels: Tensor) -> list[Row]:
            return [{"latents": z} for z in encode.latents(movq, pixels).to(dtype).cpu()]

        return run

    return Encoding(
        name="latents",
        space=frozen.space("movq", also=(*crop, PICTURE_BATCH)),
        reads="picture",
        prepare=functools.partial(cropped_pixels, shapes=shapes),
        load=load,
        batch=PICTURE_BATCH,
        ragged=("latents",) if several else (),
    )


def text_encoding(frozen: Frozen) -> Encoding:
    """Captions -> `text_embeds` (D,) and, without the padding, `text_states` (L, D).

    The unconditional is the text of the empty string, as in the stock pipeline.
    """
    prepare = functools.partial(encode.tokens, tokenizer=frozen.load("tokenizer"))

    def load() -> encodings.Encode:
        encoder, dtype = frozen.load("text_encoder"), frozen.runtime.weight_dtype

        def run(both: Tensor) -> list[Row]:
            ids, mask = both[:, 0], both[:, 1]
            embeds, states = encode.text(encoder, ids, ids.shape[1])
            lengths = mask.sum(1).tolist()
            return [
                {"text_embeds": e, "text_states": s[:length].clone()}
                for e, s, length in zip(
                    embeds.to(dtype).cpu(), states.to(dtype).cpu(), lengths, strict=True
                )
            ]

        return run

    return Encoding(
        name="text",
        space=frozen.space("tokenizer", "text_encoder", also=(CAPTION_BATCH,)),
        reads="caption",
        prepare=prepare,
        load=load,
        batch=CAPTION_BATCH,
        ragged=("text_states",),
        unconditional=prepare("") if frozen.config.condition_dropout > 0 else None,
    )


def make_encodings(frozen: Frozen) -> list[Encoding]:
    """What the network that a config trains reads."""
    if frozen.config.verify_cache:
        frozen.runtime.shared(lambda: cache.forget_contents(frozen.root))
    image = image_encoding(frozen)
    other = text_encoding if isinstance(frozen.config, configs.PriorConfig) else latents_encoding
    return [image, other(frozen)]


# ---------------------------------------------------------------- data


def open_pictures(config: TrainConfig) -> data.Pictures:
    """The source that a config names, with captions where the network reads them."""
    caption = config.caption_column if isinstance(config, configs.PriorConfig) else None
    if config.train_data_dir:
        return data.read_folder(config.train_data_dir, config.image_column, caption)
    assert config.dataset_name  # the config was checked
    return data.read_dataset(
        config.dataset_name,
        config.dataset_config_name,
        config.image_column,
        caption,
        config.cache_dir,
    )


def chosen_pictures(config: TrainConfig, seed: int, runtime: Runtime) -> data.Pictures:
    """The source, or as many of its examples as the config wants."""
    if runtime.world > 1:
        # One process reads first, so that a download or a conversion happens once.
        runtime.shared(lambda: bool(open_pictures(config)))
    source = open_pictures(config)
    if config.max_train_samples is not None and config.max_train_samples < len(source):
        return source.select(draws.subset(seed, len(source), config.max_train_samples))
    return source


@dataclass(frozen=True)
class Reading:
    """How examples come: the readable source and its buckets, `fetch` of one, rows to a batch."""

    source: data.Pictures
    buckets: buckets.Buckets
    fetch: Callable[[int, int, int], Row]
    collate: Callable[[list[Row]], Any]
    finish: Callable[[Any], Batch]


def make_reading(
    wanted: list[Encoding], source: data.Pictures, seed: int, frozen: Frozen
) -> Reading:
    """Encodings from the cache, filled first; or made as they are needed. Raises UserError."""
    config, runtime = frozen.config, frozen.runtime
    choice = encodings.Choice(seed, config.random_flip, config.condition_dropout)
    if config.no_cache:
        mine = range(runtime.rank, len(source), runtime.world)
        with runtimes.progress("checking pictures", len(mine), runtime.main, "picture") as bar:
            found = runtime.gathered(data.opened(source, mine, bar.advance))
        bad = {index: reason for index, reason in found.items() if isinstance(reason, str)}
        source, kept = readable(source, bad, config, runtime)
        shaped = in_buckets(frozen, len(source), lambda: np.array([found[i] for i in kept]))
        live = encodings.Live(wanted, source, choice)
        # Rows travel as they are: the encoders are in this process, not in a reader's.
        return Reading(
            source, shaped, live, list, lambda rows: encodings.collate(live.encode(rows))
        )
    noted = [encodings.size_encoding()] if bucketed(config) else []
    filled = encodings.fill(
        [*noted, *wanted], source, frozen.root, runtime, flips=config.random_flip
    )
    source, kept = readable(source, filled.bad, config, runtime)
    contents = filled.contents[kept]
    shaped = in_buckets(frozen, len(source), lambda: encodings.known_sizes(contents, frozen.root))
    cached = encodings.Cached(wanted, source, contents, frozen.root, choice)
    return Reading(source, shaped, cached, encodings.collate, lambda batch: batch)


def in_buckets(frozen: Frozen, count: int, sizes: Callable[[], np.ndarray]) -> buckets.Buckets:
    """The pictures by the shape of their crop; `sizes` gives (count, 2), and is asked if needed."""
    shapes = crop_shapes(frozen.config, frozen.repositories["decoder"])
    if not bucketed(frozen.config):
        return buckets.Buckets(shapes, np.zeros(count, np.int64))
    return buckets.sorted_into(sizes(), shapes)


def readable(
    source: data.Pictures, bad: dict[int, str], config: TrainConfig, runtime: Runtime
) -> tuple[data.Pictures, list[int]]:
    """The source without its unreadable pictures, and the indices kept.

    Raises UserError with the list of them, unless they are to be skipped.
    """
    if not bad:
        return source, list(range(len(source)))
    if not config.skip_bad_images:
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


def make_examples(reading: Reading, kit: Kit, seed: int) -> stream.Examples:
    """What the loader reads: each example with noise in the shape of its bucket, and a timestep."""

    def noise_shape(index: int) -> tuple[int, ...]:
        return kit.noise_shape(reading.buckets.shape(index))

    timesteps = len(kit.objective.alpha_bars)  # type: ignore[arg-type]
    return stream.Examples(reading.fetch, seed, noise_shape, timesteps)


def batches(reading: Reading, loader: Any, runtime: Runtime) -> Iterator[Batch]:
    """Micro-batches as the objective reads them, on the device."""
    for found in loader:
        yield runtime.to_device(reading.finish(found))
