"""run.json: what a run was of, for its report - the command, the versions, the data."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wassily.config import schema
from wassily.config.training import TrainConfig
from wassily.data import captions
from wassily.data.datasets import Pictures
from wassily.encodings import fill
from wassily.encodings.definitions import EncoderContext
from wassily.files import atomic, output_folder
from wassily.models import parts
from wassily.runtime.accelerator import Runtime
from wassily.version import __version__

FILE = output_folder.RUN
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft")


def of_data(source: Pictures, context: EncoderContext, held_out: Pictures | None) -> dict[str, int]:
    """Counts of what is trained on: pictures, and if they are kept in the cache, the equal ones
    among them; captions, the different ones and the cut ones, where the network reads them.
    """
    runtime = context.runtime
    found = {"pictures": len(source)}
    if not context.no_cache:
        contents, _ = fill.picture_contents(source, context.root, runtime)
        found["duplicates"] = len(contents) - len(np.unique(contents, axis=0))
    if context.role == "prior":
        home = context.repositories["prior"]
        tokenizer = parts.load("tokenizer", home, cache_dir=context.cache_dir)
        cut, total = runtime.shared(lambda: captions.count_cut(source.all_captions(), tokenizer))
        different = runtime.shared(lambda: len({hash(text) for text in source.all_captions()}))
        found |= {"captions": total, "different_captions": different, "cut_captions": cut}
        found["longest_caption_in_tokens"] = tokenizer.model_max_length
    return found | ({"held_out": len(held_out)} if held_out else {})


def count_lines(found: dict[str, int]) -> list[str]:
    """What of these counts is said before the first step."""
    told = []
    if found.get("duplicates"):
        told.append(f"{found['duplicates']} of {found['pictures']} pictures are copies of others")
    if "captions" in found:
        limit = found["longest_caption_in_tokens"]
        counted = f"{found['cut_captions']} of {found['captions']} captions"
        told.append(f"{counted} are longer than {limit} tokens and are cut there")
    return told


def versions() -> dict[str, str]:
    """Of this package, of Python and of the libraries that compute."""
    found = {"wassily": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write(config: TrainConfig, runtime: Runtime, facts: Mapping[str, object]) -> None:
    """Put it beside the log; `facts` are plain values. No secret of the config is in it."""
    value = {
        "command": ["wassily", "train", config.role, *schema.to_flags(config)],
        "versions": versions(),
        **schema.run_facts(config),
        "processes": runtime.world,
        "device": str(runtime.device),
        "precision": runtime.precision,
        **facts,
    }
    atomic.write_text(
        Path(config.output_dir) / FILE, json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """What `write` wrote; nothing where there is none, or no such thing."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
