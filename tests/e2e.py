"""What the end-to-end tests share: whole runs, here and in processes of their own, and comparing.

A process of its own is forked from a server that has imported torch once, so it starts at once and
can be killed like any other.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import Outcome, read_jsonl, run_cli
from PIL import Image
from safetensors.torch import load_file

from wassily.mini.untrained import Tiny

ROLES = ("prior", "decoder")
NETWORK = {"prior": "prior", "decoder": "unet"}  # the folder of the trained network
SIDE = 32


# ---------------------------------------------------------------- runs


def command(role: str, out: Path, tiny: Tiny, pics: Path | None, **flags: Any) -> list[str]:
    """The words of `wassily train` on the tiny models; True is a bare flag, None leaves one out."""
    usual: dict[str, Any] = {
        "pretrained_prior_model_name_or_path": tiny.prior,
        "pretrained_decoder_model_name_or_path": tiny.decoder,
        "train_data_dir": pics,
        "output_dir": out,
        "resolution": SIDE,
        "report_to": "none",
        "seed": 7,
        "learning_rate": 1e-3,
    }
    words = ["train", role]
    for name, value in (usual | flags).items():
        if value is None or value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            values = value if isinstance(value, (list, tuple)) else [value]
            words += [str(v) for v in values]
    return words


def wassily(*words: object) -> Outcome:
    """A command in this process, which forgets what accelerate knew of the run before."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    PartialState._reset_state()
    return run_cli(*words)


def train(role: str, out: Path, tiny: Tiny, pics: Path | None, **flags: Any) -> Outcome:
    """A whole training in this process that must succeed."""
    outcome = wassily(*command(role, out, tiny, pics, **flags))
    assert outcome.code == 0, outcome.text
    return outcome


def refused(*words: object) -> str:
    """The one line with which a command ends that the user can mend: exit code 2, nothing else."""
    outcome = wassily(*words)
    assert outcome.code == 2, outcome.text
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("wassily: error: "), outcome.err
    return lines[0]


# ---------------------------------------------------------------- processes

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    ["wassily.training.run", "wassily.generation.generate", "tensorboard"]
)


def _fatal(moment: tuple[str, str]) -> None:
    """Die, as by kill -9, just before the first operation `event` on a path that ends so."""
    event, ending = moment

    def hook(name: str, values: tuple[Any, ...]) -> None:
        if name != event or not values or not isinstance(values[0], (str, bytes, os.PathLike)):
            return
        if name == "open":
            mode, flags = values[1:3]  # os.open has no mode
            if not (set(mode) & set("wax+") if mode else flags & (os.O_WRONLY | os.O_RDWR)):
                return
        if os.fsdecode(values[0]).endswith(ending):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _child(
    words: list[str],
    outputs: tuple[str, str | None],
    variables: Mapping[str, str],
    moment: tuple[str, str] | None,
) -> None:
    out, err = outputs
    with open(out, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if err is not None:
        with open(err, "wb") as file:
            os.dup2(file.fileno(), 2)
    faulthandler.enable()
    os.environ.update(variables)
    torch.set_num_threads(1)
    gc.freeze()  # a search of the server's objects for garbage would copy each of their pages
    # A child's own children would come from another such server, which has imported nothing.
    multiprocessing.set_start_method("fork", force=True)
    if moment:
        _fatal(moment)
    from wassily import cli

    sys.exit(cli.main(words))


def start(
    words: Sequence[str],
    output: Path,
    variables: Mapping[str, str] | None = None,
    moment: tuple[str, str] | None = None,
    errors: Path | None = None,
) -> Any:
    """`wassily WORDS` as a process, its output into a file, that of its errors into another if one
    is named; it may be told when to die.
    """
    outputs = (str(output), None if errors is None else str(errors))
    process = _forks.Process(
        target=_child, args=([str(w) for w in words], outputs, dict(variables or {}), moment)
    )
    process.start()
    return process


def ended(words: Sequence[str], folder: Path) -> Outcome:
    """Such a process after its end; its outputs stay in a folder."""
    out, err = folder / "said.txt", folder / "errors.txt"
    code = finish(start(words, out, errors=err), err)
    return Outcome(code, out.read_text("utf-8"), err.read_text("utf-8"))


def finish(process: Any, output: Path | None = None, timeout: float = 600) -> int:
    """The exit code of a started process; -9 if it was killed. One that does not end in time says
    where each of its threads stands, in its output, and is killed.
    """
    process.join(timeout)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGABRT)  # faulthandler's, see _child
        process.join(10)
        process.kill()
        process.join()
        said = output.read_text("utf-8", "replace") if output else "its output was not named"
        raise AssertionError(f"the process did not end in {timeout:.0f} s: {said}")
    return int(process.exitcode)


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start_ranks(count: int, words: Sequence[str], folder: Path, **variables: str) -> list[Any]:
    """A command on `count` gloo processes, as a launcher starts them; outputs into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    common = {
        "ACCELERATE_USE_CPU": "true",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        **variables,
    }
    return [
        start(words, folder / f"{n}.txt", common | {"RANK": str(n), "LOCAL_RANK": str(n)})
        for n in range(count)
    ]


def ranks(
    count: int, words: Sequence[str], folder: Path, **variables: str
) -> list[tuple[int, str]]:
    """Such processes until they end: exit codes and outputs."""
    started = start_ranks(count, words, folder, **variables)
    codes = [finish(process, folder / f"{n}.txt") for n, process in enumerate(started)]
    return [(code, (folder / f"{n}.txt").read_text("utf-8")) for n, code in enumerate(codes)]


# ---------------------------------------------------------------- comparing


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of every safetensors file below a folder, by file and name."""
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        for name, value in load_file(file).items():
            found[f"{file.relative_to(folder)}: {name}"] = value
    assert found, f"no tensors in {folder}"
    return found


def assert_same_bits(one: Path, two: Path) -> None:
    """Both folders hold the same tensors, to the bit."""
    a, b = tensors(one), tensors(two)
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, f"{len(different)} of {len(a)} differ: {different[:3]}"


def network(folder: Path, role: str) -> dict[str, torch.Tensor]:
    """The trained network's tensors in an output or checkpoint folder."""
    return tensors(folder / NETWORK[role])


def losses(folder: Path) -> list[tuple[int, float, float]]:
    """(step, loss, learning rate) of the lines of log.jsonl that have them."""
    rows = [row for row in read_jsonl(folder / "log.jsonl") if "train_loss" in row]
    return [(row["step"], row["train_loss"], row["lr"]) for row in rows]


def checkpoints(folder: Path) -> list[str]:
    """Names of the checkpoint folders, in the order of their steps."""
    names = [p.name for p in folder.glob("checkpoint-*")]
    return sorted(names, key=lambda name: int(name.split("-")[1]))


def pixels(file: Path) -> np.ndarray:
    """A picture's values."""
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB")).copy()


def rows_of(pics: Path) -> list[dict[str, Any]]:
    """The lines of a picture folder's metadata.jsonl."""
    return list(read_jsonl(pics / "metadata.jsonl"))


def write_rows(pics: Path, rows: list[dict[str, Any]]) -> None:
    """Put a metadata.jsonl into a picture folder."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (pics / "metadata.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
