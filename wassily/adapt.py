"""What is trained: the explicit list of parameters, and how they lie in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import nn

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def trained_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter of a network that its forward pass uses, by name, switched to training.

    `clip_mean` and `clip_std` are statistics that are stored as parameters: no forward pass reads
    them.
    """
    statistics = ("clip_mean", "clip_std")
    chosen = {name: p for name, p in net.named_parameters() if name not in statistics}
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
