"""The store of encodings: what was put in comes out, whole, whoever else writes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from wassily.encodings import cache
from wassily.errors import UserError


def keys_of(*names: str) -> np.ndarray:
    return np.frombuffer(b"".join(map(cache.digest, names)), np.uint8).reshape(-1, 16)


def ragged(n: int) -> torch.Tensor:
    """Rising numbers from n on, (1..5, 1..3, 2)."""
    shape = (n % 5 + 1, n % 3 + 1, 2)
    return torch.arange(n, n + shape[0] * shape[1] * 2.0).reshape(shape)


def filled(folder: Path, names: str) -> cache.Store:
    """One entry a letter: `x` (2,) and, of a shape of its own, `r`."""
    writer = cache.Writer(folder, ragged=("r",))
    for name in names:
        n = ord(name)
        writer.add(
            cache.digest(name),
            {"x": torch.tensor([n, n + 0.5]), "r": ragged(n)},
        )
    writer.flush()
    return cache.Store(folder)


def test_what_was_put_in_comes_out(tmp_path: Path) -> None:
    """Fixed and ragged fields, over several shards, in any order."""
    filled(tmp_path, "abc")
    store = filled(tmp_path, "defgh")
    assert len(store) == 8
    for name in "hagcebfd":
        n = ord(name)
        row = store[cache.digest(name)]
        assert torch.equal(row["x"], torch.tensor([n, n + 0.5]))
        assert torch.equal(row["r"], ragged(n))
    with pytest.raises(KeyError):
        store[cache.digest("z")]


def test_ragged_fields_without_shapes_are_rows(tmp_path: Path) -> None:
    """As shards were first written: offsets count rows, and all rows are alike."""
    keys = torch.from_numpy(keys_of("a", "b").copy())
    rows = torch.arange(15.0).reshape(5, 3)
    offsets = {cache.OFFSETS + "r": torch.tensor([0, 2, 5])}
    cache.write_tensors(tmp_path / "1.safetensors", {cache.KEYS: keys, "r": rows.clone()} | offsets)
    store = cache.Store(tmp_path)
    assert torch.equal(store[cache.digest("a")]["r"], rows[:2])
    assert torch.equal(store[cache.digest("b")]["r"], rows[2:])


def test_missing_names_each_absent_key_once(tmp_path: Path) -> None:
    """Indices of the first of each distinct key that has no entry."""
    store = filled(tmp_path, "ace")
    assert store.missing(keys_of("a", "b", "c", "b", "d", "e", "d")).tolist() == [1, 4]
    assert cache.Store(tmp_path / "none").missing(keys_of("q", "p", "q")).tolist() == [0, 1]


def test_column_reads_many_entries_at_once(tmp_path: Path) -> None:
    """The same values as one by one, zeros where there is no entry."""
    filled(tmp_path, "ab")
    store = filled(tmp_path, "cd")
    found = store.column(keys_of("d", "?", "a"), "x")
    assert found.tolist() == [[100.0, 100.5], [0.0, 0.0], [97.0, 97.5]]


def test_keys_that_differ_only_in_their_second_half_are_told_apart(tmp_path: Path) -> None:
    """The store sorts by the first eight bytes; all sixteen decide."""
    writer = cache.Writer(tmp_path)
    writer.add(b"same-he1" + b"aaaaaaaa", {"x": torch.ones(1)})
    writer.flush()
    with pytest.raises(KeyError):
        cache.Store(tmp_path)[b"same-he1" + b"bbbbbbbb"]


def test_a_half_written_shard_is_not_there(tmp_path: Path) -> None:
    """A file left aside by a killed writer is ignored, and swept once it is old."""
    filled(tmp_path, "a")
    aside = tmp_path / f"{cache.ASIDE}x.safetensors"
    aside.write_bytes(b"half")
    assert len(cache.Store(tmp_path)) == 1
    cache.sweep(tmp_path)
    assert aside.exists()
    os.utime(aside, (time.time() - 7200,) * 2)
    cache.sweep(tmp_path)
    assert not aside.exists()


@pytest.mark.parametrize(
    "keys", [torch.zeros(2, 8, dtype=torch.uint8), torch.zeros(2, 16), torch.zeros(16)]
)
def test_a_shard_with_other_keys_is_named(tmp_path: Path, keys: torch.Tensor) -> None:
    """It opens, but its keys are none: the same line as for one that does not open."""
    filled(tmp_path, "a")
    cache.write_tensors(tmp_path / "odd.safetensors", {cache.KEYS: keys, "x": torch.zeros(2, 2)})
    with pytest.raises(UserError, match=r"odd\.safetensors: not a shard of the cache"):
        cache.Store(tmp_path)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    """One line with the file and what to do."""
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(UserError, match=r"broken\.safetensors: not a shard of the cache"):
        cache.Store(tmp_path)


def test_a_shard_that_goes_away_under_a_run_is_named(tmp_path: Path) -> None:
    """`cache prune` beside a run: one line, and what to do."""
    store = filled(tmp_path, "a")
    (shard,) = tmp_path.glob("*.safetensors")
    shard.unlink()
    with pytest.raises(UserError, match=rf"{shard.name}: gone or not whole .*; start again"):
        store[cache.digest("a")]
    with pytest.raises(UserError, match=rf"{shard.name}: gone or not whole .*; start again"):
        store.column(keys_of("a"), "x")


def test_a_file_that_another_run_finishes_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named between the listing and the look at its age."""
    gone = tmp_path / f"{cache.ASIDE}gone"
    monkeypatch.setattr(Path, "rglob", lambda folder, pattern: iter([gone]))
    cache.sweep(tmp_path)


def test_a_cache_that_cannot_be_written_to_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk mounted for reading: the last use is not noted, and what is aside stays."""

    def refuse(*words: object, **more: object) -> None:
        raise OSError(30, "Read-only file system")

    aside = tmp_path / f"{cache.ASIDE}x"
    aside.write_bytes(b"half")
    os.utime(aside, (0, 0))
    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    cache.mark_used(tmp_path)
    cache.sweep(tmp_path)
    assert aside.exists()


def test_two_writers_of_the_same_entry_do_not_hurt_each_other(tmp_path: Path) -> None:
    """Both shards stand; either entry is right."""
    filled(tmp_path, "ab")
    store = filled(tmp_path, "bc")
    assert torch.equal(store[cache.digest("b")]["x"], torch.tensor([98, 98.5]))


def test_contents_follow_bytes_not_names(tmp_path: Path) -> None:
    """A file is read once; a changed one has another digest, an equal one the same."""
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"one")
    b.write_bytes(b"one")
    contents = cache.Contents(tmp_path)
    assert not contents.known([str(a), str(b)]).any()
    assert contents.read(str(a), str(a)) == cache.file_digest(str(a))
    assert contents.read(str(b), str(b)) == cache.file_digest(str(a))
    contents.writer.flush()
    contents.store.refresh()
    known = contents.known([str(a), str(b)])
    assert known[0].tobytes() == known[1].tobytes() == cache.file_digest(str(a))
    a.write_bytes(b"other")
    assert not contents.known([str(a)]).any()


def test_contents_of_rows_are_remembered(tmp_path: Path) -> None:
    """By the fingerprint of their table and their number; the digest is that of the bytes."""
    contents = cache.Contents(tmp_path)
    for row, raw in enumerate((b"one", b"two", b"one")):
        assert contents.read(("table", row), raw) == cache.digest(raw)
    contents.writer.flush()
    known = cache.Contents(tmp_path).known([("table", 2), ("table", 1), ("other", 1)])
    assert known[0].tobytes() == cache.digest(b"one")
    assert known[1].tobytes() == cache.digest(b"two")
    assert not known[2].any()


def test_a_write_that_fails_is_one_line(tmp_path: Path) -> None:
    """The folder's place is taken by a file: the message says what to do."""
    (tmp_path / "taken").write_text("")
    writer = cache.Writer(tmp_path / "taken")
    writer.add(cache.digest("a"), {"x": torch.ones(1)})
    with pytest.raises(UserError, match="--no_cache"):
        writer.flush()
