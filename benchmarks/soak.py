"""A long training of a tiny model: resident memory, open files and the time of a step stay flat.

python -m benchmarks.soak --steps 20000

The run is the ordinary command, as a process of its own, watched from outside. It validates,
measures held-out pictures, draws samples, saves and removes checkpoints and writes to a tracker, so
that what any of these would leave behind is seen. Each window of steps holds the same number of
such events. The time of a step is told by the clock and by processor time, which other programs on
the machine disturb less.
"""

from __future__ import annotations

import argparse
import itertools
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import models, report, runs
from benchmarks.runs import ROOT, Job, Timed
from wassily.mini import untrained
from wassily.reporting import report_style
from wassily.reporting.charts import HEIGHT, LEFT, WIDTH, Series, line_chart

HEAD = ("", "first", "last", "change", "least to greatest")
MOST = 0.02  # of change from the end of the warm-up to the end of the run
HEAD_ROOM = 24  # pixels above the charts, for their titles


@dataclass(frozen=True)
class Measure:
    """A quantity by windows of steps, and how it is shown."""

    name: str
    unit: str
    values: np.ndarray
    digits: int
    judged: bool = True

    @property
    def ends(self) -> tuple[float, float]:
        """First and last value of the straight line that fits best (least squares)."""
        places = np.arange(len(self.values))
        slope, base = np.polyfit(places, self.values, 1)
        return float(base), float(base + slope * places[-1])

    @property
    def change(self) -> float:
        """How much of its first value the line rises or falls."""
        first, last = self.ends
        return last / first - 1

    def row(self) -> list[str]:
        """For the table."""
        first, last = (f"{value:.{self.digits}f}" for value in self.ends)
        extent = f"{self.values.min():.{self.digits}f} to {self.values.max():.{self.digits}f}"
        return [f"{self.name}, {self.unit}", first, last, f"{self.change:+.2%}", extent]


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--network", choices=("prior", "decoder"), default="prior")
    add("--steps", type=int, default=20_000)
    add("--window", type=int, default=1000, help="steps that are taken together")
    add("--warmup", type=int, default=2000, help="steps that are not judged")
    add("--work", type=Path, metavar="FOLDER", help="kept; else removed")
    add("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    add("--plot", type=Path, metavar="FILE", default=ROOT / "docs" / "images" / "soak.svg")
    args = parser.parse_args(words)
    if (args.steps - args.warmup) // args.window < 2:
        parser.error("--steps: at least two windows after the warm-up")
    return args


def events(window: int) -> tuple[str, ...]:
    """Flags with which each window has one validation and two checkpoints."""
    flags = {
        "checkpointing_steps": window // 2,
        "checkpoints_total_limit": 2,
        "validation_steps": window,
        "validation_prompts": "cat",
        "holdout": 0.2,
    }
    return (*(f"--{name}={value}" for name, value in flags.items()), "--use_ema", "--random_flip")


def edges(run: Timed, window: int) -> list[float]:
    """The wall times between the windows, from the first step to the last one logged."""
    steps = sorted(run.times)
    last = steps[-1] // window
    return [
        float(np.interp(n * window, steps, [run.times[s] for s in steps])) for n in range(last + 1)
    ]


def measures(run: Timed, window: int, warmup: int) -> list[Measure]:
    """Each quantity in each window after the warm-up: what is held as the window's median."""
    moments = edges(run, window)[warmup // window :]
    pairs = list(itertools.pairwise(moments))
    held = [[h for h in run.usage.held if begin <= h.time < end] for begin, end in pairs]
    memory = [float(np.median([h.resident for h in part])) / 1e6 for part in held]
    files = [float(np.median([h.files for h in part])) for part in held]
    at = run.usage.processor_at
    work = [(at(end) - at(begin)) / window * 1000 for begin, end in pairs]
    clock = [(end - begin) / window * 1000 for begin, end in pairs]
    return [
        Measure("resident memory", "MB", np.array(memory), 1),
        Measure("open files", "files", np.array(files), 1),
        Measure("processor time of a step", "ms", np.array(work), 2),
        Measure("time of a step by the clock", "ms", np.array(clock), 2, judged=False),
    ]


def plot(found: list[Measure], window: int, warmup: int) -> str:
    """A chart for each judged measure, in percent of its line's first value; the band is what is
    allowed. The picture follows light and dark.
    """
    charts = []
    for number, m in enumerate(m for m in found if m.judged):
        steps = [warmup + (n + 1) * window for n in range(len(m.values))]
        points = [(s, 100 * (v / m.ends[0] - 1)) for s, v in zip(steps, m.values, strict=True)]
        band = [(s, -100 * MOST, 100 * MOST) for s in steps]
        series = Series(m.name, points, 210, band)
        figure = line_chart([series], m.name, "step", "%")
        chart = re.search(r"<svg [^>]*>(.*)</svg>", figure, re.S)
        assert chart  # there are points
        title = f'<text class="name" x="{LEFT}" y="0">{m.name}</text>'
        place = f'transform="translate({number * WIDTH} {HEAD_ROOM})"'
        charts.append(f"<g {place}>{title}{chart[1]}</g>")
    size = f"{len(charts) * WIDTH} {HEIGHT + HEAD_ROOM}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}">'
    page = '<rect width="100%" height="100%" style="fill:var(--page)"/>'
    return f"{head}<style>{report_style.STYLE}</style>{page}{''.join(charts)}</svg>\n"


def verdict(found: list[Measure]) -> str:
    """Which of the judged measures changed by more than is allowed; none is the good end."""
    grown = [m.name for m in found if m.judged and abs(m.change) > MOST]
    allowed = f"by {MOST:.0%} or less"
    return f"**Not flat: {', '.join(grown)}.**" if grown else f"All of it changed {allowed}: flat."


def main(words: list[str] | None = None) -> Path:
    """Run, measure, write a page and a plot."""
    args = options(words)
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        folders = untrained.make(work / "models")
        pictures = models.draw_pictures(work / "pictures", 20, 64)
        job = Job(
            args.network,
            folders,
            pictures,
            resolution=untrained.SIDE,
            accumulation=1,
            steps=args.steps,
            rate=1e-4,
            more=events(args.window),
        )
        run = runs.ours(job, work, max(1, args.window // 10))
    found = measures(run, args.window, args.warmup)
    about = (
        f"{args.steps} steps of the {args.network} of the tests' tiny model, batch 1, as a process "
        f"of its own, watched twenty times a second. Every {args.window} steps it validates "
        "(held-out pictures, a sample) and saves two checkpoints, of which it keeps two; it keeps "
        f"an average of the weights and writes to tensorboard. Windows of {args.window} steps, "
        f"without the first {args.warmup} steps. First, last and change are of the straight line "
        "through the windows (least squares); memory and files are each window's median. The "
        "clock is not judged: it has the machine's other programs in it."
    )
    parts = [about, report.table(HEAD, [m.row() for m in found]), verdict(found)]
    args.plot.parent.mkdir(parents=True, exist_ok=True)
    args.plot.write_text(plot(found, args.window, args.warmup), "utf-8")
    page = report.write("soak", "A long training", parts, args.results)
    print(page)
    return page


if __name__ == "__main__":
    main()
