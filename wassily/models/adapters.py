"""What is trained: all of a network, or an adapter beside it (LoRA). The only file that knows peft.

`Whole` and `Lora` answer the same questions of a run: what is added to the network, and how the
trained part is saved, read back and handed over.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wassily.config.training import TrainConfig
from wassily.errors import UserError, out_of_memory
from wassily.files import atomic
from wassily.maths import randomness
from wassily.models import names, parts, pipeline_folder

STATISTICS = ("clip_mean", "clip_std")  # stored as parameters; no forward pass reads them
RANK = 4
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj")
NAME = "default"  # of the one adapter in a network
HEADER = "lora_adapter_metadata"  # where diffusers looks for the adapter's settings
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def trained_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """The adapter's parameters if there is one, else all that the forward pass uses, by name.

    They are switched to training.
    """
    every = dict(net.named_parameters())
    adapter = {name: p for name, p in every.items() if ".lora_" in name}
    chosen = adapter or {name: p for name, p in every.items() if name not in STATISTICS}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return chosen


def described(trained: Mapping[str, nn.Parameter]) -> str:
    """A trained list in a few words: their count and a short digest of their names."""
    names = "\n".join(sorted(trained)).encode()
    return f"{len(trained)} tensors, {hashlib.sha256(names).hexdigest()[:8]}"


def keep_as(trained: Mapping[str, nn.Parameter], dtype: str) -> None:
    """Turn the trained parameters into "fp32" or "bf16"; the rest of a network stays as it is."""
    for parameter in trained.values():
        parameter.data = parameter.data.to(DTYPES[dtype])


@dataclass(frozen=True)
class Whole:
    """All of the network, whose part of a pipeline is `role`."""

    role: str

    def attach(self, net: parts.Network, dtype: torch.dtype, seed: int) -> None:
        """Nothing to add."""

    def signature(self) -> dict[str, object]:
        """What a resume compares: no adapter, so nothing."""
        # The names of an adapter's, so that a resume tells in which of them they differ.
        return dict.fromkeys(Lora(self.role).signature())

    def describe(self) -> str:
        """What is trained, for a person."""
        return "the whole network"

    def save(self, net: parts.Network, folder: Path, averaged: bool = False) -> None:
        """The network in a sub-folder of a checkpoint."""
        net.save_pretrained(folder / (f"{self.role}_ema" if averaged else self.role))

    def load(self, net: parts.Network, folder: Path) -> None:
        """Take the network of a checkpoint."""
        net.load_state_dict(parts.load_network(folder / self.role, self.role).state_dict())

    def check(self, net: parts.Network, folder: Path, averaged: bool) -> None:
        """Raise UserError unless `load`, and `averages` if there are some, can take a checkpoint,
        and all its values are finite.
        """
        for name in (self.role, f"{self.role}_ema")[: 1 + averaged]:
            values = parts.load_network(folder / name, self.role).state_dict()
            _check_fit(values, net.state_dict(), folder / name)

    def averages(self, net: parts.Network, folder: Path) -> Mapping[str, Tensor]:
        """The averages in a checkpoint, by parameter name."""
        return parts.load_network(folder / f"{self.role}_ema", self.role).state_dict()

    def export(
        self, net: parts.Network, folder: Path, save_pipeline: Callable[[Path], None], card: str
    ) -> None:
        """The whole pipeline and its card."""
        pipeline_folder.export(folder, save_pipeline, card)


@dataclass(frozen=True)
class Lora:
    """An adapter: W x + alpha / rank * B A x with W frozen (arXiv 2106.09685, eq. 3).

    `notes` stand in the file's header; each is a text.
    """

    role: str
    rank: int = RANK
    alpha: int = RANK
    dropout: float = 0.0
    targets: tuple[str, ...] = ATTENTION
    use_dora: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)

    def attach(self, net: parts.Network, dtype: torch.dtype, seed: int) -> None:
        """Add the adapter in fp32; B starts at zero, so the network computes what it did before.

        The frozen weights of linear and convolution layers are kept in `dtype`, in which autocast
        multiplies them anyway. Raises UserError for a target that is not there.
        """
        from peft import LoraConfig  # a second or more, which only this needs

        check_targets(net, self.targets if self.targets != ATTENTION else ())
        # Rounded first and shortened last: DoRA measures the weights, and the adapter takes their
        # dtype.
        _frozen_in(net, dtype, keep=False)
        # The training's own generator stays where it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(randomness.adapter_seed(seed))
            net.add_adapter(LoraConfig(init_lora_weights="gaussian", **self.settings()), NAME)
        _frozen_in(net, dtype, keep=True)

    def settings(self) -> dict[str, Any]:
        """The adapter's form in peft's words."""
        return {
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": list(self.targets),
            "use_dora": self.use_dora,
            # Empty; diffusers up to 0.35 looks into them.
            "rank_pattern": {},
            "alpha_pattern": {},
        }

    def signature(self) -> dict[str, object]:
        """What a resume compares."""
        return {
            "lora": True,
            "rank": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "lora_targets": list(self.targets),
            "use_dora": self.use_dora,
        }

    def describe(self) -> str:
        """What is trained, for a person."""
        kind = "DoRA" if self.use_dora else "LoRA"
        dropout = f", dropout {self.dropout:g}" if self.dropout else ""
        where = ", ".join(self.targets)
        return f"{kind} of rank {self.rank}, alpha {self.alpha}{dropout} on {where}"

    def save(self, net: parts.Network, folder: Path, averaged: bool = False) -> None:
        """The adapter as one file, which `load_lora_adapter` of diffusers reads."""
        tensors = {
            stored(name): p.detach().cpu().contiguous()
            for name, p in trained_parameters(net).items()
        }
        # Not peft's whole list: another release of it refuses the names that it does not know.
        plain = {"format": "pt", "rank": str(self.rank), "alpha": str(self.alpha)}
        notes = plain | {**self.notes, HEADER: json.dumps(self.settings())}
        file = names.ADAPTER_EMA if averaged else names.ADAPTER
        atomic.write_tensors(folder / file, tensors, notes)

    def load(self, net: parts.Network, folder: Path) -> None:
        """Take the adapter of a checkpoint. Raises UserError if it is not whole."""
        values = _values(net, folder / names.ADAPTER)
        with torch.no_grad():
            for name, parameter in trained_parameters(net).items():
                parameter.copy_(values[name])

    def check(self, net: parts.Network, folder: Path, averaged: bool) -> None:
        """Raise UserError unless `load`, and `averages` if there are some, can take a checkpoint,
        and all its values are finite.
        """
        for name in (names.ADAPTER, names.ADAPTER_EMA)[: 1 + averaged]:
            values = _values(net, folder / name)
            _check_fit(values, values, folder / name)

    def averages(self, net: parts.Network, folder: Path) -> Mapping[str, Tensor]:
        """The averages in a checkpoint, by parameter name. Raises UserError."""
        return _values(net, folder / names.ADAPTER_EMA)

    def export(
        self, net: parts.Network, folder: Path, save_pipeline: Callable[[Path], None], card: str
    ) -> None:
        """The adapter and its card. No pipeline: that would be gigabytes of the base, unchanged."""
        atomic.write_text(folder / "README.md", card)
        self.save(net, folder)


def chosen_adaptation(config: TrainConfig, notes: dict[str, str] | None = None) -> Whole | Lora:
    """What a config trains of its network; `notes` go into the header of an adapter's file."""
    role = parts.TRAINED[config.role]
    if not config.lora:
        return Whole(role)
    rank = config.rank or RANK
    # Names may come in one word, with commas, as diffusers' scripts take them.
    targets = tuple(name.strip() for name in ",".join(config.lora_targets).split(","))
    return Lora(
        role,
        rank,
        config.lora_alpha or rank,
        config.lora_dropout or 0.0,
        targets if config.lora_targets else ATTENTION,
        config.use_dora,
        notes or {},
    )


def notes(config: TrainConfig, repositories: dict[str, str], fingerprint: str) -> dict[str, str]:
    """What the file of an adapter tells about itself; of a folder of this machine its last name,
    because the file travels. Where they are is in the run's own folder (`origins.behind`).
    """
    return {
        "network": config.role,
        "base": parts.portable_name(repositories[config.role], config.role),
        "base_fingerprint": fingerprint,
        "prior": config.hub_prior_id or parts.portable_name(repositories["prior"], "prior"),
    }


def check_chosen(config: TrainConfig, repositories: dict[str, str]) -> None:
    """Raise UserError for a target of --lora_targets that the network does not have."""
    found = chosen_adaptation(config)
    if isinstance(found, Lora) and config.lora_targets:
        with torch.device("meta"):
            net = parts.skeleton(found.role, repositories[config.role], cache_dir=config.cache_dir)
        check_targets(net, found.targets)


def check_targets(net: nn.Module, targets: tuple[str, ...]) -> None:
    """Raise UserError for a target that is the end of no layer's name."""
    layers = [n for n, m in net.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            # The last word of a name, with the one before it where the last is a number.
            ends = {".".join(n.split(".")[-1 - n.split(".")[-1].isdigit() :]) for n in layers}
            raise UserError(
                f"--lora_targets {target}: no layer's name ends so "
                f"(there are: {', '.join(sorted(ends))})"
            )


def _frozen_in(net: nn.Module, dtype: torch.dtype, keep: bool) -> None:
    """Round the frozen weights of linear and convolution layers to a dtype, and keep them in it."""
    for name, module in net.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and ".lora_" not in name:
            for own, parameter in module.named_parameters(recurse=False):
                rounded = parameter.detach().to(dtype)
                kept = rounded if keep else rounded.to(parameter.dtype)
                setattr(module, own, nn.Parameter(kept, requires_grad=False))


def stored(name: str) -> str:
    """A parameter's name in a file: without the adapter's, as peft writes it."""
    return name.replace(f"lora_magnitude_vector.{NAME}.weight", "lora_magnitude_vector").replace(
        f".{NAME}.", "."
    )


def _check_fit(values: Mapping[str, Tensor], wanted: Mapping[str, Tensor], place: Path) -> None:
    """Raise UserError unless these are finite values for all that is wanted."""
    if different := sorted(values.keys() ^ wanted.keys()):
        side = "lacks" if different[0] in wanted else "has an unknown"
        raise UserError(f"{place}: {side} {different[0]}")
    for name, value in values.items():
        if value.shape != wanted[name].shape:
            raise UserError(f"{place}: {name} has shape {tuple(value.shape)}")
        if not torch.isfinite(value).all():
            raise UserError(f"{place}: not all values of {name} are finite")


def _values(net: nn.Module, file: Path) -> dict[str, Tensor]:
    """The tensors of an adapter's file by parameter name. Raises UserError unless all fit."""
    tensors, _ = atomic.read_tensors(file)
    wanted = {stored(name): p for name, p in trained_parameters(net).items()}
    different = sorted(tensors.keys() ^ wanted.keys())
    if different:
        side = "lacks" if different[0] in wanted else "has an unknown"
        raise UserError(f"{file}: {side} {different[0]}")
    for name, value in tensors.items():
        if value.shape != wanted[name].shape:
            raise UserError(f"{file}: {name} has shape {tuple(value.shape)}")
    return {name: tensors[stored(name)] for name in trained_parameters(net)}


# ---------------------------------------------------------------- drawing and merging


def fold(net: parts.Network, file: Path, scale: float = 1.0) -> None:
    """Add an adapter, `scale` times, to the weights of a network that stays a stock one.

    Raises UserError if it is not of this network. In fp32, so that merging loses nothing.
    """
    tensors, _ = atomic.read_tensors(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names that do not fit: told below
            # By folder and name: older releases ask the hub about a path that is a file.
            net.load_lora_adapter(
                str(file.parent),
                weight_name=file.name,
                prefix=None,
                use_safetensors=True,
                adapter_name=NAME,
            )
    except Exception as error:  # of many kinds: peft's, diffusers' and torch's
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{file}: no adapter for this network: {reason[:300]}") from error
    # What finds no place is passed over without an error.
    named = {stored(name) for name, _ in net.named_parameters() if ".lora_" in name}
    strange = sorted(name for name in tensors if "lora_" in name and name not in named)
    if not named or (strange and any("lora_A" in name for name in tensors)):
        what = f", {strange[0]} has no place in it" if strange else ""
        raise UserError(f"{file}: no adapter for this network{what}")
    net.fuse_lora(lora_scale=scale)
    net.unload_lora()


def drawable(
    found: names.Trained, home: str, adapters: list[Path], scale: float, cache_dir: str | None
) -> nn.Module:
    """A network to draw with, in fp32 on the CPU, its adapters and `adapters` folded in."""
    role = parts.TRAINED[home]
    if found.network:
        net = parts.load_network(found.network, role).eval().requires_grad_(False)
    else:
        net = parts.load(role, found.repository, cache_dir=cache_dir)
    for file in [*([found.adapter] if found.adapter else []), *adapters]:
        fold(net, file, scale)
    return net
