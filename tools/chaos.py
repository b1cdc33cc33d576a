"""Kill a training at random moments, give the same command again, and compare.

    python -m tools.chaos --kills 50

Each run is a process of its own (forked from one that has imported torch already) that carries out
`wassily train` on tiny models: it fills a cache, draws samples, saves checkpoints, exports. It is
killed as by kill -9 at a moment drawn at random, and the same command is given again, until the run
is done; then another is begun, of the other network, until there were kills enough. After each kill
all that is called a checkpoint, a pipeline or a part of the cache has to be whole, and at the end
of each run its weights, averages, optimizer's state and losses are, bit for bit, those of a run
that was never killed.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from wassily import cli
from wassily.files import atomic, checksums, output_folder
from wassily.mini import untrained

ROLES = ("prior", "decoder")
PICTURES, STEPS = 9, 10
FLAGS = f"""--max_train_steps {STEPS} --gradient_accumulation_steps 2 --fuse_accumulation off
--checkpointing_steps 3 --checkpoints_total_limit 2 --logging_steps 2 --use_ema --holdout 0.2
--validation_epochs 2 --validation_prompts cat --resolution 32 --learning_rate 1e-3 --seed 7
--report_to none --dataloader_num_workers 1 --resume_from_checkpoint latest"""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["wassily.training.run"])


class Wrong(Exception):
    """What must not be."""


def draw_pictures(folder: Path) -> Path:
    """A folder of captioned pictures, coarse random colours."""
    folder.mkdir()
    chance, rows = np.random.default_rng(0), []
    for number in range(PICTURES):
        blocks = chance.integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(blocks).resize((96, 80)).save(folder / f"{number}.png")
        rows.append(json.dumps({"file_name": f"{number}.png", "text": f"pattern {number}"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    return folder


def command(role: str, work: Path, name: str) -> list[str]:
    """The words of a training into WORK/NAME, with a cache of its own."""
    models = work / "models"
    paths = {
        "pretrained_prior_model_name_or_path": models / "prior",
        "pretrained_decoder_model_name_or_path": models / "decoder",
        "train_data_dir": work / "pictures",
        "output_dir": work / name / "run",
        "cache_dir": work / name / "cache",
    }
    given = [word for flag, path in paths.items() for word in (f"--{flag}", str(path))]
    return ["train", role, *given, *FLAGS.split()]


def _child(words: list[str], output: str) -> None:
    with open(output, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    # The reading processes are forked from here: another server would have imported nothing.
    multiprocessing.set_start_method("fork", force=True)
    sys.exit(cli.main(words))


def run(words: list[str], output: Path, seconds: float | None = None) -> bool:
    """Carry out a command, killed after so many seconds; whether it came to its end before."""
    process = _forks.Process(target=_child, args=(words, str(output)))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise Wrong(f"exit code {process.exitcode}: {output.read_text('utf-8')[-2000:]}")
    return process.exitcode == 0


# ---------------------------------------------------------------- what must be so


def check_whole(folder: Path) -> None:
    """Raise Wrong if WORK/NAME holds something that is called whole and is not."""
    out = folder / "run"
    for _, saved in output_folder.checkpoints_in(out):
        if reason := checksums.damage(saved):
            raise Wrong(f"{saved}: {reason}")
    if (out / "model_index.json").is_file():
        index = json.loads((out / "model_index.json").read_text("utf-8"))
        parts = [name for name, part in index.items() if isinstance(part, list)]
        missing = [name for name in [*parts, "README.md"] if not (out / name).exists()]
        if missing:
            raise Wrong(f"{out} loads as a pipeline and lacks {missing}")
        for part in parts:
            check_readable(out / part)
    check_readable(folder / "cache")


def check_readable(folder: Path) -> None:
    """Raise Wrong if a safetensors file below is cut; half-written ones have another name."""
    for file in folder.rglob("*.safetensors"):
        if not file.name.startswith(atomic.ASIDE):
            try:
                tensors(file)
            except Exception as error:  # the library has kinds of its own
                raise Wrong(f"{file}: {error}") from error


def tensors(file: Path) -> dict[str, torch.Tensor]:
    """All of a file."""
    with safe_open(file, "pt") as held:
        return {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118


def numbers(out: Path) -> dict[str, Any]:
    """All that a run computed, by file and name; of the log, what is not a measure of time."""
    found: dict[str, Any] = {}
    for folder in [
        *(path for _, path in output_folder.checkpoints_in(out)),
        out / "prior",
        out / "unet",
    ]:
        for file in folder.rglob("*.safetensors"):
            for name, value in tensors(file).items():
                found[f"{file.relative_to(out)}: {name}"] = value
    for line in (out / "log.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        found |= {f"step {row['step']}: {k}": v for k, v in row.items() if "second" not in k}
    return found


def check_same(out: Path, whole: Path) -> int:
    """Raise Wrong unless two runs computed the same bits; how many numbers that were."""
    one, two = numbers(out), numbers(whole)
    if one.keys() != two.keys():
        raise Wrong(f"{out}: {sorted(one.keys() ^ two.keys())[:3]} only in one of the two")
    for name, value in one.items():
        other = two[name]
        same = torch.equal(value, other) if torch.is_tensor(value) else value == other
        if not same:
            raise Wrong(f"{out}: {name} is not that of the uninterrupted run")
    return sum(v.numel() if torch.is_tensor(v) else 1 for v in one.values())


def left(folder: Path) -> str:
    """What a kill interrupted, by what it left behind."""
    half = sorted(p.name for p in folder.rglob(f"{atomic.ASIDE}*"))
    for ending in ("export", "checkpoint"):
        if any(name.startswith(f"{atomic.ASIDE}{ending}") for name in half):
            return f"within {ending}"
    if half:
        return "within another file"
    if not (folder / "run" / "run.toml").exists():
        return "before the first step"
    steps = [step for step, _ in output_folder.checkpoints_in(folder / "run")]
    return "after the last step" if STEPS in steps else "between two checkpoints"


# ---------------------------------------------------------------- the whole


def ordeal(
    work: Path, kills: int, seconds: float, chance: random.Random
) -> tuple[collections.Counter[str], int]:
    """So many kills, but none after so many seconds: how many interrupted what, and how many runs
    came to their end all the same. Raises Wrong.
    """
    run(["--version"], work / "output.txt")  # so that none has to wait for imports
    ends, usual = time.monotonic() + seconds, {}
    for role in ROLES:
        began = time.monotonic()
        run(command(role, work, f"whole-{role}"), work / "output.txt")
        usual[role] = time.monotonic() - began
    met: collections.Counter[str] = collections.Counter()
    runs = 0
    while met.total() < kills and time.monotonic() < ends:
        role, name, done = ROLES[runs % len(ROLES)], f"killed-{runs}", False
        while not done:
            more = met.total() < kills and time.monotonic() < ends
            wait = chance.uniform(0, usual[role]) if more else None
            done = run(command(role, work, name), work / "output.txt", wait)
            check_whole(work / name)
            if not done:
                met[left(work / name)] += 1
        check_same(work / name / "run", work / f"whole-{role}" / "run")
        runs += 1
    return met, runs


def main(argv: list[str] | None = None) -> int:
    """0 if all was as it has to be, 1 if not."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10.0, help="no kill after so many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    told = parser.parse_args(argv)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        work = Path(folder)
        untrained.make(work / "models")
        draw_pictures(work / "pictures")
        try:
            met, runs = ordeal(work, told.kills, 60 * told.minutes, random.Random(told.seed))
        except Wrong as wrong:
            print(f"chaos: {wrong}", file=sys.stderr)
            return 1
    for what, count in met.most_common():
        print(f"{count:4d} kills {what}")
    print(
        f"{met.total()} kills of {told.kills} in {time.monotonic() - began:.0f} s: nothing "
        f"half-written was taken for whole, and {runs} runs ended with the bits of one never killed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
