"""Peak memory of the steps of a training, measured, beside the estimate of `wassily plan`.

python -m benchmarks.memory --size small

What is compared is the peak of PyTorch's allocator, which a GPU counts by itself and a CPU under
the profiler. Resident memory of a CPU has the libraries and their scratch memory in it: it is
shown, and compared with nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import models, report, runs
from benchmarks.runs import Job
from wassily.config import parsing
from wassily.config.training import TrainConfig
from wassily.planning import plan
from wassily.training import run, setup

HEAD = ("", "measured, MB", "estimated, MB", "estimated / measured", "resident, MB more")
CLASSES = {"prior": "PriorConfig", "decoder": "DecoderConfig"}


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--size", choices=models.SIZES, default="small")
    add("--networks", choices=("prior", "decoder"), default=["prior", "decoder"], nargs="+")
    add("--resolution", type=int, default=256)
    add("--batch", type=int, default=1)
    add("--precision", choices=("no", "fp16", "bf16"), default="no")
    add("--more", default="", help="more flags for wassily, in one word")
    add("--work", type=Path, metavar="FOLDER", help="keeps models and cache; else they are removed")
    add("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    return parser.parse_args(words)


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


class Measured(BaseException):
    """Ends a training after its steps: what it would write is nobody's."""


def watched(fit: Callable[..., int], found: dict[str, int]) -> Callable[..., int]:
    """The loop, with the peak of its tensors and of the growth of resident memory noted."""

    def steps(learner: Any, *given: Any, **more: Any) -> int:
        objective = learner.objective
        standing = tensor_bytes([*objective.parameters(), *objective.buffers()])
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what loading left must not serve the steps
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = resident("VmRSS")
        events = dataclasses.replace(more.pop("events"), on_save=lambda done, pending: None)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            fit(learner, *given, events=events, **more)
            found["tensors"] = torch.cuda.max_memory_allocated()
        else:
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
                fit(learner, *given, events=events, **more)
            found["tensors"] = standing + allocated(seen)
        found["resident"] = resident("VmHWM") - before
        raise Measured

    return steps


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """What storages take, shared ones once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def allocated(seen: Any) -> int:
    """The most bytes that were allocated at once during a profile, over those at its start."""
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def child(words: list[str]) -> None:
    """Train in this process, and write the peaks in bytes into the file named last."""
    *flags, file = words
    config = parsing.parse(flags.pop(0), flags, "wassily train")
    found: dict[str, int] = {}
    with contextlib.suppress(Measured), mock.patch.object(run, "fit", watched(run.fit, found)):
        run.train(config)
    Path(file).write_text(json.dumps(found))


def estimated(config: TrainConfig) -> int:
    """Bytes of the tensors at the fullest moment after the encoding."""
    precision = config.mixed_precision or "no"
    found = plan.estimate(config, setup.check_surroundings(config), precision)
    return max(kinds.total() for name, kinds in found.moments.items() if name != "encoding")


def row(name: str, job: Job, work: Path) -> list[str]:
    """Measure one training whose encodings are there."""
    out, file = work / "out", work / "peak"
    words = [*job.words(out), f"--cache_dir={work / 'cache'}", *job.more]
    if job.recompute:
        words.append("--gradient_checkpointing")
    begin = "from benchmarks.memory import child; import sys; child(sys.argv[1:])"
    runs.encode(job, work)
    runs.launch(["-c", begin, CLASSES[job.role], *words, file], work)
    shutil.rmtree(out)  # the next row is a run of its own
    found = json.loads(file.read_text())
    measured = found["tensors"]
    guess = estimated(parsing.parse(CLASSES[job.role], words, "wassily train"))
    sizes = [f"{size / 1e6:.0f}" for size in (measured, guess)]
    return [name, *sizes, f"{guess / measured:.2f}", f"{found['resident'] / 1e6:.0f}"]


def main(words: list[str] | None = None) -> Path:
    """Each network, the decoder with and without gradient checkpointing."""
    args = options(words)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        folders = models.make(work / args.size, args.size)
        pictures = models.draw_pictures(work / "pictures", 16, 512)
        for role in args.networks:
            for recompute in (False, True) if role == "decoder" else (False,):
                job = Job(
                    role=role,
                    models=folders,
                    pictures=pictures,
                    resolution=args.resolution,
                    batch=args.batch,
                    accumulation=1,
                    steps=3,
                    precision=args.precision,
                    recompute=recompute,
                    more=tuple(args.more.split()),
                )
                name = f"{role}{', gradient checkpointing' if recompute else ''}"
                rows.append(row(name, job, work))
    about = (
        f"Size `{args.size}`, batch {args.batch}, {args.resolution} px, precision "
        f"{args.precision}, {args.more or 'no further flags'}, 3 steps. Measured: the peak of "
        "PyTorch's allocator in the steps, weights included. Estimated: the tensors at the fullest "
        "moment. Resident: what the process grew by in the steps, the weights not included."
    )
    parts = [about, report.table(HEAD, rows)]
    path = report.write("memory", "Memory of a training", parts, args.results)
    print(path)
    return path


if __name__ == "__main__":
    main()
