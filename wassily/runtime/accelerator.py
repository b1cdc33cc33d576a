"""Device, precision, processes and trackers. The only file that knows accelerate."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, TypeVar

import accelerate
import torch
from accelerate.utils import (
    DynamoBackend,
    ProjectConfiguration,
    broadcast_object_list,
    parse_flag_from_env,
)
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from wassily.errors import UserError, masked
from wassily.runtime import fsdp, launcher, progress, trackers

T = TypeVar("T")
DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Others wait while one process draws samples or writes a large export.
PATIENCE = timedelta(hours=2)


def quiet_libraries() -> None:
    """No advice and no progress bars of the libraries between ours; their errors still show."""
    import diffusers
    import transformers

    warnings.filterwarnings("ignore", category=FutureWarning, module="(diffusers|transformers)")
    # About the one-token embeddings of the prior; their gradients are a few hundred numbers.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    # Half a second to import, which generating does not need; it reads these when it is loaded.
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if datasets := sys.modules.get("datasets"):
        datasets.utils.logging.set_verbosity_error()
        datasets.disable_progress_bars()
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def process_state() -> accelerate.PartialState:
    """This process's device and rank; the first call joins the others of a launch.

    Raises UserError if a launcher started several processes that do not find each other.
    """
    # Accelerator reads this variable by itself, PartialState does not.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
    launched = os.environ.get("WORLD_SIZE", "several" if _cut_to_one() else "1")
    if launched != "1" and not cpu and not torch.accelerator.is_available():
        # Said before they meet: one that leaves the meeting cuts the others' connections.
        raise _lost(launched)
    state = accelerate.PartialState(cpu=cpu, timeout=PATIENCE, **_meeting())
    if str(state.num_processes) != launched:
        raise _lost(launched)
    if state.device.type == "cpu":
        keep_freed_memory()
    return state


def _meeting() -> dict[str, Any]:
    """Where the processes of one machine meet after a restart, as `init_process_group` takes it.

    The launcher's usual meeting point is the same before and after, and keeps the addresses of the
    processes that were killed: who comes first would call those. Several machines are left alone,
    for they need not have restarted equally often.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts == "0" or os.environ.get("GROUP_WORLD_SIZE") != "1":
        return {}
    store, rank, world = next(rendezvous("env://"))
    mine = torch.distributed.PrefixStore(f"restart-{restarts}", store)
    return {"store": mine, "rank": rank, "world_size": world}


def _lost(launched: str) -> UserError:
    return UserError(
        f"{launched} processes were launched, but each would run alone: on a CPU set "
        "ACCELERATE_USE_CPU=true before `accelerate launch --multi_gpu`"
    )


def _cut_to_one() -> bool:
    """Whether `accelerate launch --cpu --num_processes 2` started this: one process, silently.

    The launcher then names a meeting point and no number of processes. Where there is an
    accelerator a cluster's own settings look the same, and one process may be what was wanted.
    """
    traces = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys()
    return traces and "WORLD_SIZE" not in os.environ and not torch.accelerator.is_available()


def has_accelerator() -> bool:
    """Whether this process computes on anything but a CPU."""
    return process_state().device.type != "cpu"


def _precision(asked: str | None) -> tuple[str, str | None]:
    """The precision to run in, and a line to say if it is not the one asked for."""
    wanted = asked or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if wanted == "fp16" and not has_accelerator():
        return "no", "fp16 needs an accelerator and there is none: computing in fp32"
    return wanted if wanted in DTYPES else "no", None


def _kind(objective: nn.Module) -> str:
    """What a prepared objective exchanges its gradients by; nothing if it stays alone."""
    if fsdp.is_spread(objective):
        return "FSDP2"
    return "DDP" if isinstance(objective, nn.parallel.DistributedDataParallel) else ""


class Runtime:
    """One process of a run, and what it shares with the others."""

    def __init__(
        self,
        mixed_precision: str | None,
        accumulation: int,
        output_dir: str,
        logging_dir: str,
        report_to: str,
    ):
        self.sharded, self.reshards = launcher.sharded(), launcher.reshards()
        process_state()
        precision, remark = _precision(mixed_precision)
        with launcher.unheard():
            self.accelerator = accelerate.Accelerator(
                gradient_accumulation_steps=accumulation,
                mixed_precision=precision,
                log_with=None if report_to == "none" else report_to,
                project_config=ProjectConfiguration(
                    project_dir=output_dir, logging_dir=os.path.join(output_dir, logging_dir)
                ),
            )
        self.precision, self.device = precision, self.accelerator.device
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.main = self.accelerator.is_main_process
        self.compiles = self.accelerator.state.dynamo_plugin.backend != DynamoBackend.NO
        if self.world == 1:
            launcher.got(self.sharded, "", 1)
        self.weight_dtype = DTYPES[precision]
        self.hosts = torch.distributed.new_group(backend="gloo") if self.world > 1 else None
        quiet_libraries()
        if remark:
            self.say(remark)

    # -- processes

    def say(self, line: str) -> None:
        """Print a line once, without cutting through the progress bar."""
        if self.main:
            progress.write(masked(line))

    def let_go(self) -> None:
        """Give back the memory of networks that nothing names any more."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()

    def shared(self, make: Callable[[], T]) -> T:
        """What the first process made, on all of them; its UserError is raised on all too."""
        box: list[Any] = [None, None]
        if self.main:
            try:
                box = [make(), None]
            except UserError as error:
                box = [None, str(error)]
        if self.world > 1:
            broadcast_object_list(box)
        if box[1] is not None:
            raise UserError(box[1])
        return box[0]

    def shares(self) -> list[slice]:
        """Which of the items to do are this process's, round by round.

        One round over all processes; where there are several machines a second one over those of
        each, which finds nothing left if they share their disk and everything else if not.
        """
        whole = [slice(self.rank, None, self.world)]
        local = int(os.environ.get("LOCAL_WORLD_SIZE", self.world))
        if local == self.world:
            return whole
        return [*whole, slice(self.accelerator.local_process_index, None, local)]

    def gathered(self, found: dict[int, T]) -> dict[int, T]:
        """The union of what each process found."""
        parts = accelerate.utils.gather_object([found]) if self.world > 1 else [found]
        return {key: value for part in parts for key, value in part.items()}

    def most(self, *numbers: int) -> list[int]:
        """Each number's highest over the processes. Hosts meet; no device is waited for."""
        if self.world == 1:
            return list(numbers)
        box = torch.tensor(numbers)
        torch.distributed.all_reduce(box, torch.distributed.ReduceOp.MAX, group=self.hosts)
        return [int(number) for number in box.tolist()]

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes, without waiting for the device."""
        return self.accelerator.reduce(value, "mean") if self.world > 1 else value

    # -- the step

    def prepare(
        self, objective: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Both wrapped for the device, the precision and the processes.

        The optimizer's state is left where it is: its parameters are on the device already. What is
        spread over the processes is only given its precision. Raises UserError if FSDP2 was asked
        for and is not there.
        """
        if fsdp.is_spread(objective):
            objective = self.accelerator.prepare_model(
                objective, device_placement=False, evaluation_mode=True
            )
            optimizer = self.accelerator.prepare_optimizer(optimizer, device_placement=False)
        else:
            prepared = self.accelerator.prepare(
                objective, optimizer, device_placement=[True, False]
            )
            objective, optimizer = prepared
        self.engine = launcher.got(self.sharded, _kind(objective), self.world)
        return objective, optimizer

    def accumulate_over(self, count: int) -> None:
        """A step is of so many micro-batches from now on."""
        self.accelerator.gradient_accumulation_steps = count

    def accumulate(self, objective: nn.Module) -> AbstractContextManager[None]:
        """A context for one micro-batch: gradients are exchanged only with the last of a step."""
        return self.accelerator.accumulate(objective)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a micro-batch's mean loss, divided by the accumulation."""
        self.accelerator.backward(loss)

    def clip(self, parameters: list[nn.Parameter], most: float) -> Tensor | None:
        """Scale the gradient down to a norm of at most `most` (0: leave it as it is); what the norm
        was, (), unless a loss scaler judges it, or there is no gradient any more.
        """
        norm: Tensor | None = None
        if most:
            norm = self.accelerator.clip_grad_norm_(parameters, most)
        if getattr(self.accelerator, "scaler", None) is not None:
            return None
        gradients = [p.grad for p in parameters if p.grad is not None]
        if norm is None and gradients:
            norm = nn.utils.get_total_norm(gradients)
        return None if norm is None else fsdp.whole(norm)

    def to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors on this process's device, copied while it computes if they are pinned."""
        return {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}

    def scaler_state(self) -> dict[str, Any] | None:
        """The fp16 loss scaler's numbers, if there is one."""
        scaler = getattr(self.accelerator, "scaler", None)
        return scaler.state_dict() if scaler is not None else None

    def load_scaler(self, state: dict[str, Any] | None) -> None:
        """Put a saved state back into the fp16 loss scaler."""
        scaler = getattr(self.accelerator, "scaler", None)
        if scaler is not None and state:
            scaler.load_state_dict(state)

    # -- trackers

    def start_trackers(self, project: str, config: Mapping[str, object]) -> None:
        """Open the trackers with the config as plain values."""
        if not self.accelerator.log_with:
            return
        plain = {
            k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in config.items()
        }
        with trackers.without_words():
            self.accelerator.init_trackers(project, plain)

    def log(self, values: dict[str, float], step: int) -> None:
        """Send numbers to the trackers."""
        if self.accelerator.log_with:
            self.accelerator.log(values, step=step)

    def log_images(
        self, name: str, pictures: Sequence[object], captions: list[str], step: int
    ) -> None:
        """Send pictures with their captions to every tracker that can take them."""
        for tracker in self.accelerator.trackers:
            if not trackers.show(tracker, name, pictures, captions, step):
                self.say(f"{tracker.name} takes no pictures: they are in the output folder only")

    def end(self) -> None:
        """Close trackers and processes."""
        self.accelerator.end_training()


# ---------------------------------------------------------------- settings


def tracker_missing(report_to: str, known: tuple[str, ...]) -> str | None:
    """The package a tracker lacks, or None."""
    if report_to in known and importlib.util.find_spec(report_to) is None:
        return report_to
    return None


def keep_freed_memory() -> None:
    """Have glibc keep freed buffers instead of giving them back to the system at every step.

    On a CPU every step frees and takes the same large tensors, whose pages would be mapped anew.
    Nothing happens with another C library.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # mallopt(3)
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 256 * 2**20)):
            mallopt(option, value)


def allow_tf32() -> None:
    """TF32 for fp32 matrix products and convolutions on Ampere and newer."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
