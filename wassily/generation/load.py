"""The networks that a config names: located once, then loaded as pipelines to generate with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wassily.config.generation import DrawConfig
from wassily.errors import UserError
from wassily.generation import sample
from wassily.generation.pipelines import check_kind, decoder_pipeline, prior_pipeline
from wassily.models import adapters, names, parts
from wassily.models.names import Trained
from wassily.runtime import compile
from wassily.runtime.accelerator import DTYPES, has_accelerator, process_state

if TYPE_CHECKING:
    from wassily.generation.sample import KandinskyV22Pipeline, KandinskyV22PriorPipeline

    Pipelines = tuple[KandinskyV22PriorPipeline, KandinskyV22Pipeline, torch.device]

NAMES = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}
DTYPE_NAMES = {DTYPES[precision]: name for name, precision in NAMES.items()}


@dataclass(frozen=True)
class Networks:
    """Where both networks are, and the files of further adapters, by home."""

    prior: Trained
    decoder: Trained
    adapters: dict[str, list[Path]]

    @property
    def repositories(self) -> dict[str, str]:
        """Where the frozen parts are, by home."""
        return {"prior": self.prior.repository, "decoder": self.decoder.repository}

    def at(self, home: str) -> Trained:
        """The network of a home."""
        return {"prior": self.prior, "decoder": self.decoder}[home]


def find(config: DrawConfig) -> Networks:
    """Locate what a config names; no weights are loaded. Raises UserError for what is none."""
    prior, decoder = names.locate(config.prior, "prior"), names.locate(config.decoder, "decoder")
    for home, found in (("prior", prior), ("decoder", decoder)):
        if line := found.origin(home):
            print(line, flush=True)
    adapters: dict[str, list[Path]] = {"prior": [], "decoder": []}
    for home, name in (("prior", config.prior_lora), ("decoder", config.decoder_lora)):
        if name is not None:
            adapters[home].append(names.adapter_file(name, home, config.cache_dir))
    if config.lora_scale != 1 and not any([*adapters.values(), prior.adapter, decoder.adapter]):
        raise UserError(
            "--lora_scale does nothing without an adapter: add --prior_lora or --decoder_lora"
        )
    return Networks(prior, decoder, adapters)


def check_decoder(config: DrawConfig, networks: Networks, canvas: sample.Canvas) -> None:
    """Raise UserError if the decoder is not of the kind that a canvas takes; loads no weights."""
    network = names.config_of(networks.decoder, "decoder", config.cache_dir)
    check_kind(f"--decoder {config.decoder}", network, canvas.kind)


def pipelines(config: DrawConfig, networks: Networks) -> Pipelines:
    """Both pipelines, and the device to draw on. Raises UserError for networks that do not fit."""
    device, dtype = process_state().device, _dtype(config)
    if config.compile:
        compile.check(device)
    made: dict[str, Any] = {
        home: make(
            networks.at(home).repository,
            dtype,
            config.cache_dir,
            **_given(config, networks, home, dtype),
        )
        for home, make in (
            ("prior", prior_pipeline),
            ("decoder", decoder_pipeline),
        )
    }
    if config.offload and has_accelerator():
        for pipeline in made.values():
            pipeline.enable_model_cpu_offload()
    elif config.offload:
        print("--offload: there is no accelerator to take the networks off")
    check_widths(config, made["prior"], made["decoder"])
    if config.compile:
        compile.compile_in_place(made["decoder"].unet)
    return made["prior"], made["decoder"], device


def _dtype(config: DrawConfig) -> torch.dtype:
    """What the networks compute in on this machine."""
    accelerated = has_accelerator()
    dtype = torch.float16 if accelerated else torch.float32
    if config.dtype != "auto":
        dtype = DTYPES[NAMES[config.dtype]]
    if dtype == torch.float16 and not accelerated:
        print("fp16 needs an accelerator and there is none: drawing in fp32")
        return torch.float32
    return dtype


def _given(
    config: DrawConfig, networks: Networks, home: str, dtype: torch.dtype
) -> dict[str, torch.nn.Module]:
    """The network of a home by its role, where it is not its repository's own."""
    found, more = networks.at(home), networks.adapters[home]
    if not (found.network or found.adapter or more):
        return {}
    net = adapters.drawable(found, home, more, config.lora_scale, config.cache_dir)
    return {parts.TRAINED[home]: net.to(dtype)}


def check_widths(
    config: DrawConfig, prior: KandinskyV22PriorPipeline, decoder: KandinskyV22Pipeline
) -> None:
    """Raise UserError if the decoder does not read embeddings as wide as the prior makes them."""
    made, read = prior.prior.config.embedding_dim, decoder.unet.config.encoder_hid_dim
    if read not in (None, made):
        raise UserError(
            f"--prior {config.prior} makes embeddings of {made} values, --decoder {config.decoder} "
            f"reads {read}: they are not of one model; name a pair that is"
        )
