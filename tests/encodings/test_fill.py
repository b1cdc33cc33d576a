"""Encodings from the cache against encodings made on the spot, and what a change costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers import draw_picture

from wassily.config.training import DecoderConfig, PriorConfig
from wassily.data.datasets import Pictures
from wassily.encodings import cache, fill
from wassily.runtime.accelerator import Runtime

CAPTIONS = ["a red cat", "قطة حمراء صغيرة", "a red cat", "a very long caption of a small bird", "b"]


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
    first, bad = fill.image_contents(source, tmp_path / "cache", runtime)
    assert not bad and [row.tobytes() for row in first] == [cache.digest(raw) for raw in raws]
    monkeypatch.delattr(Pictures, "__getitem__")
    again, _ = fill.image_contents(source, tmp_path / "cache", runtime)
    assert (again == first).all()


def test_a_cut_cache_is_completed(work: Callable[..., Any], tmp_path: Path) -> None:
    """A shard that is gone, as after a kill, is encoded again; the rest is kept."""
    work(DecoderConfig)
    (shard,) = (tmp_path / "cache").glob("latents-*/*.safetensors")
    shard.unlink()
    assert work(DecoderConfig)[1] == {"latents": 5}
