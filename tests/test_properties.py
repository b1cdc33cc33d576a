"""What holds for all that hypothesis comes up with: configs, flags, metadata, the cache."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wassily.config import parsing, schema
from wassily.config.training import DecoderConfig, PriorConfig
from wassily.data import folders
from wassily.encodings import cache
from wassily.errors import UserError, printable
from wassily.files import atomic

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The same examples at each run: a test must not depend on the day.
settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("steady")

HERE = str(Path(__file__).parent)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
nonblank = texts.filter(lambda text: bool(text.strip()))
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "learning_rate": st.floats(1e-300, 1e300) | st.integers(1, 10**9),
    "adam_beta1": st.floats(0, 1, exclude_max=True),
    "adam_epsilon": st.floats(5e-324, 1.0),
    "snr_gamma": st.none() | st.floats(1e-9, 1e9),
    "holdout": st.floats(0, 1, exclude_max=True),
    "resolution": st.integers(1, 512).map(lambda n: 8 * n),
    "seed": st.none() | st.integers(0, 2**63 - 1),
    "max_train_steps": st.none() | st.integers(1, 10**12),
    "validation_prompts": st.lists(texts).map(tuple),
    "image_column": nonblank.filter(lambda text: text != "text"),
    "resume_from_checkpoint": st.none() | st.just("latest"),
    "mixed_precision": st.sampled_from([None, "no", "fp16", "bf16"]),
    "use_ema": st.booleans(),
    "random_flip": st.booleans(),
    "report_to": st.sampled_from(["tensorboard", "all", "none"]),
}


@given(st.fixed_dictionaries({}, optional=FIELDS), st.sampled_from([PriorConfig, DecoderConfig]))
def test_a_config_is_the_same_after_its_file(values: dict[str, Any], cls: type) -> None:
    """TOML out, and in by the standard library: equal, to the last bit and letter; what is shown of
    it is a part of its file.
    """
    config = cls(train_data_dir=HERE, output_dir="/runs/x", **values)
    text = schema.to_toml(config)
    read = schema.from_mapping(cls, tomllib.loads(text), "x")
    assert cls(**read) == config
    assert set(schema.changed_lines(config)) <= set(text.splitlines())


names = st.sampled_from([f"--{field.name}" for field in dataclasses.fields(PriorConfig)])
anything = (
    names | texts | st.sampled_from(["--", "-", "-1", "nan", "1e9", "--x=", "True", "latest"])
)


@settings(max_examples=60)
@given(st.lists(anything, max_size=5))
def test_any_words_are_a_config_or_one_line(words: list[str]) -> None:
    """Never another exception, nothing printed, and the exit only of --help."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config = parsing.parse("PriorConfig", words, "x")
        assert isinstance(config, PriorConfig)
    except UserError as error:
        assert "\n" not in printable(str(error))
        assert str(error)
    assert said.getvalue() == ""


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values_ = st.recursive(
    plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
)
keys = st.sampled_from(["file_name", "text", "x"]) | st.text(max_size=3)
rows = st.dictionaries(keys, values_ | st.just("a.png"), max_size=4).map(json.dumps)
lines = st.lists(rows.map(str.encode) | st.binary(max_size=30), max_size=6)


def _read(name: str, content: bytes) -> tuple[list[folders.Row], list[str]]:
    """What a folder with such a metadata file holds, and what is wrong with it."""
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.png").write_bytes(b"")
        Path(folder, name).write_bytes(content)
        try:
            found = list(folders.rows_of(folder, "text", lambda error: faults.append(str(error))))
        except UserError as error:
            return [], [*faults, str(error)]
    return found, faults


@given(lines)
def test_any_lines_are_rows_or_faults(parts: list[bytes]) -> None:
    """Each row is the picture with captions that are text; each fault names the file or folder."""
    found, faults = _read("metadata.jsonl", b"\n".join(parts))
    assert found or faults
    for path, captions in found:
        assert path.endswith("a.png")
        assert all(isinstance(caption, str) and caption.strip() for caption in captions)
        "".join(captions).encode()
    assert all("metadata.jsonl" in fault for fault in faults)


@given(st.binary() | texts.map(lambda text: b"file_name,text\n" + text.encode()))
def test_any_bytes_are_a_csv_or_a_fault(content: bytes) -> None:
    """As above."""
    found, faults = _read("metadata.csv", content)
    assert found or faults
    assert all(path.endswith("a.png") for path, _ in found)


@given(st.lists(nonblank, min_size=1, max_size=5))
def test_captions_come_as_they_were_written(captions: list[str]) -> None:
    """Through JSON lines, whatever is in them, in order."""
    written = [json.dumps({"file_name": "a.png", "text": c}, ensure_ascii=False) for c in captions]
    found, faults = _read("metadata.jsonl", "\n".join(written).encode())
    assert not faults
    assert [one for _, (one,) in found] == captions


entries = st.dictionaries(
    st.integers(0, 40), st.lists(st.floats(width=32, allow_nan=False), max_size=4), max_size=8
)


@settings(max_examples=40)
@given(st.lists(entries, max_size=4), st.lists(st.integers(0, 60), max_size=30))
def test_the_cache_is_a_dictionary(shards: list[dict[int, list[float]]], asked: list[int]) -> None:
    """Entries written in several shards are found, others are not; `missing` names each once."""
    model = {key: value for shard in reversed(shards) for key, value in shard.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for shard in shards:
            writer = cache.Writer(folder, ragged=("x",))
            for key in shard:  # a key has one content: it is a digest of what that is made from
                row = {"x": torch.tensor(model[key]), "n": torch.tensor([key])}
                writer.add(cache.digest(key), row)
            writer.flush()
        store = cache.Store(folder)
        assert len(store) == sum(map(len, shards))
        found = cache.stacked(cache.digest(key) for key in asked)
        there = store.positions(found) >= 0
        assert there.tolist() == [key in model for key in asked]
        absent = [asked[n] for n in store.missing(found)]
        assert absent == list(dict.fromkeys(key for key in asked if key not in model))
        for key in set(asked) & model.keys():
            entry = store[cache.digest(key)]
            assert entry["x"].tolist() == torch.tensor(model[key]).tolist()
            assert entry["n"].tolist() == [key]
        numbers = store.column(found, "n").reshape(len(found), -1)[:, 0] if there.any() else []
        assert all(n == k for n, k in zip(numbers, asked, strict=False) if k in model)
        assert cache.shard_files(folder) == sorted(folder.glob("*.safetensors"))


@given(st.binary(max_size=200))
def test_any_bytes_are_no_tensors_or_tensors(content: bytes) -> None:
    """A file of weights is read, or is one line."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "x.safetensors"
        file.write_bytes(content)
        with contextlib.suppress(UserError):
            tensors, notes = atomic.read_tensors(file)
            assert all(isinstance(value, torch.Tensor) for value in tensors.values())
            assert isinstance(notes, dict)


@given(st.lists(st.tuples(st.binary(), st.binary())), st.lists(st.binary()))
def test_parts_of_a_key_do_not_run_into_one_another(
    pairs: list[tuple[bytes, bytes]], more: list[bytes]
) -> None:
    """Other parts, another key; as an array the keys are the same."""
    for one, two in pairs:
        assert (cache.digest(one, two) == cache.digest(one + two)) is False
    keys = [cache.digest(part) for part in more]
    assert [row.tobytes() for row in np.asarray(cache.stacked(keys))] == keys
