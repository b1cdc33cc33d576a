"""Whole runs of the decoder with aspect-ratio buckets, on pictures of several shapes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from e2e import assert_same_bits, command, losses, network, ranks, refused, train, wassily
from helpers import draw_picture
from PIL import Image

from wassily.config.training import DecoderConfig
from wassily.data import aspect_buckets, example_order
from wassily.encodings import definitions, fill
from wassily.mini.untrained import FACTOR, Tiny
from wassily.models.trainable import make_trainable
from wassily.runtime.accelerator import Runtime
from wassily.training_data import training_set

# At 32 px in steps of 8: wide, tall, very tall and square ones, and one that a camera turned.
SIZES = [(96, 48), (200, 100), (64, 32), (40, 80), (30, 100), (50, 50), (33, 32), (90, 45)]
COUNTS = {(16, 56): 1, (24, 40): 2, (32, 32): 2, (40, 24): 3}
TURNED = 7
FLAGS: dict[str, Any] = {
    "bucket": True,
    "train_batch_size": 2,
    "max_train_steps": 7,  # into the second epoch
    "logging_steps": 1,
    "use_ema": True,
}


@pytest.fixture(scope="module")
def pics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of several sizes."""
    folder = tmp_path_factory.mktemp("shapes")
    for number, size in enumerate(SIZES):
        exif = Image.Exif()
        if number == TURNED:
            exif[0x0112] = 6  # to be turned by 90 degrees
        draw_picture(number, *size).save(folder / f"{number}.jpg", exif=exif)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, pics: Path) -> tuple[Path, str]:
    """One run from its start to its end: its folder, and what it said."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, train("decoder", out, tiny, pics, **FLAGS).out


@pytest.fixture
def work(tmp_path: Path, tiny: Tiny, pics: Path) -> Callable[..., Any]:
    """work(**flags) -> (reading, trainable, batches of a few steps, number of items prepared)."""

    def make(steps: int = 12, **flags: Any) -> Any:
        config = DecoderConfig(
            pretrained_prior_model_name_or_path=str(tiny.prior),
            pretrained_decoder_model_name_or_path=str(tiny.decoder),
            **({"train_data_dir": str(pics), "resolution": 32, "bucket": True} | flags),
        )
        runtime = Runtime(None, 1, str(tmp_path), "logs", "none")
        repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
        context = definitions.of_training(config, repositories, runtime, tmp_path / "cache")
        calls: dict[str, int] = {}
        wanted = [_counted(e, calls) for e in definitions.make_encodings(context)]
        source = training_set.chosen_images(config, 5, runtime)
        reading = training_set.make_reading(
            wanted, source, 5, context, flips=config.random_flip, skip_bad=config.skip_bad_images
        )
        prepared = dict(calls)
        trainable = make_trainable(config, repositories)
        examples = training_set.make_examples(reading, trainable, 5)
        keys = example_order.keys(5, reading.buckets.members(), example_order.Split(2, 1, 1, 0), 0)
        loader = iter(example_order.loader(examples, keys, reading.collate, 0, False))
        return reading, trainable, [reading.finish(next(loader)) for _ in range(steps)], prepared

    return make


def _counted(encoding: fill.Encoding, calls: dict[str, int]) -> fill.Encoding:
    def prepare(item: Any) -> torch.Tensor:
        calls[encoding.name] = calls.get(encoding.name, 0) + 1
        return encoding.prepare(item)

    return replace(encoding, prepare=prepare)


def test_a_run_says_its_buckets_and_goes_through(whole: tuple[Path, str]) -> None:
    """How many pictures each holds, what is cropped away, seven finite losses, a pipeline."""
    out, said = whole
    found = re.findall(r"^  (\d+) x (\d+): (\d+)$", said, re.MULTILINE)
    assert {(int(w), int(h)): int(n) for w, h, n in found} == COUNTS
    assert "buckets of less than a global batch (2): 1, with 1 pictures" in said
    lost = re.search(r"cropped away: ([\d.]+)% of the pixels, with squares ([\d.]+)%", said)
    assert lost and float(lost[1]) < float(lost[2])
    assert [step for step, *_ in losses(out)] == list(range(1, 8))
    assert all(loss == loss and loss < 100 for _, loss, _ in losses(out))
    assert (out / "model_index.json").is_file()


def test_cache_build_says_the_same_buckets(
    whole: tuple[Path, str], tmp_path: Path, tiny: Tiny, pics: Path
) -> None:
    """The lines of the run, before there is one."""
    words = command("decoder", tmp_path / "out", tiny, pics, bucket=True, train_batch_size=2)
    said = wassily("cache", "build", *words[1:]).out
    table = re.search(r"^\d+ of \d+ buckets hold pictures:\n(.*\n)+?buckets of less.*", said, re.M)
    assert table and table[0] in whole[1]


def test_the_same_bits_after_a_resume(
    whole: tuple[Path, str], tmp_path: Path, tiny: Tiny, pics: Path
) -> None:
    """Cut after step 3, in the middle of an epoch, and gone on with."""
    flags = FLAGS | {"checkpointing_steps": 3, "resume_from_checkpoint": "latest"}
    train("decoder", tmp_path / "run", tiny, pics, **flags | {"max_train_steps": 3})
    said = train("decoder", tmp_path / "run", tiny, pics, **flags).out
    assert "at step 3" in said
    assert_same_bits(whole[0] / "unet", tmp_path / "run" / "unet")
    assert losses(whole[0]) == losses(tmp_path / "run")


def test_two_processes_equal_one(
    whole: tuple[Path, str], tmp_path: Path, tiny: Tiny, pics: Path
) -> None:
    """Both work on one bucket at a time; up to the order of summing, with workers."""
    flags = FLAGS | {"adam_epsilon": 0.01, "learning_rate": 0.01}
    train("decoder", tmp_path / "one", tiny, pics, **flags | {"max_train_steps": 5})
    flags |= {"train_batch_size": 1, "max_train_steps": 5, "dataloader_num_workers": 1}
    words = command("decoder", tmp_path / "two", tiny, pics, **flags)
    for code, output in ranks(2, words, tmp_path / "output"):
        assert code == 0, output
    for (step, loss, _), (_, other, _) in zip(
        losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True
    ):
        assert loss == pytest.approx(other, rel=1e-5), f"step {step}"
    a, b = network(tmp_path / "one", "decoder"), network(tmp_path / "two", "decoder")
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-4, atol=1e-5)


def test_no_cache_trains_the_same(
    whole: tuple[Path, str], tmp_path: Path, tiny: Tiny, pics: Path
) -> None:
    """To the last bit of the last weight."""
    said = train("decoder", tmp_path / "run", tiny, pics, **FLAGS, no_cache=True).out
    assert re.findall(r"  \d+ x \d+: \d+", said) == re.findall(r"  \d+ x \d+: \d+", whole[1])
    assert_same_bits(whole[0] / "unet", tmp_path / "run" / "unet")


@pytest.mark.parametrize("flip", [False, True])
def test_cached_equals_live_to_the_bit(work: Callable[..., Any], flip: bool) -> None:
    """Batch by batch, in all shapes; noise and latents have the shape of the bucket."""
    reading, _, cached, _ = work(random_flip=flip)
    live = work(random_flip=flip, no_cache=True)[2]
    seen = set()
    for ours, theirs in zip(cached, live, strict=True):
        assert ours.keys() == theirs.keys() == {"image_embeds", "latents", "noise", "t"}
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert ours["noise"].shape == ours["latents"].shape
        height, width = ours["latents"].shape[2:]
        seen.add((width * FACTOR, height * FACTOR))
    assert seen == {reading.buckets.shape(index) for index in range(len(SIZES))} == set(COUNTS)


def test_the_rotation_of_a_camera_counts(work: Callable[..., Any]) -> None:
    """A picture stored wide and shown tall is in the bucket of tall ones, with and without cache,
    the first time and when its size is remembered.
    """
    for flags in ({}, {}, {"no_cache": True}):
        assert work(0, **flags)[0].buckets.shape(TURNED) == (24, 40)


def test_a_change_encodes_the_latents_and_nothing_else(
    work: Callable[..., Any], pics: Path, tmp_path: Path
) -> None:
    """The switch, the resolution; nothing twice; the sizes are remembered, not read anew."""
    mine = tmp_path / "pics"
    shutil.copytree(pics, mine)
    place = {"train_data_dir": str(mine)}
    everything = {"image": len(SIZES), "latents": len(SIZES)}
    assert work(0, **place, bucket=False)[3] == everything
    assert work(0, **place)[3] == {"latents": len(SIZES)}
    assert work(0, **place)[3] == work(0, **place, bucket=False)[3] == {}
    assert work(0, **place, resolution=64)[3] == {"latents": len(SIZES)}
    draw_picture(77, 30, 90).save(mine / "0.jpg")
    reading, _, _, prepared = work(0, **place)
    assert prepared == {"image": 1, "latents": 1}
    w, h = reading.buckets.shape(0)
    assert h > w


def test_latents_are_those_of_the_crop(work: Callable[..., Any], tiny: Tiny, pics: Path) -> None:
    """Against the stock MoVQ on the picture cut and resized by hand: 64 x 32 to 40 x 24."""
    reading = work(0)[0]
    box = (5, 0, 59, 32)  # 32 * 40 / 24 = 53.3 wide, to whole pixels
    with Image.open(pics / "2.jpg") as picture:
        cut = picture.convert("RGB").crop(box).resize((40, 24), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(cut).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)
    movq = diffusers.VQModel.from_pretrained(tiny.decoder, subfolder="movq")
    with torch.no_grad():
        expected = movq.encode(pixels[None]).latents[0]
    torch.testing.assert_close(
        reading.fetch(2, 0, 0)["latents"].float(), expected, atol=1e-4, rtol=1e-4
    )


def test_a_bad_picture_is_left_out_of_the_buckets(
    work: Callable[..., Any], pics: Path, tmp_path: Path
) -> None:
    """Those after it keep their own sizes."""
    shutil.copytree(pics, tmp_path / "pics")
    (tmp_path / "pics" / "1.jpg").write_bytes(b"no picture")
    shapes = work(0)[0].buckets
    for no_cache in (False, True):
        place = {"train_data_dir": str(tmp_path / "pics"), "skip_bad_images": True}
        found = work(0, **place, no_cache=no_cache)[0].buckets
        expected = [shapes.shape(index) for index in range(len(SIZES)) if index != 1]
        assert [found.shape(index) for index in range(len(SIZES) - 1)] == expected


def _levels(decoder: Path, copy: Path, movq: int, unet: int) -> Path:
    """A copy of a decoder whose configs name so many levels of blocks."""
    shutil.copytree(decoder, copy)
    for role, count in (("movq", movq), ("unet", unet)):
        file = copy / role / "config.json"
        values = json.loads(file.read_text("utf-8"))
        file.write_text(json.dumps(values | {"block_out_channels": [32] * count}), "utf-8")
    return copy


def test_sides_are_what_the_networks_can_halve(tiny: Tiny, pics: Path, tmp_path: Path) -> None:
    """Four levels each, as in the released decoder: multiples of 64; the tiny one: of 8."""
    config = DecoderConfig(train_data_dir=str(pics), resolution=768, bucket=True)
    real = _levels(tiny.decoder, tmp_path / "real", 4, 4)
    runtime = Runtime(None, 1, str(tmp_path), "logs", "none")
    for decoder, step in ((real, 64), (tiny.decoder, 8)):
        context = definitions.of_training(config, {"decoder": str(decoder)}, runtime, tmp_path)
        assert definitions.crop_shapes(context) == aspect_buckets.shapes(768, step)
    flags = FLAGS | {"resolution": 96, "pretrained_decoder_model_name_or_path": real}
    line = refused(*command("decoder", tmp_path / "run", tiny, pics, **flags))
    assert line.endswith("--bucket: --resolution 96 is not a multiple of 64")


def test_a_checkpoint_of_the_other_way_is_refused(
    whole: tuple[Path, str], tmp_path: Path, tiny: Tiny, pics: Path
) -> None:
    """The switch is a part of what a checkpoint means."""
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    flags = FLAGS | {"bucket": False, "resume_from_checkpoint": "latest"}
    line = refused(*command("decoder", copy, tiny, pics, **flags))
    assert "of another run: bucket was True and is None now" in line


def test_the_prior_has_no_such_flag(tmp_path: Path, tiny: Tiny, pics: Path) -> None:
    """It sees pictures through CLIP alone."""
    outcome = wassily(*command("prior", tmp_path / "run", tiny, pics, bucket=True))
    assert outcome.code == 2
    assert "--bucket" in outcome.err
