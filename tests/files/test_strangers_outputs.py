"""What is written into a folder that came from a stranger stays in it, and takes nobody's name.

The tests bear the numbers of the findings that they close.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from e2e import command, refused, train
from helpers import draw_picture, tree

from wassily.config.generation import GenerateConfig
from wassily.data import png
from wassily.errors import UserError
from wassily.files import atomic
from wassily.generation import generate
from wassily.mini.untrained import Tiny
from wassily.models import pipeline_folder
from wassily.reporting import run_log

FLAGS: dict[str, Any] = {"max_train_steps": 1, "checkpointing_steps": 1, "seed": 1}
FLAGS |= {"validation_prompts": "a cat", "report_to": "tensorboard"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, photos: Path) -> Path:
    """The output folder of a run with samples and a tracker."""
    out = tmp_path_factory.mktemp("first") / "run"
    train("prior", out, tiny, photos, **FLAGS)
    return out


def test_finding_06_no_name_that_a_run_writes_leads_elsewhere(
    run: Path, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """Each name is a link to a file or a folder outside, one run for all of them that it replaces,
    one for each that it refuses: what they lead to is what it was.
    """
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    written = sorted(path.name for path in run.iterdir())
    assert {"samples.png", "validation", "logs", "log.jsonl", "checkpoint-1"} <= set(written)
    for name in [*written, *(f".writing-{name}" for name in (*written, "export"))]:
        inner = name.removeprefix(".writing-")
        if (run / inner).is_dir():
            shutil.copytree(run / inner, outside / name)
        else:
            (outside / name).write_text("precious")
        if name not in ("validation", "logs"):
            (out / name).symlink_to(outside / name)
    (out / "run.toml").unlink()
    (out / "run.toml").write_text("")  # else the parts of the export are somebody's: refused
    before = tree(outside)
    train("prior", out, tiny, photos, **FLAGS)
    assert tree(outside) == before
    assert not any(path.is_symlink() for path in out.rglob("*"))
    for name in ("validation", "logs", ".lock"):
        folder = tmp_path / f"refused{name}"
        folder.mkdir()
        target = outside / name
        target.touch() if name == ".lock" else None
        (folder / name).symlink_to(target)
        before = tree(outside)
        line = refused(*command("prior", folder, tiny, photos, **FLAGS))
        assert str(folder / name) in line and "link" in line and "Remove it." in line
        assert tree(outside) == before


def test_finding_06_a_step_of_the_samples_that_is_a_link(tmp_path: Path) -> None:
    """A folder in a folder that is written into leads nowhere else either; links inside do."""
    (tmp_path / "out" / "validation").mkdir(parents=True)
    (tmp_path / "out" / "validation" / "latest").symlink_to("step-1")
    atomic.check_own([tmp_path / "out" / "validation"])
    (tmp_path / "out" / "validation" / "step-1").symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"(step-1|latest): a link"):
        atomic.check_own([tmp_path / "out" / "validation"])


@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_finding_06_the_writers_follow_no_link(kind: str, tmp_path: Path) -> None:
    """Of each writer, for its own name and for the name beside it."""
    victim, out = tmp_path / "victim", tmp_path / "out"
    out.mkdir()
    if kind == "file":
        victim.write_text("precious")
    elif kind == "folder":
        victim.mkdir()
        (victim / "a").write_text("precious")
    for name in ("text", "image.png", "copy", "whole", "unet", "log.jsonl"):
        for own in (name, f".writing-{name}", f".writing-old-{name}"):
            (out / own).symlink_to(victim)
    (out / ".writing-export").symlink_to(victim)
    (tmp_path / "source").write_text("new")

    def save(folder: Path) -> None:
        (folder / "unet").mkdir(parents=True)
        (folder / "unet" / "w").write_text("new")
        (folder / "model_index.json").write_text("{}")

    before = tree(tmp_path / "victim") if kind == "folder" else kind == "file"
    atomic.write_text(out / "text", "new")
    png.save_png(draw_picture(1), out / "image.png", {})
    atomic.copy(tmp_path / "source", out / "copy")
    atomic.write_whole(out / "whole", lambda folder: (folder / "a").write_text("new"))
    pipeline_folder.export(out, save, "card")
    run_log.rewind(out, 0)
    run_log.append(out, {"step": 1})
    os.close(atomic.emptied(out / "text"))
    atomic.sweep(out)
    assert not any(path.is_symlink() for path in out.iterdir())
    if kind == "folder":
        assert tree(victim) == before
    else:
        assert victim.exists() == (kind == "file")
        assert kind == "nothing" or victim.read_text() == "precious"


def test_finding_06_nothing_is_added_to_a_link(tmp_path: Path) -> None:
    """To a log that became a link while its run went on: also to one that leads to nothing."""
    for target in ("precious", "nothing"):
        (tmp_path / "precious").write_text("precious")
        (tmp_path / "log.jsonl").unlink(missing_ok=True)
        (tmp_path / "log.jsonl").symlink_to(tmp_path / target)
        with pytest.raises(UserError, match=r"log\.jsonl: a link"):
            run_log.append(tmp_path, {"step": 1})
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "nothing").exists()


# ---------------------------------------------------------------- names that two may take


@pytest.mark.parametrize("links", [True, False])
def test_finding_22_two_generations_into_one_folder(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both settle their names before either saves: all images are there afterwards, also on a file
    system without hard links.
    """

    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    config = GenerateConfig(prompts=("a",), num_images=2, out=str(tmp_path))
    one, two = (generate.output_files(config, ["a"]) for _ in range(2))
    assert one == two
    saved = [
        generate.save(draw_picture(number, 16, 16), file, {"seed": number}, config)
        for number, file in enumerate([*one, *two])
    ]
    assert [path.name for path in saved] == [f"{n:03d}-a.png" for n in range(4)]
    assert sorted(tmp_path.iterdir()) == saved
    assert [png.png_notes(path)["seed"] for path in saved] == ["0", "1", "2", "3"]


def test_finding_22_the_one_file_of_out_is_replaced(tmp_path: Path) -> None:
    """As documented: its name was asked for."""
    config = GenerateConfig(prompts=("a",), out=str(tmp_path / "a.png"))
    for number in range(2):
        [file] = generate.output_files(config, ["a"])
        assert generate.save(draw_picture(number), file, {"seed": number}, config) == file
    assert png.png_notes(tmp_path / "a.png")["seed"] == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
