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
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import flops, models, report, runs
from benchmarks.runs import Job, Timed

HEAD = ("", "wassily, pictures/s", "reference, pictures/s", "ratio")
STARTS = ("", "wassily, start to first step, s", "reference, s", "first pass, s", "ref. epoch, s")


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


def utilisation(job: Job, size: str, pictures_per_second: float) -> str:
    """A line on model FLOP utilisation."""
    shape, device = models.SIZES[size], report.device()
    if job.role == "decoder":
        per_picture = flops.decoder(shape, job.resolution, job.batch) / job.batch
    else:
        tokenizer = models.untrained.tokenizer(job.models.prior.parent / "words")
        lengths = [min(len(ids), 77) for ids in tokenizer(captions(job.pictures)).input_ids]
        per_picture = flops.prior(shape, flops.longest(lengths, job.batch), job.batch) / job.batch
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rate = flops.product_rate(device, dtype)
    return (
        f"{name(job)}: {per_picture / 1e9:.2f} GFLOP a picture, {str(dtype)[6:]} matrix product "
        f"{rate / 1e12:.3g} TFLOP/s: {100 * per_picture * pictures_per_second / rate:.1f} % used"
    )


def measure(args: argparse.Namespace, job: Job, work: Path) -> dict[str, Any]:
    """All runs of one row: encoding first, then ours and the reference's by turns."""
    pictures_per_step = job.batch * job.accumulation
    cold = runs.encode(job, work)
    encoding = max(0.0, cold - runs.encode(job, work))
    ours: list[Timed] = []
    theirs: list[Timed] = []
    for repeat in range(args.repeats):
        sides = ["ours", "theirs"] if args.reference else ["ours"]
        for side in sides if repeat % 2 == 0 else sides[::-1]:
            if side == "ours":
                ours.append(runs.ours(job, work, args.warmup))
            else:
                theirs.append(runs.reference(job, args.reference.resolve(), work))
    return {
        "ours": [run.steps_per_second(args.warmup) * pictures_per_step for run in ours],
        "theirs": [run.steps_per_second(args.warmup) * pictures_per_step for run in theirs],
        "our starts": [run.start for run in ours],
        "their starts": [run.start for run in theirs],
        "encoding": encoding,
    }


def rows(job: Job, found: dict[str, Any]) -> tuple[list[str], list[str]]:
    """One row of speeds, one of starts."""
    ours, theirs = found["ours"], found["theirs"]
    if not theirs:
        starts = [report.spread(found["our starts"], 1), "", f"{found['encoding']:.1f}", ""]
        return [name(job), report.spread(ours), "", ""], [name(job), *starts]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    epoch = len(captions(job.pictures)) / statistics.median(theirs)
    return (
        [name(job), report.spread(ours), report.spread(theirs), report.spread(ratios)],
        [
            name(job),
            report.spread(found["our starts"], 1),
            report.spread(found["their starts"], 1),
            f"{found['encoding']:.1f}",
            f"{epoch:.1f}",
        ],
    )


def about(args: argparse.Namespace, count: int) -> str:
    """What was run, in words."""
    flags = f", and for wassily {args.more}" if args.more else ""
    return (
        f"Size `{args.size}`, batch {args.batch} x {args.accumulation} accumulated, precision "
        f"{args.precision}{flags}, {count} pictures. {args.repeats} runs of {args.steps} steps "
        f"each, by turns; the first {args.warmup} are not counted. Median (least to greatest). A "
        "ratio is that of two neighbouring runs. The first pass encodes all pictures and captions, "
        "once; a row that finds encodings of an earlier row makes only what is new to it."
    )


def main(words: list[str] | None = None) -> Path:
    """Measure every row; the page is written anew after each, so nothing is lost."""
    args = options(words)
    speeds, starts, used = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        for job in jobs(args, work.resolve()):
            found = measure(args, job, work.resolve())
            speed, start = rows(job, found)
            speeds.append(speed)
            starts.append(start)
            used.append(utilisation(job, args.size, statistics.median(found["ours"])))
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
