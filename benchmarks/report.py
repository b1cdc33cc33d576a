"""What every benchmark writes: a dated page of Markdown with the machine and the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

import wassily

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "datasets")


def device() -> torch.device:
    """Where the measurement runs."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def activities() -> list[ProfilerActivity]:
    """The kinds of work that a profiler can watch here. torch warns if it is asked for others."""
    cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    return [ProfilerActivity.CPU, *cuda]


def machine() -> str:
    """Processor, cores and memory, and the GPU if there is one."""
    cpu, memory = platform.processor() or platform.machine(), 0.0
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (OSError, StopIteration, ValueError):
        pass
    text = f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB"
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        text += f"; {found.name}, {found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    return text


def versions() -> str:
    """Of Python, wassily and the libraries that do the work."""
    found = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    own = [f"Python {platform.python_version()}", f"wassily {wassily.__version__}"]
    return ", ".join([*own, *found])


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the least and the greatest if there are several."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def write(name: str, title: str, parts: Sequence[str], folder: Path = RESULTS) -> Path:
    """FOLDER/DATE-NAME-DEVICE.md from its paragraphs, which are printed too."""
    today, threads = date.today(), torch.get_num_threads()
    head = f"# {title}\n\n{today}. {machine()}. {versions()}, {threads} thread(s)."
    folder.mkdir(parents=True, exist_ok=True)
    kind = "cpu"
    if torch.cuda.is_available():
        kind = torch.cuda.get_device_name(0).lower().replace(" ", "-")
    path = folder / f"{today}-{name}-{kind}.md"
    path.write_text("\n\n".join([head, *parts]) + "\n", "utf-8")
    print("\n\n".join(parts), flush=True)
    return path
