"""Seconds from the launch of a training to its first optimizer step, with the cache there.

python -m benchmarks.startup --reference FOLDER
python -m benchmarks.startup --commands --before CHECKOUT

With --commands the processor time of whole commands on `mini`, in terms of that of
`import torch, transformers`, by turns with another checkout of wassily.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import models, report, runs
from benchmarks.runs import Job, Timed, Usage

HEAD = ("", "wassily, s", "reference, s", "wassily, processor s", "reference, processor s")

IMPORTS = ["-c", "import torch, transformers"]
COST = ("", "processor s", "of the imports", "s", "before, processor s", "of before")
# Runs the command line of another checkout, which stands before this one on the path then.
OTHER = "import sys; sys.path.insert(0, sys.argv.pop(1)); from wassily import cli; "
OTHER += "sys.exit(cli.main(sys.argv[1:]))"


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--size", choices=models.SIZES, default="tiny")
    add("--networks", choices=("prior", "decoder"), default=["prior", "decoder"], nargs="+")
    add("--reference", type=Path, metavar="FOLDER", help="where the guide's two scripts are")
    add("--resolution", type=int, default=64)
    add("--repeats", type=int, default=3)
    add("--commands", action="store_true", help="measure whole commands instead")
    add("--before", type=Path, metavar="CHECKOUT", help="another checkout to compare with")
    add("--work", type=Path, metavar="FOLDER", help="keeps models and cache; else they are removed")
    add("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    return parser.parse_args(words)


def row(name: str, ours: list[Timed], theirs: list[Timed]) -> list[str]:
    """Both sides by the clock, then by processor time."""
    clocks = [[run.start for run in side] for side in (ours, theirs)]
    work = [[run.start_processor for run in side] for side in (ours, theirs)]
    return [name, *[report.spread(side, 1) if side else "" for side in (*clocks, *work)]]


def commands(work: Path, pictures: Path) -> dict[str, list[Any]]:
    """Name -> the words of a command on `mini`; each into a folder of its own."""
    mini = [f"--pretrained_{part}_model_name_or_path=mini" for part in ("prior", "decoder")]
    training = [f"--train_data_dir={pictures}", f"--cache_dir={work / 'cache'}", *mini]
    training += ["--max_train_steps=1", "--report_to=none"]
    drawing = ["a red circle", "--prior=mini", "--decoder=mini", f"--out={work / 'drawn'}"]
    return {
        "generate, one picture": ["generate", *drawing],
        "train prior, one step and its export": ["train", "prior", *training],
    }


def timed(words: list[Any], before: Path | None, work: Path) -> Usage:
    """What a command takes from its launch to its end, here or in another checkout."""
    if words[0] == "train":
        words = [*words, f"--output_dir={tempfile.mkdtemp(dir=work)}"]
    head = ["-m", "wassily"] if before is None else ["-c", OTHER, before.resolve()]
    return runs.launch([*head, *words], work)


def whole(args: argparse.Namespace, work: Path) -> list[str]:
    """The page of --commands."""
    load = os.getloadavg()[0]
    pictures = models.draw_pictures(work / "pictures", 16, 256)
    asked, imports = commands(work, pictures), []
    for words in asked.values():
        timed(words, None, work)  # fills the cache of encodings, and that of the disk
    found: dict[str, list[tuple[Usage, Usage | None]]] = {name: [] for name in asked}
    for _ in range(args.repeats):
        imports.append(runs.launch(IMPORTS, work).processor[-1][1])
        for name, words in asked.items():
            old = timed(words, args.before, work) if args.before else None
            found[name].append((timed(words, None, work), old))
    about = (
        f"Commands on `mini`, {args.repeats} of each, by turns, the encodings in the cache. Median "
        "(least to greatest); ratios are medians of the ratios within a turn. Other programs kept "
        f"{load:.1f} processors busy when it began (the load average of the last minute). "
        f"`import torch, transformers` takes {report.spread(imports)} processor seconds."
    )
    rows = [cost(name, pairs, imports) for name, pairs in found.items()]
    return [about, report.table(COST, rows)]


def cost(name: str, pairs: list[tuple[Usage, Usage | None]], imports: list[float]) -> list[str]:
    """A row: a command's processor time, also in terms of the imports, and that of before."""
    own = [now.processor[-1][1] for now, _ in pairs]
    old = [then.processor[-1][1] for _, then in pairs if then]
    cells = [name, report.spread(own), ratio(own, imports)]
    cells.append(report.spread([now.seconds for now, _ in pairs], 1))
    return [*cells, *([report.spread(old), ratio(own, old)] if old else ["", ""])]


def ratio(ours: list[float], theirs: list[float]) -> str:
    """The median of the ratios within a turn."""
    return f"{statistics.median(a / b for a, b in zip(ours, theirs, strict=True)):.2f}"


def main(words: list[str] | None = None) -> Path:
    """Start both networks by turns with the reference."""
    args = options(words)
    if args.commands:
        with tempfile.TemporaryDirectory() as temporary:
            parts = whole(args, Path(temporary))
        path = report.write("startup", "Start of a command", parts, args.results)
        print(path)
        return path
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
