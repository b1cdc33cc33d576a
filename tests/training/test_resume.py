"""A run that was stopped and resumed against the run that was never stopped: the same bits.

7 pictures and a global batch of 2: an epoch is 3.5 steps, so checkpoints 2, 4 and 6 lie in the
middle of epochs 0, 1 and 1, and resuming crosses from one epoch to the next. Losses are logged
every 3 steps, so that checkpoints 2 and 4 cut a logging window.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from e2e import (
    NETWORK,
    ROLES,
    assert_same_bits,
    checkpoints,
    command,
    losses,
    network,
    refused,
    rows_of,
    train,
    wassily,
    write_rows,
)

from wassily.mini.untrained import Tiny

STEPS = 8
SAME: dict[str, Any] = {
    "max_train_steps": STEPS,
    "gradient_accumulation_steps": 2,
    "checkpointing_steps": 2,
    "logging_steps": 3,
    "use_ema": True,
    "ema_sigma_rel": 0.1,
    "condition_dropout": 0.3,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 3,
}


@pytest.fixture(scope="module", params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    """Both networks, one after the other."""
    return request.param


@pytest.fixture(scope="module")
def whole(role: str, tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, photos: Path) -> Path:
    """The output folder of the run that was never stopped."""
    out = tmp_path_factory.mktemp(f"whole-{role}") / "run"
    train(role, out, tiny, photos, **SAME)
    return out


@pytest.fixture
def stopped(whole: Path, tmp_path: Path) -> Path:
    """A copy of that run as it was when checkpoint-2 was its newest, step 3 just logged."""
    out = tmp_path / "stopped"
    out.mkdir()
    shutil.copytree(whole / "checkpoint-2", out / "checkpoint-2")
    lines = (whole / "log.jsonl").read_text("utf-8").splitlines()
    (out / "log.jsonl").write_text(lines[0] + "\n", "utf-8")
    return out


def interrupt_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C as soon as that step is done."""
    from wassily.training import loop

    before = loop.Progress.advance

    def advance(self: Any, count: int = 1) -> None:
        before(self, count)
        if self.what == "training" and self.done == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Progress, "advance", advance)


def assert_same_run(one: Path, two: Path, role: str) -> None:
    """The last checkpoints (weights, averages, optimizer), the exports and the losses agree."""
    assert_same_bits(one / f"checkpoint-{STEPS}", two / f"checkpoint-{STEPS}")
    assert_same_bits(one / NETWORK[role], two / NETWORK[role])
    assert losses(one) == losses(two)


def test_a_run_stopped_three_times(
    role: str,
    whole: Path,
    tmp_path: Path,
    tiny: Tiny,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interrupted at steps 3, 5 and 7, with the same command, and drawing samples on the way."""
    out = tmp_path / "run"
    words = command(
        role,
        out,
        tiny,
        photos,
        **SAME,
        resume_from_checkpoint="latest",
        validation_prompts=["a robot", "قطة حمراء"],
        validation_epochs=1,
    )
    for step in (3, 5, 7):
        with monkeypatch.context() as patch:
            interrupt_after(patch, step)
            outcome = wassily(*words)
        assert outcome.code == 130, outcome.text
        assert checkpoints(out)[-1] == f"checkpoint-{step - 1}"
    outcome = wassily(*words)
    assert outcome.code == 0, outcome.text
    assert "going on from" in outcome.out and "at step 6" in outcome.out
    assert_same_run(whole, out, role)
    assert (out / "validation" / "step-4" / "sheet.png").is_file()


def test_workers_and_pieces(
    role: str, whole: Path, stopped: Path, tiny: Tiny, photos: Path
) -> None:
    """Two reading processes, and one micro-batch of 2 instead of two of 1, after checkpoint-2.

    The same examples meet the same noise; only the order of summing differs with the cut.
    """
    flags = SAME | {"gradient_accumulation_steps": 1, "train_batch_size": 2}
    train(role, stopped, tiny, photos, **flags, resume_from_checkpoint="latest")
    for (_, loss, rate), (_, other, other_rate) in zip(losses(whole), losses(stopped), strict=True):
        assert loss == pytest.approx(other, rel=1e-4)
        assert rate == other_rate


@pytest.mark.parametrize("way", [{}, {"no_cache": True}], ids=["cached", "live"])
def test_workers(
    role: str, whole: Path, stopped: Path, tiny: Tiny, photos: Path, way: dict[str, Any]
) -> None:
    """Resumed from a checkpoint that is named, with two reading processes, and with encodings
    from the cache or made at each step: the same bits.
    """
    train(
        role,
        stopped,
        tiny,
        photos,
        **SAME | way,
        dataloader_num_workers=2,
        resume_from_checkpoint=stopped / "checkpoint-2",
    )
    assert_same_run(whole, stopped, role)


def test_no_checkpoint_yet(
    whole: Path, role: str, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """`latest` in an empty folder is a new run."""
    out = tmp_path / "run"
    flags = SAME | {"max_train_steps": 2, "lr_scheduler": "cosine"}
    outcome = train(role, out, tiny, photos, **flags, resume_from_checkpoint="latest")
    assert "going on" not in outcome.out
    assert checkpoints(out) == ["checkpoint-2"]


def test_what_may_change(role: str, whole: Path, stopped: Path, tiny: Tiny, photos: Path) -> None:
    """More steps, and other logging, saving and drawing, are no other run: the weights of the
    steps that both have are the same bits where the schedule is the same.
    """
    flags = SAME | {
        "logging_steps": 1,
        "checkpointing_steps": 1,
        "checkpoints_total_limit": 2,
        "validation_prompts": "a cat",
        "report_to": "tensorboard",
        "output_dir": stopped,
    }
    train(role, stopped, tiny, photos, **flags, resume_from_checkpoint="latest")
    assert_same_bits(whole / f"checkpoint-{STEPS}", stopped / f"checkpoint-{STEPS}")
    assert checkpoints(stopped) == [f"checkpoint-{STEPS - 1}", f"checkpoint-{STEPS}"]
    assert [step for step, _, _ in losses(stopped)] == list(range(3, STEPS + 1))


def test_raised_steps(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """A finished run goes on when it is given more steps, as if it had had them at once."""
    flags = {"max_train_steps": 2, "checkpointing_steps": 1, "logging_steps": 1}
    train(role, tmp_path / "a", tiny, photos, **flags)
    again = flags | {"max_train_steps": 4, "resume_from_checkpoint": "latest"}
    outcome = train(role, tmp_path / "a", tiny, photos, **again)
    assert "at step 2" in outcome.out
    train(role, tmp_path / "b", tiny, photos, **(flags | {"max_train_steps": 4}))
    assert_same_bits(tmp_path / "a" / "checkpoint-4", tmp_path / "b" / "checkpoint-4")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_a_finished_run_again(role: str, stopped: Path, tiny: Tiny, photos: Path) -> None:
    """The same command on a run that is done trains nothing and exports again."""
    flags = SAME | {"max_train_steps": 2, "resume_from_checkpoint": "latest"}
    train(role, stopped, tiny, photos, **flags)
    (stopped / "model_index.json").unlink()
    train(role, stopped, tiny, photos, **flags)
    assert (stopped / "model_index.json").is_file()
    assert_same_bits(stopped / NETWORK[role], stopped / "checkpoint-2" / f"{NETWORK[role]}_ema")


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("global batch", {"gradient_accumulation_steps": 3}),
        ("precision", {"mixed_precision": "bf16"}),
        ("seed", {"seed": 8}),
        ("use_ema", {"use_ema": None, "ema_sigma_rel": None}),
        ("ema_sigma_rel", {"ema_sigma_rel": 0.2}),
        ("condition_dropout", {"condition_dropout": None}),
        ("random_flip", {"random_flip": True}),
        ("pictures|data set", {"max_train_samples": 6}),
    ],
)
def test_another_run_is_refused(
    role: str, stopped: Path, tiny: Tiny, photos: Path, field: str, change: dict[str, Any]
) -> None:
    """One line names the field that differs, its old and its new value; nothing is touched."""
    before = sorted(stopped.rglob("*"))
    flags = SAME | change | {"resume_from_checkpoint": "latest"}
    line = refused(*command(role, stopped, tiny, photos, **flags))
    assert any(f"{name} was" in line for name in field.split("|")), line
    assert "checkpoint-2" in line and "--output_dir" in line
    assert sorted(stopped.rglob("*")) == before


def test_another_resolution_is_refused(stopped: Path, role: str, tiny: Tiny, photos: Path) -> None:
    """The decoder learns pixels of one size; the prior's resolution is that of its samples."""
    words = command(
        role,
        stopped,
        tiny,
        photos,
        **SAME | {"max_train_steps": 3},
        resume_from_checkpoint="latest",
    )
    words[words.index("--resolution") + 1] = "64"
    if role == "decoder":
        assert "resolution was 32" in refused(*words)
    else:
        assert wassily(*words).code == 0


def test_another_network_is_refused(stopped: Path, role: str, tiny: Tiny, photos: Path) -> None:
    """A checkpoint of the prior is none of the decoder's."""
    other = {"prior": "decoder", "decoder": "prior"}[role]
    words = command(other, stopped, tiny, photos, **SAME, resume_from_checkpoint="latest")
    assert f"network was {role!r}" in refused(*words)


def test_another_base_is_refused(
    stopped: Path, role: str, whole: Path, tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """The same architecture with other weights is another base model."""
    base = tmp_path / "base"
    shutil.copytree(getattr(tiny, role), base)
    shutil.rmtree(base / NETWORK[role])
    shutil.copytree(whole / NETWORK[role], base / NETWORK[role])
    flags = {f"pretrained_{role}_model_name_or_path": base, "resume_from_checkpoint": "latest"}
    assert "base model was" in refused(*command(role, stopped, tiny, photos, **SAME | flags))


@pytest.mark.parametrize("change", ["caption", "fewer", "picture"])
def test_another_data_set_is_refused(
    stopped: Path, role: str, tiny: Tiny, photos: Path, tmp_path: Path, change: str
) -> None:
    """One caption changed (of no matter to the decoder), one picture fewer, one picture edited."""
    pics = tmp_path / "pics"
    shutil.copytree(photos, pics)
    rows = rows_of(pics)
    if change == "caption":
        rows[3]["text"] += " at night"
    elif change == "fewer":
        rows = rows[:-1]
    else:
        shutil.copyfile(pics / rows[0]["file_name"], pics / rows[1]["file_name"])
    write_rows(pics, rows)
    flags = SAME | {"max_train_steps": 3, "resume_from_checkpoint": "latest"}
    words = command(role, stopped, tiny, pics, **flags)
    if change == "caption" and role == "decoder":
        assert wassily(*words).code == 0
    else:
        assert "data set was" in refused(*words)


def test_a_moved_data_set_is_the_same(
    stopped: Path, role: str, whole: Path, tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """The pictures may have moved to another folder or disk."""
    shutil.copytree(photos, tmp_path / "elsewhere")
    flags = SAME | {"resume_from_checkpoint": "latest"}
    train(role, stopped, tiny, tmp_path / "elsewhere", **flags)
    assert_same_run(whole, stopped, role)


def test_a_second_start_is_refused(stopped: Path, role: str, tiny: Tiny, photos: Path) -> None:
    """Without --resume_from_checkpoint a run is not trained over."""
    line = refused(*command(role, stopped, tiny, photos, **SAME))
    assert "checkpoint-2" in line
    assert "--resume_from_checkpoint latest" in line and "--output_dir" in line


def test_past_the_end(stopped: Path, role: str, tiny: Tiny, photos: Path) -> None:
    """Fewer steps than are done already: nothing to do, and no export of something else."""
    flags = SAME | {"max_train_steps": 1, "resume_from_checkpoint": "latest"}
    line = refused(*command(role, stopped, tiny, photos, **flags))
    assert "--max_train_steps" in line
    assert not (stopped / "model_index.json").exists()


def test_no_such_checkpoint(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """A folder that is none, and a folder that is no checkpoint."""
    words = command(role, tmp_path / "out", tiny, photos, **SAME)
    line = refused(*words, "--resume_from_checkpoint", tmp_path / "none")
    assert "no such folder" in line
    line = refused(*words, "--resume_from_checkpoint", photos)
    assert "no checkpoint" in line


def test_no_pickles(whole: Path, role: str) -> None:
    """A checkpoint is safetensors and JSON, in diffusers' folders; the average is a network."""
    import diffusers

    kinds = {p.suffix for p in (whole / "checkpoint-2").rglob("*") if p.is_file()}
    assert kinds == {".safetensors", ".json"}
    kind = {"prior": diffusers.PriorTransformer, "decoder": diffusers.UNet2DConditionModel}[role]
    for name in (NETWORK[role], f"{NETWORK[role]}_ema"):
        kind.from_pretrained(whole / f"checkpoint-{STEPS}" / name)
    last, average = network(whole / f"checkpoint-{STEPS}", role), network(whole, role)
    assert any(not last[name].equal(average[name]) for name in last)
