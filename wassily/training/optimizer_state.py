"""The state of an optimizer as a file: safetensors and JSON, nothing pickled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from wassily.errors import UserError
from wassily.files import atomic
from wassily.runtime import fsdp

OPTIMIZER = "optimizer.safetensors"


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


def read(
    folder: Path, names: Mapping[str, nn.Parameter]
) -> tuple[dict[str, Any], torch.Tensor | None]:
    """A saved state and the step count of the whole group, if it has one. Raises UserError unless
    it fits these parameters.
    """
    tensors, notes = atomic.read_tensors(folder / OPTIMIZER)
    try:
        plain, layout = (json.loads(notes.get(key, "[]")) for key in ("plain", "layout"))
        plain = dict(plain)
        if not isinstance(layout, list) or not all(isinstance(key, str) for key in layout):
            raise ValueError("not an optimizer's state")
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{folder / OPTIMIZER}: {error}") from error
    counted = tensors.pop("::step", None)
    state = tensors | plain
    _check_optimizer(folder / OPTIMIZER, state, layout, names)
    return state, counted


def load_optimizer(folder: Path, optimizer: Any, names: Mapping[str, nn.Parameter]) -> None:
    """Put a saved state back, on each parameter's device. Raises UserError."""
    state, counted = read(folder, names)
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
            value = fsdp.like(value, parameter)
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
        if field in ("exp_avg", "exp_avg_sq"):
            if not torch.is_tensor(value) or value.shape != names[name].shape:
                raise UserError(f"{file}: {key} has shape {tuple(getattr(value, 'shape', ()))}")
            if value.dtype != names[name].dtype:
                raise UserError(f"{file}: {key} is of {value.dtype}, not of {names[name].dtype}")
        if field == "step" and not _is_count(value):
            raise UserError(f"{file}: {key} is no count of steps")
    if not layout:
        raise UserError(f"{file}: not an optimizer's state")
    lost = [key.rpartition("::")[0] for key in layout if key not in state]
    for name in [*lost, *(name for name in names if name not in held)]:
        raise UserError(f"{file}: the state of {name!r} is missing or not whole")


def _is_count(value: object) -> bool:
    if torch.is_tensor(value):
        return value.numel() == 1 and 0 <= value.item() < math.inf
    return type(value) in (int, float) and 0 <= value < math.inf  # type: ignore[operator]
