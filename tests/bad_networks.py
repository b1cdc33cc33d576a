"""Networks and checkpoints that are spoilt: the folder of one is changed in place."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bad_folders import Case, then
from safetensors.torch import load_file, save_file


def rewritten(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Change the tensors of the one safetensors file of a folder."""

    def make(path: Path) -> None:
        (file,) = path.glob("*.safetensors")
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, {"format": "pt"})

    return make


def written(name: str, content: bytes) -> Callable[[Path], None]:
    """Replace a file's content; `*` in the name stands for the one file there is."""

    def make(path: Path) -> None:
        found = list(path.glob(name)) or [path / name]
        found[0].write_bytes(content)

    return make


def header(size: int, text: bytes) -> bytes:
    """A safetensors file of a header alone."""
    return struct.pack("<Q", size) + text


def configured(**values: Any) -> Callable[[Path], None]:
    """Other values in config.json."""

    def make(path: Path) -> None:
        file = path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), "utf-8")

    return make


def pickled(name: str) -> Callable[[Path], None]:
    """Only a pickle is there, which would make a file if it were loaded."""

    def make(path: Path) -> None:
        for file in path.glob("*.safetensors"):
            file.unlink()
        mark = str(path.parent / "was run").encode()
        (path / name).write_bytes(b"cposix\nmkdir\n(S'" + mark + b"'\ntR.")

    return make


def networks() -> Iterator[Case]:
    """A network's folder, spoilt."""
    weights = "*.safetensors"
    half = rewritten(lambda t: t.update({n: v.half() for n, v in t.items()}))
    yield Case("another dtype", half, "")
    first = sorted
    yield Case("a tensor is missing", rewritten(lambda t: t.pop(first(t)[0])), "missing")
    yield Case("no tensors", rewritten(lambda t: t.clear()), ".")
    yield Case(
        "another shape",
        rewritten(lambda t: t.update({first(t)[0]: torch.zeros(3, 5, 7)})),
        ".",
    )
    yield Case("more tensors", rewritten(lambda t: t.update(more=torch.zeros(2))), "")
    yield Case("cut to 1000 bytes", lambda p: _cut(p, 1000), ".")
    yield Case("cut by one byte", lambda p: _cut(p, -1), ".")
    yield Case("empty weights", written(weights, b""), ".")
    yield Case("zeros", written(weights, bytes(4096)), ".")
    yield Case("a web page", written(weights, b"<html>404</html>" * 99), ".")
    yield Case("a header of 2^60 bytes", written(weights, header(2**60, b"{}")), ".")
    yield Case("a header that is no JSON", written(weights, header(8, b"nonsense")), ".")
    lies = b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,99999999]}}'
    yield Case("offsets beyond the end", written(weights, header(len(lies), lies)), ".")
    yield Case(
        "a git pointer", written(weights, b"version https://git-lfs.github.com/spec/v1"), "."
    )
    yield Case("no weights", lambda p: next(p.glob(weights)).unlink(), ".")
    yield Case("no config", lambda p: (p / "config.json").unlink(), "config")
    for name, content in {
        "empty": b"",
        "no JSON": b"{ not json",
        "a list": b"[]",
        "a number": b"5",
        "null": b"null",
        "deep": b"[" * 100_000,
        "no UTF-8": b'{"x": "\xe9"}',
    }.items():
        yield Case(f"config: {name}", written("config.json", content), ".")
    for name in ("diffusion_pytorch_model.bin", "model.pt", "model.ckpt", "pytorch_model.bin"):
        yield Case(f"only {name}", pickled(name), "is a pickle, which can run code")
    code = {"auto_map": {"AutoModel": "evil.Net"}, "_class_name": "Evil"}
    evil = then(configured(**code), lambda p: (p / "evil.py").write_text("import os; 1/0"))
    yield Case("its own code", evil, "auto_map takes weights or code from elsewhere")


def _cut(path: Path, size: int) -> None:
    (file,) = path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:size])


def states() -> Iterator[Case]:
    """The state of a checkpoint, spoilt."""
    raw = {
        "empty": b"",
        "no JSON": b"{ no",
        "a list": b"[]",
        "null": b"null",
        "a text": b'"x"',
        "no UTF-8": b"\xff\xfe",
        "deep": b'{"a":' * 50_000,
        "an empty object": b"{}",
    }
    for name, content in raw.items():
        yield Case(f"state: {name}", written("state.json", content), r"state\.json|no checkpoint")
    fields: dict[str, Any] = {
        "step": ["3", -1, 1.5, None, True, 99],
        "role": [5, None, "unet", ["prior"]],
        "format": [0, 99, "1", None],
        "signature": [None, [], "x", {}, {"seed": "x"}],
        "config": [None, 5],
        "repositories": [None, []],
        "pending_loss": [None, [], ["a", "b"], 5, [1.0], [math.nan, 2], [-math.inf, 2], [1.0, -2]],
        "skipped_steps": [None, 1.5, -1],
        "fused": [None, 1, "no"],
        "scaler": [5, "x", {"scale": math.nan}, {"scale": "x"}],
    }
    for field, values in fields.items():
        for value in values:
            says = "checkpoint-|network" if field == "role" else "checkpoint-"
            yield Case(f"state: {field} is {value!r}", _stated(field, value), says)
        yield Case(f"state: no {field}", _stated(field, ...), "checkpoint-")


def _stated(field: str, value: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        file = path / "state.json"
        state = json.loads(file.read_text("utf-8")) | {field: value}
        if value is ...:
            del state[field]
        file.write_text(json.dumps(state), "utf-8")

    return make
