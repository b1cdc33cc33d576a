"""Data sets in shards, as others would make them: parquet files, WebDataset tars, a web server."""

from __future__ import annotations

import contextlib
import http.server
import io
import re
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from helpers import draw_picture


def picture(number: int) -> bytes:
    """A small JPEG, another for each number."""
    kept = io.BytesIO()
    draw_picture(number, 40, 36).save(kept, "JPEG")
    return kept.getvalue()


def caption(number: int) -> list[str]:
    """Two captions for a picture."""
    return [f"pattern {number}", f"the pattern with the number {number}"]


def _parts(sizes: Sequence[int]) -> list[list[int]]:
    ends = np.cumsum(sizes).tolist()
    return [list(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)]


def parquet(
    folder: Path, sizes: Sequence[int], instead: Mapping[int, dict[str, Any]] | None = None
) -> Path:
    """So many examples in each parquet file; `instead` has cells of some numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features(
        {"image": datasets.Image(), "text": datasets.List(datasets.Value("string"))}
    )
    for shard, numbers in enumerate(_parts(sizes)):
        rows = [
            {"image": {"bytes": picture(n), "path": None}, "text": caption(n)}
            | (instead or {}).get(n, {})
            for n in numbers
        ]
        table = datasets.Dataset.from_list(rows, features=features)
        table.to_parquet(folder / f"train-{shard:05d}.parquet", batch_size=4)
    return folder


def tars(folder: Path, sizes: Sequence[int], more: Mapping[str, bytes] | None = None) -> Path:
    """So many examples in each tar, .jpg and .txt; `more` has further members, by ending."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard, numbers in enumerate(_parts(sizes)):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for n in numbers:
                own = {"jpg": picture(n), "txt": caption(n)[0].encode()}
                for ending, content in (own | dict(more or {})).items():
                    info = tarfile.TarInfo(f"{n:05d}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """A web server as most are: it gives a part of a file, if one is asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2] or len(content))) if asked else (0, len(content))
        part = content[first : last + 1]
        self.send_response(206 if asked else 200)
        if asked:
            told = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
            self.send_header("Content-Range", told)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, format: str, *values: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder on a web server of this machine."""
    handler = partial(_Ranges, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
