"""The update of an optimizer step, which is left out where the numbers went wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from wassily import shards
from wassily.runtime import Runtime


def update(
    optimizer: torch.optim.Optimizer,
    trained: list[nn.Parameter],
    loss: Tensor,
    most: float,
    runtime: Runtime,
) -> Tensor:
    """Clip the gradient to a norm of `most` (0: not) and take the step, unless loss or gradient are
    not finite; then weights and state stay as they are. Whether that was so, () bool.

    A fused optimizer is told on the device, and nobody waits; for any other the host has to look.
    In fp16 the gradient is left to the loss scaler: it overflows now and then, as is its way. With
    gradient release the weights have moved already.
    """
    norm = runtime.clip(trained, most)
    bad = ~torch.isfinite(loss)
    if norm is not None:
        bad |= ~torch.isfinite(norm.to(bad.device))
    flag = runtime.mean(bad.float()) > 0
    inner: Any = getattr(optimizer, "optimizer", optimizer)  # two names that only a scaler sets
    if norm is None:
        optimizer.step()
    elif getattr(inner, "_step_supports_amp_scaling", False):
        inner.grad_scale, inner.found_inf = None, flag.float()
        optimizer.step()
        del inner.grad_scale, inner.found_inf
    elif not flag:
        optimizer.step()
    return flag


def all_finite(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether all values that this process has of all parameters are."""
    return bool(torch.stack([torch.isfinite(shards.own(p)).all() for p in parameters]).all())
