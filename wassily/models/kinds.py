"""Whether the networks of a command belong together and are of the kind that it takes.

Told from the configurations, before any weight is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from wassily.config import training
from wassily.errors import UserError
from wassily.models import parts


def check_widths(
    repositories: dict[str, str],
    cache_dir: str | None = None,
    flag: str = "pretrained_prior_model_name_or_path",
) -> None:
    """Raise UserError if the decoder does not read embeddings as wide as the prior's encoder makes.

    Told from the configurations, before any weight is loaded; `flag` is what named the prior.
    """
    encoder = parts.load_config("image_encoder", repositories["prior"], cache_dir)
    network = parts.load_config("unet", repositories["decoder"], cache_dir)
    made, read = encoder.get("projection_dim"), network.get("encoder_hid_dim")
    if None not in (made, read) and made != read:
        prior, decoder = (parts.public_name(repositories[h], h) for h in ("prior", "decoder"))
        raise UserError(
            f"--{flag} {prior} makes embeddings of {made} values, "
            f"--pretrained_decoder_model_name_or_path {decoder} reads {read}: they are not of one "
            "model; name a pair that is"
        )


def decoder_kind(network: Mapping[str, object]) -> Literal["plain", "inpainting", "hint"]:
    """What a decoder's network of this configuration reads besides latents and an embedding."""
    if network.get("addition_embed_type") == "image_hint" or network.get("in_channels") == 8:
        return "hint"
    return "inpainting" if network.get("in_channels") == 9 else "plain"


def reads_decoder(config: training.TrainConfig) -> bool:
    """Whether a training looks at its decoder: to train it, or to generate with it."""
    drawn = bool(config.validation_prompts) or config.with_prior_preservation
    return config.role == "decoder" or drawn


def check_plain(repository: str, cache_dir: str | None = None) -> None:
    """Raise UserError if the decoder of a training is one for inpainting, or reads a hint.

    Told from the configuration, before any weight is loaded.
    """
    network = parts.load_config("unet", repository, cache_dir)
    kind = decoder_kind(network)
    if kind != "plain":
        what = {"inpainting": "for inpainting", "hint": "that reads a hint"}[kind]
        name = parts.public_name(repository, "decoder")
        raise UserError(
            f"--pretrained_decoder_model_name_or_path {name}: a decoder {what} "
            f"({network.get('in_channels')} input channels), which a training does not take: name "
            f"a plain one, such as {training.DECODER}"
        )
