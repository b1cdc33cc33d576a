"""What disk and memory refuse, at any write of a run: one line, and the last checkpoint is whole.

The disk is full where an operation of Python's is told so, and really so, by a limit on the size of
files, where others write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e import assert_same_bits, checkpoints, command, losses, refused, train, wassily
from helpers import read_jsonl

from wassily import errors
from wassily.files import checksums, disk, lock
from wassily.mini.untrained import Tiny
from wassily.training import run
from wassily.training_data import training_set

FLAGS: dict[str, Any] = {
    "max_train_steps": 4,
    "checkpointing_steps": 2,
    "logging_steps": 1,
    "validation_prompts": "a cat",
    "validation_epochs": 1,
    "resume_from_checkpoint": "latest",
}
_refusing: list[tuple[str, str, int]] = []  # (event, end of the path, error) while there is one


def _hook(name: str, values: tuple[Any, ...]) -> None:
    for event, ending, number in _refusing:
        if name != event or not isinstance(values[0], (str, bytes, os.PathLike)):
            continue
        # values: path, mode, flags; the mode is None for os.open
        if name == "open" and not values[2] & (os.O_WRONLY | os.O_RDWR):
            continue
        if os.fsdecode(values[0]).endswith(ending):
            raise OSError(number, os.strerror(number), os.fsdecode(values[0]))


sys.addaudithook(_hook)  # for good: there is no taking one away


@contextlib.contextmanager
def refusing(event: str, ending: str, number: int) -> Iterator[None]:
    """Within, that operation on such a path fails so."""
    _refusing.append((event, ending, number))
    try:
        yield
    finally:
        _refusing.clear()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, photos: Path) -> Path:
    """The output folder of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train("prior", out, tiny, photos, **FLAGS)
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """The same run, as it was after step 2."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copytree(whole / "checkpoint-2", folder / "checkpoint-2")
    lines = (whole / "log.jsonl").read_text("utf-8").splitlines()[:2]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def _assert_kept(out: Path, whole: Path) -> None:
    """checkpoint-2 is what it was, and there is no other that is not whole."""
    assert_same_bits(out / "checkpoint-2", whole / "checkpoint-2")
    for name in checkpoints(out):
        assert checksums.damage(out / name) is None
    assert not (out / lock.NAME).exists()


FULL = errno.ENOSPC


@pytest.mark.parametrize(
    ("event", "ending", "number"),
    [
        ("open", "run/.lock", errno.EROFS),
        ("open", ".writing-run.toml", FULL),
        ("open", "log.jsonl", FULL),
        ("os.mkdir", ".writing-checkpoint-4", errno.EACCES),
        ("open", ".writing-checkpoint-4/state.json", FULL),
        ("open", "checkpoint-4/manifest.json", errno.EDQUOT),
        ("os.rename", ".writing-checkpoint-4", errno.EIO),
        ("open", "step-4/.writing-00.png", FULL),
        ("open", ".writing-export/model_index.json", FULL),
        ("open", ".writing-README.md", FULL),
    ],
)
def test_the_disk_refuses(
    event: str,
    ending: str,
    number: int,
    out: Path,
    whole: Path,
    tiny: Tiny,
    photos: Path,
) -> None:
    """At each kind of write: the line names the path, the reason, and what to go on with."""
    words = command("prior", out, tiny, photos, **FLAGS)
    with refusing(event, ending, number):
        line = refused(*words)
    assert os.strerror(number) in line
    assert str(out) in line
    if "lock" not in ending:
        newest = "4" if (out / "checkpoint-4").exists() else "2"
        assert f"checkpoint-{newest} is whole" in line and "repeat the command" in line
    _assert_kept(out, whole)
    assert event == "os.rename" or not list(out.glob(".writing-checkpoint*"))
    if ending == ".writing-README.md":  # the latest of them: nothing of it stays in the way
        assert wassily(*words).code == 0
        assert_same_bits(out / "checkpoint-4", whole / "checkpoint-4")
        assert losses(out) == losses(whole)


@pytest.mark.parametrize(
    "file", ["prior/diffusion_pytorch_model.safetensors", "optimizer.safetensors"]
)
def test_a_file_that_cannot_grow(
    file: str, out: Path, whole: Path, tiny: Tiny, photos: Path
) -> None:
    """A limit on the size of files, just below that of the weights or of the optimizer's state, is
    met by those who write them, which is not Python.
    """
    size = (whole / "checkpoint-2" / file).stat().st_size
    words = command("prior", out, tiny, photos, **FLAGS)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, before[1]))
    try:
        line = refused(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"{out / 'checkpoint-4'}: {os.strerror(errno.EFBIG)}; checkpoint-2 is whole" in line
    assert "raise the limit on the size of files (ulimit -f)" in line
    _assert_kept(out, whole)
    assert checkpoints(out) == ["checkpoint-2"]


def test_the_folder_is_removed_under_the_run(
    out: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not made anew with half a run in it."""
    from wassily.training import loop

    before = loop.Progress.advance

    def advance(self: Any, count: int = 1) -> None:
        before(self, count)
        if self.what == "training":
            shutil.rmtree(out, ignore_errors=True)

    monkeypatch.setattr(loop.Progress, "advance", advance)
    line = refused(*command("prior", out, tiny, photos, **FLAGS | {"logging_steps": 100}))
    assert line.endswith(f"--output_dir {out} is gone: it was removed or unmounted under the run")
    assert not out.exists()


Usage = namedtuple("Usage", "total used free")


def test_nobody_reads_what_is_printed(tmp_path: Path) -> None:
    """As behind `| head`: the folder is not to blame, and the run has not come to its end."""
    read, write = os.pipe()
    os.close(read)
    with (
        open(write, "wb", buffering=0) as pipe,
        pytest.raises(disk.UserError, match=r"the pipe is closed; there is no checkpoint yet"),
        disk.disk(tmp_path),
    ):
        pipe.write(b"step 1")


def test_no_room(
    out: Path, whole: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before the first step, and before a checkpoint; warned of one checkpoint ahead. What it
    needs is what one takes.
    """
    taken = sum(p.stat().st_size for p in (whole / "checkpoint-4").rglob("*") if p.is_file())
    words = command("prior", out, tiny, photos, **FLAGS | {"checkpointing_steps": 1})
    free = [0]
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(0, 0, free[0]))
    line = refused(*words)
    assert "no room for a checkpoint: it needs" in line
    assert "the disk has 0.00 MB; checkpoint-2 is whole" in line
    needs = float(line.partition("it needs ")[2].split()[0])
    # Of tiny models the headers of the files are a part that can be seen.
    assert 0 <= taken / 1e6 - needs < 0.05
    assert (out / "run.toml").exists() is False
    # Enough at the start and for checkpoint-3; then somebody fills the disk.
    free[0] = 10**9
    before = disk.check_room

    def check(folder: Path, needs: int, what: str) -> None:
        before(folder, needs, what)
        free[0] = 0 if what == "checkpoint-3" else free[0]

    monkeypatch.setattr(disk, "check_room", check)
    done = wassily(*words)
    assert done.code == 2
    assert "step 3: the disk of" in done.out and "make room before it comes" in done.out
    assert "no room for checkpoint-4" in done.err and "checkpoint-3 is whole" in done.err
    _assert_kept(out, whole)
    assert checkpoints(out) == ["checkpoint-2", "checkpoint-3"]


def test_a_second_run_is_refused(out: Path, whole: Path, tiny: Tiny, photos: Path) -> None:
    """Before it sweeps away what the first is writing."""
    (out / ".writing-checkpoint-9").mkdir()
    with lock.held(out):
        line = refused(*command("prior", out, tiny, photos, **FLAGS))
        assert f"another run is writing there (process {os.getpid()}" in line
        assert (out / ".writing-checkpoint-9").exists()


def test_a_damaged_checkpoint(out: Path, whole: Path, tiny: Tiny, photos: Path) -> None:
    """A bit of the newest is turned over: named, the one before it is taken, and the run ends as if
    nothing had been. By its path it is refused.
    """
    shutil.copytree(whole / "checkpoint-4", out / "checkpoint-4")
    file = out / "checkpoint-4" / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    named = FLAGS | {"resume_from_checkpoint": out / "checkpoint-4"}
    line = refused(*command("prior", out, tiny, photos, **named))
    assert "checkpoint-4 is damaged: optimizer.safetensors is not what was written" in line
    done = wassily(*command("prior", out, tiny, photos, **FLAGS))
    assert done.code == 0, done.text
    assert "checkpoint-4 is damaged: optimizer" in done.out and "at step 2" in done.out
    assert_same_bits(out / "checkpoint-4", whole / "checkpoint-4")


# ---------------------------------------------------------------- memory and numbers


def test_memory_of_the_machine_runs_out(
    out: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU's allocator has its own error: the line is that of a GPU's."""
    monkeypatch.setattr(run, "fit", lambda *words, **more: torch.empty(2**60))
    line = refused(*command("prior", out, tiny, photos, **FLAGS))
    assert "out of memory: the estimate was" in line and "--preset" not in line
    # Another error of that kind is none of this.
    assert not errors.out_of_memory(RuntimeError("shapes do not match"))


def _poison(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """The batches of these steps, from 0, hold a NaN, as a broken encoding would."""
    before, first = training_set.batches, [0]

    def batches(*words: Any) -> Iterator[Any]:
        for step, batch in enumerate(before(*words), first[0]):
            if step in steps:
                batch["image_embeds"][0, 0] = float("nan")
            yield batch

    monkeypatch.setattr(training_set, "batches", batches)


def test_pictures_of_a_bad_batch_are_named(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log and on the screen: those that the step read. The run goes on, its weights good."""
    _poison(monkeypatch, 1)
    read: list[list[str]] = []
    before = run._loader

    def noted(run: Any) -> Any:
        loader = before(run)
        fetch = loader.dataset.fetch

        def fetching(index: int, step: int, slot: int) -> Any:
            if step == 1:
                read.append(run.inputs.reading.source[index].name)
            return fetch(index, step, slot)

        loader.dataset.fetch = fetching
        return loader

    monkeypatch.setattr(run, "_loader", noted)
    flags = FLAGS | {"train_batch_size": 2, "gradient_accumulation_steps": 1}
    done = train("prior", tmp_path / "run", tiny, photos, **flags)
    rows = [row for row in read_jsonl(tmp_path / "run" / "log.jsonl") if row.get("event")]
    assert rows == [{"step": 2, "event": "skipped", "pictures": read}]
    assert len(set(read)) == 2
    assert f"step 2: loss or gradient not finite, step skipped; its pictures: {read[0]}" in done.out


def test_a_bad_last_step_is_measured(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own line in the log does not stand for that of the held-out pictures."""
    _poison(monkeypatch, 3)
    train("prior", tmp_path / "run", tiny, photos, **FLAGS, holdout=0.3)
    rows = read_jsonl(tmp_path / "run" / "log.jsonl")
    last = [row["event"] for row in rows if row["step"] == 4 and "event" in row]
    assert last == ["skipped", "held_out"]


def test_too_many_bad_steps(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--max_bad_steps are borne, one more ends the run; a resume goes on counting."""
    words = command("prior", tmp_path / "run", tiny, photos, **FLAGS, max_bad_steps=1)
    with monkeypatch.context() as patch:
        _poison(patch, 1, 2)
        line = refused(*words)
    assert "not finite at 2 step(s), the last of them 3 (more than --max_bad_steps 1)" in line
    assert "checkpoint-2 is whole" in line and "log.jsonl" in line
    assert checkpoints(tmp_path / "run") == ["checkpoint-2"]
    with monkeypatch.context() as patch:
        _poison(patch, 0)  # of what comes: step 2
        assert "not finite at 2 step(s), the last of them 3" in refused(*words)
    assert wassily(*words).code == 0


def test_released_gradients_end_at_once(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be skipped, so nothing that is not finite is saved."""
    _poison(monkeypatch, 3)
    flags = FLAGS | {"gradient_release": True, "optimizer": "lion", "max_grad_norm": 0}
    line = refused(*command("prior", tmp_path / "run", tiny, photos, **flags))
    assert "--gradient_release cannot skip one" in line and "checkpoint-2 is whole" in line
    assert checkpoints(tmp_path / "run") == ["checkpoint-2"]


def test_weights_that_are_not_finite_are_not_saved(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finite gradients may still throw them out of range."""
    from wassily.training import optimizers

    rate = optimizers.learning_rate

    def jump(config: Any, steps: int) -> Any:
        return lambda step: 1e38 * 10 if step == 3 else rate(config, steps)(step)

    monkeypatch.setattr(optimizers, "learning_rate", jump)
    line = refused(*command("prior", tmp_path / "run", tiny, photos, **FLAGS))
    assert "the weights are not finite after step 4, nothing was saved: checkpoint-2" in line
    assert checkpoints(tmp_path / "run") == ["checkpoint-2"]
