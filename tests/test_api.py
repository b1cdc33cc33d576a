"""`import wassily`: light, typed, and the same as the command line."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from helpers import draw_picture, run_cli, run_command
from PIL import Image

import wassily
from wassily import UserError
from wassily.config.training import PriorConfig
from wassily.generation.sample import Canvas, Drawing, Mix
from wassily.mini.untrained import SIDE, Tiny, make_decoder

LIGHT = """
import sys, time
begin = time.process_time()
import wassily
print(time.process_time() - begin)
heavy = {"torch", "numpy", "diffusers", "transformers", "accelerate", "datasets", "PIL", "tyro"}
print(sorted(heavy & set(sys.modules)))
wassily.UserError, wassily.PriorConfig, dir(wassily)
print(sorted(heavy & set(sys.modules)))
"""


def test_the_import_is_light() -> None:
    """Under 0.2 s of this processor, and nothing heavy comes with it, nor with a config."""
    done = run_command("python", "-c", LIGHT)
    assert done.returncode == 0, done.stderr
    seconds, heavy, after = done.stdout.splitlines()
    assert float(seconds) < 0.2
    assert heavy == "[]"
    assert after == "['tyro']"


def test_every_name_is_there() -> None:
    """Under the name that it has at home; and no module of the package is hidden by one."""
    modules = {path.stem for path in Path(wassily.__file__).parent.iterdir()}
    assert not modules & set(wassily.__all__)
    for name in wassily.__all__:
        assert getattr(wassily, name).__name__ == name
        assert name in dir(wassily)
    with pytest.raises(AttributeError, match="has no attribute 'pipeline'"):
        wassily.pipeline  # type: ignore[attr-defined]  # noqa: B018
    assert importlib.import_module("wassily.generation.generate") is wassily.generation.generate  # type: ignore[attr-defined]


def test_what_is_drawn_is_what_the_command_draws(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every subject with every seed, in that order; on a picture, too."""
    monkeypatch.chdir(tmp_path)
    draw_picture(1, SIDE, SIDE).save("in.png")
    pipelines = wassily.load_pipelines(str(tiny.prior), str(tiny.decoder))
    few = Drawing(steps=2, prior_steps=2)
    drawn = pipelines.draw(["a", "b"], seeds=range(3, 5), drawing=few)
    models = ("--prior", tiny.prior, "--decoder", tiny.decoder, "--steps", 2, "--prior_steps", 2)
    done = run_cli("generate", "a", "b", *models, "--seed", 3, "--num_images", 2, "--out", "all")
    assert done.code == 0, done.text
    assert [p.tobytes() for p in drawn] == [_pixels(p) for p in sorted(Path("all").iterdir())]
    picture = wassily.open_picture("in.png")
    on = Drawing(steps=2, prior_steps=2, canvas=Canvas(picture, strength=0.5))
    (one,) = pipelines.draw(Mix(("a", picture), (0.5, 0.5)), drawing=on)
    words = ("a:0.5", "in.png:0.5", "--image", "in.png", "--strength", 0.5, "--seed", 0)
    done = run_cli("mix", *words, *models, "--out", "one.png")
    assert done.code == 0, done.text
    assert one.tobytes() == _pixels(Path("one.png"))
    assert pipelines.draw([]) == []


def _pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.tobytes()


def test_what_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    """The lines of the command line, as exceptions; a wrong config is a mistake."""
    with pytest.raises(UserError, match="no such folder"):
        wassily.load_pipelines("nowhere", str(tiny.decoder))
    with pytest.raises(UserError, match="--lora_scale does nothing"):
        wassily.load_pipelines(str(tiny.prior), str(tiny.decoder), lora_scale=0.5)
    with pytest.raises(UserError, match="no such file"):
        wassily.open_picture(tmp_path / "none.png")
    with pytest.raises(UserError, match="--steps: 0 is less than 1"):
        Drawing(steps=0)
    with pytest.raises(UserError, match="--strength: 2 is not in"):
        Drawing(canvas=Canvas(draw_picture(1), strength=2))
    with pytest.raises(UserError, match="no such folder"):
        PriorConfig(train_data_dir=str(tmp_path / "none"))
    with pytest.raises(TypeError, match="a DecoderConfig is wanted, not PriorConfig"):
        wassily.train_decoder(PriorConfig(train_data_dir=str(tmp_path)))  # type: ignore[arg-type]
    decoder = make_decoder(tmp_path / "inpainting", "inpainting")
    pipelines = wassily.load_pipelines(str(tiny.prior), str(decoder))
    with pytest.raises(UserError, match="this decoder: a decoder that draws with --image"):
        pipelines.draw("a")
