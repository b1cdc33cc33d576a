"""FSDP2: a network's weights spread over the processes, and gathered where they are needed whole.

Every process calls each function here, for the same tensors in the same order: they exchange them.
What is not spread goes through as it is, so that others need not know.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Generic, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

M = TypeVar("M", bound=nn.Module)


def blocks(net: nn.Module) -> list[nn.Module]:
    """The large parts of a prior or a UNet, in the order of the forward pass."""
    if hasattr(net, "transformer_blocks"):
        return list(net.get_submodule("transformer_blocks").children())
    down, up = (net.get_submodule(name).children() for name in ("down_blocks", "up_blocks"))
    return [*down, net.get_submodule("mid_block"), *up]


def spread(objective: nn.Module, device: torch.device, processes: int, reshard: bool) -> None:
    """Leave each process its part of each weight of an objective and its network, in place.

    A block's weights are gathered when it is called and let go after it, unless not `reshard`. They
    travel in the dtype they are kept in, so the numbers are those of one process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard  # half a second, which only this needs

    for parameter in objective.parameters():
        parameter.data = parameter.data.contiguous()  # a part of a channels_last one is none
    mesh = init_device_mesh(device.type, (processes,))
    for block in blocks(objective.get_submodule("net")):
        fully_shard(block, mesh=mesh, reshard_after_forward=reshard)
    fully_shard(objective, mesh=mesh)  # what is in no block


def is_spread(objective: nn.Module) -> bool:
    """Whether that was done to it."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # else nobody can have spread it
    return fsdp is not None and isinstance(objective, fsdp.FSDPModule)


def _parted(value: Tensor) -> TypeGuard[DTensor]:
    """Whether it is one of the tensors of which this process has a part."""
    parts = sys.modules.get("torch.distributed.tensor")
    return parts is not None and isinstance(value, parts.DTensor)


def whole(value: Tensor) -> Tensor:
    """A tensor with all its parts."""
    return value.full_tensor() if _parted(value) else value


def own(value: Tensor) -> Tensor:
    """The part that this process has; nobody is asked."""
    return value.to_local() if _parted(value) else value


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor of a parameter's shape, on its device, in its memory order, spread like it."""
    if _parted(parameter):
        from torch.distributed.tensor import distribute_tensor

        value = value.to(parameter.device)
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    # `to` would keep the memory order of the value.
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def gathered(
    values: Mapping[str, Tensor], device: torch.device, wanted: bool = True
) -> dict[str, Tensor]:
    """Whole tensors on a device; none where they are not `wanted`."""
    found = {}
    for name, value in values.items():
        # On all processes, also where it is not kept: they exchange their parts.
        full = whole(value.detach())
        if wanted:
            found[name] = full.to(device)
    return found


def gathered_state(
    optimizer: Optimizer, places: Mapping[nn.Parameter, nn.Parameter], wanted: bool
) -> SimpleNamespace:
    """An optimizer's `state` and `param_groups`, whole and in this machine's own memory.

    `places` maps the parameters that it knows to those under which the state is to be found.
    """
    host = torch.device("cpu")
    state: dict[nn.Parameter, dict[str, object]] = {}
    for parameter, place in places.items():
        fields = optimizer.state.get(parameter, {})
        tensors = {name: value for name, value in fields.items() if torch.is_tensor(value)}
        state[place] = {**fields, **gathered(tensors, host, wanted)}
    return SimpleNamespace(state=state, param_groups=optimizer.param_groups)


class Outline(Generic[M]):
    """A module's like, without weights of its own: what others put into it is whole and plain.

    It is taken before the module is spread, and is small: its parameters have no memory.
    """

    def __init__(self, module: M):
        memo: dict[int, object] = {
            id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False)
            for p in module.parameters()
        }
        # The memo has deepcopy take these for the parameters: no weight is copied.
        self.module = copy.deepcopy(module, memo)
        self.empty = dict(self.module.named_parameters())

    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Put values in the place of parameters."""
        self._put({name: nn.Parameter(v, requires_grad=False) for name, v in values.items()})

    def clear(self) -> None:
        """Let go of them."""
        self._put(self.empty)

    def _put(self, parameters: Mapping[str, nn.Parameter]) -> None:
        for name, parameter in parameters.items():
            home, _, last = name.rpartition(".")
            setattr(self.module.get_submodule(home), last, parameter)
