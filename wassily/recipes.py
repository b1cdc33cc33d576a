"""The composition of one network with its data: a config becomes what the loop needs.

The only place that knows prior and decoder apart.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from wassily import config as configs
from wassily import data, draws, encode, models, objectives, pictures
from wassily import runtime as runtimes
from wassily.config import TrainConfig
from wassily.errors import UserError
from wassily.runtime import Runtime
from wassily.train import Batch


@dataclass(frozen=True)
class Kit:
    """What one network brings to the loop: its objective, and how examples become its batches."""

    net: nn.Module
    objective: nn.Module
    transform: Callable[[data.Record, int, int], dict[str, Tensor]]
    encode: Callable[[Batch], Batch]
    noise_shape: tuple[int, ...]


# ---------------------------------------------------------------- prior and decoder


def _opened(record: data.Record, flip: bool, seed: int, step: int, slot: int) -> Any:
    picture = pictures.open_rgb(record.image)
    return pictures.mirror(picture) if flip and draws.flip(seed, step, slot) else picture


def _clip_pixels(processor: Any, picture: Any) -> Tensor:
    return processor(picture, return_tensors="pt").pixel_values[0]


def prior_example(
    record: data.Record,
    step: int,
    slot: int,
    *,
    processor: Any,
    tokenizer: Any,
    seed: int,
    flip: bool,
) -> dict[str, Tensor]:
    """A record as the encoders' input: `clip_pixels` (3, S, S), `ids` (N,) and `text_mask` (N,)."""
    caption = record.captions[draws.choice(seed, step, slot, len(record.captions))]
    tokens = tokenizer(caption, padding="max_length", truncation=True, return_tensors="pt")
    return {
        "clip_pixels": _clip_pixels(processor, _opened(record, flip, seed, step, slot)),
        "ids": tokens.input_ids[0],
        "text_mask": tokens.attention_mask[0].bool(),
    }


def decoder_example(
    record: data.Record,
    step: int,
    slot: int,
    *,
    processor: Any,
    side: int,
    seed: int,
    flip: bool,
) -> dict[str, Tensor]:
    """A record as the encoders' input: `clip_pixels` (3, S, S) and `pixels` (3, side, side)."""
    picture = _opened(record, flip, seed, step, slot)
    return {
        "clip_pixels": _clip_pixels(processor, picture),
        "pixels": pictures.square_pixels(picture, side),
    }


def encode_prior(batch: Batch, *, image_encoder: nn.Module, text_encoder: nn.Module) -> Batch:
    """`clip_pixels`, `ids`, `text_mask` -> what `objectives.Prior` reads; captions cut to fit."""
    mask = batch.pop("text_mask")
    length = int(mask.sum(1).max())
    text_embeds, text_states = encode.text(text_encoder, batch.pop("ids"), length)
    image_embeds = encode.image(image_encoder, batch.pop("clip_pixels"))
    return batch | {
        "image_embeds": image_embeds,
        "text_embeds": text_embeds,
        "text_states": text_states,
        "text_mask": mask[:, :length],
    }


def encode_decoder(batch: Batch, *, image_encoder: nn.Module, movq: nn.Module) -> Batch:
    """`clip_pixels`, `pixels` -> what `objectives.Decoder` reads."""
    image_embeds = encode.image(image_encoder, batch.pop("clip_pixels"))
    return batch | {
        "image_embeds": image_embeds,
        "latents": encode.latents(movq, batch.pop("pixels")),
    }


def _frozen(role: str, repository: str, config: TrainConfig, runtime: Runtime) -> Any:
    part = models.load(role, repository, runtime.weight_dtype, config.cache_dir)
    return part.to(runtime.device) if isinstance(part, nn.Module) else part


def prior_kit(
    config: configs.PriorConfig, repositories: dict[str, str], seed: int, runtime: Runtime
) -> Kit:
    """The prior, its objective, and the CLIP encoders on the device."""
    load = functools.partial(
        _frozen, repository=repositories["prior"], config=config, runtime=runtime
    )
    net = models.load("prior", repositories["prior"], cache_dir=config.cache_dir)
    return Kit(
        net=net,
        objective=objectives.Prior(
            net,
            models.prior_alpha_bars(),
            "sample",
            config.snr_gamma,
            config.gradient_checkpointing,
        ),
        transform=functools.partial(
            prior_example,
            processor=load("image_processor"),
            tokenizer=load("tokenizer"),
            seed=seed,
            flip=config.random_flip,
        ),
        encode=functools.partial(
            encode_prior, image_encoder=load("image_encoder"), text_encoder=load("text_encoder")
        ),
        noise_shape=(net.config.embedding_dim,),
    )


def decoder_kit(
    config: configs.DecoderConfig, repositories: dict[str, str], seed: int, runtime: Runtime
) -> Kit:
    """The decoder, its objective, and the image encoder and MoVQ on the device."""
    net = models.load("unet", repositories["decoder"], cache_dir=config.cache_dir)
    scheduler = models.load("scheduler", repositories["decoder"], cache_dir=config.cache_dir)
    movq = _frozen("movq", repositories["decoder"], config, runtime)
    factor = 2 ** (len(movq.config.block_out_channels) - 1)
    if config.resolution % factor:
        raise UserError(f"--resolution: {config.resolution} is not a multiple of {factor}")
    if config.gradient_checkpointing:
        net.enable_gradient_checkpointing()
    side = config.resolution // factor
    prior = repositories["prior"]
    return Kit(
        net=net,
        objective=objectives.Decoder(
            net, scheduler.alphas_cumprod, scheduler.config.prediction_type, config.snr_gamma
        ),
        transform=functools.partial(
            decoder_example,
            processor=_frozen("image_processor", prior, config, runtime),
            side=config.resolution,
            seed=seed,
            flip=config.random_flip,
        ),
        encode=functools.partial(
            encode_decoder,
            image_encoder=_frozen("image_encoder", prior, config, runtime),
            movq=movq,
        ),
        noise_shape=(net.config.in_channels, side, side),
    )


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


def checked_pictures(config: TrainConfig, seed: int, runtime: Runtime) -> data.Pictures:
    """The source after its checks: every picture opened once, each process its share.

    Raises UserError with the list of unreadable pictures, unless they are to be skipped.
    """
    # One process reads first, so that a download or a conversion happens once.
    runtime.shared(lambda: bool(open_pictures(config)))
    source = open_pictures(config)
    if config.max_train_samples is not None and config.max_train_samples < len(source):
        source = source.select(draws.subset(seed, len(source), config.max_train_samples))
    mine = range(runtime.rank, len(source), runtime.world)
    with runtimes.progress("checking pictures", len(mine), runtime.main, "picture") as bar:
        bad = runtime.gathered(data.unreadable(source, mine, bar.advance))
    if bad and not config.skip_bad_images:
        names = data.listed([bad[index] for index in sorted(bad)])
        raise UserError(
            f"{len(bad)} of {len(source)} pictures cannot be read: {names}; mend or remove them, "
            "or add --skip_bad_images"
        )
    if bad:
        runtime.say(f"left out {len(bad)} of {len(source)} pictures that cannot be read")
        source = source.select([i for i in range(len(source)) if i not in bad])
        if not len(source):
            raise UserError("no picture can be read")
    return source


def batches(kit: Kit, loader: Any, runtime: Runtime) -> Iterator[Batch]:
    """Micro-batches as the objective reads them, on the device."""
    for batch in loader:
        yield runtime.to_device(kit.encode(batch))


def make_kit(config: TrainConfig, repositories: dict[str, str], seed: int, runtime: Runtime) -> Kit:
    """The kit of the network that a config trains."""
    if isinstance(config, configs.PriorConfig):
        return prior_kit(config, repositories, seed, runtime)
    assert isinstance(config, configs.DecoderConfig)
    return decoder_kit(config, repositories, seed, runtime)
