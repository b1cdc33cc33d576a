"""How many steps a picture takes: schedulers by steps, read by the judge of the bundled world.

python -m benchmarks.draw_steps --work runs/draw_steps

Every cell draws the same held-out prompts from the same seeds, so its change from the stock way is
a mean of differences of pairs. What is done is kept in --work and not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from wassily.config import generation_checks
from wassily.config.generation import GenerateConfig
from wassily.evaluation import metrics
from wassily.generation import load, sample
from wassily.mini import judge, world
from wassily.models import names
from wassily.runtime.accelerator import quiet_libraries

PROMPT_SEED = 77
GUIDANCE, PRIOR_GUIDANCE = names.GUIDANCE["decoder"], names.GUIDANCE["prior"]
HEAD = ("scheduler", "steps", "prior steps", "wholly right", "change", "fit", "KID x 1000")
HEAD += ("change", "processor ms a picture", "of the stock way's")


@dataclass(frozen=True)
class Cell:
    """One way to draw. The first of all is the stock one, which the others are held against."""

    scheduler: generation_checks.Scheduler = "stock"
    steps: int = 100
    prior_steps: int = 25

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.scheduler}-{self.steps}-{self.prior_steps}"


@dataclass(frozen=True)
class Outcome:
    """Of N pictures: whether all that was asked is right, the judge's fit, both (N,), where they
    lie in the image encoder's space, (N, D), and processor seconds of both networks.
    """

    right: np.ndarray
    fit: np.ndarray
    places: np.ndarray
    seconds: float


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--work", type=Path, metavar="FOLDER", default=Path("runs/draw_steps"))
    add("--prompts", type=int, default=128)
    add(
        "--schedulers",
        nargs="*",
        choices=generation_checks.STEPS,
        default=list(generation_checks.STEPS),
    )
    add("--steps", nargs="*", type=int, default=[10, 15, 20, 25, 50, 100])
    add("--prior_steps", nargs="*", type=int, default=[5, 10, 15], help="with the default's steps")
    add("--guidance_scale", type=float, default=GUIDANCE)
    add("--prior_guidance_scale", type=float, default=PRIOR_GUIDANCE)
    add("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    return parser.parse_args(words)


def cells(args: argparse.Namespace) -> list[Cell]:
    """The stock way, then those of fewest steps first."""
    found = [Cell()]
    found += [Cell(name, steps) for steps in sorted(args.steps) for name in args.schedulers]
    default = Cell(
        generation_checks.SCHEDULER, generation_checks.STEPS[generation_checks.SCHEDULER]
    )
    found += [replace(default, prior_steps=steps) for steps in args.prior_steps]
    return list(dict.fromkeys(found))


def drawn(
    cell: Cell, args: argparse.Namespace, scenes: list[Any], nets: tuple[Any, ...]
) -> Outcome:
    """Draw and judge one cell."""
    prior, decoder, device = nets
    drawing = sample.Drawing(
        cell.steps,
        cell.prior_steps,
        args.guidance_scale,
        args.prior_guidance_scale,
        batch_size=64,
        scheduler=cell.scheduler,
    )
    jobs = [(prompt, seed) for seed, (prompt, _) in enumerate(scenes)]
    began = time.process_time()
    pictures = sample.draw(prior, decoder, jobs, drawing, device)
    seconds = time.process_time() - began
    verdicts = [judge.judge(picture) for picture in pictures]
    right = [
        all(getattr(verdict, name) == getattr(scene, name) for name in judge.JUDGED)
        for verdict, (_, scene) in zip(verdicts, scenes, strict=True)
    ]
    places = sample.embed_images(prior, pictures, 64, device).numpy()
    fit = np.array([verdict.fit for verdict in verdicts])
    return Outcome(np.array(right, float), fit, places, seconds)


def row(cell: Cell, found: Outcome, stock: Outcome, true: np.ndarray) -> list[str]:
    """A line of the table."""
    kid, base = (
        1000 * metrics.mmd_terms(one.places, true, metrics.polynomial) for one in (found, stock)
    )
    share = found.seconds / stock.seconds
    return [
        cell.scheduler,
        str(cell.steps),
        str(cell.prior_steps),
        cell_of(metrics.estimate(100 * found.right), ".1f"),
        cell_of(metrics.estimate(100 * (found.right - stock.right)), "+.1f"),
        f"{found.fit.mean():.3f}",
        cell_of(metrics.estimate(kid), ".2f"),
        cell_of(metrics.estimate(kid - base), "+.2f"),
        f"{1000 * found.seconds / len(found.right):.0f}",
        f"{share:.2f}",
    ]


def cell_of(score: metrics.Estimate, how: str) -> str:
    """A score with its interval."""
    return f"{score.value:{how}} [{score.low:{how}}, {score.high:{how}}]"


def page(args: argparse.Namespace, done: dict[Cell, Outcome], true: np.ndarray) -> Path:
    """Write what there is."""
    about = (
        f"The bundled model, {args.prompts} held-out prompts, each with a seed of its own, "
        f"guidance {args.guidance_scale:g} and {args.prior_guidance_scale:g}, batches of 64. "
        "Wholly right, in percent: the judge reads all that is asked, which is shape, colour, "
        "background, size, count, fill and style. "
        "Fit: how well shapes match their template, 1 the most. KID to true pictures of the same "
        "scenes, in the space of the model's image encoder. Changes are from the first line, pairs "
        "of the same prompt and seed; intervals of 95 %, over the prompts. Loading is not counted."
    )
    rows = [row(cell, found, done[Cell()], true) for cell, found in done.items()]
    return report.write("draw-steps", "Steps", [about, report.table(HEAD, rows)], args.results)


def main(words: list[str] | None = None) -> Path:
    """Draw what is not drawn yet, cell by cell."""
    args = options(words)
    quiet_libraries()
    scenes = world.prompts(PROMPT_SEED, args.prompts)
    config = GenerateConfig(prompts=("-",), prior="mini", decoder="mini", dtype="fp32")
    nets = load.pipelines(config, load.find(config))
    true = sample.embed_images(
        nets[0], [world.draw(scene) for _, scene in scenes], 64, nets[2]
    ).numpy()
    folder = args.work / f"{args.prompts}-{args.guidance_scale:g}-{args.prior_guidance_scale:g}"
    folder.mkdir(parents=True, exist_ok=True)
    done = {}
    for cell in cells(args):
        file = folder / f"{cell.name}.json"
        if not file.is_file():
            found = asdict(drawn(cell, args, scenes, nets))
            plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in found.items()}
            file.write_text(json.dumps(plain), "utf-8")
            print(cell.name, f"{100 * found['right'].mean():.1f} %", flush=True)
        kept = json.loads(file.read_text("utf-8"))
        arrays = {name: np.array(kept[name]) for name in ("right", "fit", "places")}
        done[cell] = Outcome(**arrays, seconds=kept["seconds"])
    path = page(args, done, true)
    print(path)
    return path


if __name__ == "__main__":
    main()
