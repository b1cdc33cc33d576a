"""Checkpoints and exports that are whole or not there: written aside, flushed, renamed.

Only safetensors and JSON; nothing pickled is written or read. The only file that knows safetensors.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from wassily import manifest, platforms, shards
from wassily.errors import UserError
from wassily.outputs import checkpoints_in

ASIDE = ".writing-"
OLD = f"{ASIDE}old-"  # what a folder is called while another takes its place
OPTIMIZER = "optimizer.safetensors"


# ---------------------------------------------------------------- whole folders


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder by `write(temporary)`, seal it, flush it to the disk, name it in one rename.

    Raises OSError; then what was half-written is gone, and a folder that stood there still stands.
    """
    aside = folder.parent / f"{ASIDE}{folder.name}"
    if aside.exists():
        shutil.rmtree(aside)
    aside.mkdir()
    try:
        with system_errors(folder):
            write(aside)
        manifest.seal(aside)
        flush(aside)
    except Exception:
        shutil.rmtree(aside, ignore_errors=True)  # a full disk wants its room back
        raise
    if folder.exists():
        # Renaming onto a full folder is not possible: step the old one aside first.
        old = folder.parent / f"{OLD}{folder.name}"
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        try:
            aside.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old)
    else:
        aside.rename(folder)
    platforms.flush(folder.parent)


@contextlib.contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Within, the system's errors that safetensors wraps are OSErrors of a path: a full disk is
    known.
    """
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(str(error)) from error
        code = int(number[1])
        # On Windows the number is one of its own, which the fourth place translates.
        raise OSError(code, os.strerror(code), str(path), code) from error


def write_text(path: Path, text: str) -> None:
    """A text file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f"{ASIDE}{path.name}"
    aside.write_text(text, encoding="utf-8")
    platforms.flush(aside)
    aside.replace(path)


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], notes: dict[str, str] | None = None
) -> None:
    """A safetensors file, with notes in its header, that is whole or not there. Raises OSError."""
    aside = path.parent / f"{ASIDE}{path.name}"
    try:
        with system_errors(path):
            save_file(tensors, aside, metadata=notes)
        platforms.flush(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def open_tensors(path: Path) -> Any:
    """A safetensors file to read from piece by piece, through a memory map. Raises OSError."""
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of a safetensors file, and the notes in its header. Raises UserError."""
    try:
        with safe_open(path, "pt") as file:
            names, notes = file.keys(), file.metadata() or {}
            return {name: file.get_tensor(name) for name in names}, notes
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: {error}") from error


def read_notes(path: Path) -> dict[str, str]:
    """The notes in the header of a safetensors file, without its tensors. Raises UserError."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: {error}") from error


def flush(folder: Path) -> None:
    """Every file and folder below, to the disk."""
    for path in sorted(folder.rglob("*")):
        platforms.flush(path)
    platforms.flush(folder)


def sweep(output_dir: Path) -> None:
    """Remove what a killed run left half-written; a folder that was being replaced, and was out of
    its place just then, is put back.
    """
    if not output_dir.is_dir():
        return
    for old in output_dir.glob(f"{OLD}*"):
        folder = output_dir / old.name.removeprefix(OLD)
        if not folder.exists():
            old.rename(folder)
    for path in output_dir.glob(f"{ASIDE}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def rotate(output_dir: Path, limit: int | None) -> list[Path]:
    """Remove the oldest checkpoints beyond `limit`; what was removed."""
    old = checkpoints_in(output_dir)[:-limit] if limit else []
    for _, path in old:
        # Out of the way in one rename first: a kill in between leaves no half checkpoint.
        aside = path.parent / f"{ASIDE}{path.name}"
        path.rename(aside)
        shutil.rmtree(aside)
    return [path for _, path in old]


# ---------------------------------------------------------------- state


def save_optimizer(folder: Path, optimizer: Any, names: Mapping[str, nn.Parameter]) -> None:
    """The optimizer's state, each tensor under "<parameter name>::<state name>".

    A step count that a library keeps for the whole group comes under "::step".
    """
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, Any] = {}
    seen: set[int] = set()
    for name, parameter in names.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if torch.is_tensor(value):
                kept = value.detach().cpu().contiguous()
                # One table may serve all parameters; a file wants each tensor to be its own.
                shared = kept.data_ptr() in seen
                seen.add(kept.data_ptr())
                tensors[f"{name}::{key}"] = kept.clone() if shared else kept
            elif key != "group":  # gradient release: the settings, which are no state
                plain[f"{name}::{key}"] = value
    layout = sorted([*tensors, *plain])
    if torch.is_tensor(optimizer.param_groups[0].get("step")):
        tensors["::step"] = optimizer.param_groups[0]["step"]
    notes = {"plain": json.dumps(plain), "layout": json.dumps(layout)}
    save_file(tensors, folder / OPTIMIZER, metadata=notes)


def load_optimizer(folder: Path, optimizer: Any, names: Mapping[str, nn.Parameter]) -> None:
    """Put a saved state back, on each parameter's device; UserError for an unknown name."""
    try:
        tensors = load_file(folder / OPTIMIZER)
        with safe_open(folder / OPTIMIZER, "pt") as file:
            notes = file.metadata() or {}
        plain, layout = (json.loads(notes.get(key, "[]")) for key in ("plain", "layout"))
        plain = dict(plain)
        if not isinstance(layout, list) or not all(isinstance(key, str) for key in layout):
            raise ValueError("not an optimizer's state")
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise UserError(f"{folder / OPTIMIZER}: {error}") from error
    counted = tensors.pop("::step", None)
    state = tensors | plain
    _check_optimizer(folder / OPTIMIZER, state, layout, names)
    if counted is not None:
        optimizer.param_groups[0]["step"] = counted
    # A fused optimizer reads its step counts on the parameter's device, others on the CPU.
    fused = any(group.get("fused") for group in optimizer.param_groups)
    for key, value in state.items():
        name, _, field = key.rpartition("::")
        parameter = names[name]
        if torch.is_tensor(value) and value.shape == parameter.shape:
            # In the parameter's memory order: fused optimizers walk both as they lie in memory,
            # and would pair a channels_last weight with the wrong moments without a word.
            value = shards.like(value, parameter)
        elif torch.is_tensor(value) and (value.ndim or fused):
            value = value.to(parameter.device)
        optimizer.state[parameter][field] = value


def _check_optimizer(
    file: Path, state: Mapping[str, Any], layout: list[str], names: Mapping[str, nn.Parameter]
) -> None:
    """Raise UserError unless every trained parameter, and no other, has the fields it had."""
    held = set()
    for key, value in state.items():
        name, _, field = key.rpartition("::")
        held.add(name)
        if name not in names:
            raise UserError(f"{file}: state of {name!r}, which is not trained here")
        if field in ("exp_avg", "exp_avg_sq") and value.shape != names[name].shape:
            raise UserError(f"{file}: {key} has shape {tuple(value.shape)}")
        if field == "step" and torch.is_tensor(value) and value.numel() != 1:
            raise UserError(f"{file}: {key} is no count of steps")
    if not layout:
        raise UserError(f"{file}: not an optimizer's state")
    lost = [key.rpartition("::")[0] for key in layout if key not in state]
    for name in [*lost, *(name for name in names if name not in held)]:
        raise UserError(f"{file}: the state of {name!r} is missing or not whole")


# ---------------------------------------------------------------- export


def export(output_dir: Path, save_pipeline: Callable[[Path], None], card: str) -> None:
    """Put a pipeline folder and its card into `output_dir`, beside the checkpoints.

    The index that makes it loadable goes away first and comes back last: a folder that loads is
    whole.
    """
    aside = output_dir / f"{ASIDE}export"
    shutil.rmtree(aside, ignore_errors=True)
    with system_errors(output_dir):
        save_pipeline(aside)
    _portable_image_processor(aside)
    flush(aside)
    index = output_dir / "model_index.json"
    index.unlink(missing_ok=True)
    for part in sorted(p for p in aside.iterdir() if p.name != index.name):
        target = output_dir / part.name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        part.rename(target)
    write_text(output_dir / "README.md", card)
    (aside / index.name).rename(index)
    aside.rmdir()
    platforms.flush(output_dir)


def _portable_image_processor(folder: Path) -> None:
    """Name the image processor as every transformers knows it, not by its PIL flavour."""
    for file in (
        folder / "model_index.json",
        folder / "image_processor" / "preprocessor_config.json",
    ):
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace("CLIPImageProcessorPil", "CLIPImageProcessor"), "utf-8")
