"""Which encodings a run needs: image, text and latents, each with the key of its settings."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from wassily.config import training
from wassily.config.training import TrainConfig
from wassily.data import aspect_buckets, images
from wassily.encodings import cache, fill
from wassily.encodings.fill import Encoding, Row
from wassily.errors import UserError
from wassily.models import encode, parts
from wassily.runtime.accelerator import Runtime


@dataclass(frozen=True)
class EncoderContext:
    """The frozen parts that one network's data are encoded by: where from, and what they make.

    `role` is that network's, `resolution` the side of its square in pixels, `bucket`: crops have
    several shapes around it. With `no_cache` nothing that they make is looked up or retained.
    """

    role: str
    repositories: dict[str, str]
    runtime: Runtime
    root: Path
    resolution: int
    bucket: bool = False
    condition_dropout: float = 0.0
    cache_dir: str | None = None
    no_cache: bool = False
    verify_cache: bool = False

    def load(self, role: str) -> Any:
        """A part; a network is put on the device, in the precision of the run."""
        repository = self.repositories[parts.PARTS[role].home]
        part = parts.load(role, repository, self.runtime.weight_dtype, self.cache_dir)
        return part.to(self.runtime.device) if isinstance(part, nn.Module) else part

    def space(self, *roles: str, also: tuple[Any, ...] = ()) -> str:
        """A digest of the parts' files, the precision, and what else an encoding depends on."""
        if self.no_cache:  # nothing is stored under it, so no file is read for a digest
            return "live"

        def make() -> str:
            contents = cache.Contents(self.root)
            found: list[bytes | str | int] = []
            for role in roles:
                home = parts.PARTS[role].home
                paths = parts.files(role, self.repositories[home], self.cache_dir)
                known = contents.known([str(path) for path in paths])
                for path, digest in zip(paths, known, strict=True):
                    name, read = str(path), digest.any()
                    # By name and content, not by path: a copy of the same files has the same cache.
                    found.append(path.name)
                    found.append(digest.tobytes() if read else contents.read(name, name))
            contents.writer.flush()
            return cache.digest(*found, str(self.runtime.weight_dtype), *also).hex()[:16]

        # One process reads the files, and all have its answer.
        return self.runtime.shared(make)


# ---------------------------------------------------------------- the shapes of pictures


def of_training(
    config: TrainConfig, repositories: dict[str, str], runtime: Runtime, root: Path
) -> EncoderContext:
    """The context of a training; `root` is the folder of the cache."""
    return EncoderContext(
        role=config.role,
        repositories=repositories,
        runtime=runtime,
        root=root,
        resolution=config.resolution,
        bucket=bucketed(config),
        condition_dropout=config.condition_dropout,
        cache_dir=config.cache_dir,
        no_cache=config.no_cache,
        verify_cache=config.verify_cache,
    )


def bucketed(config: TrainConfig) -> bool:
    """Whether the images of a training are cropped to several shapes."""
    return isinstance(config, training.DecoderConfig) and config.bucket


def crop_shapes(context: EncoderContext) -> list[aspect_buckets.Size]:
    """The shapes that pictures are cropped to: the square, or the buckets around it.

    Their sides are multiples of what MoVQ and decoder halve together, 64 px for the real ones.
    Raises UserError if the resolution is none.
    """
    side, where = context.resolution, (context.repositories["decoder"], context.cache_dir)
    if not context.bucket:
        return [(side, side)]
    step = parts.halved("movq", *where) * parts.halved("unet", *where)
    if side % step:
        raise UserError(f"--bucket: --resolution {side} is not a multiple of {step}")
    return aspect_buckets.shapes(side, step)


def cropped_pixels(picture: Any, *, shapes: list[aspect_buckets.Size]) -> Tensor:
    """A picture as the MoVQ's input, (3, H, W), in the shape that loses the fewest pixels of it."""
    number = aspect_buckets.nearest(np.array([picture.size]), shapes)[0]
    return images.centre_pixels(picture, *shapes[number])


# ---------------------------------------------------------------- the encodings


def image_encoding(context: EncoderContext) -> Encoding:
    """Pictures -> `image_embeds` (D,), by the CLIP image encoder; serves both networks.

    It is the decoder's condition, and what the prior learns to make.
    """
    processor = context.load("image_processor")
    drops = context.role == "decoder" and context.condition_dropout > 0

    def load() -> fill.Encode:
        encoder, dtype = context.load("image_encoder"), context.runtime.weight_dtype

        def run(pixels: Tensor) -> list[Row]:
            return [{"image_embeds": e} for e in encode.image(encoder, pixels).to(dtype).cpu()]

        return run

    return Encoding(
        name="image",
        # The batch is in the key, because the last bits of a result depend on its size.
        space=context.space("image_processor", "image_encoder", also=(encode.IMAGE_BATCH,)),
        reads="picture",
        prepare=functools.partial(encode.clip_pixels, processor=processor),
        load=load,
        batch=encode.IMAGE_BATCH,
        unconditional=encode.zero_pixels(processor) if drops else None,
    )


def latents_encoding(context: EncoderContext) -> Encoding:
    """Pictures -> `latents` (C, H/f, W/f) of their centre, by the MoVQ.

    A picture's shape follows from its bytes and from all shapes that there are, so the key of the
    bytes in a space of those shapes says it all.
    """
    shapes = crop_shapes(context)
    crop = ("buckets", str(shapes)) if context.bucket else ("centre square", context.resolution)

    def load() -> fill.Encode:
        movq, dtype = context.load("movq"), context.runtime.weight_dtype

        def run(pixels: Tensor) -> list[Row]:
            return [{"latents": z} for z in encode.latents(movq, pixels).to(dtype).cpu()]

        return run

    return Encoding(
        name="latents",
        space=context.space("movq", also=(*crop, encode.IMAGE_BATCH)),
        reads="picture",
        prepare=functools.partial(cropped_pixels, shapes=shapes),
        load=load,
        batch=encode.IMAGE_BATCH,
        ragged=("latents",) if context.bucket else (),
    )


def text_encoding(context: EncoderContext) -> Encoding:
    """Captions -> `text_embeds` (D,) and, without the padding, `text_states` (L, D).

    The unconditional is the text of the empty string, as in the stock pipeline.
    """
    prepare = functools.partial(encode.tokens, tokenizer=context.load("tokenizer"))

    def load() -> fill.Encode:
        encoder, dtype = context.load("text_encoder"), context.runtime.weight_dtype

        def run(both: Tensor) -> list[Row]:
            ids, mask = both[:, 0], both[:, 1]
            embeds, states = encode.text(encoder, ids, ids.shape[1])
            lengths = mask.sum(1).tolist()
            # A copy of the states: a view would hold the padded batch in memory.
            return [
                {"text_embeds": e, "text_states": s[:length].clone()}
                for e, s, length in zip(
                    embeds.to(dtype).cpu(), states.to(dtype).cpu(), lengths, strict=True
                )
            ]

        return run

    return Encoding(
        name="text",
        space=context.space("tokenizer", "text_encoder", also=(encode.CAPTION_BATCH,)),
        reads="caption",
        prepare=prepare,
        load=load,
        batch=encode.CAPTION_BATCH,
        ragged=("text_states",),
        unconditional=prepare("") if context.condition_dropout > 0 else None,
    )


def make_encodings(context: EncoderContext) -> list[Encoding]:
    """What the network of a context reads."""
    if context.verify_cache:
        context.runtime.shared(lambda: cache.forget_contents(context.root))
    image = image_encoding(context)
    other = text_encoding if context.role == "prior" else latents_encoding
    return [image, other(context)]
