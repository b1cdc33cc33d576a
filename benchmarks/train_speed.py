"""Pictures per second of a training, beside the guide's scripts if they are at hand.

python -m benchmarks.train_speed --size small --reference FOLDER

Both train the same model on the same pictures with the same flags, one after the other, several
times. A ratio is that of neighbours, so a machine that is slow for a while slows both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks import flops, models, report, runs
from benchmarks.runs import Job, Timed, Usage

HEAD = ("", "wassily, pictures/s", "reference, pictures/s", "ratio", "by processor time")
STARTS = ("", "wassily, start to first step", "reference", "first pass", "reference's epoch")


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add, many = parser.add_argument, {"nargs": "+"}
    add("--size", choices=models.SIZES, default="small")
    add("--networks", choices=("prior", "decoder"), default=["prior", "decoder"], **many)
    add("--reference", type=Path, metavar="FOLDER", help="where the guide's two scripts are")
    add("--pictures", type=Path, metavar="FOLDER", help="with metadata.jsonl; drawn if unset")
    add("--resolution", type=int, default=256)
    add("--batch", type=int, default=1)
    add("--accumulation", type=int, default=4)
    add("--steps", type=int, default=10)
    add("--warmup", type=int, default=2, help="steps that are not counted")
    add("--repeats", type=int, default=3)
    add("--precision", choices=("no", "fp16", "bf16"), default="no")
    add("--gradient_checkpointing", choices=("off", "on", "both"), default="both", help="decoder")
    add("--more", default="", help="more flags for wassily alone, in one word")
    add("--work", type=Path, metavar="FOLDER", help="keeps models and cache; else they are removed")
    add("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    return parser.parse_args(words)


def jobs(args: argparse.Namespace, work: Path) -> list[Job]:
    """What is measured, in order."""
    pictures = args.pictures or models.draw_pictures(work / "pictures", 64, 512)
    job = Job(
        role="prior",
        models=models.make(work / args.size, args.size),
        pictures=pictures.resolve(),
        resolution=args.resolution,
        batch=args.batch,
        accumulation=args.accumulation,
        steps=args.steps,
        precision=args.precision,
        more=tuple(args.more.split()),
    )
    found = [job] if "prior" in args.networks else []
    if "decoder" in args.networks:
        ways = {"off": (False,), "on": (True,), "both": (True, False)}[args.gradient_checkpointing]
        found += [replace(job, role="decoder", recompute=way) for way in ways]
    return found


def name(job: Job) -> str:
    """A row's heading."""
    size = f" {job.resolution} px" if job.role == "decoder" else ""
    return f"{job.role}{size}{', gradient checkpointing' if job.recompute else ''}"


def captions(folder: Path) -> list[str]:
    """The captions of a picture folder."""
    lines = (folder / "metadata.jsonl").read_text("utf-8").split("\n")
    return [json.loads(line)["text"] for line in lines if line.strip()]


def of_a_picture(job: Job, size: str, batch: int) -> float:
    """FLOPs of the trained network for each picture of a batch."""
    shape = models.SIZES[size]
    if job.role == "decoder":
        return flops.decoder(shape, job.resolution, batch) / batch
    tokenizer = models.untrained.tokenizer(job.models.prior.parent / "words")
    lengths = [min(len(ids), 77) for ids in tokenizer(captions(job.pictures)).input_ids]
    return flops.prior(shape, flops.longest(lengths, batch), batch) / batch


def utilisation(job: Job, size: str, pictures_per_second: float) -> str:
    """A line on model FLOP utilisation."""
    device, per_picture = report.device(), of_a_picture(job, size, job.batch)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rate = flops.product_rate(device, dtype)
    return (
        f"{name(job)}: {per_picture / 1e9:.2f} GFLOP a picture, {str(dtype)[6:]} matrix product "
        f"{rate / 1e12:.3g} TFLOP/s: {100 * per_picture * pictures_per_second / rate:.1f} % used"
    )


@dataclass(frozen=True)
class Found:
    """All runs of one row; `cold` and `warm` are two passes over the pictures, before and after
    they were encoded.
    """

    cold: Usage
    warm: Usage
    ours: list[Timed]
    theirs: list[Timed]


def measure(args: argparse.Namespace, job: Job, work: Path) -> Found:
    """Encoding first, then ours and the reference's by turns."""
    found = Found(runs.encode(job, work), runs.encode(job, work), [], [])
    for repeat in range(args.repeats):
        sides = ["ours", "theirs"] if args.reference else ["ours"]
        for side in sides if repeat % 2 == 0 else sides[::-1]:
            if side == "ours":
                found.ours.append(runs.ours(job, work, args.warmup))
            else:
                found.theirs.append(runs.reference(job, args.reference.resolve(), work))
    return found


def speed(args: argparse.Namespace, job: Job, found: Found) -> list[str]:
    """A row of speeds."""
    step = job.batch * job.accumulation
    rates = [[run.steps_per_second(args.warmup) * step for run in runs_] for runs_ in sides(found)]
    cells = [report.spread(rate) if rate else "" for rate in rates]
    if not found.theirs:
        return [name(job), *cells, "", ""]
    work = [[run.processor_seconds(args.warmup) for run in runs_] for runs_ in sides(found)]
    ratios = [a / b for a, b in zip(*rates, strict=True)]
    by_work = [b / max(a, 1e-9) for a, b in zip(*work, strict=True)]
    return [name(job), *cells, report.spread(ratios), report.spread(by_work)]


def sides(found: Found) -> tuple[list[Timed], list[Timed]]:
    """Our runs and theirs."""
    return found.ours, found.theirs


def start(args: argparse.Namespace, job: Job, found: Found) -> list[str]:
    """A row of starts and passes, each by the clock and by processor time."""
    cells = [
        f"{report.spread([run.start for run in runs_], 1)} / "
        f"{report.spread([run.start_processor for run in runs_], 1)}"
        if runs_
        else ""
        for runs_ in sides(found)
    ]
    clock = found.cold.seconds - found.warm.seconds
    work = found.cold.processor[-1][1] - found.warm.processor[-1][1]
    cells.append(f"{clock:.1f} / {work:.1f}")
    if found.theirs:
        steps = len(captions(job.pictures)) / (job.batch * job.accumulation)
        clock = steps / statistics.median(r.steps_per_second(args.warmup) for r in found.theirs)
        work = steps * statistics.median(r.processor_seconds(args.warmup) for r in found.theirs)
        cells.append(f"{clock:.1f} / {work:.1f}")
    return [name(job), *cells, *[""] * (len(STARTS) - 1 - len(cells))]


def about(args: argparse.Namespace, count: int) -> str:
    """What was run, in words."""
    flags = f", and for wassily {args.more}" if args.more else ""
    return (
        f"Size `{args.size}`, batch {args.batch} x {args.accumulation} accumulated, precision "
        f"{args.precision}{flags}, {count} pictures. {args.repeats} run(s) of {args.steps} steps "
        f"each, by turns; the first {args.warmup} are not counted. Median (least to greatest). A "
        "ratio is that of two neighbouring runs; by processor time it compares the processor "
        "seconds of a step, which other programs on the machine disturb less. Seconds are given by "
        "the clock / of processor. The first pass encodes all pictures and captions, once; a row "
        "that finds encodings of an earlier row makes only what is new to it."
    )


def main(words: list[str] | None = None) -> Path:
    """Measure every row; the page is written anew after each, so nothing is lost."""
    args = options(words)
    speeds, starts, used = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        for job in jobs(args, work.resolve()):
            found = measure(args, job, work.resolve())
            speeds.append(speed(args, job, found))
            starts.append(start(args, job, found))
            rate = statistics.median(run.steps_per_second(args.warmup) for run in found.ours)
            used.append(utilisation(job, args.size, rate * job.batch * job.accumulation))
            parts = [
                about(args, len(captions(job.pictures))),
                report.table(HEAD, speeds),
                report.table(STARTS, starts),
                "\n".join(f"- {line}" for line in used),
            ]
            path = report.write("train-speed", "Speed of training", parts, args.results)
    print(path)
    return path


if __name__ == "__main__":
    main()
