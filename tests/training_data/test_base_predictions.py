"""`--preserve`: the base's answers on generic prompts, made once, and held on to in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from e2e import NETWORK, ROLES, assert_same_bits, refused, train
from e2e import command as command_of

from wassily.data import example_order
from wassily.encodings import cache
from wassily.encodings.lookup import collate
from wassily.maths import losses
from wassily.mini.untrained import Tiny
from wassily.models import parts
from wassily.models.trainable import make_trainable
from wassily.training_data import base_predictions

BASE_PROMPTS = ("a red robot", "a blue dog, watercolour", "a tree")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen questions instead of thousands."""
    monkeypatch.setattr(base_predictions, "DRAWINGS", 8)
    monkeypatch.setattr(base_predictions, "AT_ONCE", {"prior": 4, "decoder": 4})
    monkeypatch.setattr(base_predictions, "GROUP", 4)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A file of prompts."""
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(BASE_PROMPTS) + "\n\n", encoding="utf-8")
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A cache of its own."""
    return tmp_path / "cache"


def _flags(prompts: Path, store: Path, **more: Any) -> dict[str, Any]:
    return {
        "preserve": prompts,
        "cache_dir": store,
        "train_batch_size": 2,
        "max_train_steps": 6,
        "lr_scheduler": "constant",
        **more,
    }


def _answers(store: Path) -> dict[str, bytes]:
    found = (store / "wassily").glob("base-*/*.safetensors")
    return {str(path): path.read_bytes() for path in found}


def _rows(store: Path) -> list[dict[str, torch.Tensor]]:
    [folder] = (store / "wassily").glob("base-*")
    found = base_predictions.Answers(cache.Store(folder), 0)
    return [found(number, 0, 0) for number in range(len(found))]


# ---------------------------------------------------------------- the loss


def test_the_held_examples_have_the_distance_to_the_base_as_loss() -> None:
    """By hand: ((1 - 0)^2 + (3 - 1)^2) / 2 = 2.5 for the held one, the given loss for the other."""
    output = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
    batch = {"held": torch.tensor([1.0, 0.0]), "base": torch.tensor([[0.0, 1.0], [9.0, 9.0]])}
    loss = losses.held_to_base(torch.tensor([7.0, 8.0]), output, batch)
    assert loss.tolist() == [2.5, 8.0]


def test_without_held_examples_the_loss_is_what_it_was() -> None:
    """The same object goes on."""
    loss = torch.ones(2)
    assert losses.held_to_base(loss, torch.ones(2, 2), {}) is loss


@pytest.mark.parametrize("role", ROLES)
def test_the_base_agrees_with_itself(
    role: str, tiny: Tiny, photos: Path, tmp_path: Path, prompts: Path, store: Path
) -> None:
    """Every question, asked again of the base in other batches, has the answer that is cached: the
    held loss is 0 before the first step, to the last bits of fp32.
    """
    train(role, tmp_path / "run", tiny, photos, **_flags(prompts, store, max_train_steps=1))
    rows = _rows(store)
    assert len(rows) == 8 * 4
    config = _config(role, tmp_path, tiny, photos)
    trainable = make_trainable(config, {"prior": str(tiny.prior), "decoder": str(tiny.decoder)})
    batch = collate(rows)
    with torch.no_grad():
        loss = trainable.objective.eval()(batch, batch.pop("noise"), batch.pop("t"))
    assert loss.max() < 1e-8
    assert batch["base"].square().mean() > 1e-3


def _config(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> Any:
    from wassily.config import training

    kind = {"prior": training.PriorConfig, "decoder": training.DecoderConfig}[role]
    return kind(train_data_dir=str(photos), output_dir=str(tmp_path / "x"), resolution=32)


# ---------------------------------------------------------------- the questions


def test_timesteps_are_spread_and_the_unconditional_is_everywhere() -> None:
    """One timestep in each stretch of the schedule; an eighth is about the unconditional, and over
    the drawings at every stretch.
    """
    count = base_predictions.ANSWERS
    for drawing in range(3):
        times = [base_predictions.timestep(drawing * count + band, 1000) for band in range(count)]
        assert [t * count // 1000 for t in times] == list(range(count))
    numbers = range(8 * count)
    empty = [n for n in numbers if base_predictions.is_unconditional(n)]
    assert len(empty) == len(numbers) / base_predictions.EVERY
    assert {n % count for n in empty} == set(range(count))


def test_the_order_is_the_runs_own() -> None:
    """Two seeds go through the same questions in another order."""
    split = example_order.Split(2, 1, 1, 0)
    one, two = (
        [next(example_order.side_keys(seed, 32, 8, split, step))[0][2] for step in range(4)]
        for seed in (1, 2)
    )
    assert one != two


# ---------------------------------------------------------------- whole runs


@pytest.mark.parametrize("role", ROLES)
def test_a_run_that_was_cut_ends_with_the_same_bits(
    role: str, tiny: Tiny, photos: Path, tmp_path: Path, prompts: Path, store: Path
) -> None:
    """With accumulation, an average and an adapter's cousin, the whole network; and the second run
    finds all answers in the cache: no file of it changes.
    """
    flags = _flags(prompts, store, gradient_accumulation_steps=2, checkpointing_steps=2)
    whole = train(role, tmp_path / "whole", tiny, photos, **flags)
    assert "of 32 answers of the base" in whole.out
    before = _answers(store)
    train(role, tmp_path / "cut", tiny, photos, **flags | {"max_train_steps": 4})
    train(role, tmp_path / "cut", tiny, photos, **flags, resume_from_checkpoint="latest")
    assert_same_bits(tmp_path / "whole" / "checkpoint-6", tmp_path / "cut" / "checkpoint-6")
    assert _answers(store) == before


def test_lost_answers_are_made_again_with_the_same_bits(
    tiny: Tiny, photos: Path, tmp_path: Path, prompts: Path, store: Path
) -> None:
    """A cache that lost some shards, as after a kill in the middle, is completed."""
    flags = _flags(prompts, store, max_train_steps=1)
    train("decoder", tmp_path / "one", tiny, photos, **flags)
    rows = _rows(store)
    [folder] = (store / "wassily").glob("base-*")
    files = list(folder.glob("*.safetensors"))
    assert len(files) == 2  # one a group of drawings
    for file in files:
        file.unlink()
    writer = cache.Writer(folder)
    for number in (*range(9), 20):  # a part of each block of 4 drawings
        row = {k: v for k, v in rows[number].items() if k not in ("noise", "held")}
        writer.add(base_predictions._key(number), row)
    writer.flush()
    train("decoder", tmp_path / "two", tiny, photos, **flags)
    for one, two in zip(rows, _rows(store), strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("role", ROLES)
def test_the_network_stays_nearer_to_the_base(
    role: str, tiny: Tiny, photos: Path, tmp_path: Path, prompts: Path, store: Path
) -> None:
    """After the same steps on the same pictures, what it answers to the questions is less than
    half as far from the base's answers as without them.
    """
    flags = _flags(prompts, store, max_train_steps=12)
    train(role, tmp_path / "held", tiny, photos, **flags, preserve_weight=30)
    train(role, tmp_path / "free", tiny, photos, **flags | {"preserve": None})
    rows = collate(_rows(store))
    config = _config(role, tmp_path, tiny, photos)
    repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    apart = {}
    for name in ("held", "free"):
        trainable = make_trainable(config, repositories)
        trained = parts.load_network(tmp_path / name / NETWORK[role], NETWORK[role])
        trainable.net.load_state_dict(trained.state_dict())
        with torch.no_grad():
            loss = trainable.objective.eval()(rows, rows["noise"], rows["t"])
        apart[name] = float(loss.mean())
    assert apart["held"] < apart["free"] / 2


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"preserve": "nowhere.txt"}, "--preserve nowhere.txt: no such file"),
        ({"preserve": "builtin", "no_cache": True}, "--preserve and --no_cache"),
        ({"preserve": "builtin", "preserve_share": 1.0}, "--preserve_share: 1 is not between"),
        ({"preserve": "builtin", "preserve_weight": 0.0}, "--preserve_weight: 0 is not above"),
        ({"preserve_weight": 3.0}, "--preserve_weight does nothing without --preserve"),
        ({"preserve_share": 0.2}, "--preserve_share does nothing without --preserve"),
    ],
)
def test_what_makes_no_sense_is_refused(
    flags: dict[str, Any], named: str, tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """In one line that names the flag."""
    assert named in refused(*command_of("prior", tmp_path / "run", tiny, photos, **flags))


def test_buckets_are_refused(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """One batch has one shape."""
    words = command_of("decoder", tmp_path / "run", tiny, photos, preserve="builtin", bucket=True)
    assert "--preserve and --bucket" in refused(*words)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\xfa"])
def test_a_file_without_prompts_is_refused(
    content: bytes, tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """An empty one, and one that is no text."""
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    words = command_of("prior", tmp_path / "run", tiny, photos, preserve=file)
    assert f"--preserve {file}" in refused(*words)
