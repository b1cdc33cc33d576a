"""Forward and backward of a micro-batch as one CUDA graph, on an NVIDIA GPU.

A small batch leaves a GPU waiting for the thousands of kernels that Python starts one by one. A
graph is recorded once and starts all of them at once: the same kernels on the same numbers, so the
same results. The optimizer's step is not in it.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wassily.config.training import TrainConfig
from wassily.errors import UserError
from wassily.maths.losses import Batch
from wassily.models.trainable import has_dropout
from wassily.runtime.accelerator import Runtime
from wassily.training.loop import Pass

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE

ORDINARY = 3  # passes of a shape before it is recorded: libraries make their choices in them
MOST = 8  # shapes; what comes in another one is computed in the ordinary way
# Pictures of a micro-batch up to which it pays: a larger prior keeps the GPU busy by itself, and is
# better off without the padding that keeps the shapes few.
SMALL = {"prior": 64, "decoder": 32}


# ---------------------------------------------------------------- whether


def check(config: TrainConfig, runtime: Runtime) -> None:
    """Raise UserError if graphs are asked for where there are none."""
    if config.cuda_graphs == "on" and (why := _against(config, runtime)):
        raise UserError(f"--cuda_graphs on does not go {why}; leave it out")


def _against(config: TrainConfig, runtime: Runtime) -> str | None:
    """What speaks against graphs, to be read after "does not go"."""
    device = runtime.device
    reasons = {
        f"on device {device}: an NVIDIA GPU has them": device.type != "cuda",
        "on ROCm: it was never tried": device.type == "cuda" and not torch.version.cuda,
        f"on {runtime.world} processes: they exchange gradients meanwhile": runtime.world > 1,
        "with FSDP2: it gathers weights meanwhile": runtime.sharded,
        "with a compiler: it was never tried": config.compile or runtime.compiles,
        "with --gradient_release: the rate of the recording would stay": config.gradient_release,
        "with xFormers: it was never tried": config.enable_xformers_memory_efficient_attention,
        "with --lora_dropout and --gradient_checkpointing: a graph does not drop the same twice": (
            bool(config.lora and config.lora_dropout and config.gradient_checkpointing)
        ),
    }
    return next((why for why, holds in reasons.items() if holds), None)


def wanted(config: TrainConfig, objective: nn.Module, runtime: Runtime, size: int) -> bool:
    """Whether the micro-batches of a training, of `size` images, are run as graphs; said if so."""
    small = config.cuda_graphs == "on" or size <= SMALL[config.role]
    twice = config.gradient_checkpointing and has_dropout(
        objective
    )  # a base with dropout of its own
    if config.cuda_graphs == "off" or not small or twice or _against(config, runtime):
        return False
    runtime.say("forward and backward as a CUDA graph; --cuda_graphs off starts kernels singly")
    return True


# ---------------------------------------------------------------- how


def forward_backward(objective: nn.Module, runtime: Runtime) -> Pass:
    """What is recorded: a micro-batch forward and backward, as the loop has it."""

    def run(batch: Batch, noise: Tensor, t: Tensor) -> Tensor:
        loss = objective(batch, noise, t).mean()
        runtime.backward(loss)
        return loss.detach()

    return run


class Recorded:
    """The same, launched as a graph from the fourth time on that a shape is seen.

    The gradients lie where the first graph left them; every graph writes them anew or adds to them.
    `zero_grad(set_to_none=True)` takes them from the parameters, and a replay gives them back.
    """

    def __init__(
        self,
        plain: Pass,
        objective: nn.Module,
        trained: list[nn.Parameter],
        even: Callable[[Batch], Batch],
        runtime: Runtime,
    ):
        """`plain` is what is recorded: an `objective` forward and backward. `even` maps a batch to
        one of fewer shapes, without a change of the loss.
        """
        self.plain, self.objective, self.trained, self.even = plain, objective, trained, even
        self.runtime, self.memory = runtime, Memory(runtime.device)
        self.most = MOST
        self.seen: Counter[Hashable] = Counter()
        self.graphs: dict[Hashable, Graph] = {}
        self.gradients: list[Tensor | None] = []

    def __call__(self, batch: Batch, noise: Tensor, t: Tensor) -> Tensor:
        """The mean loss, (); its gradient is added to that of the parameters."""
        given = {**self.even(batch), "noise": noise, "t": t}
        # The first micro-batch of a step writes gradients, the others add to them: two graphs.
        first = self.trained[0].grad is None
        key = first, *((name, value.shape, value.dtype) for name, value in sorted(given.items()))
        self.seen[key] += 1
        # A further micro-batch adds to the gradients of a graph only if they are the graphs'.
        fits = first or (bool(self.gradients) and self.trained[0].grad is self.gradients[0])
        new = fits and key not in self.graphs and self.seen[key] > ORDINARY
        if new and len(self.graphs) < self.most:
            self._record(key, given, first)
            # Recording has drawn random numbers: dropout begins where an ordinary pass would.
            torch.manual_seed(torch.initial_seed())
        if not fits or key not in self.graphs:
            return self._plain(given, first)
        loss = self.graphs[key].replay(given)
        self._give(self.gradients)
        return loss

    def let_go(self) -> None:
        """Free the memory of the graphs: drawing needs it. They are recorded again when needed."""
        self.graphs.clear()
        self.gradients.clear()

    def _plain(self, given: Batch, first: bool) -> Tensor:
        """In the ordinary way; without the graphs from then on, if they leave too little memory."""
        try:
            with self.memory.watched():
                return self._run(given)
        except torch.OutOfMemoryError:
            # Gradients of earlier micro-batches would be lost; or there is nothing to free.
            if not first or not self.graphs:
                raise
        self.let_go()
        self._stop("there is too little memory beside them")
        torch.manual_seed(torch.initial_seed())
        return self._run(given)

    def _run(self, given: Batch) -> Tensor:
        batch = dict(given)
        return self.plain(batch, batch.pop("noise"), batch.pop("t"))

    def _give(self, gradients: list[Tensor | None]) -> None:
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            parameter.grad = gradient

    def _stop(self, why: str) -> None:
        """Record no more; a first micro-batch begins anew."""
        self.most = 0
        self.runtime.say(f"going on without CUDA graphs: {why}")
        self._give([None] * len(self.trained))

    def _record(self, key: Hashable, given: Batch, first: bool) -> None:
        """Add a graph, unless it cannot be done: then none is used any more."""
        if first and not self.memory.room():
            self._stop("they would leave too little memory")
            return
        before = [parameter.grad for parameter in self.trained]
        # For a comparison with the first replay: a recording that is wrong raises no error.
        expected = self._loss(given)
        anew = [g for g in self.gradients if g is not None] if first else []
        pool = next(iter(self.graphs.values())).pool if self.graphs else None
        if self.gradients:
            self._give(self.gradients)
        try:
            graph = Graph(self._run, given, anew, pool, self.runtime.device)
        except RuntimeError as error:  # too little memory, or an operation that waits for the host
            if "DataLoader worker" in str(error):  # a signal, which came just then
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
            self.let_go()
            self._stop(reason)
            self._give(before)
            return
        gradients = [parameter.grad for parameter in self.trained]
        if first:
            found = graph.replay(given)
            if not torch.isclose(found, expected, rtol=0.01, equal_nan=True):
                self.let_go()
                self._stop(f"the loss of one is {found:.4g}, and should be {expected:.4g}")
                return
        self.graphs[key], self.gradients = graph, gradients

    @torch.no_grad()
    def _loss(self, given: Batch) -> Tensor:
        """Of an ordinary pass, with the seed that the next one begins with, too."""
        batch = dict(given)
        loss = self.objective(batch, batch.pop("noise"), batch.pop("t")).mean()
        torch.manual_seed(torch.initial_seed())
        return loss


class Memory:
    """What ordinary passes take of a GPU, in bytes."""

    def __init__(self, device: torch.device):
        self.device, self.most = device, 0

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """A pass runs inside."""
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        yield
        self.most = max(self.most, torch.cuda.max_memory_allocated(self.device) - before)

    def room(self) -> bool:
        """Whether a pass fits beside a graph, which holds as much as one takes: what comes in
        another shape is computed so.
        """
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return 2 * self.most <= torch.cuda.mem_get_info(self.device)[0] + cached


class Graph:
    """One graph, with the places that it reads from and writes to."""

    def __init__(
        self,
        work: Callable[[Batch], Tensor],
        given: Batch,
        anew: list[Tensor],
        pool: _POOL_HANDLE | None,
        device: torch.device,
    ):
        """Record `work`; the tensors `anew` begin with zero. `pool` is another graph's memory:
        graphs that run one after the other, and whose results are used up before the next, share.
        """
        self.given = {name: value.clone() for name, value in given.items()}
        self.device = device
        with torch.cuda.device(device):
            self.graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
            # Other threads go on meanwhile: one of them pins the memory of batches to come.
            try:
                with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):
                    if anew:
                        torch._foreach_zero_(anew)
                    self.loss = work(self.given)
            finally:
                torch.cuda.set_stream(stream)  # a recording that breaks off leaves its own
        self.pool = self.graph.pool()
        self.loss.fill_(float("nan"))  # what a replay writes is seen to be written

    def replay(self, given: Batch) -> Tensor:
        """Run it on these tensors; a copy of the loss, for the next replay writes there, too."""
        torch._foreach_copy_(list(self.given.values()), [given[name] for name in self.given])
        with torch.cuda.device(self.device):
            self.graph.replay()
        return self.loss.clone()
