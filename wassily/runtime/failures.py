"""Failures of a launch: another process is gone, the memory is used up."""

from __future__ import annotations

import torch


def another_is_gone(error: BaseException) -> bool:
    """Whether an error says that a process of this run does not answer any more."""
    if isinstance(error, torch.distributed.DistError):  # NCCL's, and of those who look them up
        return True
    words = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
