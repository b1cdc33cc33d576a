"""WebDataset tars as `datasets` reads them, with limits: no tensors, no unpacking, no giants."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from datasets.packaged_modules.webdataset import webdataset
from datasets.packaged_modules.webdataset.webdataset import WebDataset

from wassily.errors import UserError, printable

MEMBER_LIMIT = 2**30  # bytes of all members of one example; the largest image is well below it

# Of what a tar holds, text and JSON are decoded; the library would load tensors by torch.load, too.
TEXTS = ("txt", "text", "transcript", "json", "jsn")
_library_pipeline = WebDataset._get_pipeline_from_tar.__func__


def guard() -> None:
    """Have the library read tars with these limits."""
    WebDataset.DECODERS = {end: WebDataset.DECODERS[end] for end in TEXTS}
    # Nor is a compressed member unpacked: a few kilobytes of it may be gigabytes.
    webdataset.EXTENSION_TO_COMPRESSION_FS_FILE_CLS = {}
    WebDataset._get_pipeline_from_tar = classmethod(_pipeline)


def _pipeline(cls: type, tar_path: str, members: Iterable[tuple[str, Any]]) -> Iterator[Any]:
    yield from _library_pipeline(cls, tar_path, _bounded(tar_path, members))


def _bounded(tar_path: str, members: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Members of a tar, as (name, file), refused by their headers before one is read."""
    example, size = None, 0
    for name, file in members:
        head, last = os.path.split(name)
        one = (head, last.partition(".")[0])
        # A tar's file knows its size, and one in a zip what is left of it.
        own = getattr(getattr(file, "raw", file), "size", None) or getattr(file, "_left", 0) or 0
        size = own + (size if one == example else 0)
        example = one
        if size > MEMBER_LIMIT:
            tar = os.path.basename(tar_path.partition("?")[0])
            raise UserError(
                f"{tar}, {printable(name)}: {size:,} bytes for one example, the limit is "
                f"{MEMBER_LIMIT:,}. Leave it out of the tar."
            )
        yield name, file
