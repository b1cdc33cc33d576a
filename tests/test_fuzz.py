"""Strangers' files, made and spoilt at random: each is a value or one line, in bounded time and
memory, and opens nothing outside its folder.

`make slow` runs it for SECONDS, and `make fuzz ARGS="--seconds 600"` for longer. hypothesis prints
the smallest file that fails, which then becomes a fixed case in the tests of its reader.
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT, draw_picture
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from safetensors.torch import save

from wassily.config import parsing
from wassily.config.generation import GenerateConfig
from wassily.config.training import PriorConfig
from wassily.data import datasets as image_data
from wassily.data import folders, images, png
from wassily.data.images import BadPicture
from wassily.errors import UserError, printable
from wassily.files import atomic, run_state
from wassily.generation import metadata
from wassily.reporting import model_card, report
from wassily.studio import run_status

pytestmark = pytest.mark.slow
PROPERTIES = 10
SECONDS = float(os.environ.get("WASSILY_FUZZ_SECONDS", "60"))  # of all properties together
ROUND = 50  # examples of one seed
SLOWEST = 10.0  # seconds of processor time of one example
MEMORY = 2 * 2**30  # bytes by which the peak of the process may grow in one property

# ---------------------------------------------------------------- what must hold

_heard: list[str] | None = None
_inside: tuple[str, ...] = ()
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork")
REACHES = ("socket.connect", "socket.getaddrinfo", "pickle.find_class")
# Libraries, their data, and what the system tells of itself.
KNOWN = (
    sys.prefix,
    sys.base_prefix,
    str(ROOT),
    "/proc/",
    "/sys/",
    "/dev/",
    "/usr/",
    "/etc/",
    "/lib",
)


def _listen(event: str, values: tuple[Any, ...]) -> None:
    """An audit hook, which cannot be taken off again: it hears only while there is a list."""
    if _heard is None:
        return
    if event in STARTS or event in REACHES:
        _heard.append(f"{event} {values!r:.200}")
    if event == "open" and isinstance(values[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(values[0]))
        if not path.startswith(_inside):
            _heard.append(f"open {path}")


sys.addaudithook(_listen)


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Inside, nothing but this folder is opened, no program begins, and it takes no long time."""
    global _heard, _inside
    _heard, _inside = [], (str(folder.resolve()), *map(os.path.realpath, KNOWN))
    begun = time.process_time()
    try:
        yield
        found = _heard
    finally:
        _heard = None
    assert found == []
    assert time.process_time() - begun < SLOWEST


def outcome(read: Callable[[], Any]) -> Any:
    """What `read` gives; None where it raises one line, as every reader may."""
    try:
        return read()
    except (UserError, BadPicture) as error:
        shown = printable(str(error))
        assert shown and "Traceback" not in shown
        assert len(shown) < 20_000
        return None


def peak() -> int:
    """The largest resident memory of this process so far, in bytes."""
    resource = pytest.importorskip("resource")
    scale = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * scale


def fuzz(strategy: st.SearchStrategy[Any], holds: Callable[[Any], None]) -> None:
    """Examples of one seed after another, until the time of a property is over."""
    before, end, number = peak(), time.monotonic() + SECONDS / PROPERTIES, 0
    steady = settings(
        max_examples=ROUND,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    while number == 0 or time.monotonic() < end:

        def case(value: Any) -> None:
            if time.monotonic() < end + 60:  # a failure is shrunk, but not for ever
                holds(value)

        seed(number)(steady(given(strategy)(case)))()
        number += 1
    assert peak() - before < MEMORY


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder, and beside it a private one, which nothing may open."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "secret").mkdir()
        draw_picture(0).save(Path(name) / "secret" / "s.png")
        (Path(name) / "here").mkdir()
        yield Path(name) / "here"


# ---------------------------------------------------------------- strange values

ODD = ["", "a", "a.png", "../secret/s.png", "file:///etc/passwd", "http://127.0.0.1:9/x", "\0", "~"]
ODD += ["nan", "1e400", "- ", "---", "\u2028", "\x85", "{{}}", "<script>", "a" * 300, "\ud800", "/"]
NUMBERS = [0, -1, 1, 2**31, 2**63, 10**400, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf")]
odd = st.sampled_from(ODD) | st.text(max_size=8)
leaves = st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.integers() | st.floats() | odd
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd, inner, max_size=3),
    max_leaves=5,
)
deep = st.integers(1, 100_000).map(lambda n: "[" * n)


@st.composite
def spoilt(draw: st.DrawFn, *good: bytes) -> bytes:
    """One of these contents with a few edits."""
    content = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        until = min(len(content), at + draw(st.integers(0, 8)))
        new = draw(st.binary(max_size=6) | st.sampled_from([b"\xff" * 4, b"\0" * 8, b"\x7f\xff"]))
        tail = b"" if draw(st.integers(0, 9)) == 0 else content[until:]
        content = content[:at] + new + tail
    return content


@st.composite
def changed(draw: st.DrawFn, good: dict[str, Any]) -> str:
    """A JSON object with other values at some of its names, at two depths; or nonsense."""
    table = dict(good)
    for name in draw(st.lists(st.sampled_from(sorted(good)), max_size=3)):
        if isinstance(table.get(name), dict) and draw(st.booleans()):
            table[name] = table[name] | draw(
                st.dictionaries(st.sampled_from(sorted(table[name]) or ["x"]), values, max_size=2)
            )
        elif draw(st.integers(0, 4)) == 0:
            table.pop(name, None)
        else:
            table[name] = draw(values)
    text = json.dumps(table)
    return draw(st.just(text) | deep | st.text(max_size=20)) if draw(st.booleans()) else text


def dumped(value: Any) -> bytes:
    """JSON, whatever letters are in it."""
    return json.dumps(value, ensure_ascii=True).encode()


# ---------------------------------------------------------------- data sets

rows = st.dictionaries(st.sampled_from(["file_name", "text", "x"]) | odd, values, max_size=4)
named = st.fixed_dictionaries({"file_name": odd, "text": odd | values})
lines = st.lists((rows | named).map(dumped) | deep.map(str.encode) | st.binary(max_size=30))


def _rows(folder: Path, name: str, content: bytes) -> None:
    (folder / "a.png").write_bytes(b"")
    (folder / name).write_bytes(content)
    faults: list[UserError] = []
    with watched(folder):
        found = outcome(lambda: list(folders.rows_of(str(folder), "text", faults.append)))
    for path, captions in found or []:
        assert Path(path).resolve().is_relative_to(folder.resolve())
        assert all(isinstance(caption, str) for caption in captions)
    assert all(printable(str(fault)) for fault in faults)


def test_any_metadata_jsonl(folder: Path) -> None:
    """Rows inside the folder, or faults."""
    joined = lines.map(b"\n".join)
    fuzz(
        joined | spoilt(b'{"file_name": "a.png", "text": "x"}\n' * 3),
        lambda content: _rows(folder, "metadata.jsonl", content),
    )


def test_any_metadata_csv(folder: Path) -> None:
    """As above."""
    cells = st.lists(st.lists(odd, max_size=3).map(",".join), max_size=4).map("\n".join)
    texts = cells.map(lambda text: ("file_name,text\n" + text).encode("utf-8", "surrogatepass"))
    fuzz(
        texts | spoilt(b'file_name,text\na.png,"a ""cat"", black"\n'),
        lambda content: _rows(folder, "metadata.csv", content),
    )


def test_any_front_matter_of_a_data_set(folder: Path) -> None:
    """The folder's own parquet file is read, or nothing."""
    import shard_files

    home = shard_files.parquet(folder / "set", (2,))
    path = st.sampled_from(
        ["train-*.parquet", "../../secret/*", str(folder.parent / "secret" / "*.png"), "**", "*"]
    )
    path |= st.sampled_from(["file:///etc/hosts", "http://127.0.0.1:9/a.parquet", "~/*"]) | odd
    files = path | st.lists(path, max_size=2)
    files |= st.lists(st.fixed_dictionaries({"split": odd, "path": path}), max_size=2)
    config = st.fixed_dictionaries(
        {"config_name": odd | st.just("default")},
        optional={
            "data_files": files | values,
            "data_dir": path,
            "features": values,
            "drop_labels": values,
        },
    )
    table = st.fixed_dictionaries(
        {},
        optional={
            "configs": st.lists(config, max_size=2) | values,
            "dataset_info": values,
            "license": values,
        },
    )
    aliases = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
        for old, new in zip("abcdefg", "bcdefgh", strict=True)
    )
    text = table.map(lambda value: yaml.safe_dump(value, allow_unicode=False))
    text |= st.sampled_from(
        [aliases, "a: !!python/object/apply:os.system [ls]\n", "a: ]", "[" * 999]
    )
    cache = str(folder / "cache")

    def holds(text: str) -> None:
        (home / "README.md").write_text(f"---\n{text}---\n", "utf-8", "backslashreplace")
        with watched(folder):
            found = outcome(
                lambda: image_data.read_dataset(str(home), None, "image", "text", cache)
            )
        if found is not None:
            assert {found[i].image for i in range(len(found))} <= own

    own = {shard_files.picture(n) for n in range(2)}
    fuzz(text, holds)


# ---------------------------------------------------------------- runs

GOOD_STATE = run_state.RunState(
    step=3,
    role="prior",
    repositories={"prior": "mini", "decoder": "mini"},
    signature={"seed": 1, "data set": "x"},
    config={"learning_rate": 1e-4},
    fused=False,
    pending_loss=(0.0, 0),
    skipped_steps=0,
    scaler=None,
).to_json()


def test_any_state_of_a_checkpoint(folder: Path) -> None:
    """A state whose fields are of their types, or one line."""

    def holds(text: str) -> None:
        (folder / run_state.STATE).write_text(text, "utf-8", "backslashreplace")
        for kind in (run_state.Saved, run_state.RunState):
            with watched(folder):
                found = outcome(lambda kind=kind: run_state.read(folder, kind))
            assert found is None or (found.step >= 0 and isinstance(found.role, str))

    fuzz(changed(GOOD_STATE), holds)


LOGGED = [
    {"step": 1, "train_loss": 0.5, "lr": 1e-4, "pictures_per_second": 3.0},
    {"step": 1, "event": "held_out", "loss": 0.4, "standard_error": 0.01, "band": [0.3, 0.5]},
    {"step": 1, "event": "scores", "learned": 0.1, "kept": 0.2},
    {"step": 1, "event": "skipped", "pictures": ["a.png"]},
]
SUMMARY = {"command": ["wassily", "train", "prior"], "versions": {"torch": "2"}, "steps": 2}
SUMMARY |= {"base": "mini", "data": {"pictures": 3}, "keep_best": "loss", "global_batch": 2}


def test_any_log_and_facts_of_a_run(folder: Path) -> None:
    """The report is a page without scripts of theirs, and the studio sees a run."""
    row = st.one_of(*[changed(one) for one in LOGGED]) | values.map(json.dumps)
    pair = st.tuples(st.lists(row, max_size=4).map("\n".join), changed(SUMMARY))

    def holds(pair: tuple[str, str]) -> None:
        for name, text in zip(("log.jsonl", "run.json"), pair, strict=True):
            (folder / name).write_text(text, "utf-8", "backslashreplace")
        with watched(folder):
            page = outcome(lambda: report.write(folder))
        if page is not None:
            assert "<script>" not in page.read_text("utf-8")
        with watched(folder):
            found = run_status.run_log.read_log(folder)
            run_status.chart(found, ("a", "b", "c", "d"))

    fuzz(pair, holds)


def test_any_config_file(folder: Path) -> None:
    """A config, or one line."""
    good = f'train_data_dir = "{folder.as_posix()}"\nlearning_rate = 1e-4\nlora = true\n'
    word = st.sampled_from(
        ["resolution", "seed", "validation_prompts", "preset", "hub_token", "x", "learning_rate"]
    )
    line = st.tuples(word, values.map(json.dumps)).map(" = ".join)
    text = st.lists(line, max_size=3).map(lambda some: good + "\n".join(some))
    text |= deep.map(lambda brackets: f"x = {brackets}")
    content = text.map(lambda one: one.encode("utf-8", "surrogatepass")) | spoilt(good.encode())

    def holds(content: bytes) -> None:
        (folder / "c.toml").write_bytes(content)
        words = ["--config", str(folder / "c.toml")]
        with watched(folder):
            found = outcome(lambda: parsing.parse("PriorConfig", words, "x"))
        assert found is None or isinstance(found, PriorConfig)

    fuzz(content, holds)


def test_any_card(folder: Path) -> None:
    """Our own card says what it was given, and a stranger's names a prior or none."""
    prior = st.text(max_size=12).filter(lambda text: text.strip())

    def holds(given: tuple[str, str, bytes]) -> None:
        prompt, name, content = given
        card = model_card.merged_card("me/x", "decoder", prompt or "x", name, prompt)
        header = card.split("---\n")[1]
        assert yaml.safe_load(header)["prior"] == [name]
        assert set(yaml.safe_load(header)) <= {
            *("license", "base_model", "prior", "library_name", "tags")
        }
        (folder / "README.md").write_bytes(card.encode("utf-8", "backslashreplace"))
        assert model_card.prior_of(folder) == name
        (folder / "README.md").write_bytes(content)
        with watched(folder):
            found = outcome(lambda: model_card.prior_of(folder))
        assert found is None or isinstance(found, str)

    good = b'---\nprior:\n- "me/prior"\n---\n# x\n'
    fuzz(st.tuples(odd | st.text(max_size=12), prior, spoilt(good)), holds)


# ---------------------------------------------------------------- weights


def test_any_header_of_weights(folder: Path) -> None:
    """Tensors, or one line."""
    import torch

    good = save({"a": torch.zeros(2, 3)}, {"note": "x"})
    entry = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F16", "I64", "BOOL", "F8_E5M2", "X"]) | values,
            "shape": st.lists(st.sampled_from([0, 1, 2, 3, 2**40]), max_size=3) | values,
            "data_offsets": st.lists(st.sampled_from([0, 4, 8, 24, 2**62, -1]), max_size=3),
        }
    )
    table = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]) | odd, entry | values)
    length = st.none() | st.sampled_from([0, 1, 2**31, 2**63, 2**64 - 1])

    def build(given: tuple[dict[str, Any], int | None]) -> bytes:
        header = dumped(given[0])
        size = len(header) if given[1] is None else given[1]
        return struct.pack("<Q", size) + header + b"\0" * 24

    def holds(content: bytes) -> None:
        (folder / "x.safetensors").write_bytes(content)
        with watched(folder):
            found = outcome(lambda: atomic.read_tensors(folder / "x.safetensors"))
            outcome(lambda: atomic.read_notes(folder / "x.safetensors"))
        assert found is None or all(isinstance(one, torch.Tensor) for one in found[0].values())

    fuzz(st.tuples(table, length).map(build) | spoilt(good), holds)


# ---------------------------------------------------------------- images


def _saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    kept = io.BytesIO()
    draw_picture(1, 24, 20).convert(mode).save(kept, kind, **options)
    return kept.getvalue()


def chunked(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG, with its length and checksum."""
    whole = kind + content
    return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))


@st.composite
def pngs(draw: st.DrawFn) -> bytes:
    """A PNG whose chunks are spoilt, moved and joined by others, with right checksums."""
    raw, at, chunks = draw(st.sampled_from(PNGS)), 8, list[tuple[bytes, bytes]]()
    while at + 8 <= len(raw):
        size = struct.unpack(">I", raw[at : at + 4])[0]
        chunks.append((raw[at + 4 : at + 8], raw[at + 8 : at + 8 + size]))
        at += 12 + size
    for _ in range(draw(st.integers(0, 3))):
        where = draw(st.integers(0, len(chunks) - 1))
        kind, content = chunks[where]
        content = draw(spoilt(content) | st.binary(max_size=20))
        if draw(st.booleans()):
            kinds = [
                b"tEXt",
                b"zTXt",
                b"iTXt",
                b"iCCP",
                b"eXIf",
                b"tRNS",
                b"PLTE",
                b"gAMA",
                b"acTL",
            ]
            chunks.insert(where + 1, (draw(st.sampled_from(kinds)), b"a\0\0" + content))
        else:
            chunks[where] = (kind, content)
    return raw[:8] + b"".join(chunked(kind, content) for kind, content in chunks)


PNGS = [_saved("PNG", mode) for mode in ("RGB", "RGBA", "P", "L", "1", "I;16")]
OTHERS = [_saved("JPEG"), _saved("JPEG", "CMYK"), _saved("JPEG", progressive=True)]
OTHERS += [_saved("WEBP"), _saved("WEBP", "RGBA", lossless=True), _saved("GIF"), _saved("TIFF")]


def test_any_image(folder: Path) -> None:
    """RGB of a size, or why not: as training image, mask, source of notes, sample in a report."""
    step = folder / "validation" / "step-1"
    step.mkdir(parents=True)
    (step / "sheet.png").write_bytes(PNGS[0])
    (folder / "log.jsonl").write_text(json.dumps(LOGGED[0]) + "\n")

    def holds(content: bytes) -> None:
        path = step / "00.png"
        path.write_bytes(content)
        with watched(folder):
            found = outcome(lambda: images.open_rgb(content))
            outcome(lambda: images.open_rgb(str(path)))
            outcome(lambda: images.open_mask(content))
            assert isinstance(images.recoloured(content), bool)
            assert isinstance(png.png_notes(path), dict)
            outcome(lambda: png.read_notes(path))
            report.write(folder)
        assert found is None or (found.mode == "RGB" and min(found.size) > 0)

    fuzz(pngs() | spoilt(*OTHERS, *PNGS), holds)


def test_any_notes_of_an_image(folder: Path) -> None:
    """What generated it, whose settings pass the checks of the flags, or one line."""
    config = GenerateConfig(prompts=("a cat",), seed=1)
    told = metadata.png_chunks(metadata.Provenance(config, 0, {}, {"torch": "2"}), "a cat")
    good = json.loads(str(told[metadata.KEY]))

    def holds(text: str) -> None:
        path, text = folder / "x.png", text.encode("utf-8", "backslashreplace").decode()
        png.save_png(draw_picture(2, 8, 8), path, {metadata.KEY: text, "prompt": text[:20]})
        with watched(folder):
            found = outcome(lambda: metadata.read_provenance(str(path)))
        assert found is None or isinstance(found.config.seed, int)

    fuzz(
        changed(good)
        | changed(good["config"]).map(
            lambda text: (
                f'{{"command": "generate", "config": {text}, "place": 0, "digests": {{}}, '
                '"made_with": {}}'
            )
        ),
        holds,
    )
