"""What is said at the end of a training: where it is, and what draws with both networks."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from wassily.config import parsing
from wassily.config.training import DecoderConfig, PriorConfig, TrainConfig
from wassily.models import parts
from wassily.reporting import next_command

MINI = {home: str(parts.MINI / home) for home in ("prior", "decoder")}
CAPTIONS = ("a red zorb on a blue background", "زورب")


@pytest.fixture
def pics(tmp_path: Path) -> Path:
    """A folder as a training reads it."""
    folder = tmp_path / "pics"
    folder.mkdir()
    rows = [{"file_name": f"{n}.png", "text": text} for n, text in enumerate(CAPTIONS)]
    for row in rows:
        (folder / row["file_name"]).touch()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(lines, "utf-8")
    return folder


def _config(home: str, pics: Path, **values: Any) -> TrainConfig:
    kind = PriorConfig if home == "prior" else DecoderConfig
    out = str(pics.parent / "runs" / home)
    return kind(**{"train_data_dir": str(pics), "output_dir": out} | values)


def _run(
    folder: Path,
    home: str,
    base: str = "mini",
    age: int = 0,
    whole: bool = True,
    source: str | None = None,
) -> Path:
    """The folder of a training, which ended unless told otherwise, on the pictures beside."""
    folder.mkdir(parents=True)
    file = folder / "run.json"
    facts = {"command": ["wassily", "train", home, "--x"], "base": base}
    facts["source"] = source or str(folder.parents[1] / "pics")
    file.write_text(json.dumps(facts))
    os.utime(file, (1e9 - age, 1e9 - age))
    if whole:
        part = folder / parts.TRAINED[home] / "config.json"
        part.parent.mkdir()
        part.write_text("{}")
    return folder


def _parsed(line: str) -> Any:
    words = shlex.split(line[line.index("wassily generate") :])
    return parsing.parse("GenerateConfig", words[2:], "x")


@pytest.mark.parametrize("home", ["prior", "decoder"])
def test_a_training_alone(home: str, pics: Path) -> None:
    """The first caption, the base's other network, which is said, and the guidance of mini."""
    config = _config(home, pics)
    line = next_command.next_line(config, MINI, next_command.caption(config, None))
    other = next_command.OTHER[home]
    assert line.startswith(f"the {home} is in {config.output_dir} (the {other} is still its base's")
    draw = _parsed(line)
    assert draw.prompts == (CAPTIONS[0],)
    assert (getattr(draw, home), getattr(draw, other)) == (config.output_dir, "mini")
    assert (draw.guidance_scale, draw.prior_guidance_scale) == (2.5, 2.0)


def test_the_newest_finished_one_of_the_same_base_is_its_partner(pics: Path) -> None:
    """Not a younger one that did not end, of another base, or of this network."""
    runs = pics.parent / "runs"
    _run(runs / "old", "prior", age=9)
    new = _run(runs / "new", "prior", age=5)
    _run(runs / "going", "prior", whole=False)
    _run(runs / "other", "prior", base="me/prior")
    _run(runs / "mine", "decoder")
    config = _config("decoder", pics)
    line = next_command.next_line(config, MINI, None)
    assert "still" not in line
    assert _parsed(line).prior == str(new)
    elsewhere = _run(pics.parent / "elsewhere", "prior", base="me/x")
    named = _config("decoder", pics, drawn_embeds=str(elsewhere))
    assert next_command.partner(named, MINI) == str(elsewhere)
    assert next_command.partner(_config("prior", pics), MINI | {"decoder": "me/decoder"}) is None


def test_a_training_on_a_tuned_other(pics: Path) -> None:
    """It draws with what it was given; nothing is untuned then."""
    prior = _run(pics.parent / "runs" / "given", "prior")
    _run(pics.parent / "runs" / "newer", "prior", base=str(prior))
    config = _config("decoder", pics, pretrained_prior_model_name_or_path=str(prior))
    line = next_command.next_line(config, MINI | {"prior": str(prior)}, None)
    assert "still" not in line
    assert _parsed(line).prior == str(prior)
    assert next_command.samples_remark(config) == ""
    remark = next_command.samples_remark(_config("prior", pics))
    assert remark == " (drawn with the decoder as it is, untuned)"


def test_prompts_in_their_order(pics: Path, tmp_path: Path) -> None:
    """A validation prompt before a caption, as a shell reads it; no caption: a known prompt; the
    released model draws with its defaults.
    """
    prompt = 'a "red" $HOME `cat`'
    config = _config("prior", pics, validation_prompts=(prompt, "b"))
    assert _parsed(next_command.next_line(config, MINI, "a caption")).prompts == (prompt,)
    hub = {"prior": "me/prior", "decoder": "me/decoder"}
    line = next_command.next_line(_config("prior", pics), hub, None)
    assert _parsed(line).prompts == ("a photo of a cat",)
    assert "guidance" not in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("two\n  lines", "two lines"),
        ("bell \x07", None),
        ("", None),
        ("می\u200cروم", "می\u200cروم"),
    ],
)
def test_captions_that_can_be_typed(text: str, said: str | None, pics: Path) -> None:
    """On one line, without codes for a terminal; a bad line is passed over."""
    row = json.dumps({"file_name": "0.png", "text": text})
    (pics / "metadata.jsonl").write_text(f"no json\n{row}\n", "utf-8")
    assert next_command.caption(_config("decoder", pics), None) == said
