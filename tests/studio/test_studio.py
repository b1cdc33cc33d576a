"""The studio without its pages: words, folders, models, and the command of a form."""

from __future__ import annotations

import ast
import json
import os
import shlex
import shutil
import string
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from helpers import run_cli

from wassily.commands import data_check, extras
from wassily.config import parsing, schema
from wassily.config.commands import StudioConfig
from wassily.errors import UserError
from wassily.files import atomic
from wassily.mini.untrained import Tiny
from wassily.models import names, parts
from wassily.studio import command_words, model_choices, resume, run_status, texts
from wassily.studio.allowed_folders import AllowedFolders

# ---------------------------------------------------------------- the command


def test_without_gradio_it_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = run_cli("studio", "--runs", tmp_path)
    assert done.code == 2
    remedy = extras.install("studio")
    assert done.text == f"wassily: error: the studio needs gradio: {remedy}\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": 65536}, "--port: 65536 is not between"),
        ({"runs": __file__}, "a file; name a folder"),
        ({"data": ("/no/where",)}, "--data /no/where: no such folder"),
        ({"language": "fr"}, "one of en, ar"),
    ],
)
def test_bad_flags(given: dict[str, Any], message: str) -> None:
    """Are refused before anything is loaded."""
    with pytest.raises(UserError, match=message):
        StudioConfig(**given)


# ---------------------------------------------------------------- words


def _places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_say_the_same() -> None:
    """The same keys with the same places for values; no text is empty, and Arabic is Arabic."""
    assert texts.ENGLISH.keys() == texts.ARABIC.keys()
    for key, text in texts.ENGLISH.items():
        other = texts.ARABIC[key]
        assert text.strip() and other.strip(), key
        assert _places(text) == _places(other), key
        arabic = any("\u0600" <= letter <= "\u06ff" for letter in other)
        assert arabic != (key == "other_language"), key


def test_every_text_has_its_user_and_every_finding_its_text() -> None:
    """What is said is in the table, and what is in the table is said."""
    folder = Path(texts.__file__).parents[1] / "pages"
    pages = "\n".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    made = ("state_", "find_", "of_", "base_", "start_")  # a value gives the rest of the key
    gravities = {"error", "warning", "note"}
    for key in texts.ENGLISH.keys() - gravities:
        assert (
            f'"{key}"' in pages
            or f"'{key}'" in pages
            or key.startswith(made)
            or key.endswith(("_info", "_lora"))
        ), key
    assert {f"state_{state}" for state in typing.get_args(run_status.State)} <= texts.ENGLISH.keys()
    kinds = {key.removeprefix("find_") for key in texts.ENGLISH if key.startswith("find_")}
    assert kinds == _kinds() | {"duplicates", "near_duplicates"}


def _kinds() -> set[str]:
    """Of findings, as the doctor's source names them."""
    found = set()
    for node in ast.walk(ast.parse(Path(data_check.__file__).read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Finding", "find"):
            kind = node.args[1]
            if isinstance(kind, ast.Constant):
                found.add(str(kind.value))
    return found


def test_values_in_their_places() -> None:
    """In both languages."""
    for name in ("en", "ar"):
        assert texts.Say(name)("seed_of", seed=3).endswith("3")


# ---------------------------------------------------------------- folders


@pytest.fixture
def allowed(tmp_path: Path) -> AllowedFolders:
    """Runs and data, a folder beside them, and links that lead out."""
    for name in ("runs/studio", "runs/a/b", "pics/train", "pics/.hidden", "private"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs/out").symlink_to(tmp_path / "private")
    (tmp_path / "pics/out").symlink_to(tmp_path / "private")
    return AllowedFolders(tmp_path / "runs", (tmp_path / "pics",))


def test_only_given_folders(allowed: AllowedFolders) -> None:
    """Data lies in --data, trainings lie below --runs; links and dots lead nowhere."""
    pics = allowed.data[0]
    assert allowed.folders() == [str(pics), str(pics / "train")]
    assert allowed.data_folder(str(pics / "train")) == str(pics / "train")
    for name in ("/etc", str(pics / ".."), str(pics / "out"), str(allowed.runs), "\0", None, ""):
        with pytest.raises(UserError, match=r"--data"):
            allowed.data_folder(name)
    assert allowed.run("a/b") == allowed.runs / "a/b"
    for name in ("..", "../pics", "/etc", "out", ".", "a/../.."):
        with pytest.raises(UserError, match="not below"):
            allowed.run(name)
    with pytest.raises(UserError, match="no training is chosen"):
        allowed.run(None)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "-x", "studio", "a b", "x" * 65, None])
def test_names_that_are_none(allowed: AllowedFolders, name: str | None) -> None:
    """Of a new training; in Arabic they may be."""
    with pytest.raises(UserError, match="no name for a training"):
        allowed.new_run(name)
    assert allowed.new_run(" تجربة-1 ") == allowed.runs / "تجربة-1"


def test_names_that_are_taken(allowed: AllowedFolders) -> None:
    """By a training; what is proposed is the first that no folder has."""
    assert allowed.unused("my-prior") == "my-prior"
    (allowed.runs / "my-prior").mkdir()
    (allowed.runs / "my-prior-2").mkdir()
    assert allowed.unused("my-prior") == "my-prior-3"
    allowed.new_run("my-prior")
    (allowed.runs / "my-prior" / "run.toml").touch()
    with pytest.raises(UserError, match="there is a training already"):
        allowed.new_run("my-prior")


# ---------------------------------------------------------------- models


@pytest.fixture
def runs(tmp_path: Path, tiny: Tiny) -> Path:
    """A prior, a checkpoint of a decoder, an adapter, and what is none of them."""
    shutil.copytree(tiny.prior, tmp_path / "one" / "prior-run")
    step = tmp_path / "decoder-run" / "checkpoint-5"
    shutil.copytree(Path(tiny.decoder) / "unet", step / "unet")
    (step / "state.json").write_text(
        json.dumps({"step": 5, "role": "decoder", "repositories": {}}), "utf-8"
    )
    (tmp_path / "adapter").mkdir()
    notes = {"network": "decoder", "base": "mini"}
    atomic.write_tensors(tmp_path / "adapter" / names.ADAPTER, {}, notes)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / names.ADAPTER).write_bytes(b"nothing")
    shutil.copytree(tiny.prior, tmp_path / "studio" / "not-this")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    return tmp_path


def test_models_are_found(runs: Path) -> None:
    """Each with its network; the studio's own folder, links and broken files are passed over."""
    found = {(one.place, one.home, one.adapter) for one in model_choices.model_choices(runs)}
    assert found == {
        ("one/prior-run", "prior", False),
        ("decoder-run/checkpoint-5", "decoder", False),
        ("adapter", "decoder", True),
    }
    say = texts.Say("en")
    shown = [text for text, _ in model_choices.networks(runs, "prior", say)]
    assert shown == ["one/prior-run (finished)", "mini", model_choices.RELEASED["prior"]]
    adapters = model_choices.adapters(runs, "decoder", say)
    assert adapters == [("adapter (finished)", str(runs / "adapter"))]
    assert model_choices.adapters(runs, "prior", say) == []


def test_what_is_finished_is_offered_first(runs: Path, tiny: Tiny) -> None:
    """However new the checkpoints are, of a run that has its end and of one that has not; of each
    kind the newest comes first, and each is called what it is, in both languages.
    """
    state = (runs / "decoder-run" / "checkpoint-5" / "state.json").read_bytes()
    made = ["old", "new", "old/checkpoint-20", "decoder-run/checkpoint-5", "new/checkpoint-100"]
    for age, place in enumerate(made):
        folder = runs / place
        if not folder.exists():
            shutil.copytree(Path(tiny.decoder) / "unet", folder / "unet")
        if folder.name.startswith("checkpoint"):
            (folder / "state.json").write_bytes(state)
        os.utime(folder / "unet" / "config.json", (1e9 + age, 1e9 + age))
    step = runs / "adapter" / "checkpoint-9"
    step.mkdir()
    shutil.copyfile(runs / "adapter" / names.ADAPTER, step / names.ADAPTER)
    (step / "state.json").write_bytes(state)
    os.utime(runs / "adapter" / names.ADAPTER, (1e9 + 9, 1e9 + 9))
    finished, released = ["adapter", "new", "old"], ["mini", model_choices.RELEASED["decoder"]]
    saved = ["adapter/checkpoint-9", *reversed(made[2:])]
    for language, (done, way) in {
        "en": ("finished", "checkpoint"),
        "ar": ("مكتمل", "نقطة حفظ"),
    }.items():
        say = texts.Say(language)  # type: ignore[arg-type]
        expected = [f"{place} ({done})" for place in finished] + released
        expected += [f"{place} ({way})" for place in saved]
        assert [text for text, _ in model_choices.networks(runs, "decoder", say)] == expected
        shown = [text for text, _ in model_choices.adapters(runs, "decoder", say)]
        assert shown == [f"adapter ({done})", f"adapter/checkpoint-9 ({way})"]
    last = model_choices.model_choices(runs)[-1]
    assert last.shown(texts.Say("en"), "decoder") == f"{made[2]} (decoder, checkpoint)"
    for place in (*finished, *saved):
        assert model_choices.checked(runs, "decoder", str(runs / place)) == str(runs / place)


def test_only_what_was_found_is_taken(runs: Path, tiny: Tiny) -> None:
    """No other path, no other hub name, no network of the other kind."""
    one = str(runs / "one/prior-run")
    assert model_choices.checked(runs, "prior", one) == one and model_choices.checked(
        runs, "prior", "mini"
    )
    for name in (str(tiny.prior), "somebody/model", "", None, str(runs / "link/prior-run")):
        with pytest.raises(UserError, match="no prior that the studio found"):
            model_choices.checked(runs, "prior", name)
    with pytest.raises(UserError, match="no decoder that the studio found"):
        model_choices.checked(runs, "decoder", one)
    assert model_choices.checked_adapter(runs, "decoder", model_choices.NONE) is None
    with pytest.raises(UserError, match="no adapter of a prior"):
        model_choices.checked_adapter(runs, "prior", str(runs / "adapter"))


def test_the_guidance_that_suits(runs: Path) -> None:
    """The bundled model's for it, what was tuned from it, its checkpoints and its adapters; the
    command line's for networks of another build, and for what was not offered.
    """
    shutil.copytree(parts.MINI / "decoder", runs / "tuned")
    step = runs / "tuned" / "checkpoint-5"
    shutil.copytree(parts.MINI / "decoder" / "unet", step / "unet")
    base = {"decoder": str(parts.MINI / "decoder")}
    state = {"step": 5, "role": "decoder", "repositories": base}
    (step / "state.json").write_text(json.dumps(state), "utf-8")
    for name in ("mini", *(str(runs / place) for place in ("tuned", "tuned/checkpoint-5"))):
        assert model_choices.guidance(runs, "decoder", name) == 2.5, name
    assert model_choices.guidance(runs, "decoder", str(runs / "adapter")) == 2.5
    assert model_choices.guidance(runs, "prior", "mini") == 2
    for name in (str(runs / "one/prior-run"), model_choices.RELEASED["prior"], "/no/where", None):
        assert model_choices.guidance(runs, "prior", name) == 4, name


# ---------------------------------------------------------------- the command of a form


def test_what_the_form_proposed() -> None:
    """Gives way to what it proposes for the other network; what somebody typed does not."""
    assert command_words.untouched("my-prior", "200") == (True, True)
    assert command_words.untouched("my-decoder-2", " 300") == (True, True)
    assert command_words.untouched("my-priority", "") == (False, False)


def test_the_command_of_a_form(photos: Path) -> None:
    """What is unset stays away; the command line reads back what the form said."""
    values = {
        "train_data_dir": str(photos),
        "output_dir": "runs/a b",
        "learning_rate": 0.00001,
        "max_train_steps": 20,
        "seed": 0,
        "rank": None,
        "lora": True,
        "use_ema": False,
        "mixed_precision": "",
        "validation_prompts": ("a red circle", "دائرة حمراء"),
    }
    command = command_words.train("prior", values)
    config = parsing.parse("PriorConfig", command[2:], "wassily train prior")
    plain = schema.public(config)
    for name, value in values.items():
        if value is not None and value is not False and value != "":
            assert plain[name] == value, name
    assert "--rank" not in command and "--use_ema" not in command
    text = command_words.shown(command)
    assert text.startswith("wassily train prior \\\n  --train_data_dir ")

    assert shlex.split(text.replace("\\\n", " ")) == ["wassily", *command]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "pictures"),
        ({"train_data_dir": "/no/where"}, "/no/where"),
        ({"resolution": 33}, "--resolution: 33"),
        ({"validation_prompts": ("--help",)}, "begins with a hyphen"),
        ({"learning_rate": -1.0}, "begins with a hyphen"),
        ({"preset": "9gb"}, "9gb"),
    ],
)
def test_a_bad_form_is_one_line(photos: Path, values: dict[str, Any], message: str) -> None:
    """In the words of the command line."""
    given = {"train_data_dir": str(photos), **values} if values else {}
    with pytest.raises(UserError, match=message) as caught:
        command_words.train("decoder", given)
    assert "\n" not in str(caught.value)


def test_resuming(tmp_path: Path, photos: Path) -> None:
    """By the run's own values, in its own folder alone."""
    allowed = AllowedFolders(tmp_path, (photos,))
    folder, elsewhere = tmp_path / "run", tmp_path / "moved"
    folder.mkdir(), elsewhere.mkdir()
    with pytest.raises(UserError, match="no training to resume"):
        resume.words(allowed, folder, None)
    flags = ["--train_data_dir", str(photos), "--output_dir", str(folder), "--preset", "12gb"]
    flags += ["--pretrained_prior_model_name_or_path", "mini", "--validation_prompts", "a", "b"]
    config = command_words.checked(["train", "decoder", *flags])
    (folder / "run.toml").write_text(schema.to_toml(config), "utf-8")
    command = resume.words(allowed, folder, None)
    assert command[:2] == ["train", "decoder"] and "--config" not in command
    again, was = schema.public(command_words.checked(command)), schema.public(config)
    assert again == was | {"preset": None, "resume_from_checkpoint": "latest"}
    shutil.copyfile(folder / "run.toml", elsewhere / "run.toml")
    with pytest.raises(UserError, match="it writes into"):
        resume.words(allowed, elsewhere, None)
    (folder / "run.toml").write_text("nothing = 1\n", "utf-8")
    with pytest.raises(UserError, match="names no network"):
        resume.words(allowed, folder, None)


def test_prompts_are_lines() -> None:
    """Without the empty ones."""
    assert command_words.prompts(" a\n\n b \n") == ("a", "b")
    assert command_words.prompts(None) == ()
