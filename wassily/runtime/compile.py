"""torch.compile of the network in training, in place: the names of its weights stay.

Block by block, not as a whole. The blocks of the prior are alike: the first one is compiled and
serves all. Those of the decoder differ, and each is compiled by itself.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from wassily.errors import UserError
from wassily.runtime import fsdp


def check(device: torch.device) -> None:
    """Raise UserError unless this machine can compile for a device; tried on a small function."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except Exception as error:  # of many kinds: no compiler, no Triton, an old GPU
        needed = "a C++ compiler (g++)" if device.type == "cpu" else "Triton and a C compiler"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise UserError(f"--compile needs {needed}, and none works here: {reason}") from error


def check_launch(role: str, device: torch.device, precision: str) -> None:
    """Raise UserError for what compiles into a training that goes wrong."""
    if role == "decoder" and device.type == "cpu" and precision == "bf16":
        raise UserError(
            "--compile of the decoder in bf16 on a CPU: the gradients of PyTorch's compiler are no "
            "numbers there; leave it out, or add --mixed_precision no"
        )


def compile_in_place(net: nn.Module) -> None:
    """Have the blocks of a prior or a UNet compiled at their first call.

    A prior's sequences vary in length from batch to batch: its code is made for any length at
    once, so that a resumed run computes with the code of the run it goes on with.
    """
    dynamic = True if hasattr(net, "transformer_blocks") else None
    for block in fsdp.blocks(net):
        block.compile(dynamic=dynamic)


def paused(compiled: bool) -> AbstractContextManager[None]:
    """Inside, a network that was compiled runs uncompiled: for a few pictures it does not pay."""
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
