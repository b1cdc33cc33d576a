"""What a PNG tells about itself, for people and for drawing it again."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from wassily.config import schema
from wassily.config.generation import DrawConfig, GenerateConfig, MixConfig
from wassily.data import images, png
from wassily.errors import UserError
from wassily.version import __version__

KEY = "wassily"
KINDS = {"generate": GenerateConfig, "mix": MixConfig}
# What has no part in the pixels, or is of all pictures of a run at once.
LEFT_OUT = frozenset(
    {"out", "grid", "num_images", "offload", "cache_dir", "prompts_file", "from_picture"}
)


@dataclass(frozen=True)
class Provenance:
    """What drew one picture: a config for it alone, and its place in the batch.

    A network's last bits depend on how many pictures it sees at once, so `config.batch_size` is
    the number of pictures in that batch.
    """

    config: DrawConfig
    place: int
    digests: dict[str, str]
    made_with: dict[str, str]


def made_with(device: torch.device) -> dict[str, str]:
    """What the bits of a picture depend on besides: versions and the kind of device."""
    names = ("torch", "diffusers", "transformers")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"wassily": __version__, **found, "device": device.type}


def png_chunks(provenance: Provenance, words: str) -> dict[str, object]:
    """The text chunks of a picture: each setting for people, and all in one
    for `read_provenance`.
    """
    config = provenance.config
    command = next(name for name, kind in KINDS.items() if isinstance(config, kind))
    named = ("prior_lora", "decoder_lora", "image", "mask", "control", "variations")
    given = {name: getattr(config, name, None) for name in named}
    if config.lora_scale != 1:
        given["lora_scale"] = config.lora_scale
    if config.image is not None and config.mask is None:
        given["strength"] = config.strength
    plain = {k: v for k, v in dataclasses.asdict(config).items() if k not in LEFT_OUT}
    whole = {
        "command": command,
        "config": {k: v for k, v in plain.items() if v is not None},
        "place": provenance.place,
        "digests": provenance.digests,
        "made_with": provenance.made_with,
    }
    return {
        "prompt": words,
        "negative_prompt": config.negative_prompt or "",
        "seed": config.seed,
        "prior": config.prior,
        "decoder": config.decoder,
        "scheduler": config.scheduler,
        "steps": config.steps,
        "prior_steps": config.prior_steps,
        "guidance_scale": config.guidance_scale,
        "prior_guidance_scale": config.prior_guidance_scale,
        **{name: value for name, value in given.items() if value is not None},
        KEY: json.dumps(whole, ensure_ascii=False),
    }


def read_provenance(name: str) -> Provenance:
    """What drew a PNG. Raises UserError for one that does not tell, or not rightly."""
    where = f"--from {name}"
    try:
        found = png.read_notes(Path(name))
    except images.BadPicture as error:
        raise UserError(f"{where}: {error}") from None
    if KEY not in found:
        raise UserError(f"{where}: no notes of wassily in it that tell what drew it")
    try:
        whole = json.loads(found[KEY])
        kind = KINDS[whole["command"]]
        values = {k: v for k, v in whole["config"].items() if k not in LEFT_OUT}
        values.setdefault("scheduler", "stock")  # of pictures from before there was another
        config: DrawConfig = kind(**schema.from_mapping(kind, values, "notes"))
        provenance = Provenance(
            config, whole["place"], dict(whole["digests"]), dict(whole["made_with"])
        )
        if config.seed is None or not 0 <= provenance.place < config.batch_size:
            raise ValueError("no seed, or no place in a batch")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UserError) as error:
        raise UserError(f"{where}: its notes are damaged ({error})") from None
    return provenance


def check_same(provenance: Provenance, digests: dict[str, str]) -> None:
    """Raise UserError if a picture that it was drawn from is another now."""
    for name, digest in digests.items():
        if provenance.digests.get(name) != digest:
            raise UserError(f"{name}: no longer the picture that it was drawn from")


def differences(provenance: Provenance, device: torch.device) -> list[str]:
    """A line for each thing that was different at generation: then the bits may be others."""
    now = made_with(device)
    return [
        f"drawn with {name} {before}, this is {now[name]}: the last bits may differ"
        for name, before in provenance.made_with.items()
        if name in now and before != now[name]
    ]
