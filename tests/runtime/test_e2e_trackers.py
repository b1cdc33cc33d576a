"""What a run tells: curves and samples in the tracker and the folder, and never a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from e2e import NETWORK, ROLES, SIDE, checkpoints, command, pixels, refused, train, wassily
from helpers import read_jsonl
from PIL import Image

from wassily.mini.untrained import Tiny

PROMPTS = ["A robot naruto, 4k photo", "قطة حمراء"]
TOKEN = "hf_" + "Zq7" * 11
STEPS = 8
FLAGS: dict[str, Any] = {
    "max_train_steps": STEPS,
    "logging_steps": 2,
    "validation_prompts": PROMPTS,
    "validation_epochs": 1,
    "report_to": "tensorboard",
    "use_ema": True,
    "learning_rate": 0.01,
}


@pytest.fixture(scope="module", params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    """Both networks, one after the other."""
    return request.param


@pytest.fixture(scope="module")
def run(role: str, tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, photos: Path) -> Path:
    """8 steps of one of 7 pictures: samples after the first epoch, and at the end."""
    out = tmp_path_factory.mktemp(f"tracked-{role}") / "run"
    train(role, out, tiny, photos, **FLAGS)
    return out


def events(out: Path) -> Any:
    """What TensorBoard would show of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(out / "logs" / "text2image-fine-tune"), {"images": 0})
    shown.Reload()
    return shown


# ---------------------------------------------------------------- curves


def test_curves(run: Path, role: str) -> None:
    """Loss, rate and speed, at the steps and with the values of log.jsonl; and at each validation
    the drift of a decoder's variance half.
    """
    shown, lines = events(run), list(read_jsonl(run / "log.jsonl"))
    rows = [line for line in lines if "train_loss" in line]
    drifts = [line for line in lines if "variance_drift" in line]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert [row["step"] for row in drifts] == ([7, STEPS] if role == "decoder" else [])
    if drifts:
        curve = [(point.step, point.value) for point in shown.Scalars("variance_drift")]
        values = [(row["step"], pytest.approx(row["variance_drift"])) for row in drifts]
        assert curve == values
    for name in ("train_loss", "lr", "pictures_per_second"):
        curve = [(point.step, point.value) for point in shown.Scalars(name)]
        assert [step for step, _ in curve] == [row["step"] for row in rows]
        values = [row[name] for row in rows]
        assert [value for _, value in curve] == pytest.approx(values, rel=1e-6)
    assert all(row["train_loss"] > 0 for row in rows)


def test_samples_in_the_tracker(run: Path) -> None:
    """The very pictures of the validation folder, side by side, at their steps."""
    import io

    shown = events(run)
    assert shown.Tags()["images"] == ["validation"]
    images = shown.Images("validation")
    assert [image.step for image in images] == [0, 7, STEPS]
    for image in images:
        with Image.open(io.BytesIO(image.encoded_image_string)) as picture:
            seen = np.asarray(picture.convert("RGB"))
        folder = run / "validation" / f"step-{image.step}"
        assert np.array_equal(seen, np.hstack([pixels(folder / f"0{n}.png") for n in (0, 1)]))


def test_a_resumed_run_adds_to_its_curves(run: Path, role: str, tiny: Tiny, photos: Path) -> None:
    """The same tracker folder goes on after a resume."""
    more = FLAGS | {"max_train_steps": STEPS + 2, "resume_from_checkpoint": "latest"}
    train(role, run, tiny, photos, **more)
    assert [point.step for point in events(run).Scalars("train_loss")][-1] == STEPS + 2
    # The tests after this one look at the finished run, which now is longer.
    assert checkpoints(run) == [f"checkpoint-{STEPS}", f"checkpoint-{STEPS + 2}"]


@pytest.mark.parametrize("tracker", ["none", "all"])
def test_none_and_all(tracker: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """`none` writes no tracker's file, `all` uses what is installed; log.jsonl is always there."""
    train("prior", tmp_path / "run", tiny, photos, max_train_steps=1, report_to=tracker)
    assert (tmp_path / "run" / "log.jsonl").is_file()
    files = list((tmp_path / "run").rglob("*tfevents*"))
    assert bool(files) == (tracker == "all")


def test_names_of_the_tracker(tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """--logging_dir and --tracker_project_name name the folders."""
    flags = {"report_to": "tensorboard", "logging_dir": "curves", "tracker_project_name": "mine"}
    train("prior", tmp_path / "run", tiny, photos, max_train_steps=1, **flags)
    assert list((tmp_path / "run" / "curves" / "mine").glob("*tfevents*"))


# ---------------------------------------------------------------- samples


def test_samples_in_the_folder(run: Path) -> None:
    """One picture a prompt, with its prompt, seed and step inside, and a labelled sheet."""
    folders = sorted(p.name for p in (run / "validation").iterdir())
    assert {"step-7", f"step-{STEPS}"} <= set(folders)
    folder = run / "validation" / "step-7"
    assert sorted(p.name for p in folder.iterdir()) == ["00.png", "01.png", "sheet.png"]
    for number, prompt in enumerate(PROMPTS):
        with Image.open(folder / f"{number:02d}.png") as picture:
            assert picture.size == (SIDE, SIDE)
            notes = dict(picture.text)
        assert notes["prompt"] == prompt
        assert (notes["seed"], notes["step"]) == ("7", "7")
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width > 2 * SIDE and sheet.height > 2 * SIDE
    newest = max(folders, key=lambda name: int(name.split("-")[1]))
    sheet_file = run / "validation" / newest / "sheet.png"
    assert (run / "samples.png").read_bytes() == sheet_file.read_bytes()


def apart(one: Path, other: Path) -> int:
    """The largest difference of two pictures, of 255."""
    return int(np.abs(pixels(one).astype(int) - pixels(other).astype(int)).max())


def test_samples_are_of_the_exported_weights(
    run: Path, role: str, tiny: Tiny, tmp_path: Path
) -> None:
    """The last samples are what `wassily generate` draws with the output folder: the averaged
    weights, the validation's seed, 20 decoder and 25 prior steps.

    For the decoder to one level of 255: the network in training lies channels_last in memory, so
    its convolutions add in another order. The samples at step 7 are further off.
    """
    models = {"prior": tiny.prior, "decoder": tiny.decoder, role: run}
    words = [f"--{name}={folder}" for name, folder in models.items()]
    words += [f"--height={SIDE}", f"--width={SIDE}", "--steps=20", "--prior_steps=25", "--seed=7"]
    words += ["--scheduler=stock"]
    outcome = wassily("generate", *PROMPTS, *words, "--batch_size=1", f"--out={tmp_path}")
    assert outcome.code == 0, outcome.text
    last = max((run / "validation").iterdir(), key=lambda p: int(p.name.split("-")[1]))
    for number, file in enumerate(sorted(tmp_path.glob("0*.png"))):
        assert apart(file, last / f"{number:02d}.png") <= (1 if role == "decoder" else 0)
    assert apart(run / "validation" / "step-7" / "00.png", last / "00.png") > 2


# ---------------------------------------------------------------- tokens


def holding(folder: Path, secret: str) -> list[Path]:
    """The files below a folder that hold a text."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return [p for p in files if secret.encode() in p.read_bytes() or secret in str(p)]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The hub's two calls, noted instead of made."""
    calls: list[dict[str, Any]] = []

    class Made:
        repo_id = "somebody/run"

    def create_repo(name: str, **options: Any) -> Made:
        calls.append({"create": name, **options})
        return Made()

    def upload_folder(**options: Any) -> None:
        names = {str(p.relative_to(options["folder_path"])) for p in _files(options)}
        calls.append({"upload": names, **options})

    monkeypatch.setattr(huggingface_hub, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    return calls


def _files(options: dict[str, Any]) -> list[Path]:
    from fnmatch import fnmatch

    folder = Path(options["folder_path"])
    wanted = options["allow_patterns"]
    found = [p for p in folder.rglob("*") if p.is_file()]
    return [p for p in found if any(fnmatch(str(p.relative_to(folder)), w) for w in wanted)]


@pytest.mark.parametrize("way", ["flag", "HF_TOKEN"])
def test_a_token_is_used_and_never_kept(
    role: str,
    way: str,
    hub: list[dict[str, Any]],
    tmp_path: Path,
    tiny: Tiny,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It reaches the hub's calls; no file, checkpoint, tracker or line of the run holds it."""
    flags: dict[str, Any] = {
        "max_train_steps": 2,
        "checkpointing_steps": 1,
        "validation_prompts": "a cat",
        "report_to": "tensorboard",
        "push_to_hub": True,
        "hub_prior_id": "somebody/prior",
    }
    if way == "flag":
        flags["hub_token"] = TOKEN
    else:
        monkeypatch.setenv(way, TOKEN)
    outcome = train(role, tmp_path / "run", tiny, photos, **flags)
    assert [call["token"] for call in hub] == [TOKEN, TOKEN]
    assert TOKEN not in outcome.text
    assert holding(tmp_path, TOKEN) == []
    assert holding(tmp_path, "hub_token") == []


def test_what_is_uploaded(
    role: str, hub: list[dict[str, Any]], tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """The pipeline, its card and its samples: no checkpoint, log, config or local path."""
    flags = {"max_train_steps": 1, "push_to_hub": True, "hub_prior_id": "somebody/prior"}
    flags |= {"hub_token": TOKEN, "validation_prompts": "a cat"}
    train(role, tmp_path / "run", tiny, photos, **flags)
    names = hub[1]["upload"]
    assert {"README.md", "model_index.json", "samples.png"} <= names
    assert f"{NETWORK[role]}/config.json" in names
    assert not [
        n for n in names if n.startswith(("checkpoint", "logs", "validation", "run.", "log."))
    ]
    card = (tmp_path / "run" / "README.md").read_text("utf-8")
    assert "somebody/run" in card
    if role == "decoder":
        assert 'prior:\n- "somebody/prior"' in card
    assert str(photos) not in card


def test_a_failed_upload(
    role: str,
    hub: list[dict[str, Any]],
    tmp_path: Path,
    tiny: Tiny,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line says where everything is, without the token that the hub's message repeats."""

    def upload_folder(**options: Any) -> None:
        raise OSError(f"401 for Bearer {TOKEN}")

    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    flags = {"max_train_steps": 1, "push_to_hub": True, "hub_prior_id": "somebody/prior"}
    words = command(role, tmp_path / "run", tiny, photos, **flags, hub_token=TOKEN)
    line = refused(*words)
    assert TOKEN not in line
    assert "upload" in line and str(tmp_path / "run") in line
    assert (tmp_path / "run" / "model_index.json").is_file()
    assert holding(tmp_path, TOKEN) == []


def test_no_credentials(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Refused before the first step, with the two ways to log in."""
    flags = {"max_train_steps": 1, "push_to_hub": True, "hub_prior_id": "somebody/prior"}
    line = refused(*command(role, tmp_path / "run", tiny, photos, **flags))
    assert "hf auth login" in line and "HF_TOKEN" in line
    assert checkpoints(tmp_path / "run") == []


def test_a_decoder_pushed_without_its_priors_name(tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """A local prior is nobody else's: refused before anything is written."""
    flags = {"max_train_steps": 1, "push_to_hub": True, "hub_token": TOKEN}
    line = refused(*command("decoder", tmp_path / "run", tiny, photos, **flags))
    assert "--hub_prior_id" in line
    assert TOKEN not in line
    assert not (tmp_path / "run").exists()


def test_the_saved_config_reads_back(run: Path) -> None:
    """run.toml and state.json hold the same values, and no secret's name."""
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    saved = tomllib.loads((run / "run.toml").read_text("utf-8"))
    state = json.loads((run / checkpoints(run)[-1] / "state.json").read_text("utf-8"))["config"]
    assert {k: v for k, v in state.items() if v is not None} == saved
    assert "hub_token" not in saved
