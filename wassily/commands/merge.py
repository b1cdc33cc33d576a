"""`wassily merge`: an adapter folded into its base, or a base mixed with its full fine-tune."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from wassily.config.commands import MergeConfig
from wassily.config.training import PRIOR
from wassily.errors import UserError
from wassily.files import atomic
from wassily.generation import pipelines
from wassily.models import adapters, missing, names, origins, parts, pipeline_folder
from wassily.reporting.model_card import merged_card, prior_of
from wassily.runtime.accelerator import quiet_libraries


def merge(config: MergeConfig) -> None:
    """Write the stock pipeline folder that the config describes into `out`."""
    out = Path(config.out)
    check_new(out)
    quiet_libraries()
    home, base, net, origin = folded(config) if config.lora else mixed(config)
    role = parts.TRAINED[home]
    make = pipelines.prior_pipeline if home == "prior" else pipelines.decoder_pipeline
    pipeline = make(base.repository, torch.float32, config.cache_dir, **{role: net})
    prior, absent = prior_here(prior_named(config, home, base.repository))
    shown = parts.public_name(base.repository, home)
    card = merged_card(str(out.resolve()), home, shown, prior, origin)
    out.mkdir(parents=True, exist_ok=True)
    pipeline_folder.export(out, pipeline.save_pretrained, card)
    print(f"the merged {home} is in {out}: wassily generate PROMPT --{home} {out}")
    if home == "decoder" and absent:
        print(
            f"its prior, {absent}, is not here, so README.md names none for diffusers: copy its "
            "folder here and write the path there, below `prior:`"
        )


def check_new(out: Path) -> None:
    """Raise UserError if something is there, or the place cannot be written to."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: there already; name a new folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror or error}") from None


def folded(config: MergeConfig) -> tuple[str, names.Trained, nn.Module, str]:
    """The network with an adapter in its weights; before it its home and base, after it a line."""
    assert config.lora  # the config was checked
    file, notes = network_of(config.lora, config.cache_dir)
    home = notes["network"]
    named = config.base or origins.behind(file, home)
    if not named:
        raise UserError(f"{config.lora}: the adapter names no base: give --base")
    if config.base is None:
        origins.check_here(named, file, "--base")
        origins.check_recorded(named, file)
        if named != "mini":
            print(f"{file}: its base model is {named}", flush=True)
    base = names.locate(named, home)
    net = adapters.drawable(base, home, [], 1.0, config.cache_dir)
    scale = 1.0 if config.lora_scale is None else config.lora_scale
    adapters.fold(net, file, scale)
    return home, base, net, f"with an adapter (LoRA) folded in {scale:g} times"


def network_of(name: str, cache_dir: str | None) -> tuple[Path, dict[str, str]]:
    """An adapter's file and its notes, which tell the network; if they do not, the names do."""
    homes = list(parts.TRAINED)
    file = names.adapter_file(name, None, cache_dir)
    notes = atomic.read_notes(file)
    if notes.get("network") not in homes:
        tensors, _ = atomic.read_tensors(file)
        prior = any(key.startswith("transformer_blocks.") for key in tensors)
        notes = notes | {"network": "prior" if prior else "decoder"}
    return file, notes


def mixed(config: MergeConfig) -> tuple[str, names.Trained, nn.Module, str]:
    """(1 - alpha) base + alpha tuned, weight by weight (arXiv 2109.01903); as `folded`."""
    assert config.base and config.tuned and config.alpha is not None  # the config was checked
    home = home_of(config.tuned)
    base, tuned = names.locate(config.base, home), names.locate(config.tuned, home)
    net, other = (adapters.drawable(m, home, [], 1.0, config.cache_dir) for m in (base, tuned))
    interpolate(net, other, config.alpha)
    return home, base, net, f"mixed with its fine-tune at alpha {config.alpha:g}"


def home_of(name: str) -> str:
    """Which network an output folder or a checkpoint folder trained. Raises UserError."""
    path = Path(name)
    homes = [h for h, role in parts.TRAINED.items() if (path / role / "config.json").is_file()]
    if len(homes) == 1:
        return homes[0]
    hint = "; it holds an adapter: --lora takes it" if (path / names.ADAPTER).is_file() else ""
    raise UserError(f"--tuned {name}: no output or checkpoint folder of a whole network{hint}")


@torch.no_grad()
def interpolate(net: nn.Module, other: nn.Module, alpha: float) -> None:
    """Move each weight of `net` to (1 - alpha) of its own plus alpha of the other's.

    At 0 and 1 the result is the one or the other, to the bit. Raises UserError for another shape.
    """
    mine, theirs = net.state_dict(), other.state_dict()
    different = [n for n in mine if n not in theirs or mine[n].shape != theirs[n].shape]
    if different or len(mine) != len(theirs):
        raise UserError(
            f"--tuned is no fine-tune of --base: {[*different, 'its layers'][0]} differ"
        )
    for name, value in mine.items():
        value.copy_(torch.lerp(value, theirs[name], alpha))


def prior_named(config: MergeConfig, home: str, repository: str) -> str:
    """The prior that a merged decoder's card names, for diffusers to find."""
    found: str | None = None
    if config.lora and home == "decoder":
        file = names.adapter_file(config.lora, home, config.cache_dir)
        found = origins.behind(file, "prior")
    of_tuned = prior_of(Path(config.tuned)) if config.tuned else None
    return found or of_tuned or prior_of(Path(repository)) or PRIOR


def prior_here(named: str) -> tuple[str, str | None]:
    """The name of a prior by which diffusers finds it here; if it does not, an empty one, and what
    is not here: a folder of another machine.
    """
    if named == "mini":
        return str(parts.MINI / "prior"), None
    if Path(named).is_dir():
        return str(Path(named).resolve()), None
    return (named, None) if missing.HUB.fullmatch(named) else ("", named)
