"""The cache of encodings: entries by the digest of their content, in immutable shards.

An entry is a few named tensors under a 16-byte key, a digest of everything that it depends on.
A shard is one safetensors file, written aside and renamed: a killed writer leaves whole shards and
no half one, and two writers cannot hurt each other (at worst both encode the same entry). Nothing
is changed in place and nothing is locked. safetensors rather than Arrow: rows are tensors already,
a file is read through a memory map, and the format is the one that the weights have.

In memory an entry takes 16 bytes of key and 8 of position, whatever its size.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wassily.errors import UserError
from wassily.files import reading
from wassily.files.atomic import ASIDE, open_tensors, write_tensors
from wassily.files.reading import BadFile

Row = Mapping[str, Tensor]
Place = str | tuple[str, int]  # of bytes: a file, or the fingerprint of a table and a row
KEYS = "__keys__"
# + name of a ragged field: where each entry begins and ends, and what its shape is
OFFSETS, SHAPES = "__offsets__:", "__shapes__:"
FILES = "files"  # where digests of files are remembered
SHARD_BYTES, SHARD_SECONDS = 256 * 2**20, 60.0  # a kill loses at most this much work


def digest(*parts: bytes | str | int) -> bytes:
    """16 bytes that stand for the parts, in order; parts cannot run into one another."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode()
        # The length first: ("ab", "c") is another key than ("a", "bc").
        state.update(len(raw).to_bytes(8, "little") + raw)
    return state.digest()


def stacked(keys: Iterable[bytes]) -> np.ndarray:
    """Keys of 16 bytes, one after the other, as (N, 16) uint8."""
    joined = bytearray()
    for key in keys:
        joined += key
    return np.frombuffer(joined, np.uint8).reshape(-1, 16)


def mirrored(contents: np.ndarray) -> np.ndarray:
    """The keys of mirrored pictures, (N, 16), from those of the pictures."""
    keys = contents.copy()
    keys[:, 0] ^= 1  # in the half that the store sorts by
    return keys


def caption_key(caption: str) -> bytes:
    """The key of a caption: its text."""
    # A lone surrogate, which JSON allows, has a key, too.
    return digest(caption.encode("utf-8", "surrogatepass"))


# The key of the unconditional. A caption's is a digest of one part, so none can be the same.
UNCONDITIONAL = digest("unconditional", "")


def default_folder(cache_dir: str | None) -> Path:
    """Where encodings are kept: beside the models of `cache_dir`, or in the user's cache folder."""
    if cache_dir:
        return Path(cache_dir) / "wassily"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "wassily"


def shard_files(folder: Path) -> list[Path]:
    """The whole shards of a folder; what is aside is half-written."""
    return sorted(p for p in folder.glob("*.safetensors") if not p.name.startswith(ASIDE))


class _Shard:
    """An open shard; what its fields are and where their rows lie is looked up once."""

    def __init__(self, path: Path):
        self.file = open_tensors(path)
        names = list(self.file.keys())
        marks = {
            n: self.file.get_tensor(n).numpy() for n in names if n.startswith((OFFSETS, SHAPES))
        }
        self.fields = [
            (name, self.file.get_slice(name), marks.get(OFFSETS + name), marks.get(SHAPES + name))
            for name in names
            if name != KEYS and name not in marks
        ]

    def row(self, number: int) -> dict[str, Tensor]:
        """The tensors of one entry."""
        found = {}
        for name, rows, offsets, shapes in self.fields:
            if offsets is None:
                found[name] = rows[number]
                continue
            found[name] = rows[int(offsets[number]) : int(offsets[number + 1])]
            if shapes is not None:
                found[name] = found[name].reshape(shapes[number].tolist())
        return found


@functools.lru_cache(maxsize=64)
def _shard(path: str) -> _Shard:
    """An open shard. Few stay open: a large cache has more shards than a process may have files.

    Raises UserError: `prune` may have been called since the shard was listed.
    """
    try:
        return _Shard(Path(path))
    except (OSError, BadFile) as error:
        reason = getattr(error, "strerror", None) or str(error).removeprefix(f"{path}: ")
        raise UserError(
            f"{path}: gone or not whole since the start ({reason}); start again, "
            "and it is encoded anew"
        ) from None


class Store:
    """The entries of one kind, in one folder of shards."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.refresh()

    def refresh(self) -> None:
        """Take in the shards that are there now."""
        self.paths = [str(path) for path in shard_files(self.folder)]
        keys, shards, rows = [], [], []
        for number, path in enumerate(self.paths):
            try:
                # Only the keys: the rows stay on the disk until they are asked for.
                own = open_tensors(Path(path)).get_tensor(KEYS).numpy()
                if own.dtype != np.uint8 or own.shape[1:] != (16,):
                    raise ValueError(f"keys of {own.dtype}, {own.shape}")
            except Exception as error:  # the library has kinds of its own
                raise UserError(f"{path}: not a shard of the cache ({error}); remove it") from None
            keys.append(own)
            shards.append(np.full(len(own), number, np.int32))
            rows.append(np.arange(len(own), dtype=np.int32))
        joined = np.concatenate(keys) if keys else np.zeros((0, 16), np.uint8)
        halves = np.ascontiguousarray(joined).view(np.uint64).reshape(-1, 2)
        order = np.argsort(halves[:, 0], kind="stable")
        self._first, self._second = halves[order, 0].copy(), halves[order, 1].copy()
        self._shards = np.concatenate(shards)[order] if keys else np.zeros(0, np.int32)
        self._rows = np.concatenate(rows)[order] if keys else np.zeros(0, np.int32)

    def __len__(self) -> int:
        return len(self._first)

    def positions(self, keys: np.ndarray) -> np.ndarray:
        """Keys (N, 16) uint8 -> place of each among the entries, (N,), -1 where there is none."""
        wanted = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)
        if not len(self):
            return np.full(len(wanted), -1)
        at = np.searchsorted(self._first, wanted[:, 0]).clip(max=len(self) - 1)
        # The first half alone is as good as unique; the second makes it certain.
        same = (self._first[at] == wanted[:, 0]) & (self._second[at] == wanted[:, 1])
        return np.where(same, at, -1)

    def column(self, keys: np.ndarray, name: str) -> np.ndarray:
        """A field of fixed shape of many entries, (N, ...); zeros where there is no entry."""
        at = self.positions(keys)
        there = np.flatnonzero(at >= 0)
        if not len(there):
            return np.zeros((len(keys), 16), np.uint8)
        # Shard by shard, so that each is opened once.
        there = there[np.argsort(self._shards[at[there]], kind="stable")]
        numbers, starts = np.unique(self._shards[at[there]], return_index=True)
        found: np.ndarray | None = None
        for number, here in zip(numbers, np.split(there, starts[1:]), strict=True):
            values = _shard(self.paths[number]).file.get_tensor(name).numpy()
            if found is None:
                found = np.zeros((len(keys), *values.shape[1:]), values.dtype)
            found[here] = values[self._rows[at[here]]]
        assert found is not None
        return found

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Which of the keys (N, 16) have no entry: indices, the first of each distinct key."""
        absent = np.flatnonzero(self.positions(keys) < 0)
        halves = np.ascontiguousarray(keys[absent]).view(np.uint64).reshape(-1, 2)
        order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal keys stay in their order
        ranked = halves[order]
        new = np.ones(len(ranked), bool)
        new[1:] = (ranked[1:] != ranked[:-1]).any(1)
        first = order[new]
        return absent[np.sort(first)]

    def __getitem__(self, key: bytes) -> dict[str, Tensor]:
        """The tensors of an entry; KeyError if there is none."""
        first, second = np.frombuffer(key, np.uint64)  # as `positions`, in a tenth of its time
        at = int(np.searchsorted(self._first, first))
        if at == len(self) or self._first[at] != first or self._second[at] != second:
            raise KeyError(key.hex())
        return _shard(self.paths[self._shards[at]]).row(int(self._rows[at]))

    def bytes(self) -> int:
        """What the shards take on the disk."""
        return sum(Path(path).stat().st_size for path in self.paths)


class Writer:
    """Collects entries and writes them as shards; fields named in `ragged` may differ in shape."""

    def __init__(self, folder: Path, ragged: tuple[str, ...] = ()):
        self.folder, self.ragged = folder, ragged
        self._keys: list[bytes] = []
        self._rows: list[Row] = []
        self._bytes, self._since = 0, time.monotonic()

    def add(self, key: bytes, row: Row) -> None:
        """One entry; now and then this writes a shard. Raises UserError if it cannot."""
        self._keys.append(key)
        self._rows.append(row)
        self._bytes += sum(value.nbytes for value in row.values())
        if self._bytes >= SHARD_BYTES or time.monotonic() - self._since > SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected as one shard."""
        if self._rows:
            keys = torch.frombuffer(bytearray(b"".join(self._keys)), dtype=torch.uint8)
            tensors = {KEYS: keys.reshape(-1, 16)}
            for name in self._rows[0]:
                values = [row[name] for row in self._rows]
                if name in self.ragged:
                    ends = torch.tensor([0, *(value.numel() for value in values)]).cumsum(0)
                    tensors[OFFSETS + name] = ends
                    tensors[SHAPES + name] = torch.tensor([value.shape for value in values])
                    tensors[name] = torch.cat([value.flatten() for value in values])
                else:
                    tensors[name] = torch.stack(values)
            self._write(tensors)
        self._keys, self._rows, self._bytes, self._since = [], [], 0, time.monotonic()

    def _write(self, tensors: dict[str, Tensor]) -> None:
        # A name that no other writer takes: nothing has to be locked.
        path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_tensors(path, tensors)
        except OSError as error:
            raise UserError(
                f"cache {self.folder}: {error.strerror or error}; what was encoded so far is kept: "
                "make room, or name another disk with --cache_dir, or add --no_cache"
            ) from None


def retained_remark(root: Path) -> str:
    """What to say of a run that is stopped while it fills the cache."""
    return f"what was encoded is kept in {root}, up to the last minute"


def sweep(folder: Path, older_than: float = 3600.0) -> None:
    """Remove files that a killed writer left aside; young ones may be another run's.

    What cannot be removed stays: another run has finished it, or the disk is for reading only.
    """
    for path in folder.rglob(f"{ASIDE}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > older_than:
                path.unlink()


def bytes_digest(image: str | bytes) -> bytes:
    """The digest of bytes, or of a file's. Raises OSError."""
    return digest(image) if isinstance(image, bytes) else file_digest(image)


def file_digest(path: str) -> bytes:
    """The digest of a file's bytes. Raises BadFile, OSError."""
    state = hashlib.blake2b(digest_size=16)
    with reading.opened(Path(path)) as file:
        while chunk := file.read(2**20):
            state.update(chunk)
    return state.digest()


class Contents:
    """Digests of files' bytes, remembered by where they are and by how they are read (`how`)."""

    def __init__(self, root: Path, how: tuple[str, ...] = ()):
        self.store, self.writer, self.how = Store(root / FILES), Writer(root / FILES), how

    def known(self, places: Iterable[Place]) -> np.ndarray:
        """(N, 16) uint8: the remembered digest of each, zeros where it has to be read."""
        return self.store.column(stacked(map(self._key, places)), "content")

    def read(
        self,
        place: Place,
        image: str | bytes,
        digested: Callable[[str | bytes], bytes] = bytes_digest,
    ) -> bytes:
        """Digest an image, a file or bytes, and remember it for its place. Raises BadFile and
        OSError.
        """
        key, content = self._key(place), digested(image)
        self.writer.add(key, {"content": torch.frombuffer(bytearray(content), dtype=torch.uint8)})
        return content

    def _key(self, place: Place) -> bytes:
        """A file by its path, size and time of change; a row by its table's fingerprint and
        number.
        """
        if isinstance(place, tuple):
            return digest(*place, *self.how)
        stat = os.stat(place)
        return digest(os.path.abspath(place), stat.st_size, stat.st_mtime_ns, *self.how)


def forget_contents(root: Path) -> None:
    """Have every file read anew (`--verify_cache`), in this run and so for those after it."""
    shutil.rmtree(root / FILES, ignore_errors=True)


# ---------------------------------------------------------------- looking after it


def mark_used(folder: Path) -> None:
    """Note that a run uses this folder now, where one may; `prune` goes by it."""
    with contextlib.suppress(OSError):
        os.utime(folder)
