"""Trainings on a stream: stopped and gone on with, over processes, by http, with bad examples."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shard_files
import torch
from e2e import (
    assert_same_bits,
    checkpoints,
    command,
    losses,
    network,
    ranks,
    refused,
    train,
    wassily,
)
from helpers import read_jsonl

from wassily.config.training import DecoderConfig, PriorConfig
from wassily.data.shards import numbered
from wassily.errors import UserError
from wassily.mini.untrained import Tiny
from wassily.training_data import base_predictions, training_set

SIZES = (5, 2, 4)  # no number of processes divides them
STREAM: dict[str, Any] = {"streaming": True, "shuffle_buffer": 4, "logging_steps": 1}
TAR = {"image_column": "jpg", "caption_column": "txt"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same pictures in both kinds of shards."""
    home = tmp_path_factory.mktemp("shards")
    return {
        "parquet": shard_files.parquet(home / "parquet", SIZES),
        "tar": shard_files.tars(home / "tar", SIZES),
    }


def _train(role: str, out: Path, tiny: Tiny, name: Any, **flags: Any) -> str:
    given = STREAM | {"dataset_name": name, "max_train_steps": 7, "train_batch_size": 2} | flags
    return train(role, out, tiny, None, **given).text


def _refused(role: str, out: Path, tiny: Tiny, name: Any, **flags: Any) -> str:
    given = STREAM | {"dataset_name": name, "max_train_steps": 7, "train_batch_size": 2} | flags
    return refused(*command(role, out, tiny, None, **given))


@pytest.mark.parametrize(
    ("role", "kind", "flags"),
    [
        ("prior", "parquet", {"condition_dropout": 0.3, "dataloader_num_workers": 1}),
        ("decoder", "tar", {"image_column": "jpg", "use_ema": True}),
    ],
)
def test_gone_on_with_to_the_bit(
    role: str, kind: str, flags: Any, tiny: Tiny, shards: dict[str, Path], tmp_path: Path
) -> None:
    """Stopped in the first epoch and in the second, with a reader that is ahead of the steps."""
    flags = {"random_flip": True, "checkpointing_steps": 2, **flags}
    said = _train(role, tmp_path / "whole", tiny, shards[kind], **flags)
    assert "a stream of 3 shards in 1 lane(s), global batch 2" in said
    for stop in (3, 6, 7):
        flags |= {"max_train_steps": stop, "resume_from_checkpoint": "latest"}
        _train(role, tmp_path / "cut", tiny, shards[kind], **flags)
    assert checkpoints(tmp_path / "cut") == [f"checkpoint-{n}" for n in (2, 3, 4, 6, 7)]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    one, two = tmp_path / "cut" / "checkpoint-7", tmp_path / "whole" / "checkpoint-7"
    assert_same_bits(one, two)


def test_what_changes_nothing(tiny: Tiny, shards: dict[str, Path], tmp_path: Path) -> None:
    """Pictures decoded in another process, bad ones skipped where there are none: the same bits."""
    few = {"max_train_steps": 3}
    _train("decoder", tmp_path / "plain", tiny, shards["parquet"], **few)
    few |= {"dataloader_num_workers": 2, "skip_bad_images": True}
    _train("decoder", tmp_path / "other", tiny, shards["parquet"], **few)
    assert_same_bits(tmp_path / "plain" / "unet", tmp_path / "other" / "unet")


def test_a_stream_and_a_table(tiny: Tiny, tmp_path: Path) -> None:
    """A single picture stands in every place, whatever the order is: the same bits from both."""
    one = shard_files.parquet(tmp_path / "one", (1,))
    plain = {"max_train_steps": 3, "train_batch_size": 2, "logging_steps": 1}
    _train("decoder", tmp_path / "streamed", tiny, one, max_train_steps=3)
    train("decoder", tmp_path / "table", tiny, None, dataset_name=one, no_cache=True, **plain)
    assert losses(tmp_path / "streamed") == losses(tmp_path / "table")
    assert_same_bits(tmp_path / "streamed" / "unet", tmp_path / "table" / "unet")


@pytest.mark.parametrize("sizes", [SIZES, (4, 2, 4, 1)])
def test_two_processes_then_one(sizes: tuple[int, ...], tiny: Tiny, tmp_path: Path) -> None:
    """One order for both, or a lane each: one process goes on where two stopped, with the losses
    that two would have had.
    """
    folder = shard_files.parquet(tmp_path / "shards", sizes)
    flags = STREAM | {"dataset_name": folder, "adam_epsilon": 0.01, "checkpointing_steps": 3}
    for out, steps in (("whole", 7), ("cut", 3)):
        words = command("prior", tmp_path / out, tiny, None, **flags, max_train_steps=steps)
        for code, text in ranks(2, words, tmp_path / f"said-{out}"):
            assert code == 0, text
    lanes = 1 if len(sizes) % 2 else 2
    assert f"in {lanes} lane(s)" in (tmp_path / "said-whole" / "0.txt").read_text("utf-8")
    more = {"max_train_steps": 7, "train_batch_size": 2, "resume_from_checkpoint": "latest"}
    train("prior", tmp_path / "cut", tiny, None, **(flags | more))
    for a, b in zip(losses(tmp_path / "cut"), losses(tmp_path / "whole"), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    mine, theirs = network(tmp_path / "cut", "prior"), network(tmp_path / "whole", "prior")
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_by_http(kind: str, tiny: Tiny, shards: dict[str, Path], tmp_path: Path) -> None:
    """The same bits as from the disk."""
    columns = TAR if kind == "tar" else {}
    name = {"parquet": "train-{00000..00002}.parquet", "tar": "{00000..00002}.tar"}[kind]
    with shard_files.served(shards[kind]) as address:
        _train("prior", tmp_path / "far", tiny, f"{address}/{name}", **columns, seed=3)
        missing = f"{address}/none-{{0..1}}.tar"
        line = _refused("prior", tmp_path / "none", tiny, missing, **TAR)
    assert f"--dataset_name {missing}: cannot be read as a stream: " in line
    _train("prior", tmp_path / "near", tiny, shards[kind], **columns, seed=3)
    assert losses(tmp_path / "far") == losses(tmp_path / "near")
    assert_same_bits(tmp_path / "far" / "prior", tmp_path / "near" / "prior")


# ---------------------------------------------------------------- bad examples

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no picture": ({"image": {"bytes": b"x" * 40, "path": None}}, "not a picture of a known kind"),
    "cut": ({"image": {"bytes": shard_files.picture(1)[:90], "path": None}}, r".*"),
    "nothing": ({"image": None}, "no picture in it"),
    "a path": ({"image": {"bytes": None, "path": "/etc/hostname"}}, "no picture in it"),
    "no caption": ({"text": [""]}, "the caption is empty; .*"),
    "no text": ({"text": None}, "a caption is a text or a list of texts, not None"),
}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_example_is_named(workers: int, tiny: Tiny, tmp_path: Path) -> None:
    """Shard and index, in one line; a reader's process changes nothing of it."""
    picked = list(BAD) if workers == 0 else ["cut"]
    for name in picked:
        cell, reason = BAD[name]
        folder = shard_files.parquet(tmp_path / name, (2, 3), {3: cell})
        out = tmp_path / f"out-{name}"
        line = _refused("prior", out, tiny, folder, dataloader_num_workers=workers)
        where = r"wassily: error: train-00001\.parquet, example 1: "
        assert re.fullmatch(f"{where}{reason}; mend or remove it, or add --skip_bad_images", line)


def test_bad_examples_are_skipped(tiny: Tiny, tmp_path: Path) -> None:
    """Their places count nothing: the gradient is that of the others, over the whole batch."""
    cells = {n: cell for n, (cell, _) in enumerate(BAD.values(), start=1)}
    folder = shard_files.parquet(tmp_path / "shards", (4, 5), cells)
    flags = {"skip_bad_images": True, "max_train_steps": 1, "train_batch_size": 9}
    said = _train("prior", tmp_path / "out", tiny, folder, **flags)
    assert said.count("left out (") == len(BAD)
    assert "left out (6 by now): train-0000" in said
    none = shard_files.parquet(tmp_path / "none", (2, 2), {n: BAD["cut"][0] for n in range(4)})
    _train("prior", tmp_path / "still", tiny, none, **flags)
    assert [loss for _, loss, _ in losses(tmp_path / "still")] == [0.0]


def test_a_shard_that_breaks(tiny: Tiny, tmp_path: Path) -> None:
    """One line with its name; the checkpoints before it are whole."""
    folder = shard_files.tars(tmp_path / "shards", (3, 6))
    last = folder / "00001.tar"
    last.write_bytes(last.read_bytes()[:7000])
    flags = {**TAR, "checkpointing_steps": 1, "shuffle_buffer": 1}
    line = _refused("prior", tmp_path / "out", tiny, folder, **flags)
    assert re.search(r"00001\.tar: cannot be read at example \d+ or after it: ", line)


# ---------------------------------------------------------------- what is not let in


class _Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("ending", ["pth", "pyd", "seg.pt", "pickle"])
@pytest.mark.parametrize("streaming", [True, False])
def test_nothing_in_a_tar_is_unpickled(
    ending: str, streaming: bool, tiny: Tiny, tmp_path: Path
) -> None:
    """Refused where it is read as a stream; else its bytes are looked at by nobody."""
    trap = pickle.dumps(_Trap(tmp_path / "sprung"))
    folder = shard_files.tars(tmp_path / "shards", (2, 2), {ending: trap})
    if streaming:
        line = _refused("prior", tmp_path / "out", tiny, folder, **TAR)
        assert f".{ending} files in it may be pickles; leave them out of the tars" in line
    else:
        read = {"dataset_name": folder, "max_train_steps": 1, "cache_dir": tmp_path / "cache"}
        train("prior", tmp_path / "out", tiny, None, **read, **TAR)
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_that_comes_late(tiny: Tiny, tmp_path: Path) -> None:
    """After the examples that tell the columns: not decoded either."""
    folder = shard_files.tars(tmp_path / "shards", (8,))
    trap = pickle.dumps(_Trap(tmp_path / "sprung"))
    with tarfile.open(folder / "00000.tar", "a") as tar:
        for ending, content in (("jpg", shard_files.picture(1)), ("txt", b"late"), ("pth", trap)):
            info = tarfile.TarInfo(f"late.{ending}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    _train("prior", tmp_path / "out", tiny, folder, **TAR, max_train_steps=5)
    assert not (tmp_path / "sprung").exists()


def test_only_text_is_decoded() -> None:
    """Of what the library knows to decode in a tar."""
    from datasets.packaged_modules.webdataset.webdataset import WebDataset

    assert set(WebDataset.DECODERS) == {"txt", "text", "transcript", "json", "jsn"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"max_train_steps": None}, "add --max_train_steps"),
        ({"holdout": 0.1}, "--streaming and --holdout: "),
        ({"max_train_samples": 5}, "--streaming and --max_train_samples: "),
        ({"verify_cache": True}, "--streaming and --verify_cache: "),
        ({"bucket": True}, "--streaming and --bucket: "),
        (
            {"with_prior_preservation": True, "class_data_dir": "c", "class_prompt": "a dog"},
            "--streaming and --with_prior_preservation: ",
        ),
        ({"dataset_name": None, "train_data_dir": "."}, "--streaming reads a data set in shards"),
        (
            {"dataset_name": None, "instance_data_dir": "."},
            "--streaming reads a data set in shards",
        ),
    ],
)
def test_what_cannot_be(flags: dict[str, Any], words: str, tmp_path: Path) -> None:
    """Refused by name, in one line, before anything is loaded."""
    usual = {"dataset_name": "me/pics", "streaming": True, "max_train_steps": 5}
    usual |= {"output_dir": str(tmp_path)}
    DecoderConfig(**usual)
    with pytest.raises(UserError, match=words) as caught:
        DecoderConfig(**(usual | flags))
    assert "\n" not in str(caught.value)


def test_other_data_is_refused(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """Pictures in a folder, a saved data set, a column that is not there, a cache of a stream."""
    line = _refused("decoder", tmp_path / "out", tiny, photos)
    assert f"--streaming reads parquet files and WebDataset tars: {photos} is neither" in line
    folder = shard_files.tars(tmp_path / "tars", (2,))
    line = _refused("prior", tmp_path / "out", tiny, folder, image_column="jpg")
    assert f"--caption_column text: {folder} has no such column" in line and "txt" in line
    given = STREAM | {"dataset_name": folder, "max_train_steps": 1}
    words = command("decoder", tmp_path / "out", tiny, None, **given)
    assert "cache build with --streaming" in refused("cache", "build", *words[1:])
    assert numbered("a-{08..11}-{0..1}.tar")[:3] == [
        "a-08-0.tar",
        "a-08-1.tar",
        "a-09-0.tar",
    ]
    for row in ("{5..3}", "{0..99999999999}"):
        with pytest.raises(UserError, match="is no row of shards"):
            numbered(f"a-{row}.tar")


# ---------------------------------------------------------------- beside other flags


def test_together_with_others(
    tiny: Tiny, shards: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's answers beside the stream, an adapter, samples at a number of steps; stopped and
    gone on with, it ends with the same bits.
    """
    monkeypatch.setattr(base_predictions, "DRAWINGS", 8)
    monkeypatch.setattr(base_predictions, "ANSWERS", 4)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red robot\na tree\n", "utf-8")
    flags = {"preserve": prompts, "lora": True, "validation_steps": 2, "checkpointing_steps": 2}
    flags |= {"validation_prompts": "cat", "max_train_steps": 4, "cache_dir": tmp_path / "cache"}
    flags |= {"skip_bad_images": True}
    _train("prior", tmp_path / "whole", tiny, shards["parquet"], **flags)
    for steps in (2, 4):
        flags |= {"max_train_steps": steps, "resume_from_checkpoint": "latest"}
        _train("prior", tmp_path / "cut", tiny, shards["parquet"], **flags)
    one, two = tmp_path / "cut" / "checkpoint-4", tmp_path / "whole" / "checkpoint-4"
    assert_same_bits(one, two)
    drawn = {path.name for path in (tmp_path / "whole" / "validation").iterdir()}
    assert len(drawn) >= 3
    assert "read as a stream" in (tmp_path / "whole" / "README.md").read_text("utf-8")


def test_another_stream_is_refused(tiny: Tiny, shards: dict[str, Path], tmp_path: Path) -> None:
    """A checkpoint belongs to its shards and its buffer."""
    _train("decoder", tmp_path / "out", tiny, shards["parquet"], max_train_steps=1)
    again = {"resume_from_checkpoint": "latest"}
    line = _refused("decoder", tmp_path / "out", tiny, shards["parquet"], **again, shuffle_buffer=5)
    assert "shuffle_buffer was 4 and is 5 now" in line
    other = shard_files.parquet(tmp_path / "other", (5, 2, 3))
    line = _refused("decoder", tmp_path / "out", tiny, other, **again)
    assert "data set was" in line


def test_the_examples_of_a_skipped_step_are_named(
    tiny: Tiny, shards: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By shard and index, in the log."""
    before = training_set.batches

    def batches(*words: Any) -> Iterator[Any]:
        for step, batch in enumerate(before(*words)):
            if step == 1:
                batch["image_embeds"][0, 0] = float("nan")
            yield batch

    monkeypatch.setattr(training_set, "batches", batches)
    _train("prior", tmp_path / "out", tiny, shards["parquet"], max_train_steps=3)
    rows = [r for r in read_jsonl(tmp_path / "out" / "log.jsonl") if r.get("event") == "skipped"]
    [names] = [row["pictures"] for row in rows]
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"train-0000\d\.parquet, example \d", name) for name in names)


def test_a_plan_of_a_stream(tiny: Tiny, tmp_path: Path) -> None:
    """Nothing is read for it; the encoders stay, and no encodings lie on the disk."""
    models = {
        "pretrained_prior_model_name_or_path": tiny.prior,
        "pretrained_decoder_model_name_or_path": tiny.decoder,
    }
    words = [w for name, path in models.items() for w in (f"--{name}", path)]
    words += ["--dataset_name", "me/none", "--streaming", "--max_train_steps", "9"]
    done = wassily("plan", "prior", *words, "--gpu_memory", "8")
    assert done.code == 0, done.text
    assert "encodings 0" in done.out and "encoders" in done.out
    assert PriorConfig(streaming=True, dataset_name="x", max_train_steps=1).live
