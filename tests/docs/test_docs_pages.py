"""Pages whose commands and snippets want something of their own to work on: run to their last line
(`make docs-test`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import shard_files
from e2e import wassily
from helpers import draw_picture
from pages import FENCE, ROOT
from PIL import Image
from shell_lines import both_languages, make_room
from test_docs import _pictures

import wassily as package
from wassily.mini.untrained import Tiny, make_decoder

pytestmark = pytest.mark.docs

HUB = "kandinsky-community/kandinsky-2-2-"
SMALL = {
    "train": "--max_train_steps 1 --resolution 32 --report_to none",
    "generate": "--steps 2 --prior_steps 2 --height 32 --width 32 --out drawn",
}


def _on_tiny_models(words: list[str], tiny: Tiny) -> list[str]:
    """A command of the page with small models in place of the hub's, and few steps."""
    models = {"prior": tiny.prior, "decoder": tiny.decoder}
    words = [str(models[w.removeprefix(HUB)]) if w.startswith(HUB) else w for w in words]
    for home, folder in models.items():
        flag = {"train": f"--pretrained_{home}_model_name_or_path", "generate": f"--{home}"}
        if words[0] in flag and flag[words[0]] not in words:
            words += [flag[words[0]], str(folder)]
    return words + SMALL.get(words[0], "").split()


def _commands_work(
    page: str, tiny: Tiny, instead: tuple[str, str] = ("", "")
) -> list[tuple[str, str]]:
    """Run a page's commands one after the other, an address of theirs replaced, and those with
    Arabic prompts; all blocks of the page, language and code.
    """
    path = ROOT / "docs" / page
    for command in both_languages(path):
        program, *words = command.words
        assert program == "wassily"
        words = [word.replace(*instead) for word in words]
        make_room(words)
        done = wassily(*_on_tiny_models(words, tiny))
        assert done.code == 0, f"{words}: {done.text}"
    return FENCE.findall(path.read_text("utf-8"))


def test_the_page_on_dreambooth_works(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands, in a folder with pictures of one thing."""
    _pictures(tmp_path / "sks")
    monkeypatch.chdir(tmp_path)
    _commands_work("dreambooth.md", tiny)
    made = {path.name for path in Path("runs").iterdir()}
    assert made == {"sks-prior", "sks-decoder", "sks-prior-lora"}
    assert len(list(Path("dogs").iterdir())) == 8


def test_the_page_on_streaming_works(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands on shards here and on a web server; the error that it shows is a real one."""
    shard_files.parquet(tmp_path / "shards", (2, 2), {3: {"text": [" "]}})
    monkeypatch.chdir(tmp_path)
    models = [f"--pretrained_{home}_model_name_or_path" for home in ("prior", "decoder")]
    words = ["--output_dir", "bad", models[0], tiny.prior, models[1], tiny.decoder]
    done = wassily(
        *("train", "prior", "--dataset_name", "shards", "--streaming", "--max_train_steps", 9),
        *words,
    )
    assert done.err in (ROOT / "docs" / "streaming.md").read_text("utf-8")
    shard_files.parquet(tmp_path / "shards", (2, 2))
    for number, file in enumerate(sorted(shard_files.tars(Path("tars"), (2, 2)).iterdir())):
        file.rename(Path("tars") / f"pics-{number:04d}.tar")
    with shard_files.served(Path("tars").resolve()) as address:
        there = ("https://example.org/pics-{0000..0127}", address + "/pics-{0000..0001}")
        _commands_work("streaming.md", tiny, there)
    assert {path.name for path in Path("runs").iterdir()} == {"prior", "decoder", "far"}


def test_the_page_on_lora_works(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands one after the other, then its Python, in a folder with pictures."""
    (tmp_path / "pics").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    blocks = _commands_work("lora.md", tiny)
    made = {path.name for path in Path("runs").iterdir()}
    assert made == {"prior-lora", "decoder-lora", "decoder-merged", "decoder", "decoder-mixed"}
    (code,) = (code for language, code in blocks if language == "python")
    code = code.replace(f"{HUB}decoder", str(tiny.decoder)).replace("float16", "float32")
    small = "height=32, width=32, num_inference_steps=2, prior_num_inference_steps=2"
    exec(code.replace('prompt="a red circle"', f'prompt="a red circle", {small}'), {})
    assert (tmp_path / "picture.png").is_file()


# ---------------------------------------------------------------- drawing, and from Python


def _pixels_of(name: str) -> bytes:
    with Image.open(name) as picture:
        return picture.tobytes()


def test_the_page_on_drawing_works(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands one after the other, in few steps; small decoders stand in for the two released
    ones.
    """
    monkeypatch.chdir(tmp_path)
    for name in ("photo", "depth"):
        draw_picture(1, 64, 64).save(f"{name}.png")
    draw_picture(2, 64, 64).convert("L").save("mask.png")
    released = {
        f"{HUB}decoder-inpaint": make_decoder(tmp_path / "inpaint", "inpainting"),
        f"{HUB}controlnet-depth": make_decoder(tmp_path / "depth", "hint"),
    }
    commands = both_languages(ROOT / "docs" / "drawing.md")
    for command in commands:
        program, *words = command.words
        assert program == "wassily"
        given = [str(released.get(word, word)) for word in words]
        if "--from" not in given:
            given += ["--steps", "2", "--prior_steps", "2"]
            given += [] if "mini" in given else ["--prior", str(tiny.prior)]
        done = wassily(*given)
        assert done.code == 0, f"{words}: {done.text}"
    made = {path.name for path in tmp_path.glob("*.png")} | {p.name for p in Path("like").iterdir()}
    assert {
        "hat.png",
        "robot.png",
        "slow.png",
        "again.png",
        "000-variations-of-circle-png.png",
    } <= made
    assert len(commands) > 8
    assert _pixels_of("mix.png") == _pixels_of("again.png")


@pytest.mark.parametrize("page", ["python.md", "ar/python.md"])
def test_the_page_on_python_works(
    page: str,
    tmp_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its code from the first line to the last, in few steps."""
    (tmp_path / "pics").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    blocks = FENCE.findall((ROOT / "docs" / page).read_text("utf-8"))
    code = "\n".join(code for language, code in blocks if language == "python")
    for long, short in {
        "steps=50": "steps=2, prior_steps=2",
        "max_train_steps=200": "max_train_steps=1",
        "max_prompts=4": "max_prompts=4, steps=2, prior_steps=2",
    }.items():
        assert long in code
        code = code.replace(long, short)
    names: dict[str, Any] = {}
    exec(code, names)
    said = capsys.readouterr().out
    assert "--resolution: 30 is not a multiple of 8 from 8 on\n" in said
    assert re.search(r"^english .* [-\d.e]+ [-\d.e]+$", said, re.M)
    drawn = [names[name].tobytes() for name in ("circle", "other", "star", "like", "mixed")]
    assert len(set(drawn)) == len(drawn)
    assert (tmp_path / "runs" / "prior" / "prior" / "config.json").is_file()
    table = (ROOT / "docs" / page).read_text("utf-8").partition("| `load_pipelines")
    table = "".join(table[1:])
    told = set(re.findall(r"`(\w+)(?:\([\w, .]*\))?`", table.partition("## ")[0]))
    assert set(package.__all__) <= told
