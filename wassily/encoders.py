"""The frozen parts of a run, and the encodings that it wants of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from wassily import buckets, cache, encode, encodings, models, pictures
from wassily import config as configs
from wassily.config import TrainConfig
from wassily.encodings import Encoding, Row
from wassily.errors import UserError
from wassily.runtime import Runtime

PICTURE_BATCH, CAPTION_BATCH = 4, 32  # of the encoders, whatever the batch of the training


@dataclass(frozen=True)
class Frozen:
    """Where the frozen parts of a run come from, and how they are loaded.

    `live`: nothing that they make is looked up or kept.
    """

    config: TrainConfig
    repositories: dict[str, str]
    runtime: Runtime
    root: Path
    live: bool = False

    def load(self, role: str) -> Any:
        """A part; a network is put on the device, in the precision of the run."""
        repository = self.repositories[models.PARTS[role].home]
        part = models.load(role, repository, self.runtime.weight_dtype, self.config.cache_dir)
        return part.to(self.runtime.device) if isinstance(part, nn.Module) else part

    def space(self, *roles: str, also: tuple[Any, ...] = ()) -> str:
        """A digest of the parts' files, the precision, and what else an encoding depends on."""
        if self.live or self.config.no_cache:
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


# ---------------------------------------------------------------- the shapes of pictures


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


def halved(role: str, config: TrainConfig, repository: str) -> int:
    """How many times smaller than its input the smallest map in a network of blocks is."""
    blocks = models.load_config(role, repository, config.cache_dir)["block_out_channels"]
    return 2 ** (len(blocks) - 1)


def cropped_pixels(picture: Any, *, shapes: list[buckets.Size]) -> Tensor:
    """A picture as the MoVQ's input, (3, H, W), in the shape that loses the fewest pixels of it."""
    number = buckets.nearest(np.array([picture.size]), shapes)[0]
    return pictures.centre_pixels(picture, *shapes[number])


# ---------------------------------------------------------------- the encodings


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
