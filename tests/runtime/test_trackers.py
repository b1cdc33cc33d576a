"""Real runs with each tracker that is installed: what it keeps is read back as its users see it.

`make trackers` installs them all.
"""

from __future__ import annotations

import importlib.util
import io
import json
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from e2e import pixels, train
from helpers import read_jsonl
from PIL import Image
from test_e2e_trackers import TOKEN, holding

from wassily.mini.untrained import Tiny
from wassily.runtime import trackers

PROJECT = "text2image-fine-tune"
PROMPTS = ["A robot naruto, 4k photo", "قطة حمراء"]
FLAGS: dict[str, Any] = {
    "max_train_steps": 4,
    "logging_steps": 2,
    "validation_prompts": PROMPTS,
    "validation_epochs": 1,
    "learning_rate": 0.003,
}
Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class Seen:
    """What a tracker shows: a curve by its name, the config as texts, and of each validation the
    pictures and prompts.
    """

    curve: Callable[[str], Curve]
    config: dict[str, str]
    pictures: dict[int, list[np.ndarray]]
    prompts: dict[int, list[str]]


def _array(content: Any) -> np.ndarray:
    with Image.open(content) as picture:
        return np.asarray(picture.convert("RGB"))


def _tensorboard(home: Path) -> Seen:
    import yaml
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(home / "run" / "logs" / PROJECT), {"images": 0, "tensors": 0})
    shown.Reload()
    (saved,) = (home / "run" / "logs" / PROJECT).rglob("hparams.yml")
    config = yaml.safe_load(saved.read_text("utf-8"))
    sheets = shown.Images("validation")
    texts = shown.Tensors("validation/text_summary")
    return Seen(
        lambda name: [(point.step, point.value) for point in shown.Scalars(name)],
        {name: str(value) for name, value in config.items()},
        {
            sheet.step: np.split(_array(io.BytesIO(sheet.encoded_image_string)), 2, axis=1)
            for sheet in sheets
        },
        {
            text.step: text.tensor_proto.string_val[0].decode("utf-8").split("\n\n")
            for text in texts
        },
    )


def _log_records(content: bytes) -> Iterator[bytes]:
    """The records of a wandb file: 7 bytes of header, then LevelDB's log format - blocks of 32 KiB
    with pieces of checksum (4 bytes), length (2) and kind (1): whole, first, middle, last.
    """
    at, held = 7, b""
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:  # too little of the block is left for a piece
            at += 2**15 - at % 2**15
            continue
        size, kind = struct.unpack_from("<HB", content, at + 4)
        held += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield held
            held = b""


def _wandb(home: Path) -> Seen:
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = home.glob("wandb/offline-run-*/run-*.wandb")
    rows, config = [], {}
    for data in _log_records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = record.history.item
            rows.append(
                {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in items}
            )
        for change in (*record.config.update, *record.run.config.update):
            config[change.key or "/".join(change.nested_key)] = json.loads(change.value_json)
    validations = {row["_step"]: row for row in rows if "validation/filenames" in row}
    return Seen(
        lambda name: [(row["_step"], row[name]) for row in rows if name in row],
        {name: str(value) for name, value in config.items()},
        {
            step: [_array(file.parent / "files" / name) for name in shown["validation/filenames"]]
            for step, shown in validations.items()
        },
        {step: shown["validation/captions"] for step, shown in validations.items()},
    )


def _trackio(home: Path) -> Seen:
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import MEDIA_DIR

    (name,) = SQLiteStorage.get_runs(PROJECT)
    rows = SQLiteStorage.get_logs(PROJECT, name)
    shown = {
        row["step"]: [row[key] for key in sorted(row) if key.startswith("validation/")]
        for row in rows
        if "validation/0" in row
    }
    return Seen(
        lambda name: [(row["step"], row[name]) for row in rows if name in row],
        {k: str(v) for k, v in SQLiteStorage.get_run_config(PROJECT, name).items()},
        {
            step: [_array(MEDIA_DIR / one["file_path"]) for one in some]
            for step, some in shown.items()
        },
        {step: [one["caption"] for one in some] for step, some in shown.items()},
    )


def _mlflow(home: Path) -> Seen:
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name(PROJECT)
    (run,) = client.search_runs([experiment.experiment_id])
    key = run.info.run_id
    folders = [Path(item.path) for item in client.list_artifacts(key, "validation")]
    local = {
        int(folder.name.removeprefix("step-")): Path(client.download_artifacts(key, str(folder)))
        for folder in folders
    }
    return Seen(
        lambda name: [(point.step, point.value) for point in client.get_metric_history(key, name)],
        dict(run.data.params),
        {step: [_array(file) for file in sorted(at.glob("*.png"))] for step, at in local.items()},
        {step: (at / "prompts.txt").read_text("utf-8").splitlines() for step, at in local.items()},
    )


READERS = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
}
INSTALLED = [name for name in READERS if importlib.util.find_spec(name)]


@pytest.mark.parametrize("tracker", INSTALLED)
def test_a_run_is_told(
    tracker: str, tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The curves of log.jsonl, the pictures of the validation folder with their prompts, the
    resolved config; and in no file a token, though it is in the environment and the words.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(sys, "argv", ["wassily", "train", "prior", "--hub_token", TOKEN])
    made = SimpleNamespace(repo_id="somebody/run")
    monkeypatch.setattr(huggingface_hub, "create_repo", lambda name, **options: made)
    monkeypatch.setattr(huggingface_hub, "upload_folder", lambda **options: None)
    flags = FLAGS | {"report_to": tracker, "push_to_hub": True, "hub_token": TOKEN}
    train("prior", tmp_path / "run", tiny, photos, **flags)
    seen = READERS[tracker](tmp_path)
    rows = [row for row in read_jsonl(tmp_path / "run" / "log.jsonl") if "train_loss" in row]
    assert [row["step"] for row in rows] == [2, 4]
    for name in ("train_loss", "lr"):
        curve = seen.curve(name)
        assert [step for step, _ in curve] == [2, 4]
        assert [value for _, value in curve] == pytest.approx([row[name] for row in rows])
    assert seen.config["learning_rate"] == "0.003" and seen.config["max_train_steps"] == "4"
    assert not [name for name in seen.config if "token" in name]
    assert sorted(seen.pictures) == [0, 4]
    for step, pictures in seen.pictures.items():
        assert seen.prompts[step] == PROMPTS
        for number, picture in enumerate(pictures):
            own = tmp_path / "run" / "validation" / f"step-{step}" / f"{number:02d}.png"
            assert np.array_equal(picture, pixels(own))
    assert holding(tmp_path, TOKEN) == []
    assert sys.argv[-1] == TOKEN  # put back


def test_one_that_takes_no_pictures() -> None:
    """Said by the caller, who asks first."""

    class Tracker:
        name = "comet_ml"

    assert not trackers.show(Tracker(), "validation", [], [], 0)
