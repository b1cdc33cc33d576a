"""Training steps a second on a machine where other programs compute, by how threads wait.

python -m benchmarks.busy --repeats 5

One process for each way of waiting trains the decoder of `mini` in windows of a few seconds, by
turns, alone and then with programs of two busy threads each on the same processor.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import report
from benchmarks.runs import ROOT

# Threads of hashlib compute without Python's lock, and wait for nobody.
COMPETITOR = """
import hashlib, threading
def spin():
    while True: hashlib.sha256(bytes(1 << 20))
for _ in range(2): threading.Thread(target=spin).start()
"""
TRAIN = "from benchmarks import busy; busy.train()"
# Name -> what the environment says, and what is imported first: torch reads it when it is loaded.
WAYS: dict[str, tuple[dict[str, str], str]] = {
    "OpenMP's default": ({}, "torch"),
    "wassily": ({}, "wassily"),
    "OMP_WAIT_POLICY=passive": ({"OMP_WAIT_POLICY": "passive"}, "torch"),
    **{
        f"GOMP_SPINCOUNT={count}": ({"GOMP_SPINCOUNT": str(count)}, "torch")
        for count in (0, 100, 1000, 10_000, 100_000)
    },
    "OMP_NUM_THREADS=1": ({"OMP_NUM_THREADS": "1"}, "torch"),
}
OURS = ("OMP_", "GOMP_", "KMP_", "MKL_")  # a user's settings would be those of every way
HEAD = ("", "competitors", "steps/s", "of the default alone", "of itself alone", "processor s/step")


class Window(NamedTuple):
    """What a trainer did in a few seconds; `processor` seconds of all its threads."""

    steps: int
    seconds: float
    processor: float

    @property
    def rate(self) -> float:
        """Steps a second."""
        return self.steps / self.seconds


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--ways", choices=WAYS, default=list(WAYS), nargs="+")
    add("--competitors", type=int, default=[0, 1, 2], nargs="+")
    add("--repeats", type=int, default=5)
    add("--seconds", type=float, default=4.0, help="of a window")
    add("--batch", type=int, default=16)
    add("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    return parser.parse_args(words)


def train() -> None:
    """Steps of the decoder of `mini` for as many seconds as each line of the input says."""
    import torch

    from wassily.config import parsing
    from wassily.models import names
    from wassily.models.trainable import make_trainable
    from wassily.runtime import accelerator
    from wassily.training import optimizers

    words = "--dataset_name a/b --output_dir none --report_to none --resolution 64".split()
    config = parsing.parse("DecoderConfig", words, "busy")
    trainable = make_trainable(config, names.repositories("mini", "mini"))
    parameters = [p.requires_grad_(True) for p in trainable.net.parameters()]
    optimizer = optimizers.optimizer(config, parameters, torch.device("cpu"))
    accelerator.keep_freed_memory()
    batch, shape = int(sys.argv[1]), trainable.noise_shape((64, 64))
    noise, t = torch.randn(batch, *shape), torch.randint(1000, (batch,))
    width = trainable.net.config.encoder_hid_dim
    given = {"latents": torch.randn(batch, *shape), "image_embeds": torch.randn(batch, width)}
    for line in sys.stdin:
        began, processor, steps = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < float(line):
            trainable.objective(given, noise, t).mean().backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            steps += 1
        took = (time.perf_counter() - began, time.process_time() - processor)
        print(json.dumps(Window(steps, *took)), flush=True)


@contextlib.contextmanager
def trainer(way: str, batch: int) -> Iterator[subprocess.Popen[str]]:
    """A process that trains as told, and waits in between; warm."""
    settings, first = WAYS[way]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    process = subprocess.Popen(
        [sys.executable, "-c", f"import {first}, torch; {TRAIN}", str(batch)],
        env={**kept, **settings, "HF_HUB_OFFLINE": "1"},
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        window(process, 1.0)
        yield process
    finally:
        process.kill()
        process.wait()


def window(process: subprocess.Popen[str], seconds: float) -> Window:
    """What a trainer does within so many seconds."""
    assert process.stdin and process.stdout
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    return Window(*json.loads(process.stdout.readline()))


@contextlib.contextmanager
def competitors(count: int) -> Iterator[None]:
    """Within, so many programs of two busy threads run."""
    running = [subprocess.Popen([sys.executable, "-S", "-c", COMPETITOR]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measured(args: argparse.Namespace) -> dict[tuple[str, int], list[Window]]:
    """The windows of each way and number of competitors, by turns."""
    found: dict[tuple[str, int], list[Window]] = {}
    with contextlib.ExitStack() as held:
        trainers = {way: held.enter_context(trainer(way, args.batch)) for way in args.ways}
        for repeat in range(args.repeats):
            order = args.ways if repeat % 2 == 0 else args.ways[::-1]
            for count in args.competitors:
                with competitors(count):
                    for way in order:
                        done = window(trainers[way], args.seconds)
                        found.setdefault((way, count), []).append(done)
    return found


def ratio(ours: list[Window], theirs: list[Window]) -> str:
    """The median of the ratios of two rates, pair by pair: what else runs hits both."""
    pairs = zip(ours, theirs, strict=True)
    return f"{statistics.median(a.rate / b.rate for a, b in pairs):.2f}"


def rows(found: dict[tuple[str, int], list[Window]], first: str) -> list[list[str]]:
    """A row for each way and number of competitors; `first` is the way compared with."""
    least = min(count for _, count in found)
    return [
        [
            way,
            str(count),
            report.spread([w.rate for w in windows]),
            ratio(windows, found[first, least]),
            ratio(windows, found[way, least]),
            report.spread([w.processor / w.steps for w in windows], 3),
        ]
        for (way, count), windows in found.items()
    ]


def main(words: list[str] | None = None) -> Path:
    """Measure every way of waiting."""
    args = options(words)
    before = os.getloadavg()[0]
    found = measured(args)
    after = os.getloadavg()[0]
    about = (
        f"The decoder of `mini`, batch {args.batch}, 64 x 64 pixels, {args.repeats} windows of "
        f"{args.seconds:g} s each, by turns. A competitor is a program of two threads that never "
        f"wait. The load average of the machine was {before:.1f} before the measurement and "
        f"{after:.1f} at its end: above the number of its cores, other programs computed as well, "
        "and no row is of a trainer alone. Median (least to greatest). Ratios are medians of the "
        "ratios within a turn."
    )
    table = report.table(HEAD, sorted(rows(found, args.ways[0]), key=lambda row: row[1]))
    path = report.write("busy", "Training beside other programs", [about, table], args.results)
    print(path)
    return path


if __name__ == "__main__":
    main()
