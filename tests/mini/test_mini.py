"""The bundled model: it loads in plain diffusers, draws what it is told, and can be taught."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import diffusers
import pytest
import torch
from helpers import run_cli
from PIL import Image

from wassily.commands import demo
from wassily.mini import judge, world
from wassily.models import names
from wassily.models.parts import MINI, PARTS, load

README = Path(__file__).resolve().parents[2] / "README.md"
FP32 = torch.float32  # transformers alone would take its parts as they are stored, in fp16


def test_it_is_small_and_whole() -> None:
    """The five networks and what goes with them: safetensors in fp16, 16 MB at most."""
    parts = {role: load(role, names.resolve("mini", p.home)) for role, p in PARTS.items()}
    assert {type(part) for part in parts.values()} == {part.kind for part in PARTS.values()}
    files = [p for p in MINI.rglob("*") if p.is_file() and p.suffix != ".py"]
    assert sum(p.stat().st_size for p in files) < 16e6
    assert {p.suffix for p in files} <= {".safetensors", ".json", ".txt", ".md"} | {".pyc"}
    for home in ("prior", "decoder"):
        index = json.loads((MINI / home / "model_index.json").read_text("utf-8"))
        assert index["_class_name"] in ("KandinskyV22PriorPipeline", "KandinskyV22Pipeline")


@pytest.mark.parametrize(
    "prompt", ["a large red circle on a blue background", "دائرة حمراء كبيرة على خلفية زرقاء"]
)
def test_the_first_picture(prompt: str, tmp_path: Path) -> None:
    """With nothing but the model's name, in both languages: it is what the prompt says."""
    out = tmp_path / "x.png"
    done = run_cli(
        "generate", prompt, "--prior", "mini", "--decoder", "mini", "--out", out, "--seed", 1
    )
    assert (done.code, done.err) == (0, "")
    with Image.open(out) as picture:
        assert picture.size == (world.SIZE, world.SIZE)
        seen = judge.judge(picture.convert("RGB"))
    assert (seen.shape, seen.colour, seen.background) == ("circle", "red", "blue")
    assert (seen.size, seen.count) == ("large", 1)


def test_plain_diffusers_draws_with_it() -> None:
    """The guide's way of joining a prior with a decoder, without a line of ours."""
    prior = diffusers.DiffusionPipeline.from_pretrained(MINI / "prior", torch_dtype=FP32)
    components = {f"prior_{name}": part for name, part in prior.components.items()}
    pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(
        MINI / "decoder", torch_dtype=FP32, **components
    )
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(
        "a large green square on a white background",
        height=world.SIZE,
        width=world.SIZE,
        num_inference_steps=25,
        guidance_scale=demo.DECODER_GUIDANCE,
        prior_guidance_scale=demo.PRIOR_GUIDANCE,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    seen = judge.judge(picture)
    assert (seen.shape, seen.colour, seen.background) == ("square", "green", "white")


def test_the_first_minutes_as_the_readme_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of the quick start that needs no released weights, with fewer steps."""
    start = README.read_text("utf-8").partition("## Quick start")[2].partition("### With")[0]
    blocks = re.findall(r"^```bash\n(.*?)^```$", start, re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("wassily")]
    verbs = [command[0] for command in commands]
    assert verbs == ["generate", "generate", "demo", "train", "train", "generate"]
    monkeypatch.chdir(tmp_path)
    for command in commands:
        fewer = [re.sub(r"^\d{3,}$", "2", word) for word in command]
        more = ["--steps", "2"] if command[0] == "generate" else []
        done = run_cli(*fewer, *more)
        assert done.code == 0, done.text
    assert (tmp_path / "first.png").exists()
    assert (tmp_path / "runs" / "decoder" / "unet").is_dir()
    assert (tmp_path / "zorb.png").exists()


def test_the_vocabulary_stands_in_both_forms() -> None:
    """Older transformers read vocab.json and merges.txt, newer ones tokenizer.json."""
    folder = MINI / "prior" / "tokenizer"
    whole = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    assert json.loads((folder / "vocab.json").read_text("utf-8")) == whole["vocab"]
    merges = (folder / "merges.txt").read_text("utf-8").splitlines()[1:]
    assert [tuple(line.split(" ")) for line in merges] == [tuple(m) for m in whole["merges"]]
