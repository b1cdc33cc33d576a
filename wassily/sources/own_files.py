"""Datasets loaded by `datasets` from their own files alone: of their folder, or their repository.

The library follows the words of a stranger: README.md, `.huggingface.yaml`, dataset_infos.json and
links in the folder say which files and addresses it reads. They pass here, before it asks for one.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import sys
import types
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import datasets
import yaml
from datasets.data_files import resolve_pattern as _library_resolve

from wassily.errors import UserError, printable
from wassily.files import reading
from wassily.sources import saved, tars

# Kinds of tables that are read. Others have no images for us, and readers that may follow what a
# file names, as an HDF5 file names others.
KINDS = ("parquet", "arrow", "webdataset", "imagefolder", "csv", "json", "text")
METADATA = ("README.md", ".huggingface.yaml", "dataset_infos.json", "dataset_info.json")
METADATA_LIMIT = 16 * 2**20  # bytes


# ---------------------------------------------------------------- whose file it is


class _Loaded:
    """The dataset that is being loaded: a folder, or a repository of the hub."""

    def __init__(self, name: str):
        self.name = name
        self.refused: UserError | None = None
        self.folder = os.path.realpath(name) if os.path.isdir(name) else None
        hub = name.removeprefix("hf://").removeprefix("datasets/")
        self.hub = re.compile(rf"hf://(datasets/)?{re.escape(hub)}(@[\w.-]+)?(?=/|$)")
        ways = {Path(name).as_posix(), Path(name).absolute().as_posix(), self.folder or ""}
        self.inside: dict[str, bool] = {}  # mostly folders, which are fewer than files
        self.roots = [Path(self.folder)] if self.folder else []
        self.starts = {one.rstrip("/") for way in ways for one in (way, glob.escape(way))}

    def check_pattern(self, pattern: str, base: str) -> None:
        """Raise UserError for a pattern of files that could match another's, by its words."""
        relative = datasets.data_files.is_relative_path(pattern)
        rest = self._below(base if relative else pattern)
        words = f"{rest}/{pattern}" if relative else rest or ""
        parts = re.split(r"[/\\]", words)
        if rest is None or ".." in parts or "::" in words or "://" in words:
            raise self._outside(pattern if self._below(base) is not None else base)

    def check_files(self, files: Iterable[str]) -> None:
        """Raise UserError for a file that is another's once all links are followed."""
        for file in files:
            if self.folder is None and "://" in file:
                good = self._below(file) is not None
            else:
                place = file if os.path.islink(file) else os.path.dirname(file)
                if place not in self.inside:
                    self.inside[place] = any(
                        reading.is_inside(Path(place), one) for one in self.roots
                    )
                good = self.inside[place]
            if not good:
                raise self._outside(file)

    def _below(self, text: str) -> str | None:
        """What follows this dataset's own name in a path or address; None of another's."""
        if self.folder is None:
            found = self.hub.match(text)
            return text[found.end() :] if found else None
        for start in self.starts:
            if text == start or text.startswith(f"{start}/"):
                return text[len(start) :]
        return None

    def _outside(self, what: str) -> UserError:
        place = "the folder" if self.folder else "its repository"
        said = printable(what)
        self.refused = UserError(
            f"--dataset_name {self.name}: its metadata or a link in it names {said:.200}, which is "
            f"not in {place}, and is not read. Put the files into {place}, and name them there."
        )
        return self.refused


_loading: ContextVar[_Loaded | None] = ContextVar("_loading", default=None)


def _resolve(pattern: str, base_path: str, *rest: Any, **more: Any) -> list[str]:
    """The files of a pattern, as the library finds them, refused where they are not the dataset's.

    It is the one way from what metadata says to files: nothing is asked for before it.
    """
    loaded = _loading.get()
    if loaded is None:  # an address that the user has typed
        return list(_library_resolve(pattern, base_path, *rest, **more))
    loaded.check_pattern(str(pattern), str(base_path))
    found = list(_library_resolve(pattern, base_path, *rest, **more))
    loaded.check_files(found)
    return found


datasets.data_files.resolve_pattern = _resolve


def _safe_load(text: Any) -> Any:
    """As the library's own, of text that is checked."""
    reading.check_yaml(text)
    return yaml.safe_load(text)


class _Yaml(types.ModuleType):
    """The module `yaml` for those who read a dataset's card."""

    safe_load = staticmethod(_safe_load)

    def __getattr__(self, name: str) -> Any:
        return getattr(yaml, name)


# Where the library reads a card, and where it has that read. Versions that read it elsewhere would
# fail the tests, not the guard of the files above.
datasets.load.yaml = _Yaml("yaml")
sys.modules[datasets.load.DatasetCard.__module__].yaml = datasets.load.yaml  # type: ignore
tars.guard()
# It would tell a server of the hub that a table is read, also of a folder here.
datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False


@contextlib.contextmanager
def _own_files(name: str) -> Iterator[_Loaded]:
    """Within it the library finds files of this dataset alone. Raises UserError for others."""
    loaded = _Loaded(name)
    if loaded.folder:
        for one in METADATA:
            if os.path.lexists(os.path.join(loaded.folder, one)):
                with reading.opened(Path(name, one), Path(name), METADATA_LIMIT):
                    pass  # regular, inside, not too large
    token = _loading.set(loaded)
    try:
        yield loaded
    finally:
        _loading.reset(token)
        if loaded.refused:  # also where the library went on with what its cache has
            raise loaded.refused


def builder(name: str, config_name: str | None, cache_dir: str | None) -> datasets.DatasetBuilder:
    """The library's reader of a dataset's own files; nothing of them is read yet.

    Raises UserError for a file that is not the dataset's, and for a kind without images.
    """
    with _own_files(name) as loaded:
        found = datasets.load_dataset_builder(**_named(name, config_name), cache_dir=cache_dir)
    if found.name not in KINDS:
        raise UserError(
            f"--dataset_name {name}: files of the kind {found.name}, which are not read; write "
            "parquet files, tars, or a folder of images"
        )
    for files in (found.config.data_files or {}).values():
        loaded.check_files(map(str, files))
    return found


def _named(name: str, config_name: str | None) -> dict[str, Any]:
    """What the library is given for the name of a dataset: it takes the name of a folder for a
    pattern.

    Raises UserError for a folder whose name the library cannot be given at all.
    """
    given = {"path": name, "name": config_name}
    folder = Path(name).resolve().as_posix()
    if not Path(name).is_dir() or not (set("*?[") & set(folder) or "::" in folder):
        return given
    if "::" in folder:
        raise UserError(f"--dataset_name {name}: '::' in the path of a data set: rename the folder")
    base = glob.escape(folder)
    patterns = datasets.data_files.get_data_patterns(base)
    found = {split: [f"{base}/{one}" for one in some] for split, some in patterns.items()}
    return given | {"data_files": found}


def tables(
    name: str, config_name: str | None, cache_dir: str | None
) -> dict[str, datasets.Dataset]:
    """The splits of a dataset, or of a saved one. Raises UserError, and what the library raises."""
    if saved.is_saved(Path(name)):
        saved.check(Path(name))
        found = datasets.load_from_disk(name)
    else:
        made = builder(name, config_name, cache_dir)
        made.download_and_prepare()
        found = made.as_dataset()
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}


def check_images(name: str, cache_dir: str | None, paths: Iterable[str | None]) -> None:
    """Raise UserError for an image that a table of a folder names and that is another's.

    Besides the folder there is what the library unpacked of it, or fetched of the repository.
    """
    loaded, settings = _Loaded(name), datasets.config
    downloads = f"{cache_dir}/downloads" if cache_dir else str(settings.DOWNLOADED_DATASETS_PATH)
    loaded.roots.append(Path(downloads, "extracted" if loaded.folder else ""))
    if not loaded.folder:
        hub = datasets.data_files.huggingface_hub.constants.HF_HUB_CACHE
        loaded.roots.append(Path(hub, "datasets--" + name.replace("/", "--")))
    for path in filter(None, paths):
        archive = path.rpartition("::")[2]
        if archive != path:
            raise UserError(
                f"--dataset_name {name}: its images lie in {printable(archive):.200}, and those in "
                "an archive are not read. Unpack it, and name the folder with --train_data_dir."
            )
        loaded.check_files([path])


def reason(error: BaseException) -> str:
    """Why a dataset could not be read, in one line. Raises a UserError that the library wrapped.

    The library's own is "An error occurred while generating the dataset"; the reason is its cause.
    """
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    for one in chain:
        if isinstance(one, UserError):
            raise one from None
    told = error
    while "while generating the dataset" in str(told) and told.__cause__:
        told = told.__cause__
    lines = str(told).strip().splitlines()
    return f"{lines[0]:.200}" if lines else type(told).__name__
