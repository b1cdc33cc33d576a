"""Milliseconds of an optimizer step alone, with random weights and encodings, in one process.

python -m benchmarks.step_speed --size full --networks prior decoder

No data is read and nothing is written, so that many ways are tried in a few minutes of a GPU. The
loop is the one of a training; what is timed are its last steps, between two waits for the
device.
"""

from __future__ import annotations

import argparse
import functools
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.autograd import DeviceType
from torch.profiler import profile

from benchmarks import flops, models, report
from wassily.config import parsing
from wassily.config.training import TrainConfig
from wassily.maths.ema import NoEma
from wassily.maths.losses import Batch
from wassily.mini import untrained
from wassily.models import adapters
from wassily.models.trainable import Trainable, make_trainable
from wassily.runtime import compile
from wassily.runtime.accelerator import Runtime
from wassily.training import cuda_graphs, optimizers
from wassily.training.loop import Events, Learner, Pending, Span, fit

HEAD = ("", "flags", "batch", "ms a step", "pictures/s", "MFU", "peak, GB", "loss", "to the first")
HALF = "--mixed_precision bf16 --weights_dtype bf16"
OFF = "--cuda_graphs off"
WAYS = {
    "prior": {
        "the guide's": (4, "--mixed_precision fp16"),
        "the guide's, no graphs": (4, f"--mixed_precision fp16 {OFF}"),
        "compiled": (4, "--mixed_precision fp16 --compile"),
        "x 512": (512, HALF),
        "x 512, compiled": (512, f"{HALF} --compile"),
        "x 1024, compiled": (1024, f"{HALF} --compile"),
    },
    "decoder": {
        "the guide's": (4, "--mixed_precision fp16 --gradient_checkpointing"),
        "the guide's, no graphs": (4, f"--mixed_precision fp16 --gradient_checkpointing {OFF}"),
        "without recomputing": (4, "--mixed_precision fp16"),
        "without recomputing, no graphs": (4, f"--mixed_precision fp16 {OFF}"),
        "without recomputing, compiled": (4, "--mixed_precision fp16 --compile"),
        "x 16": (16, HALF),
        "x 16, no graphs": (16, f"{HALF} {OFF}"),
        "x 16, compiled": (16, f"{HALF} --compile"),
    },
}


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--size", choices=models.SIZES, default="small")
    add("--networks", choices=WAYS, default=list(WAYS), nargs="+")
    add("--resolution", type=int, default=768)
    add("--tokens", type=int, nargs=2, default=(6, 16), help="the least and the most of a caption")
    add("--steps", type=int, default=30, help="of which the second half is timed")
    add("--ways", nargs="+", metavar="NAME", help="these alone, by the beginnings of their names")
    add("--profile", nargs="*", default=[], metavar="NAME", help="ways whose kernels are listed")
    add("--seconds", type=float, default=1e9, help="no way begins after them")
    add("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    return parser.parse_args(words)


def configured(role: str, flags: str, resolution: int) -> TrainConfig:
    """A training's config for some flags."""
    words = (
        f"--dataset_name a/b --output_dir none --report_to none --resolution {resolution} {flags}"
    )
    config: TrainConfig = parsing.parse(f"{role.capitalize()}Config", words.split(), "step_speed")
    return config


def built(config: TrainConfig, size: models.Size, device: torch.device) -> Trainable:
    """The network with random weights behind its objective, on the device."""
    torch.manual_seed(0)
    stock = {"prior": models.prior, "unet": models.unet}

    def load(role: str, *where: Any, **options: Any) -> Any:
        if role == "scheduler":
            return untrained.decoder_scheduler()
        with torch.device(device):
            return stock[role](size)

    factor = 2 ** (len(size.movq) - 1)
    with mock.patch("wassily.models.trainable.latent_factor", lambda *where: factor):
        trainable = make_trainable(config, {"prior": "", "decoder": ""}, load)
    adapters.keep_as(adapters.trained_parameters(trainable.net), config.weights_dtype)
    trainable.objective.to(device)
    return trainable


def encodings(
    config: TrainConfig,
    trainable: Trainable,
    size: models.Size,
    count: int,
    tokens: tuple[int, int],
) -> Iterator[Batch]:
    """Random batches without end, as pinned memory gives them."""
    draw = torch.Generator().manual_seed(1)
    pinned = torch.cuda.is_available()
    shape = trainable.noise_shape((config.resolution, config.resolution))
    batches = []
    for _ in range(8):
        lengths = torch.randint(tokens[0], tokens[1] + 1, (count,), generator=draw)
        longest = int(lengths.max())
        batch = {"image_embeds": torch.randn(count, size.embedding, generator=draw)}
        if config.role == "prior":
            batch["text_embeds"] = torch.randn(count, size.embedding, generator=draw)
            batch["text_states"] = torch.randn(count, longest, size.text[0], generator=draw)
            batch["text_mask"] = torch.arange(longest)[None] < lengths[:, None]
        else:
            batch["latents"] = torch.randn(count, *shape, generator=draw)
        batch["noise"] = torch.randn(count, *shape, generator=draw)
        batch["t"] = torch.randint(1000, (count,), generator=draw)
        batches.append({k: v.pin_memory() if pinned else v for k, v in batch.items()})
    while True:
        yield from batches


class Clock:
    """Passes batches on; waits for the device before the steps that are timed and after them."""

    def __init__(self, batches: Iterator[Batch], runtime: Runtime, steps: int, profiled: bool):
        self.batches, self.runtime, self.steps = batches, runtime, steps
        self.seen = profile(activities=report.activities())
        self.profiled, self.kernels = profiled, ""
        self.launched, self.first, self.began, self.took = time.perf_counter(), 0.0, 0.0, 0.0

    def __iter__(self) -> Iterator[Batch]:
        timed = self.steps // 2
        for number, batch in enumerate(self.batches):
            if number == 1:
                self.first = self.now() - self.launched
            if number == self.steps - timed:
                self.began = self.now()
            if number == self.steps:
                self.took = (self.now() - self.began) / timed
                if self.profiled:
                    self.seen.start()
            if self.profiled and number == self.steps + 3:
                self.now()
                self.seen.stop()
                self.kernels = kernels(self.seen, 3)
            yield self.runtime.to_device(batch)

    def now(self) -> float:
        """A time at which the device has done all it was given."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def kernels(seen: Any, steps: int) -> str:
    """The kernels that take most of a step."""
    found: dict[str, list[float]] = {}
    for event in seen.events():
        if event.device_type == DeviceType.CUDA and "#" not in event.name:  # no annotation
            found.setdefault(event.name, []).append(event.time_range.elapsed_us() / 1000)
    busy = sum(map(sum, found.values())) / steps
    lines = [f"busy {busy:.1f} ms a step, {sum(map(len, found.values())) / steps:.0f} kernels"]
    for name, times in sorted(found.items(), key=lambda item: -sum(item[1]))[:22]:
        each, often = sum(times) / steps, len(times) / steps
        lines.append(f"{each:8.2f} ms {often:7.1f} x  {name[:130]}")
    return "\n".join(lines)


def measured(
    config: TrainConfig, args: argparse.Namespace, count: int, profiled: bool
) -> tuple[Clock, float, float]:
    """The clock of one run of the loop, the last loss, and the peak of the allocator in bytes."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    PartialState._reset_state()
    runtime = Runtime(config.mixed_precision, 1, "none", "logs", "none")
    size, losses = models.SIZES[args.size], {}
    trainable = built(config, size, runtime.device)
    trained = list(adapters.trained_parameters(trainable.net).values())
    optimizer = optimizers.optimizer(config, trained, runtime.device)
    objective, optimizer = runtime.prepare(trainable.objective, optimizer)
    if config.compile:
        compile.compile_in_place(trainable.net)
    recorded = None
    if cuda_graphs.wanted(config, objective, runtime, count):
        plain = cuda_graphs.forward_backward(objective, runtime)
        recorded = cuda_graphs.Recorded(plain, objective, trained, trainable.even, runtime)
    clock = Clock(
        encodings(config, trainable, size, count, args.tokens), runtime, args.steps, profiled
    )
    stop, never = args.steps + (4 if profiled else 1), lambda done: False
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    fit(
        Learner(
            objective=objective,
            trained=trained,
            optimizer=optimizer,
            learning_rate=lambda step: 1e-5,
            max_grad_norm=1.0,
            ema=NoEma(),
            recorded=recorded,
        ),
        iter(clock),
        span=Span(0, stop, 1, 0, count),
        events=Events(
            log_every=10**9,
            on_log=lambda done, values: losses.update(values),
            save_at=never,
            on_save=lambda done, pending: None,
            stop_at=never,
            on_skipped=lambda steps: None,
            validate_at=never,
            on_validate=never,
        ),
        runtime=runtime,
        pending=Pending(torch.zeros((), device=runtime.device)),
    )
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return clock, losses["train_loss"], peak


@functools.cache
def of_a_picture(size: str, resolution: int) -> int:
    """FLOPs of the decoder."""
    return flops.decoder(models.SIZES[size], resolution)


def work_of(role: str, args: argparse.Namespace, count: int) -> float:
    """FLOPs of a batch, without padding."""
    if role == "decoder":
        return count * of_a_picture(args.size, args.resolution)
    lengths = list(range(args.tokens[0], args.tokens[1] + 1))
    return flops.prior(models.SIZES[args.size], flops.longest(lengths, count), count)


def row(role: str, name: str, args: argparse.Namespace, rate: float) -> tuple[list[str], str]:
    """The cells of one way, and its kernels."""
    count, flags = WAYS[role][name]
    config = configured(role, flags, args.resolution)
    label = f"{role}, {name}"
    clock, loss, peak = measured(config, args, count, any(map(label.startswith, args.profile)))
    used = work_of(role, args, count) / clock.took / rate
    times = [f"{1000 * clock.took:.1f}", f"{count / clock.took:.1f}", f"{used:.0%}"]
    cells = [label, f"`{flags}`", str(count), *times, f"{peak / 1e9:.1f}", f"{loss:.5f}"]
    return [*cells, f"{clock.first:.1f} s"], clock.kernels


def main(words: list[str] | None = None) -> Path:
    """Every way of each network; the page is written anew after each."""
    args, rows, extra, began = options(words), [], [], time.monotonic()
    device = report.device()
    rate = flops.product_rate(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    about = (
        f"Size `{args.size}`, decoder at {args.resolution} px, captions of {args.tokens[0]} to "
        f"{args.tokens[1]} tokens. One optimizer step, data there already: the second half of "
        f"{args.steps} steps. MFU: beside a matrix product of {rate / 1e12:.0f} TFLOP/s. Loss: the "
        "mean of all steps, from the same weights, noise and pictures."
    )
    path = args.results
    for role in args.networks:
        for name in WAYS[role]:
            chosen = not args.ways or any(map(name.startswith, args.ways))
            if not chosen or time.monotonic() - began > args.seconds:
                continue
            try:
                cells, found = row(role, name, args, rate)
            except Exception as error:  # the others are worth having
                cells, found = [f"{role}, {name}", str(error)[-900:], *[""] * 7], ""
            print(time.monotonic() - began, *cells, found, sep="\n  ", flush=True)
            rows.append(cells)
            extra += [f"{role}, {name}:\n\n```\n{found}\n```"] if found else []
            gc.collect()
            torch.cuda.empty_cache()
            torch._dynamo.reset()
            parts = [about, report.table(HEAD, rows), *extra]
            path = report.write("step-speed", "Speed of a step", parts, args.results)
    return path


if __name__ == "__main__":
    main()
