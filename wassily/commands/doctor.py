"""`wassily doctor`: what this machine has for wassily, and what is missing; nothing secret."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from wassily.commands import extras
from wassily.config.commands import DoctorConfig
from wassily.config.training import DECODER, PRIOR
from wassily.encodings import cache
from wassily.files import platforms
from wassily.models import hub, names, parts
from wassily.planning import memory
from wassily.runtime.accelerator import quiet_libraries
from wassily.version import __version__

LIBRARIES = "diffusers transformers accelerate peft datasets".split()
LIBRARIES += "huggingface_hub safetensors numpy pillow tyro".split()
# What one may do without: package as it is imported -> the extra that brings it ("": its own name
# does), and what it is for.
EXTRAS = {
    "tensorboard": ("", "--report_to tensorboard"),
    "wandb": ("wandb", "--report_to wandb"),
    "trackio": ("trackio", "--report_to trackio"),
    "mlflow": ("mlflow", "--report_to mlflow"),
    "comet_ml": ("comet", "--report_to comet_ml"),
    "optimi": ("memory", "--weights_dtype bf16, --gradient_release, --optimizer lion"),
    "bitsandbytes": ("8bit", "--use_8bit_adam"),
    "xformers": ("xformers", "--enable_xformers_memory_efficient_attention"),
    "gradio": ("studio", "wassily studio"),
}
GIB = 2**30


def doctor(config: DoctorConfig) -> None:
    """Print all of it, on one screen."""
    quiet_libraries()
    for name, told in facts_of_machine(config):
        print(f"{name:10s}{told}")


def facts_of_machine(config: DoctorConfig) -> Iterator[tuple[str, str]]:
    """Lines, each with what it is about; what goes on from the line above is about nothing."""
    yield "wassily", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} thread(s)"
    yield "libraries", ", ".join(f"{name} {_version(name)}" for name in LIBRARIES[:5])
    yield "", ", ".join(f"{name} {_version(name)}" for name in LIBRARIES[5:])
    for number, device in enumerate(_devices()):
        yield "" if number else "device", device
    free = memory.available()
    known = "" if free is None else f"{_size(free)} free of "
    yield "memory", f"{known}{_size(platforms.total_memory())}, {os.cpu_count()} cores"
    here = shutil.disk_usage(Path.cwd())
    yield "disk", f"{_size(here.free)} free of {_size(here.total)} in this folder"
    for name, folder in (
        ("models", hub.cache_folder(config.cache_dir)),
        ("encodings", cache.default_folder(config.cache_dir)),
    ):
        yield name, f"{_size(_below(folder))} in {folder}"
    yield "released", ", ".join(_released(config))
    yield "hub", f"logged in: {'yes' if hub.logged_in() else 'no'}; offline: {_offline()}"
    yield "compiler", f"--compile: {_compiler()}"
    missing = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
    there = [f"{name}{_its_version(name)}" for name in EXTRAS if name not in missing]
    yield "extras", ", ".join(there) or "none"
    for number, name in enumerate(missing):
        extra, flags = EXTRAS[name]
        remedy = extras.install(extra) if extra else f"pip install {name}"
        yield "" if number else "missing", f"{name}: {remedy} for {flags}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _its_version(module: str) -> str:
    """With a blank before it; nothing for a package that does not tell."""
    owners = importlib.metadata.packages_distributions().get(module, [])
    return f" {_version(owners[0])}" if owners else ""


def _devices() -> list[str]:
    """Each GPU or other accelerator with its memory, or the CPU."""
    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        kind = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        return [f"{one.name}, {_size(one.total_memory)}, {bf16}, {kind}" for one in found]
    if torch.accelerator.is_available():
        return [str(torch.accelerator.current_accelerator())]
    return ["CPU: no accelerator that this torch can use"]


def _below(folder: Path) -> int:
    """Bytes of the files below a folder; links are not followed, what cannot be read is nothing."""
    total = 0
    for where, _, files in os.walk(folder):
        for file in files:
            path = Path(where, file)
            total += 0 if path.is_symlink() else path.stat().st_size
    return total


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"


def _released(config: DoctorConfig) -> Iterator[str]:
    for home, name in (("prior", PRIOR), ("decoder", DECODER)):
        there = hub.is_cached(name, f"{parts.TRAINED[home]}/config.json", config.cache_dir)
        yield f"{home} {'in the cache' if there else 'not downloaded yet'}"
    yield f"mini {'here' if all(map(names.has_mini, parts.TRAINED)) else 'missing'}"


def _offline() -> str:
    return "yes, HF_HUB_OFFLINE is set" if hub.is_offline() else "no"


def _compiler() -> str:
    if torch.cuda.is_available():
        return "Triton found" if importlib.util.find_spec("triton") else "needs Triton"
    found = next(filter(None, map(shutil.which, ("g++", "clang++"))), None)
    return f"{found} found" if found else "needs g++"
