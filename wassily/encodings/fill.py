"""Filling the cache: images and captions through the frozen encoders, each once.

An `Encoding` is one frozen map with the transform before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from wassily.data import images
from wassily.data.datasets import Pictures
from wassily.encodings import cache
from wassily.encodings.cache import UNCONDITIONAL, caption_key, mirrored
from wassily.files.reading import BadFile
from wassily.runtime.accelerator import Runtime
from wassily.runtime.progress import progress

T = TypeVar("T")
READERS = 4  # threads that read and prepare pictures
CHUNK = 64  # pictures prepared ahead

Row = dict[str, Tensor]
Encode = Callable[[Tensor], list[Row]]


@dataclass(frozen=True)
class Encoding:
    """One frozen map: `prepare` makes an item a tensor, the loaded encoder makes a batch rows.

    `space` is a digest of all that the result depends on besides the item: transform, weights,
    dtype, batch size. `unconditional`: the item for a dropped condition, if this is one.
    """

    name: str
    space: str
    reads: Literal["picture", "caption"]
    prepare: Callable[[Any], Tensor]
    load: Callable[[], Encode]
    batch: int
    ragged: tuple[str, ...] = ()  # fields of which each row has a shape of its own
    unconditional: Tensor | None = None

    def folder(self, root: Path) -> Path:
        """Where its shards lie."""
        return root / f"{self.name}-{self.space}"


def encode_fixed(encode: Encode, inputs: Sequence[Tensor], batch: int) -> list[Row]:
    """Rows of any number of inputs, encoded `batch` at a time with a padded tail."""
    rows: list[Row] = []
    for start in range(0, len(inputs), batch):
        part = list(inputs[start : start + batch])
        # Filled up, not shorter: the last bits of a result depend on the size of the batch.
        padded = torch.stack(part + [part[-1]] * (batch - len(part)))
        rows += encode(padded)[: len(part)]
    return rows


def size_encoding() -> Encoding:
    """Pictures -> `size` (2,), width and height: noted when a picture is opened for another."""

    def load() -> Encode:
        return lambda sizes: [{"size": size} for size in sizes]

    return Encoding(
        name="size",
        space="px",
        reads="picture",
        prepare=lambda picture: torch.tensor(picture.size, dtype=torch.int32),
        load=load,
        batch=1,
    )


def known_sizes(contents: np.ndarray, root: Path) -> np.ndarray:
    """Width and height of pictures that were filled with `size_encoding`, (N, 2)."""
    folder = size_encoding().folder(root)
    cache.mark_used(folder)
    return cache.Store(folder).column(contents, "size")


# ---------------------------------------------------------------- filling


@dataclass
class _Filler:
    """One encoding at work: its encoder, what waits for a full batch of its shape, the writer."""

    encoding: Encoding
    writer: cache.Writer
    encode: Encode | None = None
    waiting: dict[torch.Size, list[tuple[bytes, Tensor]]] = field(default_factory=dict)

    def take(self, key: bytes, item: Tensor) -> None:
        # By shape, because a batch has one.
        alike = self.waiting.setdefault(item.shape, [])
        alike.append((key, item))
        if len(alike) == self.encoding.batch:
            self.work(item.shape)

    def take_unconditional(self, share: slice) -> None:
        """The entry of the unconditional, if one is wanted, not there yet and in this share."""
        item, key = self.encoding.unconditional, np.frombuffer(UNCONDITIONAL, np.uint8)[None]
        if item is not None and len(cache.Store(self.writer.folder).missing(key)[share]):
            self.take(UNCONDITIONAL, item)

    def work(self, shape: torch.Size) -> None:
        self.encode = self.encode or self.encoding.load()
        alike = self.waiting.pop(shape)
        rows = encode_fixed(self.encode, [item for _, item in alike], self.encoding.batch)
        for (key, _), row in zip(alike, rows, strict=True):
            self.writer.add(key, row)

    def finish(self) -> None:
        for shape in list(self.waiting):
            self.work(shape)
        self.writer.flush()


@dataclass(frozen=True)
class Filled:
    """The outcome of `fill`: the content key of each picture, (N, 16), and the unreadable ones."""

    contents: np.ndarray
    bad: dict[int, str]


def fill(
    encodings: Sequence[Encoding],
    source: Pictures,
    root: Path,
    runtime: Runtime,
    *,
    flips: bool = False,
) -> Filled:
    """Encode what the cache lacks, each process its share, and free the encoders again.

    Raises UserError if the cache cannot be written.
    """
    runtime.shared(lambda: cache.sweep(root))
    contents, bad = image_contents(source, root, runtime)
    on_pictures = [e for e in encodings if e.reads == "picture"]
    on_captions = [e for e in encodings if e.reads == "caption"]
    for share in runtime.shares():
        bad |= _fill_images(on_pictures, source, contents, root, runtime, share, flips, bad)
        _fill_captions(on_captions, source, root, runtime, share)
    # The encoders make room for the network in training.
    runtime.let_go()
    return Filled(contents, bad)


def content_key(image: str | bytes) -> bytes:
    """16 bytes that stand for an image, a file or bytes: for its own, and for the way in which its
    colours are converted, if they are. Raises BadFile, OSError.
    """
    own = cache.bytes_digest(image)
    # Only these: the keys of all others stay what they were before colours were converted.
    return cache.digest(own, images.READ_AS) if images.recoloured(image) else own


def image_contents(
    source: Pictures, root: Path, runtime: Runtime
) -> tuple[np.ndarray, dict[int, str]]:
    """The content key of every picture, (N, 16) uint8; zeros, and a reason, if it is unreadable."""
    contents = cache.Contents(root, (images.READ_AS,))
    bad: dict[int, str] = {}
    found = contents.known(source.places())
    for share in runtime.shares():
        unread = np.flatnonzero(~found.any(1))
        mine = unread[share].tolist()
        shown = runtime.main and len(mine) > 0
        with progress("reading pictures", len(mine), shown, "picture") as bar:
            places = itertools.compress(source.places(), _among(mine, len(source)))
            for index, place in zip(mine, places, strict=True):
                try:
                    contents.read(place, source[index].image, content_key)
                except BadFile as error:
                    bad[index] = str(error)
                except OSError as error:
                    bad[index] = f"{source[index].name}: {error.strerror}"
                bar.advance()
        contents.writer.flush()
        runtime.wait()
        if len(unread):
            # After all have written: each process digested its share.
            contents.store.refresh()
            found = contents.known(source.places())
    return found, runtime.gathered(bad)


def _among(indices: list[int], count: int) -> np.ndarray:
    """Whether each of `count` items is one of the (sorted) indices, (N,) bool."""
    chosen = np.zeros(count, bool)
    chosen[indices] = True
    return chosen


def _fill_images(
    encodings: list[Encoding],
    source: Pictures,
    contents: np.ndarray,
    root: Path,
    runtime: Runtime,
    share: slice,
    flips: bool,
    known_bad: dict[int, str],
) -> dict[int, str]:
    """Encode every picture that some encoding lacks; the reasons of those that cannot be read."""
    fillers = {e.name: _Filler(e, cache.Writer(e.folder(root), e.ragged)) for e in encodings}
    todo = _missing_images(encodings, contents, root, flips)
    # Sorted, so that all processes cut the same list.
    mine = [i for i in sorted(todo)[share] if i not in known_bad]

    def prepare(index: int) -> tuple[int, list[tuple[str, bytes, Tensor]] | str]:
        record = source[index]
        try:
            picture = images.open_rgb(record.image)
        except images.BadPicture as error:
            return index, str(error)
        made = []
        for encoding, flip in todo[index]:
            key = (mirrored(contents[index : index + 1]) if flip else contents[index]).tobytes()
            item = encoding.prepare(images.mirror(picture) if flip else picture)
            made.append((encoding.name, key, item))
        return index, made

    bad: dict[int, str] = {}
    with progress("encoding pictures", len(mine), runtime.main and len(mine) > 0, "picture") as bar:
        for index, made in _ahead(prepare, mine):
            if isinstance(made, str):
                bad[index] = made
            else:
                for name, key, item in made:
                    fillers[name].take(key, item)
            bar.advance()
    for filler in fillers.values():
        filler.take_unconditional(share)
        filler.finish()
    runtime.wait()
    return _with_twins(runtime.gathered(bad), contents, source)


def _missing_images(
    encodings: list[Encoding], contents: np.ndarray, root: Path, flips: bool
) -> dict[int, list[tuple[Encoding, bool]]]:
    """Index of a picture -> the encodings that lack it, each with whether it is mirrored."""
    todo: dict[int, list[tuple[Encoding, bool]]] = {}
    for encoding in encodings:
        store = cache.Store(encoding.folder(root))
        # A mirrored image has a row of its own: its encoding is not the mirrored encoding.
        for flip in (False, True) if flips else (False,):
            for index in store.missing(mirrored(contents) if flip else contents).tolist():
                todo.setdefault(index, []).append((encoding, flip))
    return todo


def _with_twins(bad: dict[int, str], contents: np.ndarray, source: Pictures) -> dict[int, str]:
    """Index -> "name: reason"; equal files are looked at once, and are all as bad as the one."""
    reasons = {contents[index].tobytes(): reason for index, reason in bad.items()}
    if not reasons:
        return {}
    alike = [(i, reasons[k.tobytes()]) for i, k in enumerate(contents) if k.tobytes() in reasons]
    return {index: f"{source[index].name}: {reason}" for index, reason in alike}


def _ahead(work: Callable[[int], T], items: list[int]) -> Iterator[T]:
    """`work` on all items in order, by threads, a bounded number of them ahead."""
    with ThreadPoolExecutor(READERS) as pool:
        # So many ahead and no more: a prepared image takes megabytes.
        waiting = [pool.submit(work, item) for item in items[:CHUNK]]
        for number in range(len(items)):
            yield waiting.pop(0).result()
            if number + CHUNK < len(items):
                waiting.append(pool.submit(work, items[number + CHUNK]))


def _fill_captions(
    encodings: list[Encoding], source: Pictures, root: Path, runtime: Runtime, share: slice
) -> None:
    """Encode every distinct caption that is not there yet."""
    for encoding in encodings:
        keys = cache.stacked(map(caption_key, source.all_captions()))
        filler = _Filler(encoding, cache.Writer(encoding.folder(root), encoding.ragged))
        missing = cache.Store(encoding.folder(root)).missing(keys)
        mine = missing[share].tolist()
        shown = runtime.main and len(mine) > 0
        with progress("encoding captions", len(mine), shown, "caption") as bar:
            captions = itertools.compress(source.all_captions(), _among(mine, len(keys)))
            for index, caption in zip(mine, captions, strict=True):
                filler.take(keys[index].tobytes(), encoding.prepare(caption))
                bar.advance()
        filler.take_unconditional(share)
        filler.finish()
        runtime.wait()
