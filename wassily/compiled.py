"""torch.compile of the network in training, in place."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from wassily.errors import UserError


def regions(net: nn.Module) -> list[nn.Module]:
    """The parts of a network that are compiled one by one."""
    blocks = getattr(net, "transformer_blocks", None)
    if blocks is not None:
        return list(blocks)
    return [*net.down_blocks, net.mid_block, *net.up_blocks]  # type: ignore[misc,list-item]


def check(device: torch.device) -> None:
    """Raise UserError unless this machine can compile for a device."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except Exception as error:  # of many kinds: no compiler, no Triton, an old GPU
        needed = "a C++ compiler (g++)" if device.type == "cpu" else "Triton and a C compiler"
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"--compile needs {needed}, which does not work here: {reason}") from error


def compile_in_place(net: nn.Module, device: torch.device) -> None:
    """Compile."""
    check(device)
    for region in regions(net):
        region.compile()


def paused(compiled: bool) -> AbstractContextManager[None]:
    """Inside, a network that was compiled runs uncompiled: for a few pictures it does not pay."""
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
