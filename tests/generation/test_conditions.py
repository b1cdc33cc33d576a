"""The pictures that a drawing is made from: on the command line, in its notes, and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import Outcome, draw_picture, run_cli
from PIL import Image

from wassily.config.generation import GenerateConfig, MixConfig
from wassily.data import images
from wassily.errors import UserError
from wassily.generation import conditions, metadata, sample
from wassily.mini.untrained import SIDE, Tiny, make_decoder

FEW = ("--steps", 2, "--prior_steps", 2, "--seed", 3)


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of 9 channels."""
    return make_decoder(tmp_path_factory.mktemp("inpainting"), "inpainting")


@pytest.fixture(scope="module")
def hinted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder that reads a hint."""
    return make_decoder(tmp_path_factory.mktemp("hinted"), "hint")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with pictures of all sorts."""
    monkeypatch.chdir(tmp_path)
    draw_picture(1, 48, 32).save("in.png")
    draw_picture(2, 40, 40).save("photo.jpg")
    half = np.zeros((64, 96), np.uint8)
    half[:, 48:] = 255
    Image.fromarray(half).save("mask.png")
    Image.new("L", (48, 32)).save("black.png")
    Image.new("L", (48, 48), 255).save("square.png")
    Image.new("RGBA", (48, 32), (255, 255, 255, 100)).save("clear.png")
    Path("words.png").write_text("hello")
    return tmp_path


def _run(tiny: Tiny, *words: object, verb: str = "generate") -> Outcome:
    return run_cli(verb, *words, "--prior", tiny.prior, *FEW)


def _pixels(path: str) -> bytes:
    with Image.open(path) as picture:
        return picture.tobytes()


def test_every_task_draws_and_is_drawn_again(
    here: Path, tiny: Tiny, inpainting: Path, hinted: Path
) -> None:
    """From its own notes alone, to the bit; all pictures differ."""
    plain = ("--decoder", tiny.decoder)
    asked = {
        "text.png": ("generate", "a cat", *plain),
        "image.png": ("generate", "a cat", "--image", "in.png", "--strength", 0.9, *plain),
        "part.png": (
            *("generate", "a cat", "--image", "in.png", "--mask", "mask.png"),
            *("--decoder", inpainting),
        ),
        "depth.png": ("generate", "a cat", "--control", "photo.jpg", "--decoder", hinted),
        "like.png": ("generate", "--variations", "photo.jpg", *plain),
        "mix.png": ("mix", "قطة:0.3", "photo.jpg:0.7", *plain),
        "both.png": ("mix", "a:2", "in.png:-1", "--control", "in.png", "--decoder", hinted),
    }
    seen = {}
    for name, (verb, *words) in asked.items():
        done = _run(tiny, *words, "--out", name, verb=str(verb))
        assert (done.code, done.err) == (0, ""), done.text
        again = run_cli("generate", "--from", name, "--out", "again.png")
        assert (again.code, again.err) == (0, ""), again.text
        assert _pixels("again.png") == _pixels(name), name
        with Image.open(name) as first, Image.open("again.png") as second:
            assert first.text == second.text  # type: ignore[attr-defined]
        seen[_pixels(name)] = name
    assert len(seen) == len(asked)


def test_one_of_a_batch_is_drawn_again(here: Path, tiny: Tiny) -> None:
    """In a batch of the same size at the same place, for the last bits depend on both."""
    words = ("a cat", "a very long prompt about a dog", "c", "--num_images", 2)
    done = _run(tiny, *words, "--batch_size", 4, "--decoder", tiny.decoder, "--out", "all")
    assert done.code == 0, done.text
    files = sorted(Path("all").iterdir())
    told = [metadata.read_provenance(str(file)) for file in files]
    assert [one.place for one in told] == [0, 1, 2, 3, 0, 1]
    assert [one.config.batch_size for one in told] == [4, 4, 4, 4, 2, 2]
    assert [one.config.seed for one in told] == [3, 4, 3, 4, 3, 4]
    for file in (files[2], files[5]):
        assert run_cli("generate", "--from", file, "--out", "again.png").code == 0
        assert _pixels("again.png") == _pixels(str(file))


def test_what_is_not_the_same_any_more_is_said(here: Path, tiny: Tiny) -> None:
    """A picture that it was drawn from, refused; another version, a line."""
    words = ("a", "--image", "in.png", "--strength", 1, "--decoder", tiny.decoder)
    done = _run(tiny, *words, "--out", "x.png")
    assert done.code == 0, done.text
    old = metadata.read_provenance("x.png")
    assert metadata.differences(old, sample.torch.device("cpu")) == []
    other = metadata.Provenance(old.config, 0, {}, {"torch": "1.0"})
    (line,) = metadata.differences(other, sample.torch.device("cpu"))
    assert line.startswith("drawn with torch 1.0, this is ")
    draw_picture(9, 48, 32).save("in.png")
    again = run_cli("generate", "--from", "x.png", "--out", "y.png")
    assert again.code == 2
    assert again.err == "wassily: error: in.png: no longer the picture that it was drawn from\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a", "--image", "none.png", "--strength", 1), "--image none.png: no such file"),
        (
            ("a", "--image", "words.png", "--strength", 1),
            "--image words.png: not a picture of a known kind",
        ),
        (("a", "--image", ".", "--strength", 1), "--image .: "),
        (("a", "--image", "~/none/x", "--strength", 1), "--image HOME/none/x: no such file"),
        (("a", "--mask", "mask.png"), "--mask needs --image"),
        (("a", "--strength", 0.5), "--strength needs --image"),
        (("a", "--image", "in.png", "--strength", 0), "--strength: 0 is not in (0, 1]"),
        (("a", "--image", "in.png", "--strength", 1.5), "--strength: 1.5 is not in (0, 1]"),
        (("a", "--image", "in.png", "--strength", 0.4), "0.4 of 2 steps is no step; take 0.5 or"),
        (("a", "--image", "in.png", "--strength", "nan"), "--strength: nan is not a finite number"),
        (
            ("a", "--image", "in.png", "--mask", "mask.png", "--strength", 0.5),
            "--strength has no part in --mask",
        ),
        (("a", "--image", "in.png", "--control", "in.png"), "--control and --image were both"),
        (("a", "--image", "in.png", "--mask", "square.png"), "--mask square.png: 48 x 48, and"),
        (("a", "--image", "in.png", "--mask", "black.png"), "--mask black.png: no white in it"),
        (("a", "--image", "in.png", "--mask", "clear.png"), "--mask clear.png: transparent in"),
        (
            ("a", "--image", "in.png", "--mask", "mask.png"),
            "has 4 input channels, and inpainting takes 9; name a decoder made for it, as "
            "kandinsky-community/kandinsky-2-2-decoder-inpaint",
        ),
        (
            ("a", "--control", "in.png"),
            "reads no hint; name one that does, as kandinsky-community/kandinsky-2-2-controlnet-",
        ),
        (("a", "--variations", "in.png"), "--variations in.png takes no prompt"),
        (("--variations", "none.png"), "--variations none.png: no such file"),
        (("a", "--image", "in.png"), "0.3 of 2 steps is no step; take 0.5 or more"),
        (("--from", "none.png"), "--from draws a picture as it was drawn: leave --prior out"),
    ],
    ids=str,
)
def test_mistakes(words: tuple[object, ...], message: str, here: Path, tiny: Tiny) -> None:
    """Exit code 2 and one line, before the folder of the output is made."""
    done = _run(tiny, *words, "--decoder", tiny.decoder, "--out", "out")
    assert done.code == 2, done.text
    # The home is filled in here: each worker has its own, and they have to collect the same tests.
    assert message.replace("HOME", str(Path.home())) in done.err
    assert done.err.count("\n") == 1
    assert not Path("out").exists()


def test_other_decoders_are_refused_for_plain_drawing(
    here: Path, tiny: Tiny, inpainting: Path, hinted: Path
) -> None:
    """With what they need."""
    for decoder, needs in ((inpainting, "--mask PICTURE only"), (hinted, "--control PICTURE only")):
        for more in ((), ("--image", "in.png", "--strength", 1)):
            done = _run(tiny, "a", *more, "--decoder", decoder, "--out", "out")
            assert done.code == 2
            assert done.err.endswith(f"{needs}\n")


def test_a_checkpoint_is_judged_by_its_own_network(
    here: Path, tiny: Tiny, inpainting: Path
) -> None:
    """Not by that of the repository of its frozen parts."""
    shutil.copytree(inpainting / "unet", "checkpoint-3/unet")
    state = {"step": 3, "role": "decoder", "repositories": {"decoder": str(tiny.decoder)}}
    Path("checkpoint-3/state.json").write_text(json.dumps(state))
    words = ("a", "--image", "in.png", "--decoder", "checkpoint-3", "--out", "x.png")
    done = _run(tiny, *words, "--mask", "mask.png")
    assert done.code == 0, done.text
    assert _run(tiny, *words, "--strength", 1).code == 2


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), "mix takes two parts or more"),
        (("a:1",), "mix takes two parts or more"),
        (("a", "b:1"), "mix: 'a' has no weight; write 'a:0.5'"),
        (("a:b", "c:1"), "'b' after the colon is no weight"),
        (("a:inf", "c:1"), "'inf' after the colon is no weight"),
        ((":1", "c:1"), "nothing stands before the weight"),
    ],
)
def test_parts_of_a_mix_that_are_none(parts: tuple[str, ...], message: str) -> None:
    """Known before anything is opened."""
    with pytest.raises(UserError) as refused:
        MixConfig(parts=parts)
    assert message in str(refused.value)


def test_the_parts_of_a_mix(here: Path) -> None:
    """A text may hold colons; a picture is a file that is there, or has a picture's ending."""
    parts = ("a ratio of 3:4:1", "photo.jpg:.5", f"{'x' * 300}:1e0", "~nobody at all:-2", ".:1")
    found = conditions.task(MixConfig(parts=parts))
    (mix,) = found.subjects
    assert isinstance(mix, sample.Mix)
    assert mix.weights == (1.0, 0.5, 1.0, -2.0, 1.0)
    assert (mix.parts[0], mix.parts[3:]) == ("a ratio of 3:4", ("~nobody at all", "."))
    assert mix.parts[1].tobytes() == images.open_rgb("photo.jpg").tobytes()
    assert set(found.digests) == {"photo.jpg"}
    with pytest.raises(UserError, match=r"mix: none\.png: no such file"):
        conditions.task(MixConfig(parts=("a:1", "none.png:1")))


def test_a_turned_photograph_and_a_transparent_one(here: Path) -> None:
    """As the trainings read them: upright, and on white."""
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    draw_picture(1, 48, 32).save("turned.jpg", exif=turned)
    canvas = conditions.task(GenerateConfig(prompts=("a",), image="turned.jpg")).canvas
    assert canvas.size == (32, 48)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save("nothing.png")
    canvas = conditions.task(GenerateConfig(prompts=("a",), image="nothing.png")).canvas
    assert canvas.image.getextrema() == ((255, 255),) * 3


def test_the_shape_and_what_is_rounded(here: Path, tiny: Tiny) -> None:
    """A picture's own shape at the decoder's size; else what one says."""
    draw_picture(1, 200, 50).save("wide.png")
    where = ("--decoder", tiny.decoder, "--image", "wide.png", "--strength", 1, "--out", "x.png")
    for more, size in (
        ((), (2 * SIDE, SIDE // 2)),
        (("--height", SIDE, "--width", 17), (SIDE, SIDE)),
    ):
        done = _run(tiny, "a", *where, *more)
        assert done.code == 0, done.text
        with Image.open("x.png") as picture:
            assert picture.size == size
        assert ("--width 17: no multiple of 16; drawn at 32" in done.out) == bool(more)
