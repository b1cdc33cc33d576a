"""DreamBooth: a few pictures of one thing, and pictures of its class that the base draws."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e import (
    ROLES,
    assert_same_bits,
    command,
    finish,
    losses,
    network,
    ranks,
    refused,
    start,
    tensors,
    train,
    wassily,
)
from helpers import draw_picture, image_files, read_jsonl

from wassily.config import training
from wassily.data import datasets, images, png
from wassily.mini.untrained import Tiny
from wassily.planning import plan
from wassily.reporting import model_card
from wassily.training_data import class_images

CLASS = {"with_prior_preservation": True, "class_prompt": "a red dog", "num_class_images": 5}
# As in the tests of several processes: a step in proportion to its gradient.
STEP = {"adam_epsilon": 0.01, "learning_rate": 0.01, "max_train_steps": 4, "logging_steps": 1}


def _bare(folder: Path, numbers: range) -> Path:
    folder.mkdir(parents=True)
    for number in numbers:
        draw_picture(number, 48, 40).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of one thing, without captions; not a divisor of a batch of 2."""
    return _bare(tmp_path_factory.mktemp("things") / "sks", range(3))


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five class pictures that are there already."""
    return _bare(tmp_path_factory.mktemp("dogs") / "dogs", range(50, 55))


def _flags(things: Path, dogs: Path | None = None, **more: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {"instance_data_dir": things, "instance_prompt": "a red sks dog"}
    return usual | STEP | (CLASS | {"class_data_dir": dogs} if dogs else {}) | more


def _near(one: Path, two: Path, role: str) -> None:
    """Losses and weights agree up to the order of summing."""
    for (_, a, _), (_, b, _) in zip(losses(one), losses(two), strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    a, b = network(one, role), network(two, role)
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module", params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    """Both networks, one after the other."""
    return request.param


@pytest.fixture(scope="module")
def whole(
    role: str, tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, things: Path, dogs: Path
) -> Path:
    """One process, batches of 2 beside 2 class pictures, never stopped."""
    out = tmp_path_factory.mktemp(f"whole-{role}") / "run"
    flags = _flags(things, dogs, train_batch_size=2, checkpointing_steps=2)
    said = train(role, out, tiny, None, **flags).out
    assert "beside them 2 of 5 class pictures (" in said and "a step, weight 1" in said
    return out


def test_a_class_of_no_weight_changes_nothing(
    role: str, whole: Path, tmp_path: Path, tiny: Tiny, things: Path, dogs: Path
) -> None:
    """--prior_loss_weight 0 trains as without class pictures; with them it is another training."""
    none = _flags(things, train_batch_size=2)
    zero = _flags(things, dogs, train_batch_size=2, prior_loss_weight=0)
    train(role, tmp_path / "none", tiny, None, **none)
    train(role, tmp_path / "zero", tiny, None, **zero)
    _near(tmp_path / "none", tmp_path / "zero", role)
    # The log has the sum: the own mean loss, and the class's on top.
    assert losses(whole)[0][1] > losses(tmp_path / "none")[0][1] + 0.1


def test_stopped_and_gone_on(
    role: str, whole: Path, tmp_path: Path, tiny: Tiny, things: Path, dogs: Path
) -> None:
    """From the middle of both streams, the bits of the run that was never stopped; with another
    weight it is another run.
    """
    flags = _flags(things, dogs, train_batch_size=2, checkpointing_steps=2)
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoint-4")
    flags["resume_from_checkpoint"] = "latest"
    line = refused(*command(role, out, tiny, None, **flags, prior_loss_weight=0.5))
    assert "beside was" in line and "weight 0.5" in line
    assert "at step 2" in train(role, out, tiny, None, **flags).out
    assert_same_bits(whole / "checkpoint-4", out / "checkpoint-4")
    assert losses(whole) == losses(out)


def test_two_processes_and_accumulation(
    role: str, whole: Path, tmp_path: Path, tiny: Tiny, things: Path, dogs: Path
) -> None:
    """Two gloo processes of batch 1, and two micro-batches of 1, against one batch of 2; the latter
    without a cache.
    """
    words = command(role, tmp_path / "two", tiny, None, **_flags(things, dogs))
    for code, output in ranks(2, words, tmp_path / "output"):
        assert code == 0, output
    _near(whole, tmp_path / "two", role)
    flags = _flags(things, dogs, gradient_accumulation_steps=2, fuse_accumulation="off")
    train(role, tmp_path / "cut", tiny, None, **flags, no_cache=True)
    _near(whole, tmp_path / "cut", role)


def test_with_an_adapter_and_an_average(
    role: str, tmp_path: Path, tiny: Tiny, things: Path, dogs: Path
) -> None:
    """--lora, --use_ema, --random_flip and a held-out part, which is of the own pictures only."""
    flags = _flags(things, dogs, lora=True, use_ema=True, random_flip=True, center_crop=True)
    said = train(role, tmp_path / "run", tiny, None, **flags, holdout=0.4).out
    assert "1 pictures, global batch 1" in said
    adapter = tensors(tmp_path / "run")
    assert any(value.abs().max() > 0 for name, value in adapter.items() if "lora_B" in name)
    held = [row for row in read_jsonl(tmp_path / "run" / "log.jsonl") if "event" in row]
    assert (held[0]["step"], held[-1]["step"]) == (0, 4)


# ---------------------------------------------------------------- drawing the class


def test_missing_class_pictures_are_drawn_once_and_gone_on_with(
    tmp_path: Path, tiny: Tiny, things: Path
) -> None:
    """Killed as the fourth of five is named, and started again: the bytes of those drawn in one
    go, with the first batch left as it was. They are the base's, each by its number.
    """
    flags = {"sample_batch_size": 2, "max_train_steps": 1}
    runs = {}
    for name in ("whole", "cut"):
        given = _flags(things, tmp_path / name, **flags)
        runs[name] = command("decoder", tmp_path / f"run-{name}", tiny, None, **given)
    outcome = wassily(*runs["whole"])
    assert outcome.code == 0 and "drawing 5 class pictures" in outcome.out, outcome.text
    moment = ("os.rename", ".writing-class-00003.png")
    assert finish(start(runs["cut"], tmp_path / "said.txt", moment=moment)) == -9
    there = sorted(path.name for path in (tmp_path / "cut").glob("*.png"))
    assert there == ["class-00000.png", "class-00001.png", "class-00002.png"]
    before = {name: (tmp_path / "cut" / name).stat().st_mtime_ns for name in there[:2]}
    assert wassily(*runs["cut"]).code == 0
    for name, at in before.items():
        assert (tmp_path / "cut" / name).stat().st_mtime_ns == at
    files = [sorted((tmp_path / name).glob("*.png")) for name in ("whole", "cut")]
    assert [len(part) for part in files] == [5, 5]
    assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]
    assert len({f.read_bytes() for f in files[0]}) == 5
    notes = png.png_notes(files[0][3])
    assert (notes["prompt"], notes["seed"]) == ("a red dog", "3")
    # Another run, of the other network, draws nothing any more.
    given = _flags(things, tmp_path / "whole", max_train_steps=1)
    assert "drawing" not in train("prior", tmp_path / "prior", tiny, None, **given).text
    given["class_prompt"] = "a cat"
    assert "was drawn from 'a red dog', not from 'a cat'" in refused(
        *command("prior", tmp_path / "other", tiny, None, **given)
    )


def test_class_pictures_are_the_stock_pipelines(tmp_path: Path, tiny: Tiny, things: Path) -> None:
    """Number 0, alone in its batch, is what `wassily generate --seed 0` draws with the base."""
    flags = _flags(things, tmp_path / "dogs", num_class_images=1, max_train_steps=1)
    train("decoder", tmp_path / "run", tiny, None, **flags)
    models = ("--prior", tiny.prior, "--decoder", tiny.decoder, "--height", 32, "--width", 32)
    drawn = wassily("generate", "a red dog", *models, "--seed", 0, "--out", tmp_path / "one.png")
    assert drawn.code == 0, drawn.text
    ours = images.open_rgb(str(tmp_path / "dogs" / "class-00000.png"))
    stock = images.open_rgb(str(tmp_path / "one.png"))
    assert ours.tobytes() == stock.tobytes()


def test_which_are_missing(tmp_path: Path) -> None:
    """Pictures of the user's own count; a batch is drawn as a whole."""
    folder = tmp_path / "dogs"
    assert class_images.missing(folder, 5, 2, "x") == [[0, 1], [2, 3], [4]]
    _bare(folder, range(2))
    assert class_images.missing(folder, 5, 2, "x") == [[0, 1], [2]]
    for number in (0, 2):
        notes = {"prompt": "x"}
        png.save_png(draw_picture(number), class_images.file_of(folder, number), notes)
    (folder / ".writing-class-00001.png").write_bytes(b"cut")
    assert class_images.missing(folder, 5, 2, "x") == [[0, 1]]
    assert class_images.missing(folder, 2, 2, "x") == []


# ---------------------------------------------------------------- the instance pictures, the flags


def test_a_folder_with_one_caption(things: Path, tmp_path: Path) -> None:
    """All its pictures, whatever metadata says; without a prompt no captions."""
    folder = tmp_path / "sks"
    shutil.copytree(things, folder)
    (folder / "metadata.jsonl").write_text('{"file_name": "01.png", "text": "other"}\n')
    found = datasets.read_prompted(str(folder), "a sks dog")
    assert [r.captions for r in found] == [("a sks dog",)] * 3
    assert [Path(r.name).name for r in found] == ["00.png", "01.png", "02.png"]
    assert list(found.all_captions()) == ["a sks dog"] * 3
    assert [r.captions for r in datasets.read_prompted(str(folder), None)] == [()] * 3


REFUSED = [
    ({"train_data_dir": "T"}, "--train_data_dir and --instance_data_dir were both given"),
    ({"dataset_name": "a/b"}, "--dataset_name and --instance_data_dir were both given"),
    ({"instance_data_dir": "T/none"}, "--instance_data_dir T/none: no such folder"),
    ({"instance_prompt": None}, "the prior reads a caption; add --instance_prompt"),
    ({"instance_prompt": " "}, "--instance_prompt is empty"),
    ({"instance_data_dir": None, "train_data_dir": "T"}, "does nothing without --instance_data"),
    ({"caption_column": "words"}, "--caption_column does nothing with --instance_data_dir"),
    ({"with_prior_preservation": False}, "--class_data_dir does nothing without --with_prior"),
    ({"class_data_dir": None}, "needs --class_data_dir"),
    ({"class_prompt": None}, "needs --class_prompt"),
    ({"class_data_dir": "T"}, "one holds the other"),
    ({"class_data_dir": "T/below"}, "one holds the other"),
    ({"class_data_dir": "T/00.png"}, "not a folder"),
    ({"num_class_images": 0}, "--num_class_images"),
    ({"sample_batch_size": 0}, "--sample_batch_size"),
    ({"prior_loss_weight": -1}, "--prior_loss_weight"),
]


@pytest.mark.parametrize(("change", "wanted"), REFUSED, ids=[w for _, w in REFUSED])
def test_wrong_combinations(
    change: dict[str, Any], wanted: str, tiny: Tiny, tmp_path: Path, things: Path
) -> None:
    """One line, before anything is loaded."""
    here = {k: v.replace("T", str(things)) if isinstance(v, str) else v for k, v in change.items()}
    flags = _flags(things, tmp_path / "dogs") | here
    line = refused(*command("prior", tmp_path / "run", tiny, None, **flags))
    assert wanted.replace("T/", f"{things}/") in line


def test_class_pictures_are_squares(tiny: Tiny, tmp_path: Path, things: Path, dogs: Path) -> None:
    """Refused with --bucket; and number, weight and batch without class pictures."""
    flags = _flags(things, dogs, bucket=True)
    line = refused(*command("decoder", tmp_path / "run", tiny, None, **flags))
    assert "--bucket and --with_prior_preservation" in line
    for name in ("num_class_images", "prior_loss_weight", "sample_batch_size"):
        flags = _flags(things, **{name: 3})
        line = refused(*command("decoder", tmp_path / "run", tiny, None, **flags))
        assert f"--{name} does nothing without --with_prior_preservation" in line


def test_the_decoder_needs_no_caption(tiny: Tiny, tmp_path: Path, things: Path) -> None:
    """A folder alone."""
    train("decoder", tmp_path / "run", tiny, None, instance_data_dir=things, max_train_steps=1)


@pytest.mark.parametrize("fused", [False, True])
def test_the_plan_counts_both_halves(fused: bool, tiny: Tiny, things: Path, dogs: Path) -> None:
    """A step with class pictures takes the memory of one of twice the batch."""
    models = {
        "pretrained_prior_model_name_or_path": str(tiny.prior),
        "pretrained_decoder_model_name_or_path": str(tiny.decoder),
        "instance_data_dir": str(things),
        "resolution": 32,
        "gradient_accumulation_steps": 2,
    }
    both = training.DecoderConfig(**models, **CLASS, class_data_dir=str(dogs), train_batch_size=2)
    twice = training.DecoderConfig(**models, train_batch_size=4)
    homes = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    one, two = (plan.estimate(c, homes, "no", fused).moments["step"] for c in (both, twice))
    assert one == two


def test_the_plan_and_the_cache_know_them(
    tiny: Tiny, tmp_path: Path, things: Path, dogs: Path
) -> None:
    """`wassily plan` counts the own pictures for the steps; `cache build` encodes both."""
    flags = {**_flags(things, dogs), "output_dir": None, "logging_steps": None}
    words = command("prior", tmp_path / "run", tiny, None, **flags)[1:]
    outcome = wassily("plan", *words)
    assert outcome.code == 0 and "pictures: 3, global batch 1" in outcome.out, outcome.text
    built = wassily("cache", "build", *words)
    assert built.code == 0, built.text
    assert "encodings of 3 pictures and 5 class pictures (" in built.out


def test_the_card_tells_both(things: Path, dogs: Path) -> None:
    """Both prompts, number and weight; the own prompt is what it is tried with."""
    flags = CLASS | {"class_data_dir": str(dogs), "prior_loss_weight": 0.5}
    made = training.PriorConfig(instance_data_dir=str(things), instance_prompt="a sks|dog", **flags)
    facts = model_card.Facts("n", "prior", "b", "p", "d", "", False, 4, 3, 0, False)
    text = model_card.model_card(made, facts, "no")
    assert "| class pictures beside them | 5, a red dog, weight 0.5 |" in text
    assert "| caption of all pictures | a sks\\|dog |" in text
    assert 'pipeline(prompt="a sks|dog")' in text


def test_links_out_of_the_folder_are_refused(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """As in a folder with captions: a stranger's link could name any file."""
    inside = tmp_path / "pics"
    inside.mkdir()
    first = image_files(photos)[0]
    (inside / f"a{first.suffix}").symlink_to(first)
    words = command("decoder", tmp_path / "run", tiny, None, instance_data_dir=inside)
    assert "a link that leads out of" in refused(*words)
