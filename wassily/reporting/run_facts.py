"""run.json: what a run was of, for its report - the command, the versions, the data."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wassily.config import schema
from wassily.config.training import TrainConfig
from wassily.errors import without_secrets
from wassily.files import atomic, output_folder, reading
from wassily.files.reading import BadFile
from wassily.version import __version__

FILE = output_folder.RUN
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft")


def versions() -> dict[str, str]:
    """Of this package, of Python and of the libraries that compute."""
    found = {"wassily": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write(config: TrainConfig, facts: Mapping[str, object]) -> None:
    """Put it beside the log; `facts` are plain values. No secret of the config is in it."""
    value = {
        "command": ["wassily", "train", config.role, *schema.to_flags(config)],
        "versions": versions(),
        **schema.run_facts(config),
        **facts,
    }
    atomic.write_text(
        Path(config.output_dir) / FILE,
        json.dumps(without_secrets(value), ensure_ascii=False, indent=1) + "\n",
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """What `write` wrote; nothing where there is none, or no such thing."""
    try:
        return reading.read_table(folder / FILE, root=folder)
    except BadFile:
        return {}
