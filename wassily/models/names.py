"""The name of a model resolved to its location: hub, folder, checkpoint or `mini`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wassily.errors import UserError
from wassily.files import atomic, output_folder, reading, run_state
from wassily.files.reading import BadFile
from wassily.files.run_state import Saved
from wassily.models import hub, missing, origins, parts

GUIDANCE = {"decoder": 2.5, "prior": 2.0}  # what the bundled model draws best with, see its card
ADAPTER, ADAPTER_EMA = "pytorch_lora_weights.safetensors", "pytorch_lora_weights_ema.safetensors"
ADAPTERS = (ADAPTER_EMA, ADAPTER)  # the averaged one is preferred


def has_mini(home: str) -> bool:
    """Whether the bundled model's prior or decoder is there."""
    return (parts.MINI / home / parts.TRAINED[home] / "config.json").is_file()


def resolve(name: str, home: str) -> str:
    """The folder or hub name behind a model name; `mini` is the bundled model, paths become
    absolute.

    Raises UserError for a path that does not exist or is no pipeline folder of that home.
    """
    if name == "mini":
        folder = parts.MINI / home
        if not has_mini(home):
            raise UserError(f"mini: this installation has no bundled {home}")
        return str(folder)
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        _check_pipeline_folder(path, home)
        return str(path.resolve())
    if path.exists():
        parts.check_no_pickle(path)
        raise UserError(f"{name}: a file; a {home} is a pipeline folder or a hub name")
    if told := missing.absent(name):
        raise UserError(told)
    return name


def repositories(prior: str, decoder: str) -> dict[str, str]:
    """Home -> the folder or hub name behind each of two model names. Raises UserError."""
    return {"prior": resolve(prior, "prior"), "decoder": resolve(decoder, "decoder")}


def _check_pipeline_folder(path: Path, home: str) -> None:
    wanted = parts.TRAINED[home]
    if (path / wanted / "config.json").is_file():
        return
    if (path / ADAPTER).is_file():
        raise UserError(
            f"{path}: an adapter (LoRA), not a whole model: make one of it with wassily merge "
            f"--lora {path}"
        )
    if told := missing.unfinished(path):
        raise UserError(told)
    held = sorted(p.name for p in path.iterdir() if (p / "config.json").is_file())
    other = next((h for h, part in parts.TRAINED.items() if part in held and h != home), None)
    hint = f"; it is a {other}'s" if other else ""
    raise UserError(
        f"{path}: no sub-folder {wanted!r} with a config.json, so it is no {home} folder{hint}"
        f" (it holds: {', '.join(held) or 'no part of a model'})"
    )


def config_of(found: Trained, home: str, cache_dir: str | None = None) -> dict[str, Any]:
    """The configuration of a network to draw with, without its weights. Raises UserError."""
    role = parts.TRAINED[home]
    if found.network is None:
        return parts.load_config(role, found.repository, cache_dir)
    try:
        return reading.read_table(found.network / "config.json", root=found.network)
    except BadFile as error:
        raise UserError(f"{found.network}: cannot load the {role}: {error}") from None


@dataclass(frozen=True)
class Trained:
    """Where a network to draw with is: a repository, and a folder that replaces its own."""

    repository: str
    network: Path | None = None
    adapter: Path | None = None


def example_prompt(repository: str, home: str) -> str:
    """A prompt that a model knows."""
    if parts.public_name(repository, home) == "mini":
        return "a large red circle on a blue background"
    return "a photo of a cat"


def adapter_file(name: str, home: str | None, cache_dir: str | None = None) -> Path:
    """The file of an adapter: a file, an output folder, a checkpoint folder or a hub name.

    Of a checkpoint the averaged one is taken where there is one. Raises UserError for what is none,
    or is of another network than that of `home`, if one is named.
    """
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        files = [path / file for file in ADAPTERS if (path / file).is_file()]
        if not files:
            raise UserError(f"{name}: no adapter there (no {ADAPTER})")
        path = files[0]
    elif path.is_file():
        parts.check_no_pickle(path)
    else:
        if told := missing.absent(name, "adapter"):
            raise UserError(told)
        path = hub.download_file(name, ADAPTER, cache_dir)
    of = atomic.read_notes(path).get("network", home)
    if home and of != home:
        raise UserError(f"{name}: an adapter of a {of}, not of a {home}")
    return path.resolve()


def _of_adapter(name: str, home: str) -> Trained:
    """An output folder that holds an adapter, on the base that it names. Raises UserError."""
    file = adapter_file(name, home)
    base = origins.behind(file, home)
    given = f"--{home} BASE --{home}_lora {name}"
    if not base:
        raise UserError(f"{name}: the adapter names no base: give {given}")
    return Trained(resolve(origins.check_here(base, file, given), home), adapter=file)


def locate(name: str, home: str) -> Trained:
    """A prior or decoder to draw with: output folder, checkpoint folder, hub name or `mini`.

    A checkpoint folder names the repository of its frozen parts in its state file. Its averaged
    network is taken where there is one, as the export does.
    """
    path = Path(os.path.expanduser(name))
    if not (path / output_folder.STATE).is_file():
        if (path / ADAPTER).is_file() and not (path / parts.TRAINED[home]).is_dir():
            return _of_adapter(name, home)
        return Trained(resolve(name, home))
    saved = run_state.read(path, Saved)
    if saved.role != home:
        raise UserError(f"{name}: a checkpoint of a {saved.role}, not of a {home}")
    repository = saved.repositories.get(home)
    if repository is None:
        raise UserError(f"{path / output_folder.STATE}: names no {home}")
    if (path / ADAPTER).is_file():
        return Trained(resolve(repository, home), adapter=adapter_file(name, home))
    folder = parts.TRAINED[home]
    averaged = path / f"{folder}_ema"
    return Trained(
        resolve(repository, home),
        (averaged if averaged.is_dir() else path / folder).resolve(),
    )
