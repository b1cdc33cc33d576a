"""Whole trainings as processes, ours and the reference's, timed alike and changed by nothing.

Both write a tensorboard event with every logged step, and an event has the wall time of its
writing. The rate of a run is taken between two such events, so that it holds no start-up and no
export; the start is the time from the launch of the process to the first of them. The processor
time of a running process is noted from outside, so that a ratio can be told on a busy machine too,
and with it the memory and the files that it holds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.models import Folders

SCRIPTS = {role: f"train_text_to_image_{role}.py" for role in ("prior", "decoder")}
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Job:
    """What is trained: both sides get the same words for it."""

    role: str
    models: Folders
    pictures: Path
    resolution: int = 256
    batch: int = 1
    accumulation: int = 4
    steps: int = 8
    precision: str = "no"
    recompute: bool = False
    rate: float = 1e-5
    more: tuple[str, ...] = ()  # flags for wassily alone

    def words(self, out: Path) -> list[str]:
        """The flags that both understand."""
        values = {
            "pretrained_prior_model_name_or_path": self.models.prior,
            "pretrained_decoder_model_name_or_path": self.models.decoder,
            "train_data_dir": self.pictures,
            "output_dir": out,
            "resolution": self.resolution,
            "train_batch_size": self.batch,
            "gradient_accumulation_steps": self.accumulation,
            "max_train_steps": self.steps,
            "learning_rate": self.rate,
            "mixed_precision": self.precision,
            "report_to": "tensorboard",
            "seed": 0,
        }
        return [f"--{name}={value}" for name, value in values.items()]


class Held(NamedTuple):
    """What a process holds at a wall time: bytes of resident memory, open files."""

    time: float
    resident: int
    files: int


@dataclass(frozen=True)
class Usage:
    """What a process took: seconds, the peak of resident memory in bytes, processor time."""

    seconds: float
    peak: int
    processor: list[tuple[float, float]]  # wall time, seconds until then
    held: list[Held] = field(default_factory=list)

    def processor_at(self, moment: float) -> float:
        """Processor seconds until a wall time."""
        return float(np.interp(moment, *zip(*self.processor, strict=True)))


@dataclass(frozen=True)
class Timed:
    """A run: seconds from launch to first step, the wall time of each logged step, its memory."""

    start: float
    times: dict[int, float]
    usage: Usage

    @property
    def start_processor(self) -> float:
        """Processor seconds until the first step."""
        return self.usage.processor_at(self.times[min(self.times)])

    def _counted(self, warmup: int) -> tuple[int, float, float]:
        """Steps from the first logged one that is not warm-up on, and when they began and ended."""
        first, last = min(s for s in self.times if s >= warmup), max(self.times)
        if first == last:
            raise SystemExit("no step was logged after the warm-up: give more --steps")
        return last - first, self.times[first], self.times[last]

    def steps_per_second(self, warmup: int) -> float:
        """By the clock."""
        steps, begin, end = self._counted(warmup)
        return steps / (end - begin)

    def processor_seconds(self, warmup: int) -> float:
        """Of a step, over all threads."""
        steps, begin, end = self._counted(warmup)
        return (self.usage.processor_at(end) - self.usage.processor_at(begin)) / steps


def step_times(folder: Path) -> dict[int, float]:
    """Optimizer step -> wall time of its event, out of the tensorboard files below a folder."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = {}
    for file in folder.rglob("events.out.*"):
        for event in EventFileLoader(str(file)).Load():
            if any(value.tag == "train_loss" for value in event.summary.value):
                found[event.step] = event.wall_time
    return found


def environment(work: Path) -> dict[str, str]:
    """This one's, offline, with the libraries' caches below `work`."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {"HF_HOME": str(work / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    return {**os.environ, **own, "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}


@dataclass
class Watch:
    """What is noted of a process, twenty times a second."""

    processor: list[tuple[float, float]] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    peak: int = 0

    def note(self, pid: int) -> None:
        """How it is now. Raises OSError on another system, or where it is over."""
        tick, folder = os.sysconf("SC_CLK_TCK"), Path(f"/proc/{pid}")
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        lines = (folder / "status").read_text().splitlines()
        size = {
            line[:5]: int(line.split()[1]) * 1024 for line in lines if line[:3] in ("VmH", "VmR")
        }
        if "VmRSS" not in size:
            raise ProcessLookupError(f"process {pid} is over")
        now = time.time()
        self.processor.append((now, (int(fields[11]) + int(fields[12])) / tick))
        self.held.append(Held(now, size["VmRSS"], len(os.listdir(folder / "fd"))))
        # Not the system's ru_maxrss, which begins with the memory of the process that forks.
        self.peak = max(self.peak, size["VmHWM"])


@contextlib.contextmanager
def meanwhile(seconds: float, work: Callable[[], object]) -> Iterator[None]:
    """Within, `work` is done every so many seconds in a thread; no more after an OSError."""
    over = threading.Event()

    def again() -> None:
        with contextlib.suppress(OSError):
            while not over.wait(seconds):
                work()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def watching(pid: int) -> Iterator[Watch]:
    """A process is watched as long as the context lasts."""
    found = Watch()
    with meanwhile(0.05, lambda: found.note(pid)):
        yield found


def launch(words: Sequence[Any], work: Path, enough: Callable[[], bool] | None = None) -> Usage:
    """Run a Python program to its end, or until `enough`. Stops the benchmark if it fails."""
    log, began = work / "last.log", time.time()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(work),
        )
        done = enough or (lambda: False)
        stopping = meanwhile(0.5, lambda: done() and process.kill())
        with watching(process.pid) as found, stopping:
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and not (enough and enough()):
        tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-15:])
        line = " ".join(map(str, words))
        raise SystemExit(f"{tail}\n{line}\nfailed with code {process.returncode}")
    ended = time.time()
    processor = [(began, 0.0), *found.processor, (ended, usage.ru_utime + usage.ru_stime)]
    return Usage(ended - began, found.peak, processor, found.held)


def _timed(words: list[Any], out: Path, work: Path, last: int | None) -> Timed:
    shutil.rmtree(out, ignore_errors=True)
    began = time.time()
    enough = None if last is None else lambda: last in step_times(out)
    usage = launch(words, work, enough)
    times = step_times(out)
    shutil.rmtree(out)  # the export of a large model
    return Timed(times[min(times)] - began, times, usage)


def ours(job: Job, work: Path, log_every: int, whole: bool = True) -> Timed:
    """A training by wassily; killed after its last step unless `whole`."""
    out = work / "ours"
    words = ["-m", "wassily", "train", job.role, *job.words(out), f"--cache_dir={work / 'cache'}"]
    words += [f"--logging_steps={log_every}", *job.more]
    if job.recompute:
        words.append("--gradient_checkpointing")
    return _timed(words, out, work, None if whole else job.steps)


def reference(job: Job, scripts: Path, work: Path, whole: bool = True) -> Timed:
    """The same training by the guide's script; its prior has no gradient checkpointing."""
    out = work / "reference"
    words = [scripts / SCRIPTS[job.role], *job.words(out)]
    if job.recompute and job.role == "decoder":
        words.append("--gradient_checkpointing")
    return _timed(words, out, work, None if whole else job.steps)


def encode(job: Job, work: Path) -> Usage:
    """What `wassily cache build` takes for a training, with whatever is in the cache by then."""
    words = ["-m", "wassily", "cache", "build", job.role, *job.words(work / "encode")]
    return launch([*words, f"--cache_dir={work / 'cache'}", *job.more], work)
