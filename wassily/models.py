"""The parts of Kandinsky 2.2 by role: where each lives, how it is loaded, what a folder holds.

The only file that names the model classes of diffusers and transformers for loading.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from wassily import hub, origins
from wassily.config import training
from wassily.errors import UserError, out_of_memory
from wassily.files import atomic, output_folder, run_state
from wassily.files.run_state import Saved
from wassily.runtime import loading

if TYPE_CHECKING:
    from diffusers import ModelMixin as Network

MINI = Path(__file__).parent / "mini"
GUIDANCE = {"decoder": 2.5, "prior": 2.0}  # what the bundled model draws best with, see its card
RELEASED = Path(__file__).parent / "kandinsky22.json"  # configurations of the released model
ADAPTER, ADAPTER_EMA = "pytorch_lora_weights.safetensors", "pytorch_lora_weights_ema.safetensors"
ADAPTERS = (ADAPTER_EMA, ADAPTER)  # the averaged one is preferred


@dataclass(frozen=True)
class Part:
    """A role's class, the repository that holds it ("prior" or "decoder"), its sub-folder."""

    library: str
    name: str
    home: str
    folder: str

    @property
    def kind(self) -> Any:
        """The class. Imported when it is asked for: with the CLIP models come two seconds."""
        with loading.uncollected():
            library = importlib.import_module(self.library)
            # The PIL flavour needs no torchvision; older transformers have it as the plain name.
            return getattr(library, f"{self.name}Pil", None) or getattr(library, self.name)


PARTS = {
    "prior": Part("diffusers", "PriorTransformer", "prior", "prior"),
    "image_encoder": Part(
        "transformers", "CLIPVisionModelWithProjection", "prior", "image_encoder"
    ),
    "text_encoder": Part("transformers", "CLIPTextModelWithProjection", "prior", "text_encoder"),
    "tokenizer": Part("transformers", "CLIPTokenizer", "prior", "tokenizer"),
    "image_processor": Part("transformers", "CLIPImageProcessor", "prior", "image_processor"),
    "prior_scheduler": Part("diffusers", "UnCLIPScheduler", "prior", "scheduler"),
    "unet": Part("diffusers", "UNet2DConditionModel", "decoder", "unet"),
    "movq": Part("diffusers", "VQModel", "decoder", "movq"),
    "scheduler": Part("diffusers", "DDPMScheduler", "decoder", "scheduler"),
}
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
TRAINED = {
    "prior": "prior",
    "decoder": "unet",
}  # home -> the role, and folder, of its trained network


def has_mini(home: str) -> bool:
    """Whether the bundled model's prior or decoder is there."""
    return (MINI / home / TRAINED[home] / "config.json").is_file()


def resolve(name: str, home: str) -> str:
    """The folder or hub name behind a model name; `mini` is the bundled model, paths become
    absolute.

    Raises UserError for a path that does not exist or is no pipeline folder of that home.
    """
    if name == "mini":
        folder = MINI / home
        if not has_mini(home):
            raise UserError(f"mini: this installation has no bundled {home}")
        return str(folder)
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        _check_pipeline_folder(path, home)
        return str(path.resolve())
    if path.exists():
        _check_no_pickle(path)
        raise UserError(f"{name}: a file; a {home} is a pipeline folder or a hub name")
    if told := output_folder.absent(name):
        raise UserError(told)
    return name


def _check_no_pickle(path: Path) -> None:
    """Raise UserError for a file, or a folder of weights, that could run code when it is read."""
    names = [path.name] if path.is_file() else sorted(p.name for p in path.glob("*"))
    pickles = [name for name in names if Path(name).suffix.lower() in PICKLES]
    if pickles and not any(name.endswith(".safetensors") for name in names):
        raise UserError(
            f"{path}: {pickles[0]} is a pickle, which can run code when it is read, and is not: "
            "convert it to safetensors where you trust it"
        )


def repositories(prior: str, decoder: str) -> dict[str, str]:
    """Home -> the folder or hub name behind each of two model names. Raises UserError."""
    return {"prior": resolve(prior, "prior"), "decoder": resolve(decoder, "decoder")}


def _check_pipeline_folder(path: Path, home: str) -> None:
    wanted = TRAINED[home]
    if (path / wanted / "config.json").is_file():
        return
    if (path / ADAPTER).is_file():
        raise UserError(
            f"{path}: an adapter (LoRA), not a whole model: make one of it with wassily merge "
            f"--lora {path}"
        )
    if told := output_folder.unfinished(path):
        raise UserError(told)
    held = sorted(p.name for p in path.iterdir() if (p / "config.json").is_file())
    other = next((h for h, part in TRAINED.items() if part in held and h != home), None)
    hint = f"; it is a {other}'s" if other else ""
    raise UserError(
        f"{path}: no sub-folder {wanted!r} with a config.json, so it is no {home} folder{hint}"
        f" (it holds: {', '.join(held) or 'no part of a model'})"
    )


def load(
    role: str,
    repository: str,
    dtype: torch.dtype = torch.float32,
    cache_dir: str | None = None,
) -> Any:
    """One part of a resolved repository: safetensors only, on the CPU, networks frozen, in eval.
    Raises UserError in one line if it is not there or not whole.
    """
    part, kind = PARTS[role], PARTS[role].kind
    network = issubclass(kind, nn.Module)
    options: dict[str, Any] = {"subfolder": part.folder, "cache_dir": cache_dir}
    if network:
        _check_files(Path(repository) / part.folder, repository, part.folder)
        options |= {"use_safetensors": True, "output_loading_info": True}
        options |= {dtype_name(part.library, importlib.metadata.version(part.library)): dtype}
        if part.library == "transformers":
            options |= {"ignore_mismatched_sizes": True}  # to be named below
    try:
        with hub.unwarned():
            loaded = kind.from_pretrained(repository, **options)
    except Exception as error:  # of many kinds, each a matter of the folder or the hub
        raise _not_loaded(repository, part.folder, error) from error
    if network:
        loaded, found = loaded
        # A weight that is not in the file would be drawn at random, without a word.
        other = sorted(str(key[0]) for key in found["mismatched_keys"])
        if lost := other or sorted(found["missing_keys"]):
            what = "of another shape" if other else "missing"
            reason = f"{lost[0]} is {what} in its file"
            raise _not_loaded(repository, part.folder, ValueError(reason))
        _forget_place(loaded, repository, part.home)
    return loaded.eval().requires_grad_(False) if network else loaded


def _forget_place(network: Any, repository: str, home: str) -> None:
    """Name in a network's configuration, which is saved with it, no folder of this machine."""
    named = portable_name(repository, home)
    if hasattr(network, "register_to_config"):
        network.register_to_config(_name_or_path=named)
    else:
        network.config._name_or_path = named


def load_config(role: str, repository: str, cache_dir: str | None = None) -> dict[str, Any]:
    """A network's or scheduler's configuration, without its weights; the released model's is known
    without a network. Raises UserError.
    """
    if repository in (training.PRIOR, training.DECODER):
        return dict(json.loads(RELEASED.read_text(encoding="utf-8"))[role])
    part, kind = PARTS[role], PARTS[role].kind
    options = {"subfolder": part.folder, "cache_dir": cache_dir}
    try:
        if part.library == "transformers":
            found, _ = kind.config_class.get_config_dict(repository, **options)
            return dict(found)
        with hub.unwarned():
            return dict(kind.load_config(repository, **options))
    except Exception as error:
        raise _not_loaded(repository, part.folder, error) from error


def _check_files(folder: Path, repository: str, part: str) -> None:
    """Raise UserError for a folder on this disk without config, or with a pickle for weights."""
    try:
        _check_no_pickle(folder)
    except UserError as error:
        raise _not_loaded(repository, part, error) from None
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise _not_loaded(repository, part, FileNotFoundError("no config.json"))


def skeleton(
    role: str,
    repository: str,
    dtype: torch.dtype = torch.float32,
    cache_dir: str | None = None,
) -> Any:
    """A part as `load` gives it, from its configuration alone: on fake tensors it takes no memory.

    Raises UserError.
    """
    kind = PARTS[role].kind
    config = load_config(role, repository, cache_dir)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # a fake network cannot be converted afterwards
    try:
        if PARTS[role].library == "transformers":
            built: Any = kind(kind.config_class.from_dict(config))
        else:
            built = kind.from_config(config)
    finally:
        torch.set_default_dtype(usual)
    return built.eval().requires_grad_(False) if isinstance(built, nn.Module) else built


def _not_loaded(repository: str, folder: str, error: Exception) -> UserError:
    """The line for a part that cannot be loaded. Raises an error of memory, which is none of its
    folder.
    """
    if out_of_memory(error):
        raise error
    reason = " ".join(str(error).split()) or type(error).__name__
    if not Path(repository).is_absolute():
        reason = f"is the name right, and the hub within reach? {reason}"
    return UserError(f"{repository}: cannot load its {folder}: {reason[:300]}")


def files(role: str, repository: str, cache_dir: str | None = None) -> list[Path]:
    """The files of a part on this disk, downloaded if need be: what its identity rests on."""
    part = PARTS[role]
    folder = Path(repository) / part.folder
    if not Path(repository).is_absolute():
        folder = hub.download(repository, part.folder, cache_dir) / part.folder
    if not folder.is_dir():
        raise _not_loaded(repository, part.folder, FileNotFoundError("no such folder"))
    kept = (".json", ".txt", ".safetensors", ".model")
    return sorted(path for path in folder.iterdir() if path.suffix in kept)


def dtype_name(library: str, version: str) -> str:
    """The argument for a dtype: `dtype` from transformers 4.56 and diffusers 0.40 on."""
    old = library == "diffusers" and tuple(int(n) for n in version.split(".")[:2]) < (0, 40)
    return "torch_dtype" if old else "dtype"


def load_network(folder: Path, role: str) -> Network:
    """A network from a folder of its own (`checkpoint-N/unet`), in fp32 on the CPU."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no such network (no config.json)")
    _check_no_pickle(folder)
    try:
        network: Network = PARTS[role].kind.from_pretrained(folder, use_safetensors=True)
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"{folder}: cannot load the {role}: {reason[:300]}") from error
    # A file that lacks a tensor is loaded without a word, with nothing in its place.
    lost = [name for name, value in network.named_parameters() if value.is_meta]
    if lost:
        raise UserError(f"{folder}: {lost[0]} is missing in it")
    _forget_place(network, str(folder), PARTS[role].home)
    return network


def config_of(found: Trained, home: str, cache_dir: str | None = None) -> dict[str, Any]:
    """The configuration of a network to draw with, without its weights. Raises UserError."""
    role = TRAINED[home]
    if found.network is None:
        return load_config(role, found.repository, cache_dir)
    try:
        return dict(json.loads((found.network / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{found.network}: cannot load the {role}: {error}") from None


def prior_alpha_bars() -> torch.Tensor:
    """The prior's training schedule: squared cosine, 1000 steps, capped betas; shape (1000,)."""
    import diffusers

    schedule = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    return schedule.alphas_cumprod


def fingerprint(network: nn.Module) -> str:
    """A digest of a network's names, shapes and bits, independent of the order of summation."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        aligned = raw.numel() // 4 * 4
        whole = raw[:aligned].view(torch.int32).sum(dtype=torch.int64).item()
        digest.update(bytes(raw[aligned:].tolist()))
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} {whole}\n".encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Trained:
    """Where a network to draw with is: a repository, and a folder that replaces its own."""

    repository: str
    network: Path | None = None
    adapter: Path | None = None


def public_name(repository: str, home: str) -> str:
    """The name that a resolved repository is known by on every machine, if it has one."""
    return "mini" if repository == str(MINI / home) else repository


def portable_name(repository: str, home: str) -> str:
    """The same; a folder of this machine by its last name, for a file that travels."""
    known = public_name(repository, home)
    return Path(known).name if Path(known).is_absolute() else known


def example_prompt(repository: str, home: str) -> str:
    """A prompt that a model knows."""
    if public_name(repository, home) == "mini":
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
        _check_no_pickle(path)
    else:
        if told := output_folder.absent(name, "adapter"):
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
        if (path / ADAPTER).is_file() and not (path / TRAINED[home]).is_dir():
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
    folder = TRAINED[home]
    averaged = path / f"{folder}_ema"
    return Trained(
        resolve(repository, home),
        (averaged if averaged.is_dir() else path / folder).resolve(),
    )
