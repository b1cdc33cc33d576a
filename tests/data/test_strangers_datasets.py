"""Datasets of strangers: what their metadata, links and servers say is not followed outside.

The tests are named after the findings of an attack. An audit hook hears what the interpreter does.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import io
import json
import os
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pytest
import shard_files
from helpers import draw_picture, run_cli

from wassily.data import datasets as image_data
from wassily.data import shards as data_shards
from wassily.errors import UserError

# ---------------------------------------------------------------- what is heard

NEVER = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen")
NEVER += ("socket.connect", "socket.getaddrinfo", "pickle.find_class")


@dataclass
class _Ear:
    """What an audit hook heard while it listened: files opened, and what must never be."""

    listens: bool = False
    files: list[str] = field(default_factory=list)
    never: list[str] = field(default_factory=list)

    def hear(self, event: str, values: tuple[Any, ...]) -> None:
        """An audit hook, which cannot be taken off again."""
        if not self.listens:
            return
        if event == "open" and isinstance(values[0], (str, bytes)):
            self.files.append(os.path.realpath(os.fsdecode(values[0])))
        elif event in NEVER:
            self.never.append(f"{event} {values!r:.200}")


EAR = _Ear()


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    sys.addaudithook(EAR.hear)


@contextlib.contextmanager
def _heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Ear]:
    """Listen, with the hub allowed: what is not asked for is so for no want of leave."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    EAR.files, EAR.never, EAR.listens = [], [], True
    try:
        yield EAR
    finally:
        EAR.listens = False


def _strangers(files: list[str], own: Path) -> list[str]:
    """Of opened files those that are neither the dataset's nor of Python, the caches, the system's
    own folder for temporary files.
    """
    homes = {sys.prefix, sys.base_prefix, os.environ["HF_HOME"], "/proc", "/sys", "/dev", "/usr"}
    homes |= {sysconfig.get_path("purelib"), str(own), str(Path(image_data.__file__).parents[1])}
    real = tuple(os.path.realpath(home) + os.sep for home in homes)
    known = (*real, os.path.realpath(tempfile.gettempdir()) + os.sep + "tmp")
    return [file for file in files if not file.startswith(known) and file != str(own)]


# ---------------------------------------------------------------- hostile folders


@dataclass(frozen=True)
class Set:
    """A hostile dataset, `own`, beside `secret`, which is not it; a server that counts requests."""

    own: Path
    secret: Path
    address: str


@dataclass
class _Server:
    address: str
    asked: list[str]


@contextlib.contextmanager
def _server(answer: Callable[[Any], None]) -> Iterator[_Server]:
    """A web server of this machine: `answer(handler)` for each GET and HEAD."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.close_connection = True
            with contextlib.suppress(OSError):
                answer(self)

        do_HEAD = do_GET

        def log_message(self, format: str, *values: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = server.block_on_close = False, False  # type: ignore[assignment]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield _Server(f"http://127.0.0.1:{server.server_port}", asked)
        finally:
            server.shutdown()
            thread.join()


def _sends(content: bytes) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(content)

    return answer


def _set(tmp_path: Path, address: str = "") -> Set:
    secret = shard_files.parquet(tmp_path / "secret", (2,))
    shard_files.tars(secret, (2,))
    draw_picture(1).save(secret / "train-1.png")
    (tmp_path / "own").mkdir()
    return Set(tmp_path / "own", secret, address)


def _card(own: Path, path: str, **more: str) -> None:
    """A README.md whose train split is these files."""
    files = {"data_files": [{"split": "train", "path": path}]} if path else {}
    config = json.dumps({"config_name": "default", **files, **more})  # JSON is YAML
    (own / "README.md").write_text(f"---\nconfigs:\n- {config}\n---\n", "utf-8")


def _named(path: str) -> Callable[[Set], None]:
    return lambda one: _card(one.own, path.format(**vars(one)))


def _foldered(path: str, files: str = "") -> Callable[[Set], None]:
    def make(one: Set) -> None:
        shard_files.parquet(one.own, (2,))
        _card(one.own, files, data_dir=path.format(**vars(one)))

    return make


def _standalone(one: Set) -> None:
    _card(one.own, f"{one.secret}/*.parquet")
    front = (one.own / "README.md").read_text("utf-8").strip("-\n")
    (one.own / "README.md").unlink()
    (one.own / ".huggingface.yaml").write_text(front, "utf-8")


def _linked(one: Set) -> None:
    (one.own / "train-00000.parquet").symlink_to(one.secret / "train-00000.parquet")


def _linked_folder(one: Set) -> None:
    _card(one.own, "data/*.parquet")
    (one.own / "data").symlink_to(one.secret)


def _linked_card(one: Set) -> None:
    shard_files.parquet(one.own, (2,))
    (one.secret / "README.md").write_text("---\nlicense: mit\n---\n", "utf-8")
    (one.own / "README.md").symlink_to(one.secret / "README.md")


def _beside_good(one: Set) -> None:
    shard_files.parquet(one.own, (2,))
    both = [{"split": "train", "path": ["train*.parquet", f"{one.secret}/*.parquet"]}]
    config = json.dumps({"config_name": "default", "data_files": both})
    (one.own / "README.md").write_text(f"---\nconfigs:\n- {config}\n---\n", "utf-8")


WAYS: dict[str, Callable[[Set], None]] = {
    "absolute": _named("{secret}/train-00000.parquet"),
    "upwards": _named("../secret/train-00000.parquet"),
    "upwards in the middle": _named("x/../../secret/*.parquet"),
    "file address": _named("file://{secret}/train-00000.parquet"),
    "file scheme": _named("file:{secret}/train-00000.parquet"),
    "glob": _named("{secret}/*.png"),
    "glob of the machine": _named("/*/**/secret/*.png"),
    "glob upwards": _named("../*/*.parquet"),
    "http": _named("{address}/train-00000.parquet"),
    "s3": _named("s3://bucket/train.parquet"),
    "another repository": _named("hf://datasets/other/data/train.parquet"),
    "archive elsewhere": _named("zip://*.png::{secret}/a.zip"),
    "archive on a server": _named("zip://a.png::{address}/a.zip"),
    "folder elsewhere": _foldered("{secret}"),
    "folder upwards": _foldered("../secret"),
    "folder on a server": _foldered("{address}", "*.parquet"),
    "the other card": _standalone,
    "link": _linked,
    "link to a folder": _linked_folder,
    "card that is a link": _linked_card,
    "beside good ones": _beside_good,
}


def _reads(reader: str, own: Path, cache: Path) -> None:
    if reader == "read_dataset":
        image_data.read_dataset(str(own), None, "image", "text", str(cache))
    elif reader == "data check":
        image_data.read_splits(str(own), "image", "text", str(cache), image_data.stop)
    else:
        data_shards.read_shards(str(own), None, "image", "text", str(cache))


@pytest.mark.parametrize("reader", ["read_dataset", "data check", "streaming"])
@pytest.mark.parametrize("way", WAYS)
def test_finding_02_files_of_others_are_not_read(
    way: str, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line; nothing outside is opened, no server asked, no program started."""
    with _server(_sends(b"")) as server:
        one = _set(tmp_path, server.address)
        WAYS[way](one)
        with _heard(monkeypatch) as ear, pytest.raises(UserError) as caught:
            _reads(reader, one.own, tmp_path / "cache")
        assert server.asked == []
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert "is not in the folder" in str(caught.value) or "leads out of" in str(caught.value)
    assert ear.never == []
    cache = str(tmp_path / "cache")
    outside = [file for file in _strangers(ear.files, one.own) if not file.startswith(cache)]
    assert outside == []


def test_finding_02_the_ear_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So an empty list of the tests above says something."""
    (tmp_path / "elsewhere").write_text("x")
    with _server(_sends(b"")) as server, _heard(monkeypatch) as ear:
        (tmp_path / "elsewhere").read_text()
        __import__("urllib.request").request.urlopen(server.address).read()
    assert _strangers(ear.files, tmp_path / "own") == [str((tmp_path / "elsewhere").resolve())]
    assert any(one.startswith("socket.connect") for one in ear.never)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("card", [{"path": "a/**/*.parquet"}, {"path": "", "data_dir": "a"}])
def test_finding_02_own_files_by_a_card_are_read(
    card: dict[str, str], streaming: bool, tmp_path: Path
) -> None:
    """Relative patterns and folders, of a dataset with a relative name, behind a link."""
    own = tmp_path / "true name"
    shard_files.parquet(own / "a" / "b", (2,))
    shard_files.parquet(own / "other", (3,))
    _card(own, **card)
    (tmp_path / "name").symlink_to(own)
    given = (os.path.relpath(tmp_path / "name"), None, "image", "text", str(tmp_path / "cache"))
    if streaming:
        shards = data_shards.read_shards(*given)
        count = sum(len(list(shards.rows(number))) for number in range(len(shards)))
    else:
        count = len(image_data.read_dataset(*given))
    assert count == 2


@pytest.mark.parametrize("kind", ["tars", "parquet"])
def test_finding_02_a_folder_here_is_nobody_elses_matter(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a server told that it is read, whole or as a stream."""
    getattr(shard_files, kind)(tmp_path / "own", (2,))
    image, caption = ("jpg", "txt") if kind == "tars" else ("image", "text")
    with _heard(monkeypatch) as ear:
        assert len(_stream(str(tmp_path / "own"), image, caption)) == 2
        given = (str(tmp_path / "own"), None, image, caption, str(tmp_path / "cache"))
        assert len(image_data.read_dataset(*given)) == 2
    assert ear.never == []


@pytest.mark.parametrize(
    ("base", "pattern", "good"),
    [
        ("hf://datasets/me/set@0abc", "data/*.parquet", True),
        ("hf://datasets/me/set@0abc/sub", "**", True),
        ("hf://datasets/me/set@0abc", "hf://datasets/me/set@0abc/x.parquet", True),
        ("hf://datasets/me/set@0abc", "hf://datasets/me/set2@0abc/x.parquet", False),
        ("hf://datasets/me/set@0abc", "hf://datasets/you/set/x.parquet", False),
        ("hf://datasets/me/set@0abc", "https://huggingface.co/datasets/x/x.parquet", False),
        ("hf://datasets/me/set@0abc", "../../you/set/x.parquet", False),
        ("hf://datasets/me/set@0abc", "/home/*/**/*.png", False),
        ("hf://datasets/me/set@0abc", "http://10.0.0.1/x.parquet", False),
        ("hf://datasets/me/set@0abc", "zip://*::http://10.0.0.1/x.zip", False),
        ("/home/me", "*.parquet", False),
    ],
)
def test_finding_02_a_repository_names_its_own_files(
    base: str, pattern: str, good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before the library looks for them."""
    from wassily.sources import own_files

    asked: list[str] = []

    def resolve(pattern: str, base_path: str) -> list[str]:
        asked.append(pattern)
        return [pattern if "://" in pattern else f"{base_path}/{pattern}"]

    monkeypatch.setattr(own_files, "_library_resolve", resolve)
    expected = contextlib.nullcontext() if good else pytest.raises(UserError, match="repository")
    with expected, own_files._own_files("me/set"):
        assert datasets.data_files.resolve_pattern(pattern, base)
    assert asked == ([pattern] if good else [])


@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml", "dataset_infos.json"])
def test_finding_02_metadata_that_is_no_file(name: str, tmp_path: Path) -> None:
    """A pipe would be waited for without end."""
    shard_files.parquet(tmp_path / "own", (1,))
    os.mkfifo(tmp_path / "own" / name)
    with pytest.raises(UserError, match=r"a pipe or a device"):
        _reads("read_dataset", tmp_path / "own", tmp_path / "cache")


def test_finding_02_kinds_that_name_other_files(tmp_path: Path) -> None:
    """HDF5 has links to other files: such tables are not read."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.h5").write_bytes(b"x")
    with pytest.raises(UserError, match="files of the kind hdf5, which are not read"):
        _reads("read_dataset", tmp_path / "own", tmp_path / "cache")


def test_finding_02_a_training_and_a_check_say_one_line(tmp_path: Path, tiny: Any) -> None:
    """By the command line, with exit codes."""
    one = _set(tmp_path)
    WAYS["glob"](one)
    words = ["--pretrained_prior_model_name_or_path", tiny.prior]
    both = [*words, "--pretrained_decoder_model_name_or_path", tiny.decoder]
    both += ["--dataset_name", one.own, "--output_dir", tmp_path / "out"]
    trained = run_cli("train", "decoder", *both)
    assert trained.code == 2 and "is not in the folder" in trained.err
    assert trained.err.count("\n") == 1
    shard_files.parquet(one.own, (1,))  # so that the check reads it as a dataset
    checked = run_cli("data", "check", one.own, *words)
    assert checked.code == 1 and "is not in the folder" in checked.text


# ---------------------------------------------------------------- saved ones


def _saved(folder: Path, number: int, splits: bool) -> Path:
    table = datasets.Dataset.from_dict(
        {"image": [draw_picture(number)], "text": [f"caption {number}"]}
    ).cast_column("image", datasets.Image())
    (datasets.DatasetDict(train=table) if splits else table).save_to_disk(str(folder))
    return folder / "train" if splits else folder


FILES = ["{other}/data-00000-of-00001.arrow", "../other/data-00000-of-00001.arrow", "", "..", 7]
FILES += ["./data-00000-of-00001.arrow", "link.arrow", "http://127.0.0.1/x.arrow", None]


@pytest.mark.parametrize("splits", [False, True])
@pytest.mark.parametrize("file", FILES)
def test_finding_03_a_saved_dataset_names_its_own_files(
    file: Any, splits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by its plain name, and no link that leads out."""
    other = _saved(tmp_path / "other", 1, False)
    part = _saved(tmp_path / "own", 2, splits)
    (part / "link.arrow").symlink_to(other / "data-00000-of-00001.arrow")
    state = json.loads((part / "state.json").read_text("utf-8"))
    name = file.format(other=other) if isinstance(file, str) else file
    state["_data_files"] = [{"filename": name}]
    (part / "state.json").write_text(json.dumps(state))
    with _heard(monkeypatch) as ear, pytest.raises(UserError) as caught:
        _reads("read_dataset", tmp_path / "own", tmp_path / "cache")
    assert str(caught.value).count("\n") == 0 and str(part) in str(caught.value)
    assert ear.never == [] and _strangers(ear.files, tmp_path / "own") == []


@pytest.mark.parametrize("split", ["{other}", "../other", "link", "."])
def test_finding_03_splits_lie_in_the_folder(split: str, tmp_path: Path) -> None:
    """dataset_dict.json names folders."""
    other = _saved(tmp_path / "other", 1, False)
    _saved(tmp_path / "own", 2, True)
    (tmp_path / "own" / "link").symlink_to(other)
    splits = {"splits": [split.format(other=other)]}
    (tmp_path / "own" / "dataset_dict.json").write_text(json.dumps(splits))
    with pytest.raises(UserError, match=r"no plain name|leads out of"):
        _reads("read_dataset", tmp_path / "own", tmp_path / "cache")


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"_data_files": 1}', "{"])
def test_finding_03_nonsense_is_one_line(text: str, tmp_path: Path) -> None:
    """Deep, of another kind, cut."""
    (_saved(tmp_path / "own", 2, False) / "state.json").write_text(text)
    with pytest.raises(UserError) as caught:
        _reads("read_dataset", tmp_path / "own", tmp_path / "cache")
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- servers and tars


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for."""
    from fsspec.implementations.http import HTTPFileSystem

    from wassily.sources import connections

    HTTPFileSystem.clear_instance_cache()  # with the sessions of other tests
    monkeypatch.setattr(connections, "IDLE", 0.5)
    for name in ("READ", "OPEN"):
        monkeypatch.setattr(datasets.config, f"STREAMING_{name}_MAX_RETRIES", 2)
        monkeypatch.setattr(datasets.config, f"STREAMING_{name}_RETRY_INTERVAL", 0)


def _stream(address: str, image: str = "jpg", caption: str = "txt") -> list[Any]:
    shards = data_shards.read_shards(address, None, image, caption, None)
    return [cell for number in range(len(shards)) for cell in shards.rows(number)]


def _redirects(target: str) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_finding_15_a_redirect_to_another_server_is_not_followed(kind: str, tmp_path: Path) -> None:
    """It is not asked, and the line names it."""
    make = shard_files.tars if kind == "tar" else shard_files.parquet
    [file] = make(tmp_path, (2,)).iterdir()
    with contextlib.ExitStack() as servers:
        inner = servers.enter_context(_server(_sends(file.read_bytes())))
        target = f"{inner.address}/{file.name}?signature=secret"
        outer = servers.enter_context(_server(_redirects(target)))
        with pytest.raises(UserError, match="which is not followed") as caught:
            _stream(f"{outer.address}/{file.name}")
        assert inner.asked == [] and outer.asked
    assert inner.address in str(caught.value) and "secret" not in str(caught.value)


def test_finding_15_a_redirect_on_the_same_server_is_followed(tmp_path: Path) -> None:
    """As of a file that was moved."""
    content = (shard_files.tars(tmp_path, (2,)) / "00000.tar").read_bytes()

    def answer(handler: Any) -> None:
        (_redirects("/new.tar") if "old" in handler.path else _sends(content))(handler)

    with _server(answer) as server:
        assert len(_stream(f"{server.address}/old.tar")) == 2


@pytest.mark.parametrize(
    ("source", "location", "good"),
    [
        ("https://host/a", "/b", True),
        ("https://host/a", "https://host:443/b", True),
        ("http://host/a", "https://host/b", True),
        ("https://host/a", "http://host/b", False),
        ("https://host/a", "https://host:8443/b", False),
        ("https://host/a", "https://host.evil/b", False),
        ("https://host/a", "//10.0.0.1/b", False),
        ("https://host/a", "http://169.254.169.254/latest", False),
        ("https://host/a", "https://host@10.0.0.1/b", False),
        ("https://host/a", "file:///etc/passwd", False),
    ],
)
def test_finding_15_where_a_redirect_may_lead(source: str, location: str, good: bool) -> None:
    """To the same host and port, or from http to https there."""
    from wassily.sources import connections

    with contextlib.nullcontext() if good else pytest.raises(UserError, match="sends on to"):
        connections.check_redirect(source, location)


@pytest.mark.parametrize("after", [0, 2000])
def test_finding_15_a_server_that_stalls(after: int, hasty: None, tmp_path: Path) -> None:
    """Before the first byte, or in the middle: one line, soon."""
    content = (shard_files.tars(tmp_path, (4,)) / "00000.tar").read_bytes()
    free = threading.Event()

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(content[:after])
            handler.wfile.flush()
            free.wait(60)

    began = time.monotonic()
    with _server(answer) as server:
        try:
            with pytest.raises(UserError) as caught:
                _stream(f"{server.address}/stall.tar")
        finally:
            free.set()
    assert time.monotonic() - began < 30
    assert "\n" not in str(caught.value) and "stall.tar" in str(caught.value)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_finding_15_a_member_without_end(hasty: None, tmp_path: Path) -> None:
    """A header that claims a terabyte: refused before its content is read, by http and here."""
    head = _header("0.jpg", 2**40)

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(head)
            for _ in range(10_000):  # 10 GB, were it read
                handler.wfile.write(bytes(2**20))

    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "0.tar").write_bytes(head + bytes(10240))
    with _server(answer) as server:
        for name in (f"{server.address}/endless.tar", str(tmp_path / "own")):
            with pytest.raises(UserError, match=r"\.tar, 0\.jpg: 1,099,511,627,776 bytes for one"):
                _stream(name)


def test_finding_15_a_sparse_member(tmp_path: Path) -> None:
    """A few bytes in the file, 3 GB in memory."""
    info = tarfile.TarInfo("0.jpg")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1"}
    info.pax_headers |= {"GNU.sparse.map": f"{3 * 2**30 - 1},1", "GNU.sparse.size": str(3 * 2**30)}
    info.size = 1
    (tmp_path / "own").mkdir()
    with tarfile.open(tmp_path / "own" / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(UserError, match=r"3,221,225,472 bytes for one example"):
        _stream(str(tmp_path / "own"))


@pytest.mark.parametrize("kind", "LKxgX")
def test_finding_15_a_header_without_end(kind: str, tmp_path: Path) -> None:
    """A name or attributes of a terabyte would be read before a member is seen."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind.encode(), 2**40
    (tmp_path / "own").mkdir()
    content = info.tobuf(tarfile.GNU_FORMAT) + bytes(10240)
    (tmp_path / "own" / "0.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"attributes of a member have 1,099,511,627,776 bytes"):
        _stream(str(tmp_path / "own"))


def test_finding_15_long_names_are_read(tmp_path: Path) -> None:
    """As tars have them, in both formats."""
    (tmp_path / "own").mkdir()
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        with tarfile.open(tmp_path / "own" / f"{number}.tar", "w", format=form) as tar:
            for end, content in (("jpg", shard_files.picture(1)), ("txt", "قطة".encode())):
                info = tarfile.TarInfo("x" * 300 + f"/{number}.{end}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    assert [cell.captions for cell in _stream(str(tmp_path / "own"))] == ["قطة", "قطة"]


MEMBERS: dict[str, tuple[str, bytes, bytes]] = {  # what held: name, type, content of one more
    "a link": ("0.lnk", tarfile.SYMTYPE, b""),
    "a hard link": ("0.lnk", tarfile.LNKTYPE, b""),
    "a pipe": ("0.pipe", tarfile.FIFOTYPE, b""),
    "a device": ("0.dev", tarfile.CHRTYPE, b""),
    "upwards": ("../../0.jpg", tarfile.REGTYPE, b"x"),
    "absolute": ("/etc/0.jpg", tarfile.REGTYPE, b"x"),
    "deep JSON": ("0.json", tarfile.REGTYPE, b"[" * 100_000),
    "a number of 6,000 digits": ("0.json", tarfile.REGTYPE, b"9" * 6000),
    "bad UTF-8": ("0.text", tarfile.REGTYPE, b"\xff\xfe\xff"),
    "an array of objects": ("0.npy", tarfile.REGTYPE, b"\x93NUMPY\x01\x00"),
    "a name of controls": ("\x1b[2J\n.jpg", tarfile.REGTYPE, b"x"),
}


@pytest.mark.parametrize("kind", MEMBERS)
def test_what_held_in_tars(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more member: read without it, or one line; nothing is opened, run or asked elsewhere."""
    name, type_, content = MEMBERS[kind]
    (tmp_path / "own").mkdir()
    with tarfile.open(tmp_path / "own" / "0.tar", "w") as tar:
        for one, held in (("0.jpg", shard_files.picture(0)), ("0.txt", b"x"), (name, content)):
            info = tarfile.TarInfo(one)
            info.type = type_ if one == name else tarfile.REGTYPE
            info.size, info.linkname = len(held), "/etc/passwd"
            tar.addfile(info, io.BytesIO(held))
    with _heard(monkeypatch) as ear:
        try:
            cells = _stream(str(tmp_path / "own"))
            assert cells[0].image == shard_files.picture(0)
        except UserError as error:
            assert "\n" not in str(error) and "\x1b" not in str(error)
    assert ear.never == [] and _strangers(ear.files, tmp_path / "own") == []


def test_finding_15_many_members_of_one_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they are limited, and not over examples; without streaming as well."""
    from wassily.sources import tars

    folder = shard_files.tars(
        tmp_path / "own",
        (9,),
        {f"{n}.json": b'"%s"' % bytes(98).replace(b"\0", b"x") for n in range(5)},
    )
    size = len(shard_files.picture(0)) + 600
    monkeypatch.setattr(tars, "MEMBER_LIMIT", size + 200)
    assert len(_stream(str(folder))) == 9
    monkeypatch.setattr(tars, "MEMBER_LIMIT", size - 200)
    with pytest.raises(UserError, match="for one example"):
        _stream(str(folder))
    with pytest.raises(UserError, match="for one example"):
        image_data.read_dataset(str(folder), None, "jpg", "txt", str(tmp_path / "cache"))


def test_finding_15_a_compressed_member_is_not_unpacked(tmp_path: Path) -> None:
    """A kilobyte of it may be a gigabyte."""
    packed = gzip.compress(b"caption " * 100)
    folder = shard_files.tars(tmp_path / "own", (2,), {"note.gz": packed})
    assert len(_stream(str(folder))) == 2
    notes = _stream(str(folder), caption="note.gz")
    assert [cell.captions for cell in notes] == [packed, packed]


# ---------------------------------------------------------------- links, reasons, YAML


@pytest.mark.parametrize("metadata", [False, True])
@pytest.mark.parametrize("folder", [False, True])
def test_finding_23_links_out_of_a_folder_are_refused(
    metadata: bool, folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with --train_data_dir, named by metadata or not; the link is named."""
    own = tmp_path / "own"
    (own / "sub").mkdir(parents=True)
    (tmp_path / "private").mkdir()
    draw_picture(0).save(own / "a.png")
    draw_picture(1).save(tmp_path / "private" / "b.png")
    name = "sub/link" if folder else "link.png"
    (own / name).symlink_to(tmp_path / "private" / ("" if folder else "b.png"))
    image = f"{name}/b.png" if folder else name
    if metadata:
        rows = [{"file_name": one, "text": "x"} for one in ("a.png", image)]
        (own / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        _card(own, "**/*.png" if not folder else "sub/link/*.png")
    with _heard(monkeypatch) as ear, pytest.raises(UserError) as caught:
        caption = "text" if metadata else None
        image_data.read_dataset(str(own), None, "image", caption, str(tmp_path / "cache"))
    assert "\n" not in str(caught.value) and "generating" not in str(caught.value)
    assert image in str(caught.value)
    assert str(tmp_path / "private" / "b.png") not in ear.files


@pytest.mark.parametrize("name", ["../x.png", "/etc/passwd", "http://127.0.0.1/x.png"])
def test_finding_23_the_reason_is_said(name: str, tmp_path: Path) -> None:
    """Instead of that an error occurred."""
    draw_picture(0).save(tmp_path / "a.png")
    draw_picture(1).save(tmp_path / "b.png")
    rows = [{"file_name": "a.png", "text": "x"}, {"file_name": name, "text": "y"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError) as caught:
        _reads("read_dataset", tmp_path, tmp_path / "cache")
    said = str(caught.value)
    assert "\n" not in said and "while generating" not in said
    assert said.startswith(f"--dataset_name {tmp_path}: ") and Path(name).name in said


def test_finding_23_a_row_of_a_folder_names_no_file_of_the_machine(tmp_path: Path) -> None:
    """A column of metadata that looks like images, beside the one of files."""
    own = tmp_path / "own"
    own.mkdir()
    draw_picture(0).save(own / "a.png")
    draw_picture(1).save(tmp_path / "private.png")
    cell = {"path": str(tmp_path / "private.png"), "bytes": None}
    row = {"photo_file_name": "a.png", "image": cell, "text": "x"}
    (own / "metadata.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=r"private\.png, which is not in the folder"):
        _reads("read_dataset", own, tmp_path / "cache")
    given = (str(own), None, "photo", "text", str(tmp_path / "cache"))
    assert len(image_data.read_dataset(*given)) == 1


def test_finding_23_images_in_an_archive(tmp_path: Path) -> None:
    """The library names them by addresses: one line says what to do."""
    (tmp_path / "own").mkdir()
    with zipfile.ZipFile(tmp_path / "own" / "train.zip", "w") as packed:
        for name in ("a", "b"):
            draw_picture(1).save(tmp_path / f"{name}.png")
            packed.write(tmp_path / f"{name}.png", f"x/{name}.png")
    with pytest.raises(UserError, match=r"train\.zip, and those in an archive are not read"):
        image_data.read_dataset(str(tmp_path / "own"), None, "image", None, str(tmp_path / "c"))


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 10))
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{f'*a{n - 1}, ' * 9}]}}\n" for n in range(1, 10)
)
YAMLS = {
    "billion laughs": LAUGHS + "configs: *a9\n",
    "billion merges": MERGES,
    "deep": "configs: " + "[" * 5000 + "]" * 5000 + "\n",
    "a tag": "configs: !!python/object/apply:os.system [touch was-run]\n",
    "cut": "configs: [\n",
}


@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
@pytest.mark.parametrize("kind", YAMLS)
def test_finding_25_yaml_ends_soon_in_one_line(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Aliases that multiply, nesting, code."""
    monkeypatch.chdir(tmp_path)
    shard_files.parquet(tmp_path / "own", (1,))
    text = YAMLS[kind]
    (tmp_path / "own" / name).write_text(f"---\n{text}---\n" if "README" in name else text)
    began = time.monotonic()
    with _heard(monkeypatch) as ear, pytest.raises(UserError) as caught:
        _reads("read_dataset", tmp_path / "own", tmp_path / "cache")
    assert time.monotonic() - began < 10
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert ear.never == [] and not (tmp_path / "was-run").exists()
    if "billion" in kind:
        assert "alias *a0" in str(caught.value)


def test_finding_25_yaml_without_aliases_is_as_it_was(tmp_path: Path) -> None:
    """Anchors, asterisks in quotes and in patterns are no aliases."""
    shard_files.parquet(tmp_path / "own", (3,))
    text = "tags: &t [a]\nconfigs:\n- config_name: default\n  data_files: '*.parquet'\n"
    (tmp_path / "own" / "README.md").write_text(f"---\n{text}---\n# *A* set\n")
    given = (str(tmp_path / "own"), None, "image", "text", str(tmp_path / "cache"))
    assert len(image_data.read_dataset(*given)) == 3
