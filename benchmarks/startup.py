"""Seconds from the launch of a training to its first optimizer step, with the cache there.

python -m benchmarks.startup --reference FOLDER
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import models, report, runs
from benchmarks.runs import Job, Timed

HEAD = ("", "wassily, s", "reference, s", "wassily, processor s", "reference, processor s")


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--size", choices=models.SIZES, default="tiny")
    add("--networks", choices=("prior", "decoder"), default=["prior", "decoder"], nargs="+")
    add("--reference", type=Path, metavar="FOLDER", help="where the guide's two scripts are")
    add("--resolution", type=int, default=64)
    add("--repeats", type=int, default=3)
    add("--work", type=Path, metavar="FOLDER", help="keeps models and cache; else they are removed")
    add("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    return parser.parse_args(words)


def row(name: str, ours: list[Timed], theirs: list[Timed]) -> list[str]:
    """Both sides by the clock, then by processor time."""
    clocks = [[run.start for run in side] for side in (ours, theirs)]
    work = [[run.start_processor for run in side] for side in (ours, theirs)]
    return [name, *[report.spread(side, 1) if side else "" for side in (*clocks, *work)]]


def main(words: list[str] | None = None) -> Path:
    """Start both networks by turns with the reference."""
    args = options(words)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        folders = models.make(work / args.size, args.size)
        pictures = models.draw_pictures(work / "pictures", 16, 256)
        for role in args.networks:
            job = Job(role, folders, pictures, args.resolution, accumulation=1, steps=1)
            runs.encode(job, work)
            ours: list[Timed] = []
            theirs: list[Timed] = []
            for _ in range(args.repeats):
                ours.append(runs.ours(job, work, 1))
                if args.reference:
                    theirs.append(runs.reference(job, args.reference.resolve(), work))
            rows.append(row(role, ours, theirs))
    about = (
        f"Size `{args.size}`, batch 1, {args.repeats} start(s), by turns, each as a process of its "
        "own and without a launcher. Median (least to greatest)."
    )
    parts = [about, report.table(HEAD, rows)]
    path = report.write("startup", "Start of a training", parts, args.results)
    print(path)
    return path


if __name__ == "__main__":
    main()
