"""The memory of a training by kind, from its tensors' sizes alone. Pure.

The passes run on fake tensors: shapes and dtypes without storage, so a network of billions of
weights is measured in seconds and before any of them is loaded. What lives at once is counted
storage by storage, through the forward and the backward pass; so views, recomputed blocks and the
16-bit copies of autocast come out as they are. What a GPU takes besides tensors is not known from
shapes: `overhead` assumes it.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Kinds = Counter[str]  # name of a kind -> bytes
CONTEXT, FRAGMENTS = 600_000_000, 0.05  # assumed: CUDA's own, libraries' workspace; gaps


@contextlib.contextmanager
def fake() -> Iterator[None]:
    """Inside, new tensors have a shape, a dtype and no storage."""
    # On the CPU's name: its attention keeps what a GPU's memory-efficient one keeps.
    with FakeTensorMode(), torch.device("cpu"):
        yield


def placed(net: nn.Module) -> nn.Module:
    """A network of the device "meta" with fake weights: those can be computed with."""
    for module in net.modules():
        for name, p in module.named_parameters(recurse=False):
            made = torch.empty(p.shape, dtype=p.dtype)
            setattr(module, name, nn.Parameter(made, requires_grad=p.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
    return net


class _FullNorms(TorchFunctionMode):
    """Norms in fp32, as autocast has them on a GPU and not on a CPU."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func in (torch.layer_norm, torch.group_norm):
            args = tuple(a.float() if isinstance(a, Tensor) else a for a in args)
        return func(*args, **(kwargs or {}))


class Live(TorchDispatchMode):
    """Bytes of all storages that operations made and that are still alive, by kind.

    `known` tensors (weights, the batch) are not counted. A new storage is `workspace` until it is
    named otherwise; `fullest` is the count when it was largest.
    """

    def __init__(self, known: Iterable[Tensor]):
        super().__init__()
        self.now, self.fullest = Kinds(), Kinds()
        self._known = {_storage(tensor) for tensor in known}
        self._alive: dict[int, tuple[weakref.ref[torch.UntypedStorage], str, int]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return made

    def _add(self, tensor: Tensor) -> None:
        key, storage = _storage(tensor), tensor.untyped_storage()
        if key in self._known or key in self._alive:
            return
        self._alive[key] = (weakref.ref(storage, lambda _: self._drop(key)), "workspace", 0)
        self._name(key, "workspace", storage.nbytes())
        if self.now.total() > self.fullest.total():
            self.fullest = self.now.copy()

    def _drop(self, key: int) -> None:
        _, kind, size = self._alive.pop(key)
        self.now[kind] -= size

    def _name(self, key: int, kind: str, size: int) -> None:
        reference, before, old = self._alive[key]
        self.now[before] -= old
        self.now[kind] += size
        self._alive[key] = (reference, kind, size)

    def keep(self) -> None:
        """What is alive now are activations, and were so when memory was fullest before."""
        kept = self.now["workspace"]
        for key, (_, _, size) in list(self._alive.items()):
            self._name(key, "activations", size)
        self.fullest += Kinds({"activations": kept})
        self.fullest["workspace"] -= kept

    def name(self, tensor: Tensor, kind: str) -> None:
        """This tensor's storage is of this kind from now on."""
        key = _storage(tensor)
        self._name(key, kind, self._alive[key][2])

    def forget(self, tensor: Tensor) -> None:
        """This tensor's storage is counted elsewhere from now on."""
        key = _storage(tensor)
        self._drop(key)
        self._known.add(key)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """What tensors take, each by itself."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


# ---------------------------------------------------------------- the passes


def step(
    objective: nn.Module,
    batch: Mapping[str, Tensor],
    noise: Tensor,
    t: Tensor,
    *,
    reduced: bool = False,
    held: bool = False,
    release: bool = False,
) -> Kinds:
    """Gradients, activations and workspace at the fullest moment of one forward and backward pass.

    `reduced` computes in 16 bits (autocast); `held` has the gradients of earlier micro-batches
    there; `release` lets each gradient go as soon as it is made.
    """
    trained = [p for p in objective.parameters() if p.requires_grad]
    known = [*objective.parameters(), *objective.buffers(), *batch.values(), noise, t]
    live = Live(known)
    if held:
        live.now["gradients"] = bytes_of(trained)

    def accumulated(parameter: Tensor) -> None:
        assert parameter.grad is not None
        if held:
            live.forget(parameter.grad)
        else:
            live.name(parameter.grad, "gradients")
        if release:
            parameter.grad = None

    hooks = [p.register_post_accumulate_grad_hook(accumulated) for p in trained]
    with live:
        norms = _FullNorms() if reduced else contextlib.nullcontext()
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced), norms:
            loss = objective(batch, noise, t).mean()
        live.keep()
        loss.backward()
    for hook in hooks:
        hook.remove()
    for parameter in trained:
        parameter.grad = None
    return +live.fullest


@torch.no_grad()
def forward(network: nn.Module, run: Callable[[], object]) -> int:
    """Bytes at the fullest moment of a pass through a frozen network, without its weights."""
    live = Live([*network.parameters(), *network.buffers()])
    with live:
        run()
    return int(live.fullest.total())


# ---------------------------------------------------------------- besides the passes


def state_bytes(optimizer: str, trained: Iterable[Tensor]) -> int:
    """What an optimizer keeps for a trained list, in the weights' dtype.

    AdamW has two moments, with 8 bits a byte each and one fp32 scale for 256 of them; Lion has one;
    Adafactor a row and a column of each matrix. 16-bit weights have what rounding lost beside them.
    """
    return sum(_state_bytes(optimizer, p) for p in trained)


def _state_bytes(optimizer: str, p: Tensor) -> int:
    lost = p.numel() * p.element_size() if p.element_size() == 2 else 0
    if optimizer == "adamw8bit":
        return 2 * (p.numel() + p.numel() // 64)
    if optimizer == "adafactor" and p.ndim > 1:
        *others, rows, columns = p.shape
        return p.element_size() * math.prod(others) * (rows + columns)
    moments = 2 if optimizer == "adamw" else 1
    return moments * p.numel() * p.element_size() + lost


@torch.no_grad()
def bound(objective: nn.Module, batch: Mapping[str, Tensor], noise: Tensor, t: Tensor) -> int:
    """Bytes that a training step stays below, all told; on tensors of the device "meta".

    A layer keeps no more than its input and its output, and its gradients are no more than those:
    twice the sum over all layers. A weight has a gradient, two moments, an average, and a copy.
    """
    maps = 0

    def seen(layer: nn.Module, given: object, made: object) -> None:
        nonlocal maps
        maps += sum(x.numel() for x in tree_leaves((given, made)) if isinstance(x, Tensor))

    layers = [module for module in objective.modules() if not list(module.children())]
    hooks = [layer.register_forward_hook(seen) for layer in layers]
    objective(batch, noise, t)
    for hook in hooks:
        hook.remove()
    tensors = 4 * (6 * sum(p.numel() for p in objective.parameters()) + 2 * maps)
    return tensors + overhead(tensors)


def overhead(tensors: int) -> int:
    """What a GPU takes besides the tensors of this many bytes: an assumption, not a measurement."""
    return int(CONTEXT + FRAGMENTS * tensors)


# ---------------------------------------------------------------- this machine


def available() -> int | None:
    """Bytes of main memory that this process may still take; None where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        free = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):
        limit = int((group / "memory.max").read_text("ascii"))
        free = min(free, limit - int((group / "memory.current").read_text("ascii")))
    return free
