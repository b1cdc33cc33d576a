"""WebDataset tars as `datasets` reads them, with limits: no tensors, no unpacking, no giants."""

from __future__ import annotations

import functools
import os
import tarfile
import types
from collections.abc import Iterable, Iterator
from typing import Any

from datasets.packaged_modules.webdataset import webdataset
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from datasets.utils import file_utils

from wassily.errors import UserError, printable

HEADER_LIMIT = 2**20  # bytes of what tells more of a member: a long name, attributes
EXTENSIONS = b"LKxgX"  # the types of such entries
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
    opening = functools.partial(tarfile.open, tarinfo=_Header)
    file_utils.tarfile = types.SimpleNamespace(open=opening)


class _Header(tarfile.TarInfo):
    """The header of a member, refused where what it announces would be read whole at once."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        found = super().frombuf(buf, encoding, errors)
        if found.type in (EXTENSIONS[n : n + 1] for n in range(5)) and found.size > HEADER_LIMIT:
            raise UserError(
                f"a tar: the name or the attributes of a member have {found.size:,} bytes, the "
                f"limit is {HEADER_LIMIT:,}. Write the tar anew."
            )
        return found


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
