"""Pictures per second drawn, beside the stock combined pipeline on the same weights.

python -m benchmarks.generate_speed --size small --steps 20
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoPipelineForText2Image

from benchmarks import models, report
from wassily.config.generation import GenerateConfig
from wassily.generation import load, sample

HEAD = ("", "pictures/s", "of the stock pipeline's", "by processor time")


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--size", choices=models.SIZES, default="small")
    add("--resolution", type=int, default=256)
    add("--steps", type=int, default=10)
    add("--prior_steps", type=int, default=5)
    add("--pictures", type=int, default=4)
    add("--batches", type=int, nargs="+", default=[1, 4], help="of wassily generate")
    add("--repeats", type=int, default=3)
    add("--work", type=Path, metavar="FOLDER", help="keeps the models; else they are removed")
    add("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    return parser.parse_args(words)


def timed(draw: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of processor."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    clock, work = time.perf_counter(), time.process_time()
    draw()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - clock, time.process_time() - work


def ways(args: argparse.Namespace, folders: models.Folders) -> dict[str, Callable[[], object]]:
    """The stock pipeline, one picture after another as the guide does it, and ours by batches."""
    jobs = [(f"a photo of a thing {number}", number) for number in range(args.pictures)]
    settings = GenerateConfig(
        prompts=tuple(prompt for prompt, _ in jobs),
        prior=str(folders.prior),
        decoder=str(folders.decoder),
    )
    prior, decoder, device = load.pipelines(settings, load.find(settings))
    stock = AutoPipelineForText2Image.from_pretrained(folders.decoder)
    stock.set_progress_bar_config(disable=True)
    stock.to(device, decoder.unet.dtype)
    drawing = sample.Drawing(
        args.steps,
        args.prior_steps,
        height=args.resolution,
        width=args.resolution,
        scheduler="stock",
    )

    def one_by_one() -> None:
        for prompt, seed in jobs:
            stock(
                prompt,
                generator=torch.Generator().manual_seed(seed),
                num_inference_steps=args.steps,
                prior_num_inference_steps=args.prior_steps,
                height=args.resolution,
                width=args.resolution,
            )

    found: dict[str, Callable[[], object]] = {"stock pipeline, one by one": one_by_one}
    for batch in args.batches:
        own = replace(drawing, batch_size=batch)

        def ours(own: sample.Drawing = own) -> None:
            sample.draw(prior, decoder, jobs, own, device)

        found[f"wassily, batch {batch}"] = ours
    return found


def main(words: list[str] | None = None) -> Path:
    """Draw by turns."""
    args = options(words)
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        todo = ways(args, models.make(work / args.size, args.size))
        for draw in todo.values():
            draw()  # warm-up
        took = {name: [] for name in todo}
        for _ in range(args.repeats):
            for name, draw in todo.items():
                took[name].append(timed(draw))
    stock = next(iter(took.values()))
    rows = []
    for name, times in took.items():
        rates = [args.pictures / clock for clock, _ in times]
        pairs = list(zip(stock, times, strict=True))
        ratios = [[theirs[k] / own[k] for theirs, own in pairs] for k in (0, 1)]
        rows.append([name, *map(report.spread, (rates, *ratios))])
    about = (
        f"Size `{args.size}`, {args.pictures} pictures of {args.resolution} px, {args.steps} steps "
        f"of the decoder, {args.prior_steps} of the prior, {args.repeats} round(s) by turns after "
        "one that is not counted. Loading is not counted. Median (least to greatest)."
    )
    parts = [about, report.table(HEAD, rows)]
    path = report.write("generate-speed", "Speed of drawing", parts, args.results)
    print(path)
    return path


if __name__ == "__main__":
    main()
