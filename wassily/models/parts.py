"""The parts of Kandinsky 2.2 by role: where each lives, how it is loaded, what a folder holds.

The only file that names the model classes of diffusers and transformers for loading.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from wassily import loading
from wassily.config import training
from wassily.errors import UserError, out_of_memory
from wassily.files import reading
from wassily.models import hub, part_files

if TYPE_CHECKING:
    from diffusers import ModelMixin as Network

MINI = Path(__file__).parents[1] / "mini"
RELEASED = Path(__file__).parent / "kandinsky22.json"  # configurations of the released model


@dataclass(frozen=True)
class Part:
    """A role's class, the repository that holds it ("prior" or "decoder"), its sub-folder."""

    library: str
    name: str
    home: str
    folder: str

    @property
    def config(self) -> str:
        """The name of its configuration's file."""
        return "scheduler_config.json" if self.folder == "scheduler" else "config.json"

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
STEMS = {"transformers": "model", "diffusers": "diffusion_pytorch_model"}  # of weights' files
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
TRAINED = {
    "prior": "prior",
    "decoder": "unet",
}  # home -> the role, and folder, of its trained network


def check_no_pickle(path: Path) -> None:
    """Raise UserError for a file, or a folder of weights, that could run code when it is read."""
    names = [path.name] if path.is_file() else sorted(p.name for p in path.glob("*"))
    pickles = [name for name in names if Path(name).suffix.lower() in PICKLES]
    if pickles and not any(name.endswith(".safetensors") for name in names):
        raise UserError(
            f"{path}: {pickles[0]} is a pickle, which can run code when it is read, and is not: "
            "convert it to safetensors where you trust it"
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
    folder = _folder(part, repository, cache_dir)
    # Always of a folder that was looked at, so that no library asks the hub for a part of it.
    options: dict[str, Any] = {"subfolder": part.folder, "local_files_only": True}
    network = issubclass(kind, nn.Module)
    if network:
        options |= {"use_safetensors": True, "output_loading_info": True}
        options |= {dtype_name(part.library, importlib.metadata.version(part.library)): dtype}
        if part.library == "transformers":
            options |= {"ignore_mismatched_sizes": True}  # to be named below
    try:
        held = _checked(folder, part)
        with hub.unwarned(), part_files.bounded(held):
            loaded = kind.from_pretrained(str(folder.parent), **options)
    except Exception as error:  # of many kinds, each a matter of the folder
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
    elif hasattr(loaded, "init_kwargs"):  # of a tokenizer, which saves how it was loaded
        loaded.init_kwargs.pop("local_files_only", None)
    return loaded.eval().requires_grad_(False) if network else loaded


def _folder(part: Part, repository: str, cache_dir: str | None) -> Path:
    """A part's folder on this disk, downloaded if need be. Raises UserError."""
    folder = Path(repository) / part.folder
    if not Path(repository).is_absolute():
        try:
            folder = hub.download(repository, part.folder, cache_dir) / part.folder
        except UserError as error:
            raise _not_loaded(repository, part.folder, error) from None
    if not folder.is_dir():
        raise _not_loaded(repository, part.folder, FileNotFoundError("no such folder"))
    return folder


def _checked(folder: Path, part: Part) -> part_files.Weights | None:
    """What the weights in a part's folder hold. Raises UserError for a folder that names anything
    elsewhere, and for a network's without config, or with a pickle for weights.
    """
    part_files.check(folder)
    if not issubclass(part.kind, nn.Module):
        return None
    check_no_pickle(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json")
    return part_files.weights(folder, STEMS[part.library])


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
        return dict(reading.read_table(RELEASED)[role])
    part = PARTS[role]
    name = f"{part.folder}/{part.config}"
    try:
        if Path(repository).is_absolute():
            part_files.check(Path(repository) / part.folder)
            file = Path(repository) / name
        else:
            file = hub.download_file(repository, name, cache_dir)
        config = reading.read_table(file)
        part_files.check_config(config, file)
    except UserError as error:
        raise _not_loaded(repository, part.folder, error) from None
    return config


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
        with part_files.bounded(None):
            if PARTS[role].library == "transformers":
                built: Any = kind(kind.config_class.from_dict(config))
            else:
                built = kind.from_config(config)
    except part_files.TooMuch as error:
        raise _not_loaded(repository, PARTS[role].folder, error) from None
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
    for known in (f"{repository}/", f"{repository}: "):  # the line begins with it
        reason = reason.replace(known, "")
    if not Path(repository).is_absolute():
        reason = f"is the name right, and the hub within reach? {reason}"
    return UserError(f"{repository}: cannot load its {folder}: {reason[:300]}")


def files(role: str, repository: str, cache_dir: str | None = None) -> list[Path]:
    """The files of a part on this disk, downloaded if need be: what its identity rests on."""
    folder = _folder(PARTS[role], repository, cache_dir)
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
    check_no_pickle(folder)
    options = {"use_safetensors": True, "local_files_only": True}
    try:
        held = _checked(folder, PARTS[role])
        with part_files.bounded(held):
            network: Network = PARTS[role].kind.from_pretrained(folder, **options)
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).replace(f"{folder}/", "").split())
        raise UserError(f"{folder}: cannot load the {role}: {reason[:300]}") from error
    # A file that lacks a tensor is loaded without a word, with nothing in its place.
    lost = [name for name, value in network.named_parameters() if value.is_meta]
    if lost:
        raise UserError(f"{folder}: {lost[0]} is missing in it")
    _forget_place(network, str(folder), PARTS[role].home)
    return network


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


def public_name(repository: str, home: str) -> str:
    """The name that a resolved repository is known by on every machine, if it has one."""
    return "mini" if repository == str(MINI / home) else repository


def portable_name(repository: str, home: str) -> str:
    """The same; a folder of this machine by its last name, for a file that travels."""
    known = public_name(repository, home)
    return Path(known).name if Path(known).is_absolute() else known


def halved(role: str, repository: str, cache_dir: str | None) -> int:
    """How many times smaller than its input the smallest map in a network of blocks is."""
    blocks = load_config(role, repository, cache_dir)["block_out_channels"]
    return 2 ** (len(blocks) - 1)
