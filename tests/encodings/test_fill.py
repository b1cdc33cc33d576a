"""Encodings from the cache against encodings made on the spot, and what a change costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from e2e import wassily as run
from helpers import draw_picture, write_folder

from wassily.config.training import DecoderConfig, PriorConfig, TrainConfig
from wassily.data.datasets import Pictures
from wassily.encodings import cache, definitions, fill
from wassily.generation import pipelines
from wassily.maths import randomness
from wassily.mini.untrained import Tiny
from wassily.runtime.accelerator import Runtime
from wassily.training_data import training_set

CAPTIONS = ["a red cat", "قطة حمراء صغيرة", "a red cat", "a very long caption of a small bird", "b"]


@pytest.fixture
def work(tmp_path: Path, tiny: Tiny) -> Callable[..., Any]:
    """work(PriorConfig | DecoderConfig, **flags) -> (reading of five pictures, calls).

    The calls say how many items each encoding prepared to make it.
    """
    write_folder(tmp_path / "pics", CAPTIONS)

    def make(kind: type[TrainConfig], **flags: Any) -> Any:
        config = kind(
            pretrained_prior_model_name_or_path=str(tiny.prior),
            pretrained_decoder_model_name_or_path=str(tiny.decoder),
            train_data_dir=str(tmp_path / "pics"),
            output_dir=str(tmp_path / "out"),
            **({"resolution": 32} | flags),
        )
        runtime = Runtime(None, 1, str(tmp_path), "logs", "none")
        repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
        context = definitions.of_training(config, repositories, runtime, tmp_path / "cache")
        calls: dict[str, int] = {}
        wanted = [counted(e, calls) for e in definitions.make_encodings(context)]
        source = training_set.chosen_pictures(config, 0, runtime)
        return training_set.make_reading(
            wanted, source, 0, context, flips=config.random_flip, skip_bad=config.skip_bad_images
        ), calls

    return make


def counted(encoding: fill.Encoding, calls: dict[str, int]) -> fill.Encoding:
    """The same encoding, noting how many items it prepared."""
    from dataclasses import replace

    def prepare(item: Any) -> torch.Tensor:
        calls[encoding.name] = calls.get(encoding.name, 0) + 1
        return encoding.prepare(item)

    return replace(encoding, prepare=prepare)


def batch_of(reading: training_set.TrainingSet, indices: list[int]) -> dict[str, torch.Tensor]:
    rows = [reading.fetch(index, 3, slot) for slot, index in enumerate(indices)]
    return reading.finish(reading.collate(rows))


@pytest.mark.parametrize("kind", [PriorConfig, DecoderConfig])
@pytest.mark.parametrize("flags", [{}, {"random_flip": True, "condition_dropout": 0.5}])
def test_cached_equals_live_to_the_bit(
    work: Callable[..., Any], kind: Any, flags: dict[str, Any]
) -> None:
    """Whatever else was in the encoder's batch: batches of one, and of all in another order."""
    cached, _ = work(kind, **flags)
    live, _ = work(kind, **flags, no_cache=True)
    for indices in ([2], [4, 0, 3, 1, 2]):
        ours, theirs = batch_of(cached, indices), batch_of(live, indices)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", [PriorConfig, DecoderConfig])
@pytest.mark.parametrize("no_cache", [False, True])
def test_a_dropped_condition_is_the_unconditional_of_the_pipeline(
    work: Callable[..., Any], tiny: Tiny, kind: Any, no_cache: bool
) -> None:
    """What the stock prior pipeline guides away from takes the condition's place in the rows that
    are drawn; all else in them, and every other row, is as without the flag, to the bit.
    """
    pipeline = pipelines.prior_pipeline(str(tiny.prior), torch.float32, None)
    if kind is PriorConfig:
        found = pipeline._encode_prompt("x", torch.device("cpu"), 1, True, None)
        (embed, states, mask) = (both[0] for both in found)  # the unconditional half comes first
        absent = {"text_embeds": embed, "text_states": states[mask.bool()]}
    else:
        absent = {"image_embeds": pipeline.get_zero_embed()[0]}
    plain, _ = work(kind, random_flip=True, no_cache=no_cache)
    dropping, _ = work(kind, random_flip=True, no_cache=no_cache, condition_dropout=0.4)
    drawn = []
    for step in range(5):
        for slot in range(2):
            expected, got = one(plain, 3, step, slot), one(dropping, 3, step, slot)
            drawn.append(randomness.drops(0, step, slot, 0.4))
            for name, value in got.items():
                if drawn[-1] and name in absent:
                    torch.testing.assert_close(value, absent[name], atol=1e-5, rtol=1e-5)
                else:
                    assert torch.equal(value, expected[name]), name
    assert set(drawn) == {False, True}


def one(
    reading: training_set.TrainingSet, index: int, step: int, slot: int
) -> dict[str, torch.Tensor]:
    """The encodings of one example, without the batch's axis and its mask."""
    batch = reading.finish(reading.collate([reading.fetch(index, step, slot)]))
    return {name: value[0] for name, value in batch.items() if name != "text_mask"}


def test_the_unconditional_is_encoded_once(work: Callable[..., Any], tmp_path: Path) -> None:
    """One more entry beside those of the pictures and captions, only where it is wanted, and the
    same one for all probabilities.
    """

    def entries(name: str) -> int:
        (folder,) = (tmp_path / "cache").glob(f"{name}-*")
        return len(cache.Store(folder))

    work(PriorConfig)
    work(DecoderConfig)
    assert (entries("image"), entries("text")) == (5, 4)
    for probability in (0.1, 0.5):
        work(PriorConfig, condition_dropout=probability)
        assert (entries("image"), entries("text")) == (5, 5)
    for probability in (0.1, 0.5):
        work(DecoderConfig, condition_dropout=probability)
        assert (entries("image"), entries("latents")) == (6, 5)


def test_text_states_are_unpadded_and_masked(work: Callable[..., Any]) -> None:
    """A batch is as long as its longest caption; the mask tells each one's length."""
    reading, _ = work(PriorConfig)
    lengths = [len(reading.fetch(i, 0, 0)["text_states"]) for i in range(5)]
    batch = batch_of(reading, [0, 3])
    assert batch["text_states"].shape[1] == max(lengths[0], lengths[3])
    assert batch["text_mask"].sum(1).tolist() == [lengths[0], lengths[3]]
    assert lengths[4] < lengths[0] < lengths[3]


def test_the_same_is_encoded_once(work: Callable[..., Any]) -> None:
    """Five pictures and four distinct captions; nothing the second time; the image embeddings
    of the prior's run serve the decoder's.
    """
    assert work(PriorConfig)[1] == {"image": 5, "text": 4}
    assert work(PriorConfig)[1] == {}
    assert work(DecoderConfig)[1] == {"latents": 5}


def test_a_change_encodes_what_changed_and_nothing_else(
    work: Callable[..., Any], tmp_path: Path
) -> None:
    """One picture; one caption; the resolution; a copy under another name costs nothing."""
    pics = tmp_path / "pics"
    work(PriorConfig)
    work(DecoderConfig)
    draw_picture(99).save(pics / "03.png")
    assert work(DecoderConfig)[1] == {"image": 1, "latents": 1}
    lines = (pics / "metadata.jsonl").read_text("utf-8").splitlines()
    lines[1] = json.dumps({"file_name": "01.png", "text": "something else"})
    (pics / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
    assert work(PriorConfig)[1] == {"text": 1}
    assert work(DecoderConfig, resolution=64)[1] == {"latents": 5}
    (pics / "00.png").rename(pics / "zz.png")
    lines[0] = json.dumps({"file_name": "zz.png", "text": CAPTIONS[0]})
    (pics / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
    assert work(PriorConfig)[1] == {}
    assert work(PriorConfig, random_flip=True)[1] == {"image": 5}


def test_an_encoder_of_other_weights_has_a_space_of_its_own(
    work: Callable[..., Any], tiny: Tiny, tmp_path: Path
) -> None:
    """A copy of the prior with one bit of the image encoder changed."""
    import shutil

    from safetensors.torch import load_file, save_file

    config = DecoderConfig(train_data_dir=str(tmp_path))
    runtime = Runtime(None, 1, str(tmp_path), "logs", "none")
    other = tmp_path / "other"
    shutil.copytree(tiny.prior, other)
    spaces = []
    for _ in range(2):
        context = definitions.of_training(config, {"prior": str(other)}, runtime, tmp_path / "c")
        spaces.append(definitions.image_encoding(context).space)
        file = other / "image_encoder" / "model.safetensors"
        tensors = load_file(file)
        first = sorted(tensors)[0]
        tensors[first] = tensors[first] + 1e-3
        save_file(tensors, file, metadata={"format": "pt"})
    assert spaces[0] != spaces[1]


def test_a_picture_changed_behind_its_time_is_found_by_verify(
    work: Callable[..., Any], tmp_path: Path
) -> None:
    """Same size and time of change: trusted, unless the cache is to be verified."""
    import os

    path = tmp_path / "pics" / "02.png"
    work(DecoderConfig)
    stat = path.stat()
    raw = bytearray(path.read_bytes())
    draw_picture(50).save(path)
    changed = path.read_bytes()
    padded = changed + b"\0" * max(0, len(raw) - len(changed))
    if len(padded) != len(raw):
        pytest.skip("the other picture is larger")
    path.write_bytes(padded)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert work(DecoderConfig)[1] == {}
    assert work(DecoderConfig, verify_cache=True)[1] == {"image": 1, "latents": 1}


def test_pictures_inside_a_table_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run knows their digests without looking at them."""
    raws = [str(n).encode() for n in range(3)]
    table = datasets.Dataset.from_dict({"image": [{"bytes": raw, "path": None} for raw in raws]})
    source = Pictures(table, "image", None, "x")
    runtime = Runtime(None, 1, str(tmp_path), "logs", "none")
    first, bad = fill.picture_contents(source, tmp_path / "cache", runtime)
    assert not bad and [row.tobytes() for row in first] == [cache.digest(raw) for raw in raws]
    monkeypatch.delattr(Pictures, "__getitem__")
    again, _ = fill.picture_contents(source, tmp_path / "cache", runtime)
    assert (again == first).all()


def test_a_cut_cache_is_completed(work: Callable[..., Any], tmp_path: Path) -> None:
    """A shard that is gone, as after a kill, is encoded again; the rest is kept."""
    work(DecoderConfig)
    (shard,) = (tmp_path / "cache").glob("latents-*/*.safetensors")
    shard.unlink()
    assert work(DecoderConfig)[1] == {"latents": 5}


def test_build_info_and_prune_by_command(tiny: Tiny, tmp_path: Path) -> None:
    """`cache build` encodes and trains nothing; `info` counts it; `prune` removes it."""
    write_folder(tmp_path / "pics", CAPTIONS)
    place = ["--cache_dir", str(tmp_path / "c")]
    models = ["--pretrained_prior_model_name_or_path", str(tiny.prior)]
    models += ["--pretrained_decoder_model_name_or_path", str(tiny.decoder)]
    words = [*place, *models, "--train_data_dir", str(tmp_path / "pics"), "--resolution", "32"]
    done = run("cache", "build", "decoder", *words, "--output_dir", str(tmp_path / "out"))
    assert done.code == 0, done.text
    assert not (tmp_path / "out").exists()
    assert "5 entries" in " ".join(run("cache", "info", *place).out.split())
    run("cache", "prune", *place, "--unused_days", "0")
    assert not list(cache.default_folder(str(tmp_path / "c")).rglob("*.safetensors"))
