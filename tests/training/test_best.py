"""The best weights of a run: which they are, where they lie, and when the run ends early."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from e2e import (
    NETWORK,
    assert_same_bits,
    checkpoints,
    command,
    losses,
    refused,
    tensors,
    train,
    wassily,
)
from helpers import read_jsonl, write_folder
from test_resume import interrupt_after
from test_stopping import when_done

from wassily.errors import UserError
from wassily.files import checksums, output_folder
from wassily.files.atomic import write_whole
from wassily.mini.untrained import Tiny
from wassily.reporting import run_log
from wassily.training import best
from wassily.training.best import Best, LastIsBest

# ---------------------------------------------------------------- the rule


def _best(home: Path, metric: str = "loss", patience: int | None = 2) -> Best:
    return Best(metric, patience, home, lambda folder: write_whole(folder, _weights))


def _weights(aside: Path) -> None:
    (aside / "weights").write_text("of this step", encoding="utf-8")


def _ends(best: Best, values: list[float]) -> list[bool]:
    metric = best.standing.metric
    return [best.judge(n, {metric: value}) for n, value in enumerate(values, start=1)]


def test_less_loss_and_more_score_are_better(tmp_path: Path) -> None:
    """The same row of values, judged both ways; ties do not count as better."""
    row = [3.0, 2.0, 2.0, 4.0, 1.0]
    loss, kept = _best(tmp_path, "loss", None), _best(tmp_path, "kept", None)
    assert not any(_ends(loss, row) + _ends(kept, row))
    assert (loss.standing.step, loss.standing.value) == (5, 1.0)
    assert (kept.standing.step, kept.standing.value) == (4, 4.0)
    assert loss.folder() == tmp_path / "best-5"


def test_patience_counts_validations_in_a_row(tmp_path: Path) -> None:
    """Two without a better one end it; a better one in between begins the count again."""
    assert _ends(_best(tmp_path), [2, 3, 1, 3, 3]) == [False] * 4 + [True]


def test_a_step_is_judged_once(tmp_path: Path) -> None:
    """A resumed run judges the step of its checkpoint again: no second miss."""
    best = _best(tmp_path)
    assert [best.judge(n, {"loss": v}) for n, v in ((1, 1), (2, 2), (2, 2), (2, 2))] == [False] * 4
    assert best.judge(3, {"loss": 2}) and best.judge(3, {"loss": 2})


def test_what_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    best = _best(tmp_path, patience=None)
    _ends(best, [math.nan, math.inf])
    assert best.folder() is None and best.described({}) == ""
    best.judge(3, {"loss": 5.0})
    assert best.folder() == tmp_path / "best-3"


def test_the_state_goes_through_json(tmp_path: Path) -> None:
    """And comes back as it was; the weights are found beside the checkpoint of another folder."""
    best = _best(tmp_path)
    _ends(best, [2.0, 1.0, 3.0])
    saved = json.loads(json.dumps(best.state()))
    again = _best(tmp_path)
    assert again.restore(saved, tmp_path) is None
    assert again.standing == best.standing
    (tmp_path / "new").mkdir()
    elsewhere = _best(tmp_path / "new")
    assert elsewhere.restore(saved, tmp_path) is None
    assert elsewhere.folder() == tmp_path / "best-2"
    elsewhere.prune()
    assert (tmp_path / "best-2").is_dir()


def test_what_cannot_be_gone_on_with(tmp_path: Path) -> None:
    """Another metric, weights that are damaged or gone, no best in the checkpoint: said, and looked
    for anew; nonsense is refused.
    """
    best = _best(tmp_path)
    _ends(best, [2.0])
    saved = best.state()
    other = _best(tmp_path, "kept")
    assert "it was by loss" in str(other.restore(saved, tmp_path))
    assert other.standing.step == 0
    assert "from here on" in str(_best(tmp_path).restore(None, tmp_path))
    (tmp_path / "best-1" / "weights").write_text("of another", encoding="utf-8")
    damaged = _best(tmp_path)
    assert "best-1 is damaged: weights has 10 bytes instead" in str(
        damaged.restore(saved, tmp_path)
    )
    assert damaged.standing.step == 0
    shutil.rmtree(tmp_path / "best-1")
    gone = _best(tmp_path)
    assert "best-1 is gone" in str(gone.restore(saved, tmp_path))
    assert gone.standing.step == 0
    for wrong in (
        {**saved, "step": "1"},
        {**saved, "more": 1},
        {**saved, "value": None},
        {**saved, "value": math.nan},
    ):
        with pytest.raises(UserError, match="wrong best"):
            _best(tmp_path).restore(wrong, tmp_path)


def test_all_but_the_best_are_removed(tmp_path: Path) -> None:
    """Only folders of that name; what is not the run's own stays."""
    for name in ("best-1", "best-2", "best-of", "checkpoint-1"):
        (tmp_path / name).mkdir()
    best = _best(tmp_path)
    _ends(best, [3, 2, 1])
    best.prune()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best-3", "best-of", "checkpoint-1"]


def test_the_base_may_have_been_better(tmp_path: Path) -> None:
    """Then it is said: the run learnt nothing by this measure."""
    best = _best(tmp_path)
    _ends(best, [2.0])
    assert best.described({"loss": 3.0}) == "step 1, held-out loss 2.0000"
    assert "the base's was better: 1.0000" in best.described({"loss": 1.0})


def test_without_the_flag_weights_is_kept(tmp_path: Path) -> None:
    last = best.chosen_best(None, None, tmp_path, lambda folder: None)
    assert isinstance(last, LastIsBest)
    assert (last.judge(1, {"loss": 1}), last.state(), last.folder()) == (False, None, None)


# ---------------------------------------------------------------- whole runs

STEPS = 6
FLAGS: dict[str, Any] = {
    "holdout": 0.3,
    "max_train_steps": STEPS,
    "train_batch_size": 2,
    "validation_steps": 1,
    "checkpointing_steps": 2,
    "checkpoints_total_limit": 1,
    "logging_steps": 3,
    "keep_best": "loss",
}


@pytest.fixture(scope="module")
def pics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("best") / "pics", [f"c{n}" for n in range(10)])


@pytest.fixture
def valley(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out losses that fall to step 3 and then rise, as those of a run that overfits."""
    losses = {0: 9.0, 1: 5.0, 2: 4.0, 3: 1.0, 4: 2.0, 5: 3.0, 6: 4.0}
    append = run_log.append

    def row(folder: Path, line: dict[str, Any]) -> None:
        made = {"loss": losses[line["step"]]} if line.get("event") == "held_out" else {}
        append(folder, line | made)

    monkeypatch.setattr(run_log, "append", row)


def _named(out: Path) -> list[str]:
    return sorted(p.name for p in out.glob("best-*"))


@pytest.mark.usefixtures("valley")
@pytest.mark.parametrize(
    ("role", "more"), [("prior", {}), ("decoder", {"use_ema": True}), ("prior", {"lora": True})]
)
def test_the_best_is_exported(
    role: str, more: dict[str, Any], tiny: Tiny, pics: Path, tmp_path: Path
) -> None:
    """The export is what a run of so many steps gives; rotation leaves the best alone; the card
    tells its step and value.
    """
    done = train(role, tmp_path / "a", tiny, pics, **FLAGS, **more)
    assert "exporting the best weights: step 3, held-out loss 1.0000" in done.out
    assert checkpoints(tmp_path / "a") == [f"checkpoint-{STEPS}"]
    assert _named(tmp_path / "a") == ["best-3"]
    card = (tmp_path / "a" / "README.md").read_text("utf-8")
    assert "| best weights | step 3, held-out loss 1.0000; the run had 6 steps |" in card
    assert "| optimizer steps | 3 |" in card
    short = FLAGS | {"max_train_steps": 3, "keep_best": None}
    train(role, tmp_path / "b", tiny, pics, **short, **more)
    if more.get("lora"):
        a, b = ({n: v for n, v in tensors(tmp_path / x).items() if "/" not in n} for x in "ab")
        assert a.keys() == b.keys() and all(a[n].equal(b[n]) for n in a)
    else:
        assert_same_bits(tmp_path / "a" / NETWORK[role], tmp_path / "b" / NETWORK[role])


@pytest.mark.usefixtures("valley")
def test_patience_ends_the_run(tiny: Tiny, pics: Path, tmp_path: Path) -> None:
    """Two validations after the best; the folder is whole, with a checkpoint of the last step. The
    same command trains nothing more; with more patience it goes on as if it had had it at once.
    """
    out = tmp_path / "a"
    flags = FLAGS | {"checkpointing_steps": 3, "resume_from_checkpoint": "latest"}
    done = train("prior", out, tiny, pics, **flags, patience=2)
    line = "stopped at step 5 of 6: no better in 2 validations than step 3, held-out loss 1.0000"
    assert line in done.out
    assert checkpoints(out) == ["checkpoint-5"]
    assert (out / "model_index.json").is_file() and _named(out) == ["best-3"]
    before = tensors(out)
    again = train("prior", out, tiny, pics, **flags, patience=2)
    assert line in again.out
    after = tensors(out)
    assert all(after[name].equal(value) for name, value in before.items())
    more = train("prior", out, tiny, pics, **flags, patience=9)
    assert "stopped" not in more.out
    train("prior", tmp_path / "b", tiny, pics, **flags)
    assert_same_bits(out, tmp_path / "b")
    assert losses(out) == losses(tmp_path / "b")


@pytest.mark.usefixtures("valley")
def test_a_run_cut_off_keeps_its_best(
    tiny: Tiny, pics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut after steps 3 and 5: the best of the run that was not cut, and the same end by patience;
    a validation that was lost between its checkpoint and the cut is made up for.
    """
    flags = FLAGS | {"patience": 3, "resume_from_checkpoint": "latest"}
    train("prior", tmp_path / "whole", tiny, pics, **flags)
    out = tmp_path / "cut"
    words = command("prior", out, tiny, pics, **flags)
    for step in (3, 5):
        with monkeypatch.context() as patch:
            interrupt_after(patch, step)
            assert wassily(*words).code == 130
        last = step - 1
        rows = [
            r for r in run_log.read_log(out) if r.get("event") != "held_out" or r["step"] < last
        ]
        (out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = wassily(*words)
    assert done.code == 0, done.text
    assert_same_bits(out, tmp_path / "whole")
    assert _named(out) == ["best-3"]
    events = [
        [row for row in read_jsonl(folder / "log.jsonl") if "event" in row]
        for folder in (out, tmp_path / "whole")
    ]
    assert {row["step"]: row["loss"] for row in events[0]} == {
        row["step"]: row["loss"] for row in events[1]
    }


@pytest.mark.usefixtures("valley")
def test_a_signal_between_two_validations(
    tiny: Tiny, pics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM in step 5, whose validation is the second without a better one: saved, not judged,
    nothing exported. The same command makes up for it, ends there by patience and exports.
    """
    flags = FLAGS | {"checkpointing_steps": 100, "resume_from_checkpoint": "latest", "patience": 2}
    train("prior", tmp_path / "whole", tiny, pics, **flags)
    out = tmp_path / "told"
    words = command("prior", out, tiny, pics, **flags)
    with monkeypatch.context() as patch:
        when_done(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        outcome = wassily(*words)
    assert outcome.code == 143, outcome.text
    assert checkpoints(out) == ["checkpoint-5"] and not (out / "model_index.json").exists()
    assert "stopped at step" not in outcome.out
    done = wassily(*words)
    assert done.code == 0 and "stopped at step 5 of 6" in done.out, done.text
    assert_same_bits(out / "prior", tmp_path / "whole" / "prior")
    assert_same_bits(out / "best-3", tmp_path / "whole" / "best-3")
    assert_same_bits(out / "checkpoint-5", tmp_path / "whole" / "checkpoint-5")
    steps = [row["step"] for row in run_log.read_log(out) if row.get("event") == "held_out"]
    assert steps == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("valley")
def test_the_best_draws_as_a_checkpoint(tiny: Tiny, pics: Path, tmp_path: Path) -> None:
    """Its folder is sealed and named to `wassily generate` like a checkpoint's; `latest` is none of
    its kind, and it is not trained on from.
    """
    flags = FLAGS | {"max_train_steps": 3}
    train("prior", tmp_path / "a", tiny, pics, **flags)
    best = tmp_path / "a" / "best-3"
    assert checksums.damage(best) is None
    assert [path.name for _, path in output_folder.checkpoints_in(tmp_path / "a")] == [
        "checkpoint-3"
    ]
    again = command("prior", tmp_path / "a", tiny, pics, **flags, resume_from_checkpoint=best)
    refusal = wassily(*again)
    assert refusal.code == 2 and "best-3" in refusal.err and refusal.err.count("\n") == 1
    words = ("--prior", tmp_path / "a" / "best-3", "--decoder", tiny.decoder, "--steps", 2)
    small = ("--prior_steps", 2, "--height", 32, "--width", 32, "--out", tmp_path / "x.png")
    assert wassily("generate", "a cat", *words, *small).code == 0
    assert (tmp_path / "x.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--keep_best", "loss"), "--keep_best loss without held-out pictures: add --holdout"),
        (("--keep_best", "kept"), "--keep_best kept needs scores at validation"),
        (("--keep_best", "both", "--validation_scores", 4), "without held-out pictures"),
        (("--patience", 3), "--patience does nothing without --keep_best"),
        (("--keep_best", "loss", "--holdout", 0.1, "--patience", 0), "--patience: 0 is less"),
        (("--validation_scores", 1), "--validation_scores: 1 is no spread"),
        (("--validation_steps", 0), "--validation_steps: 0 is less than 1"),
    ],
)
def test_mistakes(words: tuple[object, ...], message: str, pics: Path) -> None:
    assert message in refused("train", "prior", "--train_data_dir", pics, *words)
