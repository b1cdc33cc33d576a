"""Which errors say that another process of a run is gone."""

from __future__ import annotations

import pytest
import torch

from wassily.runtime.failures import another_is_gone


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:1"), True),
        (RuntimeError("Timed out waiting 1800000ms for recv"), True),
        (torch.distributed.DistBackendError("NCCL"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ConnectionError("Connection reset by peer"), False),  # the hub's, for one
    ],
)
def test_what_only_another_process_can_cause(error: Exception, gone: bool) -> None:
    """By gloo's words and by the class of NCCL's errors."""
    assert another_is_gone(error) == gone
