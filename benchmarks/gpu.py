"""A GPU in ten minutes: the guide's two commands beside its scripts, the best batch, the presets.

python -m benchmarks.gpu --reference FOLDER --pictures PICS --work /dev/shm/bench

Each row is a training as a process, timed by what it logs and killed after its last step; the page
is written anew after each row, and rows for which no time is left are not begun. Peaks and profiles
come from runs of their own, for a profiler slows what it looks at.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.profiler import profile

from benchmarks import flops, memory, models, report, runs, step_speed
from benchmarks import train_speed as speed
from benchmarks.runs import Job
from wassily.config import parsing
from wassily.training import run

HEAD = (
    "",
    "pictures/s",
    "ms a step",
    "reference, pictures/s",
    "ratio",
    "MFU",
    "memory of the GPU, GB",
    "reference",
    "start to first step, s",
    "reference",
)
BF16 = ("--weights_dtype=bf16",)
COMPILE = ("--compile",)
PEAKS = {
    "prior, the guide's command": ("prior", "fp16", False, ()),
    "prior, --preset 8gb": ("prior", "bf16", False, ("--preset=8gb",)),
    "decoder, the guide's command": ("decoder", "fp16", True, ()),
    "decoder, --preset 12gb": ("decoder", "bf16", True, ("--preset=12gb",)),
    "decoder, --preset 16gb": ("decoder", "bf16", True, ("--preset=16gb",)),
}


@dataclass(frozen=True)
class Row:
    """A training; `beside` is the row whose reference it is compared with."""

    name: str
    job: Job
    beside: str | None = None


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--size", choices=models.SIZES, default="full")
    add("--resolution", type=int, default=768)
    add("--reference", type=Path, metavar="FOLDER", help="where the guide's two scripts are")
    add("--precision", choices=("no", "fp16", "bf16"), default="fp16", help="the guide's rows")
    add("--pictures", type=Path, metavar="FOLDER", help="with metadata.jsonl; drawn if unset")
    add("--rows", nargs="+", metavar="NAME", help="these alone, by the beginnings of their names")
    add("--steps", type=int, default=60, help="a third of them is warm-up")
    add("--seconds", type=float, default=570, help="no row begins after them")
    add("--work", type=Path, metavar="FOLDER", required=True, help="keeps models and cache")
    add("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    return parser.parse_args(words)


def rows(args: argparse.Namespace, job: Job) -> list[Row]:
    """What is timed, the most wanted first."""
    prior, recompute = replace(job, role="prior"), replace(job, role="decoder", recompute=True)
    decoder = replace(recompute, recompute=False)
    wide, deep = (replace(one, precision="bf16", accumulation=1) for one in (prior, decoder))
    first, second, third = "prior", "decoder, recomputing", "decoder"
    found = [
        Row(first, prior),
        Row(second, recompute),
        Row(third, decoder),
        Row("prior, compiled", replace(prior, more=COMPILE), first),
        Row("decoder, compiled", replace(decoder, more=COMPILE), third),
        Row("prior x 256, bf16", replace(wide, batch=256, more=BF16)),
        Row("prior x 256, bf16, compiled", replace(wide, batch=256, more=(*BF16, *COMPILE))),
        Row("decoder x 16, bf16", replace(deep, batch=16, more=BF16)),
        Row("decoder x 16, bf16, compiled", replace(deep, batch=16, more=(*BF16, *COMPILE))),
        Row("decoder, recomputing, compiled", replace(recompute, more=COMPILE), second),
    ]
    wanted = args.rows or [""]
    return [row for row in found if any(row.name.startswith(name) for name in wanted)]


# ---------------------------------------------------------------- the GPU from outside


@contextlib.contextmanager
def memory_taken() -> Iterator[list[int]]:
    """Within, the most bytes that are taken of the GPU, over those at the beginning: [bytes]."""
    if not torch.cuda.is_available():
        yield [0]
        return
    torch.cuda.empty_cache()
    found, before = [0], torch.cuda.mem_get_info()[0]

    def look() -> None:
        found[0] = max(found[0], before - torch.cuda.mem_get_info()[0])

    with runs.meanwhile(0.1, look):
        yield found


def utilisation(job: Job, size: str, rate: float) -> float:
    """Model FLOP utilisation of so many pictures a second, the micro-batches as one."""
    device = report.device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    work = speed.of_a_picture(job, size, job.batch * job.accumulation)
    return work * rate / flops.product_rate(device, dtype)


def timed(row: Row, args: argparse.Namespace, theirs: dict[str, float]) -> list[str]:
    """The cells of a row."""
    job, work = row.job, args.work
    pictures, warmup = job.batch * job.accumulation, args.steps // 3
    with memory_taken() as taken:
        found = runs.ours(replace(job, steps=args.steps), work, warmup, whole=False)
    rate = found.steps_per_second(warmup)
    cells = [f"{rate * pictures:.1f}", f"{1000 / rate:.1f}", "", "", ""]
    cells += [f"{taken[0] / 1e9:.1f}", "", f"{found.start:.1f}", ""]
    cells[4] = f"{utilisation(job, args.size, rate * pictures):.0%}"
    if row.beside is None and args.reference and job.accumulation > 1:
        short = replace(job, steps=max(args.steps * 2 // 5, 3), more=())
        with memory_taken() as taken:
            other = runs.reference(short, args.reference.resolve(), work, whole=False)
        theirs[row.name] = other.steps_per_second(max(short.steps // 3, 1)) * pictures
        cells[6], cells[8] = f"{taken[0] / 1e9:.1f}", f"{other.start:.1f}"
    beside = theirs.get(row.beside or row.name)
    if beside:
        cells[2], cells[3] = f"{beside:.1f}", f"{rate * pictures / beside:.2f}"
    return [row.name, *cells]


def encoded(job: Job, args: argparse.Namespace) -> list[str]:
    """The first pass of each network: `cache build` anew, and again with all there."""
    lines = []
    for role in ("prior", "decoder"):
        own = replace(job, role=role)
        cold, warm = runs.encode(own, args.work), runs.encode(own, args.work)
        count = len(speed.captions(job.pictures))
        lines.append(
            f"{role}: {count} pictures encoded in {cold.seconds - warm.seconds:.1f} s, beside "
            f"{warm.seconds:.1f} s to start and find them"
        )
    return lines


# ---------------------------------------------------------------- a training from inside


def windowed(fit: Callable[..., int], file: Path) -> Callable[..., int]:
    """The loop, with a profile of some of its steps written to a file."""

    def inner(*given: Any, **more: Any) -> int:
        *others, batches = given
        return fit(*others, looked_at(batches, more["span"].accumulation, file), **more)

    return inner


def looked_at(batches: Iterator[Any], each: int, file: Path) -> Iterator[Any]:
    """The batches; four steps after eight are profiled, and there the training ends."""
    seen = profile(activities=report.activities())
    began, cuda = 0.0, torch.cuda.is_available()
    for number, batch in enumerate(batches):
        if number in (8 * each, 12 * each) and cuda:
            torch.cuda.synchronize()
        if number == 8 * each:
            began = time.perf_counter()
            seen.start()
        if number == 12 * each:
            took = time.perf_counter() - began
            seen.stop()
            file.write_text(profiled(seen, took, 4))
            raise memory.Measured
        yield batch


def profiled(seen: Any, seconds: float, steps: int) -> str:
    """Milliseconds of a step, and the kernels that take most of them."""
    head = f"{1000 * seconds / steps:.1f} ms a step under the profiler; "
    return head + step_speed.kernels(seen, steps) + "\n"


def child(words: list[str]) -> None:
    """Train in this process; the peak in bytes, or a profile, goes into the file named last."""
    kind, *flags, file = words
    config = parsing.parse(flags.pop(0), flags, "wassily train")
    peak: dict[str, int] = {}
    profiles = kind == "profile"
    fit = windowed(run.fit, Path(file)) if profiles else memory.watched(run.fit, peak)
    with contextlib.suppress(memory.Measured), mock.patch.object(run, "fit", fit):
        run.train(config)
    if not profiles:
        Path(file).write_text(json.dumps(peak))


def inside(kind: str, name: str, job: Job, args: argparse.Namespace) -> Path:
    """Run a `child`; what it wrote."""
    place = args.work / "".join(c for c in name if c.isalnum())
    place.mkdir(exist_ok=True)
    words = [*job.words(place / "out"), f"--cache_dir={args.work / 'cache'}", *job.more]
    words += ["--gradient_checkpointing"] if job.recompute else []
    begin = "from benchmarks.gpu import child; import sys; child(sys.argv[1:])"
    line = ["-c", begin, kind, memory.CLASSES[job.role], *words, place / kind]
    runs.launch(line, place)
    return place / kind


def peaks(job: Job, args: argparse.Namespace) -> list[list[str]]:
    """The allocator's peak of each preset, four at a time: a process counts its own."""

    def one(name: str) -> list[str]:
        role, precision, recompute, more = PEAKS[name]
        own = replace(job, role=role, precision=precision, recompute=recompute, more=more, steps=3)
        if more:
            own = replace(own, accumulation=1)
        found = json.loads(inside("peak", name, own, args).read_text())
        return [name, f"{found['tensors'] / 1e9:.2f}"]

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, PEAKS))


# ---------------------------------------------------------------- the page


def page(args: argparse.Namespace, found: dict[str, Any]) -> Path:
    """Everything that was found so far."""
    device = report.device()
    product = flops.product_rate(device, torch.bfloat16) / 1e12 if device.type == "cuda" else 0
    parts = [
        f"Size `{args.size}`, the decoder at {args.resolution} px; {args.steps} steps, a third of "
        "them warm-up, each row once. Rows without another batch have the guide's: 1 x 4 "
        f"accumulated, {args.precision}. MFU is of the trained network alone, without its padding "
        f"and without recomputing, beside a bf16 matrix product of {product:.0f} TFLOP/s measured "
        "on this GPU. "
        "Memory of the GPU is what the process took of it in all, encoders and caches of the "
        "allocator included.",
        report.table(HEAD, found.get("rows", [])),
        "\n".join(f"- {line}" for line in found.get("encoding", [])),
        report.table(("", "peak of the steps, GB"), found.get("peaks", [])),
        *[f"{name}:\n\n```\n{text}```" for name, text in found.get("profiles", {}).items()],
        *[f"Failed: {line}" for line in found.get("failed", [])],
    ]
    return report.write("gpu", "On a GPU", [part for part in parts if part], args.results)


class Report:
    """What is found, stage by stage; a stage that fails is told, and the others go on."""

    def __init__(self, args: argparse.Namespace, job: Job):
        self.args, self.job, self.began = args, job, time.monotonic()
        self.found: dict[str, Any] = {"rows": [], "failed": [], "profiles": {}}
        self.theirs: dict[str, float] = {}

    def stage(self, what: str, work: Callable[[], None]) -> None:
        """Do it if there is time, and write the page anew."""
        if time.monotonic() - self.began > self.args.seconds:
            return
        try:
            work()
        except (SystemExit, Exception) as error:
            self.found["failed"].append(f"{what}: {str(error)[-1500:]}")
        print(f"--- {what}: {time.monotonic() - self.began:.0f} s", flush=True)
        page(self.args, self.found)

    def encode(self) -> None:
        """The first pass."""
        self.stage("encoding", lambda: self.found.update(encoding=encoded(self.job, self.args)))

    def time(self, row: Row) -> None:
        """A row of the table."""
        cells = self.found["rows"]
        self.stage(row.name, lambda: cells.append(timed(row, self.args, self.theirs)))

    def look_into(self, row: Row) -> None:
        """Where its time goes."""
        own, profiles = replace(row.job, steps=13), self.found["profiles"]

        def work() -> None:
            profiles[row.name] = inside("profile", row.name, own, self.args).read_text()

        self.stage(f"profile of {row.name}", work)

    def fill(self) -> None:
        """The allocator's peaks."""
        self.stage("peaks", lambda: self.found.update(peaks=peaks(self.job, self.args)))


def main(words: list[str] | None = None) -> Path:
    """Everything in order of its worth, as long as there is time."""
    args = options(words)
    args.work = args.work.resolve()
    folders = models.make(args.work / args.size, args.size)
    pictures = args.pictures or models.draw_pictures(args.work / "pictures", 64, 512)
    job = Job("prior", folders, pictures.resolve(), args.resolution, precision=args.precision)
    told, listed = Report(args, job), rows(args, job)
    if not args.rows:
        told.encode()
    for row in listed[:3]:
        told.time(row)
    if not args.rows:
        told.fill()
    for row in listed if args.rows else listed[:3:2]:
        told.look_into(row)
    for row in listed[3:]:
        told.time(row)
    path = page(args, told.found)
    print(path)
    return path


if __name__ == "__main__":
    main()
