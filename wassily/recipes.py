"""The composition of one network with its data: a config becomes what the loop needs.

The only place that knows prior and decoder apart.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wassily import (
    cache,
    data,
    draws,
    encode,
    encodings,
    memory,
    models,
    objectives,
    optim,
    pictures,
)
from wassily import config as configs
from wassily import runtime as runtimes
from wassily.config import TrainConfig
from wassily.encodings import Encoding, Row
from wassily.errors import UserError
from wassily.runtime import Runtime
from wassily.train import Batch

PICTURE_BATCH, CAPTION_BATCH = 4, 32  # of the encoders, whatever the batch of the training


# ---------------------------------------------------------------- the networks


Load = Callable[..., Any]  # as models.load


@dataclass(frozen=True)
class Kit:
    """What one network brings to the loop."""

    net: nn.Module
    objective: nn.Module
    noise_shape: tuple[int, ...]


def prior_kit(config: configs.PriorConfig, repositories: dict[str, str], load: Load) -> Kit:
    """The prior and its objective."""
    net = load("prior", repositories["prior"], cache_dir=config.cache_dir)
    alpha_bars, recompute = models.prior_alpha_bars(), config.gradient_checkpointing
    objective = objectives.Prior(net, alpha_bars, "sample", config.snr_gamma, recompute)
    return Kit(net, objective, (net.config.embedding_dim,))


def decoder_kit(config: configs.DecoderConfig, repositories: dict[str, str], load: Load) -> Kit:
    """The decoder and its objective, on the noise schedule of its repository."""
    repository = repositories["decoder"]
    net = load("unet", repository, cache_dir=config.cache_dir)
    _channels_last(net)
    scheduler = load("scheduler", repository, cache_dir=config.cache_dir)
    side = latent_side(config, repository)
    if config.gradient_checkpointing:
        net.enable_gradient_checkpointing()
    prediction = scheduler.config.prediction_type
    objective = objectives.Decoder(net, scheduler.alphas_cumprod, prediction, config.snr_gamma)
    return Kit(net, objective, (net.config.in_channels, side, side))


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


def latent_side(config: TrainConfig, repository: str) -> int:
    """Side of the latents at the configured resolution. Raises UserError if it does not divide."""
    blocks = models.load_config("movq", repository, config.cache_dir)["block_out_channels"]
    factor = 2 ** (len(blocks) - 1)
    if config.resolution % factor:
        raise UserError(f"--resolution: {config.resolution} is not a multiple of {factor}")
    return config.resolution // factor


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


# ---------------------------------------------------------------- their sizes


def blank_batch(config: TrainConfig, kit: Kit, count: int) -> tuple[Batch, Tensor, Tensor]:
    """A batch, noise and timesteps of `count` examples, of the right shapes; captions are long."""
    net: Any = kit.net.config
    noise, t = torch.zeros(count, *kit.noise_shape), torch.zeros(count, dtype=torch.int64)
    if isinstance(config, configs.DecoderConfig):
        embeds = torch.zeros(count, net.encoder_hid_dim)
        return {"latents": torch.zeros_like(noise), "image_embeds": embeds}, noise, t
    width, tokens = net.embedding_dim, net.num_embeddings
    batch = {
        "image_embeds": torch.zeros(count, width),
        "text_embeds": torch.zeros(count, width),
        "text_states": torch.zeros(count, tokens, width),
        "text_mask": torch.ones(count, tokens, dtype=torch.bool),
    }
    return batch, noise, t


Pass = tuple[nn.Module, Callable[[], Any]]  # a frozen network, and one batch through it


def blank_passes(config: TrainConfig, repositories: dict[str, str], load: Load) -> list[list[Pass]]:
    """The frozen networks that encode, those together that are in memory together."""
    image = load("image_encoder", repositories["prior"])
    side = image.config.image_size
    first = (image, lambda: encode.image(image, torch.zeros(PICTURE_BATCH, 3, side, side)))
    if isinstance(config, configs.DecoderConfig):
        movq, side_in = load("movq", repositories["decoder"]), config.resolution
        pixels = (PICTURE_BATCH, 3, side_in, side_in)
        return [[first, (movq, lambda: encode.latents(movq, torch.zeros(pixels)))]]
    text = load("text_encoder", repositories["prior"])
    tokens = text.config.max_position_embeddings
    ids = (CAPTION_BATCH, tokens)
    run = (text, lambda: encode.text(text, torch.zeros(ids, dtype=torch.int64), tokens))
    return [[first], [run]]


def state_bytes(config: TrainConfig, trained: list[nn.Parameter]) -> int:
    """What the optimizer keeps for a trained list."""
    return memory.state_bytes(optim.name(config), trained)


def bytes_per_example(config: TrainConfig, kit: Kit, tokens: int, size: int) -> int:
    """What the cache keeps of one example, in numbers of `size` bytes; a caption has `tokens`."""
    if isinstance(config, configs.DecoderConfig):
        net: Any = kit.net.config
        return int(size * (math.prod(kit.noise_shape) + net.encoder_hid_dim))
    return size * (2 + tokens) * kit.noise_shape[0]


# ---------------------------------------------------------------- the encodings


def clip_pixels(picture: Any, *, processor: Any) -> Tensor:
    """A picture as the CLIP image encoder's input, (3, S, S)."""
    return processor(picture, return_tensors="pt").pixel_values[0]


def tokens(caption: str, *, tokenizer: Any) -> Tensor:
    """A caption as the text encoder's input: ids and mask, (2, N)."""
    found = tokenizer(caption, padding="max_length", truncation=True, return_tensors="pt")
    return torch.cat([found.input_ids, found.attention_mask])


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
                    found.append(path.name)
                    found.append(digest.tobytes() if digest.any() else contents.read(str(path)))
            contents.writer.flush()
            return cache.digest(*found, str(self.runtime.weight_dtype), *also).hex()[:16]

        return self.runtime.shared(make)


def image_encoding(frozen: Frozen) -> Encoding:
    """Pictures -> `image_embeds` (D,), by the CLIP image encoder; serves both networks."""

    def load() -> encodings.Encode:
        encoder, dtype = frozen.load("image_encoder"), frozen.runtime.weight_dtype

        def run(pixels: Tensor) -> list[Row]:
            return [{"image_embeds": e} for e in encode.image(encoder, pixels).to(dtype).cpu()]

        return run

    return Encoding(
        name="image",
        space=frozen.space("image_processor", "image_encoder", also=(PICTURE_BATCH,)),
        reads="picture",
        prepare=functools.partial(clip_pixels, processor=frozen.load("image_processor")),
        load=load,
        batch=PICTURE_BATCH,
    )


def latents_encoding(frozen: Frozen) -> Encoding:
    """Pictures -> `latents` (C, H/f, W/f) of the centre square, by the MoVQ."""
    side = frozen.config.resolution

    def load() -> encodings.Encode:
        movq, dtype = frozen.load("movq"), frozen.runtime.weight_dtype

        def run(pixels: Tensor) -> list[Row]:
            return [{"latents": z} for z in encode.latents(movq, pixels).to(dtype).cpu()]

        return run

    return Encoding(
        name="latents",
        space=frozen.space("movq", also=("centre square", side, PICTURE_BATCH)),
        reads="picture",
        prepare=functools.partial(pictures.square_pixels, side=side),
        load=load,
        batch=PICTURE_BATCH,
    )


def text_encoding(frozen: Frozen) -> Encoding:
    """Captions -> `text_embeds` (D,) and, without the padding, `text_states` (L, D)."""

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
        prepare=functools.partial(tokens, tokenizer=frozen.load("tokenizer")),
        load=load,
        batch=CAPTION_BATCH,
        ragged=("text_states",),
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
    # One process reads first, so that a download or a conversion happens once.
    runtime.shared(lambda: bool(open_pictures(config)))
    source = open_pictures(config)
    if config.max_train_samples is not None and config.max_train_samples < len(source):
        return source.select(draws.subset(seed, len(source), config.max_train_samples))
    return source


@dataclass(frozen=True)
class Reading:
    """How examples come: the readable source, `fetch` of one of them, and rows to a batch."""

    source: data.Pictures
    fetch: Callable[[int, int, int], Row]
    collate: Callable[[list[Row]], Any]
    finish: Callable[[Any], Batch]


def make_reading(
    wanted: list[Encoding], source: data.Pictures, seed: int, frozen: Frozen
) -> Reading:
    """Encodings from the cache, filled first; or made as they are needed. Raises UserError."""
    config, runtime = frozen.config, frozen.runtime
    choice = encodings.Choice(seed, config.random_flip)
    if config.no_cache:
        mine = range(runtime.rank, len(source), runtime.world)
        with runtimes.progress("checking pictures", len(mine), runtime.main, "picture") as bar:
            bad = runtime.gathered(data.unreadable(source, mine, bar.advance))
        source, _ = readable(source, bad, config, runtime)
        live = encodings.Live(wanted, source, choice)
        # Rows travel as they are: the encoders are in this process, not in a reader's.
        return Reading(source, live, list, lambda rows: encodings.collate(live.encode(rows)))
    filled = encodings.fill(wanted, source, frozen.root, runtime, flips=config.random_flip)
    source, kept = readable(source, filled.bad, config, runtime)
    cached = encodings.Cached(wanted, source, filled.contents[kept], frozen.root, choice)
    return Reading(source, cached, encodings.collate, lambda batch: batch)


def readable(
    source: data.Pictures, bad: dict[int, str], config: TrainConfig, runtime: Runtime
) -> tuple[data.Pictures, list[int]]:
    """The source without its unreadable pictures, and the indices kept.

    Raises UserError with the list of them, unless they are to be skipped.
    """
    if not bad:
        return source, list(range(len(source)))
    if not config.skip_bad_images:
        names = data.listed([bad[index] for index in sorted(bad)])
        raise UserError(
            f"{len(bad)} of {len(source)} pictures cannot be read: {names}; mend or remove them, "
            "or add --skip_bad_images"
        )
    runtime.say(f"left out {len(bad)} of {len(source)} pictures that cannot be read")
    kept = [i for i in range(len(source)) if i not in bad]
    if not kept:
        raise UserError("no picture can be read")
    return source.select(kept), kept


def batches(reading: Reading, loader: Any, runtime: Runtime) -> Iterator[Batch]:
    """Micro-batches as the objective reads them, on the device."""
    for found in loader:
        yield runtime.to_device(reading.finish(found))
