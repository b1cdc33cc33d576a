"""A part's folder, looked at before a library of models reads it: its configuration names nothing
elsewhere, no code and no size beyond bounds, and builds no more than its weights' headers hold.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from torch.nn.modules import module as torch_module

from wassily.files import reading
from wassily.files.reading import BadFile

ADAPTER = "adapter_config.json"  # by which transformers takes the weights from somewhere else
# Keys by which a library takes weights or code from elsewhere, or another kind of weights.
ELSEWHERE = ("auto_map", "base_model_name_or_path", "custom_pipeline", "quantization_config")
TEXT = 4096  # tokens of a prompt, and pixels of what an image encoder is shown
TIMESTEPS = 10_000
LAYERS = 256
BLOCKS = 64  # values in a list
NUMBER = 2**20  # of anything else in a network's configuration
BOUNDS = {
    "num_train_timesteps": TIMESTEPS,
    "model_max_length": TEXT,
    "num_embeddings": TEXT,
    "additional_embeddings": TEXT,
    "max_position_embeddings": TEXT,
    "image_size": TEXT,
}
HEADER = 16 * 2**20  # bytes; that of the released decoder has 0.1 MB
BUFFER = TEXT**2  # values: a mask between all tokens
TENSORS = 20_000  # of a network whose weights are not looked at; the released decoder has 1,000
LARGER = "its config.json describes a larger network than its weights are of"
# A library may register a parameter again when its values are there.
AGAIN = 4


@dataclass(frozen=True)
class Weights:
    """What the headers of some files of weights hold: the tensors, and all their values."""

    tensors: int
    values: int


class TooMuch(Exception):
    """A network is larger than it may be."""


# ---------------------------------------------------------------- a folder


def check(folder: Path) -> None:
    """Raise UserError for a part's folder that names anything elsewhere, or a size beyond bounds.

    Every JSON file in it is looked at but the vocabularies.
    """
    if (folder / ADAPTER).exists():
        raise BadFile(
            f"{folder / ADAPTER}: takes the weights from elsewhere. Remove it, or merge the "
            "adapter into the model."
        )
    for file in sorted(folder.glob("*.json")):
        if file.name.endswith(".index.json"):
            _shards(file)
        elif file.name == "tokenizer.json":
            _check_padding(file)
        elif file.name.endswith("config.json"):
            check_config(reading.read_table(file), file)


def check_config(config: Mapping[str, Any], file: Path | str) -> None:
    """Raise UserError for a value of a configuration that leads elsewhere or is beyond bounds."""
    pictures = Path(file).name == "preprocessor_config.json"
    schedule = Path(file).name == "scheduler_config.json"
    most = TEXT if pictures else TIMESTEPS if schedule else NUMBER
    for key, value in _pairs(config):
        if key in ELSEWHERE and value:
            raise BadFile(f"{file}: {key} takes weights or code from elsewhere. Remove it.")
        if isinstance(value, str) and _leads_out(key, value):
            raise BadFile(f"{file}: {key} names {value!r:.80}, which is elsewhere. Remove it.")
        if type(value) is int or type(value) is float:
            bound = BOUNDS.get(key, LAYERS if "layers" in key else most)
            if value > bound or math.isnan(value):
                shown = f"{_shown(value)}, the limit is {bound:,}"
                raise BadFile(f"{file}: {key} is too large ({shown}).")
        if isinstance(value, list) and len(value) > (TIMESTEPS if schedule else BLOCKS):
            raise BadFile(f"{file}: {key} is too long ({len(value):,} values).")


def _shown(value: float) -> str:
    return f"{value:.12g}" if not value > 1e18 else "over 1e18"


def _pairs(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Each value at any depth with the key that it is under; those of a list under the list's."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _pairs(one, str(name))
            if isinstance(one, Mapping):
                yield str(name), one
    elif isinstance(value, list):
        yield key, value
        for one in value:
            yield from _pairs(one, key)
    else:
        yield key, value


def _leads_out(key: str, value: str) -> bool:
    """Whether a library might read a value as the name of a file, or of code, outside of the
    folder.
    """
    if key.endswith("implementation"):
        return "/" in value or ":" in value  # of a repository with kernels
    if not (key.endswith("_file") or key in ("vocab", "merges")):
        return False
    plain = value.removeprefix("./")
    return len(PurePosixPath(plain).parts) > 1 or len(PureWindowsPath(plain).parts) > 1


def _check_padding(file: Path) -> None:
    """Raise UserError for a tokenizer that fills each text up to more tokens than TEXT."""
    found = reading.read_table(file)
    for part in ("padding", "truncation"):
        for key, value in _pairs(found.get(part) or {}):
            if type(value) in (int, float) and key != "pad_id" and value > TEXT:
                raise BadFile(
                    f"{file}: {key} is too large ({_shown(value)}, the limit is {TEXT:,})."
                )


def _shards(index: Path) -> list[Path]:
    """The files of an index of weights. Raises UserError for one that is not beside it."""
    named = reading.read_table(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise BadFile(f"{index}: no weight_map of files. Download it again.")
    names = sorted(set(named.values()))
    for name in names:
        plain = PurePosixPath(name).name == name == PureWindowsPath(name).name
        if not plain or not name.endswith(".safetensors"):
            raise BadFile(f"{index}: names {name!r:.80}, which is no file beside it. Remove it.")
    return [index.parent / name for name in names]


# ---------------------------------------------------------------- its weights


def weights(folder: Path, stem: str) -> Weights | None:
    """What the weights of a folder hold by their headers: one file, or those of an index.

    None where there are none. Raises UserError for a header that is none or does not fit its file.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    files = [single] if single.exists() else []
    files += _shards(index) if index.exists() else []
    if not files:
        return None
    found = [_header(file) for file in files]
    return Weights(sum(w.tensors for w in found), sum(w.values for w in found))


def _header(file: Path) -> Weights:
    with reading.opened(file) as opened:
        size = opened.seek(0, 2)
        opened.seek(0)
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(HEADER, size - 8):
            raise BadFile(f"{file}: no safetensors file (a header of {length:,} bytes).")
        raw = opened.read(length)
    try:
        table = reading.checked_depth(json.loads(raw))
        shapes = [one["shape"] for name, one in table.items() if name != "__metadata__"]
        values = sum(math.prod(map(_count, shape)) for shape in shapes)
    except (*reading.NONSENSE, AttributeError, KeyError, TypeError):
        raise BadFile(f"{file}: no safetensors file (its header is not readable).") from None
    if values > size:  # each takes a byte at least
        raise BadFile(f"{file}: cut short or damaged: its header names more than the file holds.")
    return Weights(len(shapes), values)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


# ---------------------------------------------------------------- the network that is built


class _Bounds(threading.local):
    """What may still be built in this thread: tensors, values; None where nothing is counted."""

    left: list[int] | None = None


_bounds = _Bounds()


def _count_parameter(_: Any, name: str, value: torch.Tensor | None) -> None:
    if _bounds.left is not None and value is not None:
        _bounds.left[0] -= 1
        _bounds.left[1] -= value.numel()
        if min(_bounds.left) < 0:
            raise TooMuch(LARGER)


def _check_buffer(_: Any, name: str, value: torch.Tensor | None) -> None:
    if _bounds.left is not None and value is not None and value.numel() > BUFFER:
        raise TooMuch(f"its config.json makes {name} of {value.numel():,} values")


# Once and for good: the hooks of a process are no place to add to and take from in a thread.
torch_module.register_module_parameter_registration_hook(_count_parameter)
torch_module.register_module_buffer_registration_hook(_check_buffer)


@contextlib.contextmanager
def bounded(held: Weights | None) -> Iterator[None]:
    """Within, this thread builds no network of more than some weights hold; TooMuch is raised."""
    before = _bounds.left
    values = AGAIN * held.values + NUMBER if held else 2**40
    _bounds.left = [AGAIN * held.tensors + BLOCKS if held else TENSORS, values]
    try:
        yield
    except RuntimeError as error:  # some memory is asked for before a parameter is made of it
        asked = re.search(r"tried to allocate (\d+) bytes", str(error))
        if asked and int(asked[1]) > 8 * values:
            raise TooMuch(LARGER) from None
        raise
    finally:
        _bounds.left = before
