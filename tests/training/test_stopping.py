"""Ctrl-C, SIGTERM and SIGHUP: the step is finished and saved, and the printed command resumes."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e import (
    assert_same_bits,
    checkpoints,
    command,
    finish,
    free_port,
    losses,
    start,
    train,
    wassily,
)

from wassily import cli
from wassily.encodings import cache
from wassily.errors import Stopped
from wassily.mini.untrained import Tiny
from wassily.models import parts
from wassily.training import loop, stopping
from wassily.training.stopping import SaveSchedule, StopSignals
from wassily.training_data import base_predictions

FLAGS: dict[str, Any] = {
    "max_train_steps": 6,
    "gradient_accumulation_steps": 2,
    "checkpointing_steps": 100,
    "logging_steps": 3,
}
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
EACH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])


@pytest.fixture(autouse=True)
def _hears_sighup() -> Iterator[None]:
    """As in a terminal: who runs the tests under nohup has SIGHUP ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, photos: Path) -> Path:
    """The output folder of the run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train("prior", out, tiny, photos, **FLAGS)
    return out


def when_done(
    monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None], what: str = "training"
) -> None:
    """Act as soon as that step, or that picture, is done."""
    before = loop.Progress.advance

    def advance(self: Any, count: int = 1) -> None:
        before(self, count)
        if self.what == what and self.done == step:
            act()

    monkeypatch.setattr(loop.Progress, "advance", advance)


@EACH
def test_the_first_one_finishes_the_step(
    number: int,
    whole: Path,
    tmp_path: Path,
    tiny: Tiny,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In the middle of step 4 of 6, and again at step 5: exit code 128 + the number, a checkpoint
    of that step, and a command which, as it is printed, goes on to the end: the same bits.
    """
    out = tmp_path / "run"
    words = command("prior", out, tiny, photos, **FLAGS)
    name, before = signal.Signals(number).name, signal.getsignal(number)
    for step in (4, 5):
        with monkeypatch.context() as patch:
            when_done(patch, step, lambda: os.kill(os.getpid(), number))
            outcome = wassily(*words)
        assert outcome.code == 128 + number, outcome.text
        assert checkpoints(out)[-1] == f"checkpoint-{step}"
        said, again = outcome.err.splitlines()[-2:]
        assert said == f"wassily: stopped by {name}: checkpoint-{step} is saved"
        assert (
            f"{name}: finishing the step, then saving; again leaves at once"
            in capfd.readouterr().err
        )
        head, _, typed = again.partition("wassily ")
        assert head == "go on with: "
        words = shlex.split(typed)
    assert wassily(*words).code == 0
    assert_same_bits(out / "checkpoint-6", whole / "checkpoint-6")
    assert losses(out) == losses(whole)
    assert signal.getsignal(number) is before


@BOTH
def test_the_second_one_leaves_at_once(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what stands behind `finally` is done."""

    class Left(BaseException):
        pass

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(stopping.os, "_exit", leave)
    with StopSignals() as signals, signals.patience():
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        with pytest.raises(Left, match=str(128 + number)):
            os.kill(os.getpid(), number)
            time.sleep(0.01)


def test_a_second_hangup_is_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed terminal sends one by the kernel and one by the shell, and a session's end may send
    it behind SIGTERM: the step is finished all the same. SIGTERM behind it leaves.
    """
    left: list[int] = []
    monkeypatch.setattr(stopping.os, "_exit", left.append)
    for first in (signal.SIGHUP, signal.SIGTERM):
        with StopSignals("all is kept") as signals, signals.patience():
            for number in (first, signal.SIGHUP, signal.SIGHUP):
                os.kill(os.getpid(), number)
                time.sleep(0.01)
            assert (signals.caught, left) == (first, [])
            with pytest.raises(Stopped, match=rf"stopped by {first.name}: all is kept"):
                signals.check()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            assert left.pop() == 143


def test_a_closed_terminal(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output to a terminal that is gone does not cost the checkpoint."""
    out = tmp_path / "run"
    main, side = pty.openpty()
    kept = [os.dup(1), os.dup(2)]

    def close() -> None:
        os.close(main)
        os.kill(os.getpid(), signal.SIGHUP)
        print("written to nowhere", flush=True)

    when_done(monkeypatch, 4, close)
    try:
        os.dup2(side, 1)
        os.dup2(side, 2)
        with open(1, "w", closefd=False) as one, open(2, "w", closefd=False) as two:
            monkeypatch.setattr("sys.stdout", one)
            monkeypatch.setattr("sys.stderr", two)
            code = cli.main(command("prior", out, tiny, photos, **FLAGS))
    finally:
        for number, handle in enumerate(kept, 1):
            os.dup2(handle, number)
            os.close(handle)
        os.close(side)
    assert code == 129 and checkpoints(out) == ["checkpoint-4"]


def test_before_the_first_step(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While pictures are encoded: at once, and one line says what is kept. So it is."""
    monkeypatch.setattr(cache, "SHARD_BYTES", 1)  # each entry is a shard
    when_done(monkeypatch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM), "encoding pictures")
    words = command("prior", tmp_path / "run", tiny, photos, **FLAGS, cache_dir=tmp_path / "cache")
    outcome = wassily(*words)
    assert outcome.code == 143, outcome.text
    kept = tmp_path / "cache" / "wassily"
    assert f"stopped by SIGTERM: what was encoded is kept in {kept}" in outcome.err
    assert len(list(kept.glob("image-*/*.safetensors"))) >= 4
    assert checkpoints(tmp_path / "run") == []


def test_while_a_part_is_loaded(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks after a model that cannot be loaded does not take the stop for one."""
    kind = parts.PARTS["image_encoder"].kind
    stop = classmethod(lambda *where, **options: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(kind, "from_pretrained", stop)
    words = command("prior", tmp_path / "run", tiny, photos, **FLAGS, cache_dir=tmp_path / "cache")
    outcome = wassily(*words)
    assert outcome.code == 143, outcome.text
    assert "error" not in outcome.err


def test_while_class_pictures_are_drawn(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once; those that are drawn are whole, and the printed command draws the others."""
    dogs = tmp_path / "dogs"
    flags = FLAGS | {"cache_dir": tmp_path / "cache", "class_data_dir": dogs, "max_train_steps": 1}
    flags |= {"with_prior_preservation": True, "class_prompt": "a dog", "num_class_images": 5}
    words = command("prior", tmp_path / "run", tiny, photos, **flags, sample_batch_size=2)
    with monkeypatch.context() as patch:
        when_done(patch, 2, lambda: os.kill(os.getpid(), signal.SIGINT), "drawing class pictures")
        outcome = wassily(*words)
    assert outcome.code == 130, outcome.text
    said, again = outcome.err.splitlines()[-2:]
    assert said.startswith("wassily: stopped by SIGINT: ")
    assert said.endswith(f", class pictures in {dogs}")
    drawn = {path.name: path.read_bytes() for path in dogs.iterdir()}
    assert sorted(drawn) == ["class-00000.png", "class-00001.png"]
    assert wassily(*shlex.split(again.partition("wassily ")[2])).code == 0
    assert len(list(dogs.iterdir())) == 5
    assert {name: (dogs / name).read_bytes() for name in drawn} == drawn
    assert checkpoints(tmp_path / "run") == ["checkpoint-1"]


def test_while_the_base_is_asked(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once; the answers written are kept, and the printed command asks for the others."""
    monkeypatch.setattr(base_predictions, "DRAWINGS", 8)
    monkeypatch.setattr(base_predictions, "AT_ONCE", {"prior": 4, "decoder": 4})
    monkeypatch.setattr(base_predictions, "GROUP", 4)
    flags = FLAGS | {"cache_dir": tmp_path / "cache", "preserve": "builtin", "max_train_steps": 1}
    words = command("prior", tmp_path / "run", tiny, photos, **flags)
    with monkeypatch.context() as patch:
        when_done(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM), "asking the base")
        outcome = wassily(*words)
    assert outcome.code == 143, outcome.text
    again = outcome.err.splitlines()[-1].partition("wassily ")[2]
    kept = {p: p.read_bytes() for p in tmp_path.glob("cache/wassily/base-*/*.safetensors")}
    assert len(kept) == 1  # the first of two groups
    assert wassily(*shlex.split(again)).code == 0
    after = list(tmp_path.glob("cache/wassily/base-*/*.safetensors"))
    assert len(after) == 2
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_signal_to_one_process_stops_all_at_one_step(
    whole: Path, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """Two gloo processes, one of which is told: both end so, and one process goes on to the same
    weights as one that did all.
    """
    out = tmp_path / "run"
    flags = FLAGS | {"gradient_accumulation_steps": 1, "max_train_steps": 5000, "logging_steps": 1}
    words = command("prior", out, tiny, photos, **flags)
    common = {
        "ACCELERATE_USE_CPU": "true",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    texts = [tmp_path / f"{n}.txt" for n in range(2)]
    both = [
        start(words, text, common | {"RANK": str(n), "LOCAL_RANK": str(n)})
        for n, text in enumerate(texts)
    ]
    log = out / "log.jsonl"
    # However slow the machine is: a signal that comes before the loop kills, as it should.
    while not (log.is_file() and log.read_text().count("\n") >= 3):
        assert all(process.is_alive() for process in both), [text.read_text() for text in texts]
        time.sleep(0.1)
    os.kill(both[1].pid, signal.SIGTERM)
    codes = [finish(*each) for each in zip(both, texts, strict=True)]
    assert codes == [143, 143], [text.read_text() for text in texts]
    (saved,) = checkpoints(out)
    said = (tmp_path / "0.txt").read_text("utf-8")
    assert f"stopped by SIGTERM: {saved} is saved" in said
    assert (
        "go on with the same launcher line as before, and at its end: -m wassily train prior"
        in said
    )
    rows = [step for step, _, _ in losses(out)]
    assert rows == list(range(1, int(saved.split("-")[1]) + 1))


# ---------------------------------------------------------------- when


class _Alone:
    """Stands for a run of one process."""

    def most(self, *numbers: int) -> list[int]:
        """As they are."""
        return list(numbers)


def test_minutes_besides_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 5 steps, and when 2 minutes have passed since the last; a step takes 50 seconds."""
    now = [0.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    for minutes, wanted in ((None, [5, 10]), (2.0, [3, 5, 8, 10, 13])):
        now[0] = 0.0
        schedule = SaveSchedule(5, minutes, StopSignals(), _Alone())  # type: ignore[arg-type]
        saved = []
        for done in range(1, 14):
            now[0] += 50
            assert not schedule.stop_at(done)
            if schedule.save_at(done):
                saved.append(done)
        assert saved == wanted


def test_minutes_in_a_run(tmp_path: Path, whole: Path, tiny: Tiny, photos: Path) -> None:
    """So few of them that each step saves; the end is the same."""
    out = tmp_path / "run"
    train("prior", out, tiny, photos, **FLAGS, checkpointing_minutes=1e-9)
    assert checkpoints(out) == [f"checkpoint-{n}" for n in range(1, 7)]
    assert_same_bits(out / "checkpoint-6", whole / "checkpoint-6")


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("launcher", ["ACCELERATE_MIXED_PRECISION", "WORLD_SIZE"])
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["train", "prior", "--seed", "7"], "train prior --seed 7 --resume_from_checkpoint latest"),
        (
            ["train", "prior", "--resume-from-checkpoint", "a/checkpoint-2", "--seed=7"],
            "train prior --seed=7 --resume_from_checkpoint latest",
        ),
        (
            ["train", "decoder", "--resume_from_checkpoint=latest", "--output_dir", "my run"],
            "train decoder --output_dir 'my run' --resume_from_checkpoint latest",
        ),
        (
            ["train", "decoder", "--push_to_hub", "--hub_token", "hf_secret"],
            'train decoder --push_to_hub --resume_from_checkpoint latest --hub_token "$HF_TOKEN"',
        ),
        (["cache", "build", "prior"], "cache build prior"),
    ],
)
def test_the_command_to_go_on(
    words: list[str], wanted: str, launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was typed, with `latest`, and without a token. What a launcher's line has before it no
    process knows, and it says so.
    """
    assert cli.again(words) == f"go on with: wassily {wanted}"
    monkeypatch.setenv(launcher, "2")
    line = f"go on with the same launcher line as before, and at its end: -m wassily {wanted}"
    assert cli.again(words) == line
