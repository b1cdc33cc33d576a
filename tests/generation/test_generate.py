"""`wassily generate`: names, notes, grids, and what is refused before a model is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from helpers import Outcome, run_cli
from PIL import Image

from wassily.config.generation import GenerateConfig
from wassily.errors import UserError
from wassily.files import atomic
from wassily.generation import generate
from wassily.mini.untrained import SIDE, Tiny
from wassily.models import names

FEW = ("--steps", 2, "--prior_steps", 2)


def _run(tiny: Tiny, out: Path, *words: object) -> Outcome:
    where = ("--prior", tiny.prior, "--decoder", tiny.decoder, "--out", out)
    return run_cli("generate", *where, *FEW, *words)  # the last of a flag wins


def _pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.tobytes()


def test_a_run_with_everything(tiny: Tiny, tmp_path: Path) -> None:
    """Two prompts by two seeds and a grid: numbered files whose notes are what drew them, and the
    picture of a note drawn again by plain diffusers is the same to the bit.
    """
    done = _run(tiny, tmp_path, "a red cat", "قطة حمراء", "--num_images", 2, "--seed", 5, "--grid")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"loading the prior {tiny.prior}, then the decoder {tiny.decoder}\n")
    files = sorted(p.name for p in tmp_path.iterdir())
    assert len(files) == 5
    assert "sheet.png" in files
    assert any("a-red-cat" in name for name in files)
    assert any("قطة-حمراء" in name for name in files)
    for name in files:
        assert str(tmp_path / name) in done.out
    seen = set()
    for path in tmp_path.iterdir():
        if path.name == "sheet.png":
            continue
        with Image.open(path) as picture:
            notes = dict(picture.text)
            assert picture.size == (SIDE, SIDE)
        assert notes["prior"] == str(tiny.prior)
        assert notes["decoder"] == str(tiny.decoder)
        assert (notes["steps"], notes["prior_steps"], notes["guidance_scale"]) == ("2", "2", "4.0")
        assert f"{path}  (seed {notes['seed']})" in done.out
        seen.add((notes["prompt"], notes["seed"]))
    assert seen == {(p, s) for p in ("a red cat", "قطة حمراء") for s in ("5", "6")}
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 2 * SIDE
        assert sheet.height > 2 * SIDE


def test_the_same_seed_is_the_same_picture_as_diffusers(tiny: Tiny, tmp_path: Path) -> None:
    """One picture into one file, twice, and by the stock pipeline as it is when nothing is said."""
    words = ("a red cat", "--seed", 7, "--scheduler", "stock", "--steps", 100, "--prior_steps", 25)
    for name in ("a.png", "b.png"):
        assert _run(tiny, tmp_path / "deep" / name, *words).code == 0
    first = _pixels(tmp_path / "deep" / "a.png")
    assert first == _pixels(tmp_path / "deep" / "b.png")
    stock = diffusers.AutoPipelineForText2Image.from_pretrained(tiny.decoder)
    generator = torch.Generator().manual_seed(7)
    drawn = stock("a red cat", height=SIDE, width=SIDE, generator=generator).images[0]
    assert drawn.tobytes() == first


def test_no_seed_is_drawn_and_printed(tiny: Tiny, tmp_path: Path) -> None:
    """Two runs differ; the printed seed gives the picture back."""
    done = _run(tiny, tmp_path / "1.png", "a")
    seed = done.out.split("(seed ")[1].split(")")[0]
    assert seed != _run(tiny, tmp_path / "2.png", "a").out.split("(seed ")[1].split(")")[0]
    assert _run(tiny, tmp_path / "3.png", "a", "--seed", seed).code == 0
    assert _pixels(tmp_path / "1.png") == _pixels(tmp_path / "3.png")


def test_a_file_of_prompts(tiny: Tiny, tmp_path: Path) -> None:
    """After those of the command line; byte order mark, blank lines and Windows ends are no
    prompts; a repeated prompt gets a file of its own.
    """
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffone\r\n\n  قطة  \none\n".encode())
    done = _run(tiny, tmp_path / "out", "zero", "--prompts_file", file, "--seed", 1)
    assert done.code == 0, done.err
    prompts = []
    for path in sorted((tmp_path / "out").iterdir()):
        with Image.open(path) as picture:
            prompts.append(picture.text["prompt"])
    assert prompts == ["zero", "one", "قطة", "one"]


def test_a_second_run_into_the_folder_leaves_the_first(tiny: Tiny, tmp_path: Path) -> None:
    """Nobody's pictures are written over, unless they are the same prompt and seed."""
    assert _run(tiny, tmp_path, "one", "--seed", 1).code == 0
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert _run(tiny, tmp_path, "two", "--seed", 2).code == 0
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert len(after) == 2
    assert before.items() <= after.items()


def test_size_and_negative_prompt_reach_the_picture(tiny: Tiny, tmp_path: Path) -> None:
    """And its notes."""
    words = ("a", "--seed", 1, "--height", 48, "--width", 64, "--negative_prompt", "blurry")
    assert _run(tiny, tmp_path / "a.png", *words).code == 0
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (64, 48)
        assert picture.text["negative_prompt"] == "blurry"


def test_a_size_that_the_pipeline_rounds_is_said(tiny: Tiny, tmp_path: Path) -> None:
    """Up to the square of the MoVQ's factor; a size that fits is drawn without a word."""
    done = _run(tiny, tmp_path / "a.png", "a", "--seed", 1, "--height", 33, "--width", 48)
    assert "--height 33: no multiple of 16; drawn at 48\n" in done.out
    assert "--width" not in done.out
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (48, 48)


def test_a_file_for_the_sheet_of_several(tiny: Tiny, tmp_path: Path) -> None:
    """With --grid the file is the sheet, and the pictures are in a folder of its name."""
    words = ("a", "b", "--seed", 1, "--out", tmp_path / "x.png")
    done = _run(tiny, tmp_path / "x.png", *words)
    assert done.code == 2
    assert "name a folder, or add --grid for a sheet" in done.err
    done = _run(tiny, tmp_path / "x.png", *words, "--grid")
    assert done.code == 0, done.err
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["000-a.png", "001-b.png"]
    with Image.open(tmp_path / "x.png") as sheet:
        assert sheet.height > 2 * SIDE


def test_a_picture_is_a_png(tiny: Tiny, tmp_path: Path) -> None:
    """Another kind is no folder's name either: nothing is made."""
    done = _run(tiny, tmp_path / "x.jpg", "a")
    assert done.code == 2
    assert f"name {tmp_path / 'x.png'}" in done.err
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_run_that_did_not_finish(tiny: Tiny, tmp_path: Path) -> None:
    """How to go on, and with what to draw until then; also where nothing was saved yet."""
    out = tmp_path / "run"
    atomic.write_text(out / "run.toml", "# DecoderConfig: run again\n")
    done = _run(tiny, tmp_path / "x.png", "a", "--decoder", out)
    again = f"go on with wassily train decoder --config {out / 'run.toml'}"
    assert done.code == 2
    assert f"did not finish; {again} --resume_from_checkpoint latest\n" in done.err
    for step in (3, 20):
        atomic.write_text(out / f"checkpoint-{step}" / "state.json", "{}")
    for flag in ("--decoder", "--decoder_lora"):
        done = _run(tiny, tmp_path / "x.png", "a", flag, out)
        assert f"latest, or draw with {out / 'checkpoint-20'}\n" in done.err
        assert done.out == ""
    (out / "run.toml").unlink()
    with pytest.raises(UserError, match=r"did not finish; draw with .*checkpoint-20$"):
        names.resolve(str(out), "decoder")


@pytest.mark.parametrize("role", ["prior", "decoder"])
def test_a_checkpoint_folder_is_drawn_with(role: str, tiny: Tiny, tmp_path: Path) -> None:
    """Its own network with the frozen parts of its repository: other weights, another picture."""
    network = {"prior": "prior", "decoder": "unet"}[role]
    folder = tmp_path / "checkpoint-3"
    shutil.copytree(getattr(tiny, role) / network, folder / network)
    kind = {"prior": diffusers.PriorTransformer, "unet": diffusers.UNet2DConditionModel}[network]
    net = kind.from_pretrained(folder / network)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.ones_like(parameter))
    net.save_pretrained(folder / network)
    repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    (folder / "state.json").write_text(
        json.dumps({"step": 3, "role": role, "repositories": repositories})
    )
    assert _run(tiny, tmp_path / "base.png", "a", "--seed", 1).code == 0
    done = _run(tiny, tmp_path / "tuned.png", "a", "--seed", 1, f"--{role}", folder)
    assert done.code == 0, done.err
    assert _pixels(tmp_path / "base.png") != _pixels(tmp_path / "tuned.png")


@pytest.mark.parametrize("words", [("--dtype", "fp16"), ("--offload",)])
def test_what_needs_an_accelerator_is_one_line_without(
    words: tuple[str, ...], tiny: Tiny, tmp_path: Path
) -> None:
    """It is said, and the picture is drawn all the same, in fp32."""
    assert _run(tiny, tmp_path / "a.png", "a", "--seed", 1).code == 0
    done = _run(tiny, tmp_path / "b.png", "a", "--seed", 1, *words)
    assert done.code == 0
    assert "accelerator" in done.out.splitlines()[1]
    assert _pixels(tmp_path / "a.png") == _pixels(tmp_path / "b.png")


def test_bf16_on_a_cpu_draws_nearly_the_same(tiny: Tiny, tmp_path: Path) -> None:
    """Through both stages; other bits."""
    assert _run(tiny, tmp_path / "a.png", "a", "--seed", 1, "--dtype", "bf16").code == 0
    assert _run(tiny, tmp_path / "b.png", "a", "--seed", 1, "--dtype", "fp32").code == 0
    assert _pixels(tmp_path / "a.png") != _pixels(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a", "b", "--out", "{tmp}/x.png"), "2 pictures do not fit one file"),
        (("a", "--num_images", 2, "--out", "{tmp}/x.PNG"), "2 pictures do not fit one file"),
        (("a", "--out", "{tmp}/taken"), "taken"),
        (("--prompts_file", "{tmp}/none.txt"), "--prompts_file {tmp}/none.txt"),
        (("--prompts_file", "{tmp}/blank.txt"), "no prompt in it"),
        (("--prompts_file", "{tmp}/latin.txt"), "--prompts_file {tmp}/latin.txt"),
        (("--prompts_file", "{tmp}"), "--prompts_file {tmp}"),
        (("a", " "), "a prompt is empty"),
        (("a", "--prior", "{tmp}"), "no sub-folder 'prior'"),
        (("a", "--decoder", "{tmp}/nowhere"), "no such folder"),
        (("a", "--prior", "{decoder}"), "it is a decoder's"),
    ],
)
def test_mistakes(words: tuple[object, ...], message: str, tiny: Tiny, tmp_path: Path) -> None:
    """Exit code 2, one line that names what is wrong, and no picture."""
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    names = {"tmp": tmp_path, "decoder": tiny.decoder}
    given = [w.format(**names) if isinstance(w, str) else w for w in words]
    base = ["--prior", tiny.prior, "--decoder", tiny.decoder, *FEW]
    flags = [w for i in range(0, len(base), 2) if base[i] not in given for w in base[i : i + 2]]
    done = run_cli("generate", *given, *flags)
    assert done.code == 2
    assert message.format(**names) in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A robot naruto, 4k photo", "a-robot-naruto-4k-photo"),
        ("قطة حمراء!", "قطة-حمراء"),
        ("../../etc/passwd", "etc-passwd"),
        ("///", "picture"),
        ("🧸", "picture"),
        ("x" * 300, "x" * 40),
        ("a_b__c", "a-b-c"),
    ],
)
def test_slug(prompt: str, name: str) -> None:
    """Letters of any script stay; nothing that means something to a file system does."""
    assert generate.slug(prompt) == name


def test_long_names_fit_a_file_system(tmp_path: Path) -> None:
    """255 bytes is the usual most: 40 letters of four bytes and the number stay below."""
    config = GenerateConfig(prompts=("𒀀" * 300,), out=str(tmp_path))
    (file,) = generate.output_files(config, list(config.prompts))
    assert len(file.name.encode()) < 255


def test_files_are_as_many_as_pictures_and_different(tmp_path: Path) -> None:
    """Also for the same prompt twice."""
    config = GenerateConfig(prompts=("a", "a", "b"), num_images=3, out=str(tmp_path / "new"))
    files = generate.output_files(config, list(config.prompts))
    assert len(set(files)) == 9
    with pytest.raises(UserError):
        generate.output_files(
            GenerateConfig(prompts=("a", "b"), out=str(tmp_path / "x.png")), ["a", "b"]
        )


def test_a_prior_and_a_decoder_of_other_models(tiny: Tiny, tmp_path: Path) -> None:
    """Embeddings of two widths: one line, in both directions."""
    for prior, decoder in (("mini", tiny.decoder), (tiny.prior, "mini")):
        done = run_cli("generate", "a", "--prior", prior, "--decoder", decoder, "--out", tmp_path)
        assert done.code == 2
        assert done.err.startswith(f"wassily: error: --prior {prior} makes embeddings of ")
        assert done.err.count("\n") == 1
