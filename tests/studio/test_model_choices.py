"""The models that the studio offers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from wassily.errors import UserError
from wassily.files import atomic
from wassily.mini.untrained import Tiny
from wassily.models import names, parts
from wassily.studio import model_choices, texts


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
