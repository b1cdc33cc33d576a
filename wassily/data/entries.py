"""Which entries of a folder count, by one rule for every flag that reads one, and what is left out.

Names are looked at here, never the contents of a file.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wassily.data import images as data_images
from wassily.errors import SHOWN, UserError, listed, printable

TABLES = (".parquet", ".tar")  # kinds that --dataset_name reads
METADATA = ("metadata.jsonl", "metadata.csv")
CAPTION = ".txt"
ARCHIVES = frozenset({".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
# Folders of thumbnails and of deleted files, which systems and network storages put beside images.
SYSTEM = frozenset({"@eadir", "#recycle", "$recycle.bin", "system volume information"})
# Files that hold no images, as a rule: texts about them, and what programs leave. Any other kind
# is counted, because a list of the kinds of images that are not read would never be complete.
BESIDE = frozenset(
    ".txt .caption .cap .json .jsonl .ndjson .csv .tsv .md .rst .yaml .yml .toml .xml .xmp .html "
    ".htm .ini .cfg .log .py .ipynb .sh .bat .db .npz .safetensors .url .lnk .lock .md5 .sha256 "
    ".xlsx .license .aae".split()
)
KNOWN = data_images.SUFFIXES | BESIDE | {*TABLES}
PAPERS = frozenset({"readme", "license", "licence", "notice", "copying", "authors", "changelog"})
TABULAR = frozenset({".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".xlsx", ".yaml"})


def counts(name: str, is_folder: bool) -> bool:
    """Whether an entry below the root is part of the dataset, by its name.

    A name that begins with a dot is not, nor is a folder whose name begins with `__`, or one of a
    system's own. The root itself may have any name, and a metadata file may name any file.
    """
    if name.startswith("."):
        return False
    return not (is_folder and (name.startswith("__") or name.casefold() in SYSTEM))


def folded(name: str) -> str:
    """A name as it is compared: case, spaces around it and the form of its accents do not matter.

    macOS writes an accent as a character of its own (NFD), other systems do not (NFC).
    """
    stem, end = os.path.splitext(name)
    return unicodedata.normalize("NFC", stem.strip(" ") + end.strip(" ")).casefold()


def ending(name: str) -> str:
    """The ending of a name as it is compared, with its dot; empty if it has none."""
    return os.path.splitext(name)[1].strip(" ").lower()


@dataclass(frozen=True)
class Remark:
    """Something that a folder holds and that is not read: a fixed name, a sentence, and which."""

    kind: str
    message: str
    items: tuple[str, ...] = ()


@dataclass
class Listing:
    """The entries of a folder that count; paths begin with the root's, in the order of `Path`."""

    root: Path
    images: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)  # those that would be captions
    archives: list[str] = field(default_factory=list)
    tabular: list[str] = field(default_factory=list)  # perhaps meant as metadata
    spare: list[str] = field(default_factory=list)  # metadata beside that of the usual spelling
    tables: Counter[str] = field(default_factory=Counter)  # parquet files and tars by ending
    unread: Counter[str] = field(default_factory=Counter)  # other files by ending
    links: list[str] = field(default_factory=list)  # to folders
    closed: list[str] = field(default_factory=list)  # folders that cannot be read, with the reason
    dead: list[str] = field(default_factory=list)  # images that are no files, once looked at
    unused: list[str] = field(default_factory=list)  # captions without an image, once they are read
    unnamed: list[str] = field(default_factory=list)  # images that no metadata names, likewise

    def add(self, home: str, name: str) -> None:
        """Sort in a file of the folder `home`."""
        path, kind, low = _joined(home, name), ending(name), folded(name)
        if kind in data_images.SUFFIXES:
            self.images.append(path)
        elif low in METADATA:
            self.metadata.append(path)
        elif kind == CAPTION:
            self.texts.append(path)
        if kind in TABLES:
            self.tables[kind] += 1
        if kind in ARCHIVES:
            self.archives.append(path)
        elif kind not in KNOWN and not _is_paper(name) and os.path.isfile(path):
            self.unread[kind or "no ending"] += 1
        if low not in METADATA and _is_tabular(name):
            self.tabular.append(path)

    def check(self) -> Iterator[UserError]:
        """What forbids to read this folder: links to others, and folders that are closed."""
        inside = self.root.resolve()
        for path in self.links:
            if not Path(path).resolve().is_relative_to(inside):
                yield leads_out(path, self.root)
        for reason in self.closed:
            yield UserError(f"{reason}. Make it readable, or remove it.")


def leads_out(path: str | Path, root: Path) -> UserError:
    """The refusal of a link, to a file or to a folder: a stranger's could name any of them."""
    return UserError(f"{path}: a link that leads out of {root}; copy the file there")


def scan(root: Path) -> Listing:
    """Everything below a folder that counts; nothing if there is no such folder.

    Links to folders are not followed, so a loop of them ends.
    """
    found = Listing(root)

    def closed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            found.closed.append(f"{error.filename}: {error.strerror}")

    for inside, folders, names in os.walk(root, onerror=closed):
        home = str(Path(inside))
        folders[:] = [name for name in folders if counts(name, is_folder=True)]
        found.links += [p for p in (_joined(home, f) for f in folders) if os.path.islink(p)]
        for name in names:
            if counts(name, is_folder=False):
                found.add(home, name)
    every, found.metadata = found.metadata, _one_spelling(found.metadata)
    found.spare = sorted(set(every) - set(found.metadata))
    for paths in (found.images, found.metadata, found.texts, found.archives, found.links):
        paths.sort(key=lambda path: path.split(os.sep))  # as Path sorts: by folder, then by name
    return found


def _joined(home: str, name: str) -> str:
    return name if home == "." else os.path.join(home, name)


def _is_paper(name: str) -> bool:
    return os.path.splitext(name)[0].casefold() in PAPERS or name == "Icon\r"


def _is_tabular(name: str) -> bool:
    """Whether a name is that of a table of captions, in a form that may not be read."""
    low = folded(name)
    return ending(name) in TABULAR and ("metadata" in low or "caption" in low)


def _one_spelling(metadata: list[str]) -> list[str]:
    """Metadata files without those of another spelling where the usual one is in the folder."""
    usual = {os.path.dirname(path) for path in metadata if os.path.basename(path) in METADATA}
    return [
        path
        for path in metadata
        if os.path.basename(path) in METADATA or os.path.dirname(path) not in usual
    ]


class Names:
    """The entries of folders by their folded names; each folder is read once, when asked for."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, list[str]]] = {}

    def _of(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._known:
            found: dict[str, list[str]] = {}
            try:
                for name in sorted(os.listdir(folder or ".")):
                    found.setdefault(folded(name), []).append(name)
            except (OSError, ValueError):
                pass  # there is no such folder: then nothing in it is like anything
            self._known[folder] = found
        return self._known[folder]

    def like(self, folder: str, name: str) -> list[str]:
        """The names in a folder that differ from this one in case, spaces or accents at most."""
        return self._of(folder).get(folded(name), [])

    def find(self, root: str, folder: str, name: str) -> str | None:
        """The one path below `root` that a relative name means, seen from `folder`.

        Slashes of either kind, and each part as in `like`. None if there is none, or several.
        """
        if "\0" in name:
            return None
        wanted = os.path.normpath(os.path.join(folder, name.replace("\\", "/")))
        below = os.path.relpath(wanted, root)
        path = root
        for part in below.split(os.sep):
            alike = self.like(path, part)
            if part in alike:
                alike = [part]
            if part in (os.curdir, os.pardir) or len(alike) != 1:
                return None
            path = os.path.join(path, alike[0])
        return path if os.path.isfile(path) else None

    def caption(self, image: str, stems: set[str]) -> str | None:
        """The caption file of an image, or None; `stems` are all images' paths without ending.

        The usual spelling first, then the ending in any case, then the whole name in any case if
        it is the only one and no other image's own.
        """
        stem = os.path.splitext(image)[0]
        if os.path.isfile(stem + CAPTION):
            return stem + CAPTION
        folder, base = os.path.split(stem)
        alike = [os.path.join(folder, name) for name in self.like(folder, base + CAPTION)]
        alike = [path for path in alike if os.path.isfile(path)]
        own = [path for path in alike if os.path.splitext(path)[0] == stem]
        others = [path for path in alike if os.path.splitext(path)[0] not in stems]
        if own:
            return own[0]
        return others[0] if len(others) == 1 else None

    def beside(self, image: str) -> str | None:
        """A text with the name of an image that is not read as its caption, or None."""
        folder, name = os.path.split(image)
        stem = os.path.splitext(name)[0]
        for other in (f"{stem}.caption", f"{stem}.cap", f"{name}{CAPTION}", f"{stem}.json"):
            for found in self.like(folder, other):
                return os.path.join(folder, found)
        return None


def remarks(found: Listing) -> tuple[Remark, ...]:
    """What a folder holds and a training does not read, as a warning each."""
    return (*_of_kinds(found), *_of_images(found))


def tell(found: Iterable[Remark], root: str, say: Callable[[str], None]) -> None:
    """The remarks on a folder as lines of a run, without the files that they list."""
    for remark in found:
        say(f"warning: {root}: {remark.message}")


def _of_kinds(found: Listing) -> Iterator[Remark]:
    """On files that are none of a folder of images."""
    if found.unread:
        kinds = [f"{kind} {n}" for kind, n in sorted(found.unread.items())]
        several = _counted(sum(found.unread.values()), "file")
        yield Remark("unread", f"{several} of kinds that are not read: {printable(listed(kinds))}")
    if found.archives:
        them = "it" if len(found.archives) == 1 else "them"
        tars = any(ending(path) in TABLES for path in found.archives)
        other = ", or name this folder with --dataset_name" if tars else ""
        yield Remark("archives", f"{_inside(found.archives, found.root)}: unpack {them}{other}")
    if tables := found.tables[".parquet"]:
        yield Remark(
            "archives", f"{_counted(tables, 'parquet file')}: only --dataset_name reads them"
        )
    if found.tabular and not found.metadata:
        verb = "is" if len(found.tabular) == 1 else "are"
        names = _inside(found.tabular, found.root)
        yield Remark(
            "not_metadata", f"{names} {verb} not read: only metadata.jsonl and metadata.csv are"
        )
    if found.spare:
        verb = "is" if len(found.spare) == 1 else "are"
        names = _inside(found.spare, found.root)
        yield Remark("not_metadata", f"{names} {verb} not read beside a file of the usual spelling")
    for path in found.links:
        if not _is_walked(path, found.root):
            yield Remark(
                "links", f"{_inside([path], found.root)}: a link to a folder that is not read"
            )


def _of_images(found: Listing) -> Iterator[Remark]:
    """On images that are no files, images without a line, captions without an image."""
    if found.dead:
        several = _counted(len(found.dead), "image")
        words = "no file (a broken link, or a pipe) and left out"
        verb = "is" if len(found.dead) == 1 else "are"
        yield Remark("dead", f"{several} {verb} {words}", tuple(found.dead))
    if found.unnamed:
        verb = "is" if len(found.unnamed) == 1 else "are"
        several = _counted(len(found.unnamed), "image")
        words = f"{several} {verb} in no metadata file and {verb} left out"
        yield Remark("left_out", words, tuple(found.unnamed))
    if found.unused:
        verb = "belongs" if len(found.unused) == 1 else "belong"
        several = _counted(len(found.unused), "caption file")
        yield Remark("unused", f"{several} {verb} to no image", tuple(found.unused))


def _inside(paths: list[str], root: Path) -> str:
    """Paths as they are seen from the root, the first few of them."""
    first = [os.path.relpath(path, root) for path in paths[: SHOWN + 1]]
    return printable(listed(first + paths[SHOWN + 1 :]))


def _is_walked(link: str, root: Path) -> bool:
    """Whether what a link leads to is below the root, and counts there."""
    target, inside = Path(link).resolve(), root.resolve()
    if not target.is_relative_to(inside):
        return True  # which is refused elsewhere
    return all(counts(part, is_folder=True) for part in target.relative_to(inside).parts)


def unused(texts: Iterable[str], used: set[str]) -> list[str]:
    """The texts that are no image's caption, without those about the whole dataset."""
    names = ((path, os.path.basename(path)) for path in texts if path not in used)
    return [path for path, name in names if not (_is_paper(name) or _is_tabular(name))]


def left_out(images: Sequence[str], named: Iterable[str]) -> list[str]:
    """The images that none of these paths names, however a path is written."""
    homes: dict[str, str] = {}

    def place(path: str) -> str:
        folder, name = os.path.split(path)
        if folder not in homes:
            homes[folder] = os.path.realpath(folder)
        return os.path.join(homes[folder], name)

    taken = set(map(place, named))
    return [path for path in images if place(path) not in taken]


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing if number == 1 else thing + 's'}"
