"""Files of a folder that came from a stranger: each is opened by one reader, whatever lies there.

The tests bear the numbers of the findings that they close.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, draw_picture, run_cli, with_checkpoints

from wassily.config import parsing
from wassily.config.generation import GenerateConfig
from wassily.data import folders, png
from wassily.encodings import cache
from wassily.errors import UserError
from wassily.files import atomic, checksums, output_folder, reading, run_state
from wassily.files.reading import BadFile
from wassily.files.run_state import RunState, Saved
from wassily.generation import conditions
from wassily.models import missing, names, origins
from wassily.reporting import model_card, report, run_facts, run_log
from wassily.studio import process, run_status
from wassily.studio.allowed_folders import AllowedFolders
from wassily.training import optimizer_state
from wassily.training_data import generic_prompts

# ---------------------------------------------------------------- in the sources

# What opens a file: by its name or its last word. `json.loads` and the like take a text.
CALLS = {"open", "safe_open", "load_file", "json.load", "tomllib.load", "tomli.load", "yaml.load"}
CALLS |= {"np.load", "numpy.load", "torch.load", "os.open", "io.open", "os.fdopen"}
METHODS = {"read_text", "read_bytes", "open", "fromfile", "memmap", "copyfile", "copy2"}
METHODS |= {"write_text", "write_bytes"}
# The owners, each with its reason. The calls of the rooms' own readers are not meant.
OWNERS = {
    "files/reading.py": "the reader",
    "files/atomic.py": "the writer; safetensors' files once `reading` has looked at them",
    "files/lock.py": "the lock, which follows no link either",
    "files/platforms.py": "flushes to the disk, and the null device",
    "files/checksums.py": "writes into a folder that was made a moment ago",
    "files/run_state.py": "writes into a folder that was made a moment ago",
    "models/pipeline_folder.py": "writes into a folder that was made a moment ago",
    "mini/untrained.py": "makes the bundled model's folder anew",
    "mini/world.py": "makes the bundled model's images anew",
    "cli.py": "the null device",
    "planning/memory.py": "reads the kernel's numbers",
    "data/decoding.py": "PIL, of files that `reading` has opened",
    "data/images.py": "PIL, of files that `reading` has opened",
    "data/png.py": "PIL, of files that `reading` has opened",
    "studio/process.py": "the output of a training, a new file by `atomic`",
}
# `webbrowser.open` is given the address of the studio, never a file.
OURS = ("reading.", "atomic.", "opened.", "self.open", "lock.opened", "webbrowser.open")


def _opens(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            method = isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
            if (called in CALLS or method) and not called.startswith(OURS):
                found.append(f"line {node.lineno}: {called}")
    return found


def test_finding_09_files_have_one_reader_and_one_writer() -> None:
    """No other file of the package opens, reads or writes one by itself, and each owner does."""
    found = {
        path.relative_to(ROOT / "wassily").as_posix(): calls
        for path in sorted((ROOT / "wassily").rglob("*.py"))
        if (calls := _opens(path))
    }
    assert {name: calls for name, calls in found.items() if name not in OWNERS} == {}


# ---------------------------------------------------------------- pipes, links, sizes


def _dataset(file: Path) -> list[Any]:
    draw_picture(1, 16, 16).save(file.parent / "a.png")
    return list(folders.rows_of(str(file.parent), "text", folders.stop))


def _studio(read: Callable[[process.TrainingProcess], object]) -> Callable[[Path], object]:
    def look(file: Path) -> object:
        allowed = AllowedFolders(file.parents[2], ())
        return read(process.process_of(allowed, file.parents[2] / file.stem))

    return look


# What is read, and by what; what a caller must not see, it is told as nothing being there.
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "state of a checkpoint": ("state.json", lambda f: run_state.read(f.parent, Saved)),
    "state to resume": ("state.json", lambda f: run_state.to_resume(f.parent)),
    "manifest": ("manifest.json", lambda f: checksums.damage(f.parent)),
    "optimizer": ("optimizer.safetensors", lambda f: optimizer_state.read(f.parent, {})),
    "log": ("log.jsonl", lambda f: run_log.read_log(f.parent)),
    "log, by the studio": ("log.jsonl", lambda f: run_status.logged(f.parent)),
    "facts": ("run.json", lambda f: run_facts.read_summary(f.parent)),
    "facts of an adapter's run": ("run.json", lambda f: origins.behind(_adapter(f), "prior")),
    "card": ("README.md", lambda f: model_card.prior_of(f.parent)),
    "config": ("run.toml", lambda f: parsing.parse("PriorConfig", ["--config", str(f)], "x")),
    "config to repeat": ("run.toml", lambda f: missing._again(f)),
    "config of a network": (
        "config.json",
        lambda f: names.config_of(names.Trained("x", f.parent), "prior"),
    ),
    "adapter": ("a.safetensors", atomic.read_notes),
    "weights": ("a.safetensors", atomic.read_tensors),
    "shard of the cache": ("a.safetensors", lambda f: cache.Store(f.parent)),
    "content": ("a.png", lambda f: cache.file_digest(str(f))),
    "notes of an image": ("a.png", png.png_notes),
    "sample of a report": ("00.png", lambda f: report._shown(f, 1, f.parent)),
    "prompts": ("a.txt", lambda f: conditions.prompts(GenerateConfig(prompts_file=str(f)))),
    "generic prompts": ("a.txt", generic_prompts.prompt_lines),
    "lines of a dataset": ("metadata.jsonl", _dataset),
    "table of a dataset": ("metadata.csv", _dataset),
    "record of a training": ("studio/trainings/x.json", _studio(process.record_of)),
    "output of a training": ("studio/trainings/x.txt", _studio(process.last_line)),
}


def _adapter(file: Path) -> Path:
    atomic.write_tensors(file.parent / "adapter.safetensors", {}, {"network": "prior"})
    return file.parent / "adapter.safetensors"


@pytest.mark.parametrize("what", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "deep", "sparse"])
def test_finding_09_what_is_no_file_is_not_waited_for(what: str, kind: str, tmp_path: Path) -> None:
    """It is told in one line, or counts as nothing: no reader hangs, and none runs out of memory
    or of stack.
    """
    name, read = READERS[what]
    if (what, kind) == ("content", "sparse"):
        return  # weights are digested, too, and have no limit
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    elif kind == "deep":
        file.write_text("a = " * (file.suffix == ".toml") + "[" * 200_000)
    else:
        with open(file, "wb") as made:
            made.truncate(2**40)
    try:
        read(file)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["state.json", "manifest.json", "log.jsonl", "run.json"])
def test_finding_09_a_link_out_of_an_output_folder_is_not_read(name: str, tmp_path: Path) -> None:
    """What it leads to belongs to somebody else."""
    (tmp_path / "run").mkdir()
    folder = with_checkpoints(tmp_path / "run", 1) / "checkpoint-1"
    row = {"step": 7, "train_loss": 1.0, "role": "prior", "repositories": {}, "files": {}}
    (tmp_path / "secret").write_text(json.dumps(row))
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    if name == "state.json":
        with pytest.raises(UserError, match="leads out"):
            run_state.read(folder, Saved)
    elif name == "manifest.json":
        assert "leads out" in str(checksums.damage(folder))
    elif name == "log.jsonl":
        with pytest.raises(BadFile, match="leads out"):
            run_log.read_log(folder)
        assert run_status.logged(folder) == []
    else:
        assert run_facts.read_summary(folder) == {}


# ---------------------------------------------------------------- captions, lines


@pytest.mark.parametrize("name", ["metadata.jsonl", "a.txt"])
def test_finding_27_lines_and_captions_are_bounded(name: str, tmp_path: Path) -> None:
    """A line or a caption of 1 MB is taken; a longer one is one line, and is not read whole."""
    draw_picture(1, 16, 16).save(tmp_path / "a.png")
    row = '{"file_name": "a.png", "text": "' if name.endswith("jsonl") else ""
    end = '"}' if row else ""
    room = reading.LINE - len(row) - len(end)
    (tmp_path / name).write_text(row + "a" * room + end)
    [(_, captions)] = folders.rows_of(str(tmp_path), "text", folders.stop)
    assert captions == ("a" * room,)
    with open(tmp_path / name, "ab") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match=rf"{name}.*(too long|too large)"):
        list(folders.rows_of(str(tmp_path), "text", folders.stop))


# ---------------------------------------------------------------- checkpoints of one step


@pytest.mark.parametrize("name", ["checkpoint-05", "checkpoint-\u0665", "checkpoint-", "best-05"])
def test_finding_29_a_step_has_one_name(name: str, tmp_path: Path) -> None:
    """Zeros in front and digits of other scripts would name the same step a second time."""
    with_checkpoints(tmp_path, 5)
    shutil.copytree(tmp_path / "checkpoint-5", tmp_path / name)
    assert [p.name for _, p in output_folder.checkpoints_in(tmp_path)] == ["checkpoint-5"]


def test_finding_06_a_checkpoint_that_is_a_link_is_none(tmp_path: Path) -> None:
    """Rotation would move and remove it."""
    for name in ("other", "run"):
        (tmp_path / name).mkdir()
    with_checkpoints(tmp_path / "other", 9)
    folder = with_checkpoints(tmp_path / "run", 5)
    (folder / "checkpoint-9").symlink_to(tmp_path / "other" / "checkpoint-9")
    assert [step for step, _ in output_folder.checkpoints_in(folder)] == [5]


# ---------------------------------------------------------------- state.json

STATE: dict[str, Any] = {
    "format": 1,
    "step": 5,
    "role": "prior",
    "repositories": {"prior": "mini"},
    "signature": {"seed": 1},
    "config": {"learning_rate": 1e-4},
    "fused": False,
    "pending_loss": [0.5, 1],
    "skipped_steps": 0,
    "scaler": None,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best", "x"),
        ("best", [1]),
        ("repositories", 5),
        ("repositories", {"prior": 5}),
        ("stream", "x"),
        ("stream", 5),
        ("config", [1]),
        ("config", {"learning_rate": [1]}),
        ("config", {"learning_rate": "fast"}),
        ("config", {"train_data_dir": 5}),
        ("config", {"validation_prompts": "a"}),
    ],
)
def test_finding_29_nonsense_in_a_state_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    """Each field is of its type, or the checkpoint is not resumed."""
    from wassily.config.training import PriorConfig
    from wassily.training import setup

    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    config = PriorConfig(train_data_dir=str(tmp_path))
    (folder / "state.json").write_text(json.dumps(STATE))
    assert isinstance(setup.saved_state(config, folder), RunState)
    (folder / "state.json").write_text(json.dumps(STATE | {name: value}))
    with pytest.raises(UserError, match=f"state.json.*{name}|config in state.json: "):
        setup.saved_state(config, folder)


# ---------------------------------------------------------------- report


def test_finding_12_report_of_a_hostile_folder(tmp_path: Path) -> None:
    """The command ends with 0, or with one line."""
    (tmp_path / "log.jsonl").write_text('{"step": 1, "train_loss": 1.0}\n')
    (tmp_path / "run.json").write_text("[" * 200_000)
    assert run_cli("report", tmp_path).code == 0
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").symlink_to("/dev/zero")
    assert run_cli("report", tmp_path).code == 2
