"""What the switches that make a step faster or smaller do to the loss over 500 steps.

python -m benchmarks.loss_curves --networks prior decoder

Each run has the seed of the plain one, so the same pictures, noise and timesteps: what is compared
is the mean of the last steps, with the standard error of the difference of the two runs' losses.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import models, report, runs
from benchmarks.runs import Job
from wassily.config import presets
from wassily.planning import plan

HEAD = ("", "flags", "loss, last steps", "less the plain run's", "standard errors")
BF16 = {"mixed_precision": "bf16"}
HALF = BF16 | {"weights_dtype": "bf16"}
FOUR = {"train_batch_size": 1, "gradient_accumulation_steps": 4}
RELEASE = {"gradient_release": True}
WAYS: dict[str, dict[str, object]] = {
    "plain": {},
    "second decay 0.99": {"adam_beta2": 0.99},
    "four micro-batches": FOUR | {"fuse_accumulation": "off"},
    "four, as one batch": FOUR | {"fuse_accumulation": "on"},
    "bf16 arithmetic": BF16,
    "bf16 weights": HALF,
    "gradient release": RELEASE,
    "8-bit AdamW": {"optimizer": "adamw8bit"},
    "compiled": {"compile": True},
    "Lion": {"optimizer": "lion", "learning_rate": 1e-4},
    "Lion, bf16 weights": HALF | {"optimizer": "lion", "learning_rate": 1e-4},
}


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--size", choices=models.SIZES, default="tiny")
    add("--networks", choices=("prior", "decoder"), default=["prior", "decoder"], nargs="+")
    add("--resolution", type=int, default=32)
    add("--rate", type=float, default=1e-3)
    add("--steps", type=int, default=500)
    add("--last", type=int, default=100, help="steps that are compared")
    add("--ways", choices=WAYS, nargs="+", metavar="NAME", help="these and the plain one; else all")
    add("--pictures", type=Path, metavar="FOLDER", help="else 64 drawn ones")
    add("--work", type=Path, metavar="FOLDER", help="kept; else removed")
    add("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    return parser.parse_args(words)


def ways(role: str) -> dict[str, dict[str, object]]:
    """The switches, and each preset that is none of them; nothing that is not installed."""
    found = dict(WAYS)
    for name, flags in presets.PRESETS[role].items():
        lion = {"learning_rate": 1e-4} if flags.get("optimizer") == "lion" else {}
        own = {key: value for key, value in flags.items() if key != "max_grad_norm"} | lion
        if own not in found.values():
            found[f"preset {name}"] = own
    if importlib.util.find_spec("bitsandbytes") is None:
        del found["8-bit AdamW"]
    return found


def losses(job: Job, flags: dict[str, object], work: Path) -> np.ndarray:
    """The loss of each step."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    # Without clipping in all, for gradient release has none.
    words = [*job.words(out), "--logging_steps=1", "--max_grad_norm=0", *plan.words(flags).split()]
    runs.launch(["-m", "wassily", "train", job.role, *words, f"--cache_dir={work / 'cache'}"], work)
    lines = map(json.loads, (out / "log.jsonl").read_text("utf-8").splitlines())
    return np.array([line["train_loss"] for line in lines if "train_loss" in line])


def compared(curve: np.ndarray, plain: np.ndarray, last: int) -> list[str]:
    """Mean of the last steps, its difference from the plain run's, that in standard errors."""
    apart = (curve - plain)[-last:]
    error = apart.std(ddof=1) / last**0.5
    told = f"{apart.mean() / error:+.1f}" if error else "0"
    return [f"{curve[-last:].mean():.4f}", f"{apart.mean():+.4f}", told]


def main(words: list[str] | None = None) -> Path:
    """Every way of each network."""
    args = options(words)
    parts = [
        f"Size `{args.size}`, batch 4, {args.resolution} px, rate {args.rate:g} (Lion 1e-4), no "
        f"clipping, {args.steps} steps from one seed; the mean over the last {args.last}. "
        "A standard error is that of the mean difference, step by step, from the plain run: fp32, "
        "AdamW."
    ]
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        folders = models.make(work / args.size, args.size)
        pictures = args.pictures or models.draw_pictures(work / "pictures", 64, 64)
        for role in args.networks:
            found = ways(role)
            if args.ways:
                found = {name: found[name] for name in ("plain", *args.ways) if name in found}
            job = Job(role, folders, pictures, args.resolution, 4, 1, args.steps, rate=args.rate)
            runs.encode(job, work)
            rows, curves = [], {}
            for name, flags in found.items():
                own = dataclasses.replace(job, precision=str(flags.get("mixed_precision", "no")))
                curves[name] = losses(own, flags, work)
                cells = compared(curves[name], curves["plain"], args.last)
                print(role, name, *cells, flush=True)
                rows.append([name, f"`{plan.words(flags)}`" if flags else "", *cells])
            start = curves["plain"][: args.last].mean()
            parts += [f"## The {role}", f"The plain run's first {args.last} steps: {start:.4f}."]
            parts.append(report.table(HEAD, rows))
    path = report.write("loss-curves", "Losses with the switches of the step", parts, args.results)
    print(path)
    return path


if __name__ == "__main__":
    main()
