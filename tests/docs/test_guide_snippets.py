"""The guide's four inference snippets, run on what the trainings leave behind, all of it local.

They are mended as in our documentation: `pipe` is `pipeline`, `negative_prompt` is given one, and
the UNet's snippet imports torch and loads the UNet in the precision of the pipeline, which a part
that is passed in does not take on. Offloading happens only where there is an accelerator.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from e2e import NETWORK, SIDE, pixels, refused, train, wassily

from wassily.mini.untrained import Tiny

HUB_DECODER = "kandinsky-community/kandinsky-2-2-decoder"

PRIOR_SNIPPET = """\
from diffusers import AutoPipelineForText2Image, DiffusionPipeline
import torch

prior_pipeline = DiffusionPipeline.from_pretrained(output_dir, torch_dtype=torch.float16)
prior_components = {"prior_" + k: v for k,v in prior_pipeline.components.items()}
pipeline = AutoPipelineForText2Image.from_pretrained("kandinsky-community/kandinsky-2-2-decoder", **prior_components, torch_dtype=torch.float16)

pipe.enable_model_cpu_offload()
prompt="A robot naruto, 4k photo"
image = pipeline(prompt=prompt, negative_prompt=negative_prompt).images[0]
"""  # noqa: E501

DECODER_SNIPPET = """\
from diffusers import AutoPipelineForText2Image
import torch

pipeline = AutoPipelineForText2Image.from_pretrained("path/to/saved/model", torch_dtype=torch.float16)
pipeline.enable_model_cpu_offload()

prompt="A robot naruto, 4k photo"
image = pipeline(prompt=prompt).images[0]
"""  # noqa: E501

UNET_SNIPPET = """\
from diffusers import AutoPipelineForText2Image, UNet2DConditionModel

unet = UNet2DConditionModel.from_pretrained("path/to/saved/model" + "/checkpoint-<N>/unet")

pipeline = AutoPipelineForText2Image.from_pretrained("kandinsky-community/kandinsky-2-2-decoder", unet=unet, torch_dtype=torch.float16)
pipeline.enable_model_cpu_offload()

image = pipeline(prompt="A robot naruto, 4k photo").images[0]
"""  # noqa: E501

FEW = {
    "height": SIDE,
    "width": SIDE,
    "num_inference_steps": 4,
    "prior_num_inference_steps": 4,
    "output_type": "np",
}


@dataclass(frozen=True)
class Trained:
    """Output folders of both trainings; checkpoint-2 of each is not its end."""

    prior: Path
    decoder: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, photos: Path) -> Trained:
    """Both networks, trained so hard that it shows."""
    folder = tmp_path_factory.mktemp("trained")
    flags: dict[str, Any] = {
        "max_train_steps": 4,
        "checkpointing_steps": 2,
        "learning_rate": 0.03,
        "validation_prompts": ["A robot naruto, 4k photo", "روبوت"],
    }
    train("prior", folder / "prior", tiny, photos, **flags)
    train("decoder", folder / "decoder", tiny, photos, **flags)
    return Trained(folder / "prior", folder / "decoder")


def run_snippet(text: str, **paths: Any) -> np.ndarray:
    """Execute a snippet with its paths put in, half precision and all; a small, seeded picture.

    `decoder` replaces the hub's, `saved` the "path/to/saved/model" and `output_dir` is a variable.
    """
    text = text.replace("pipe.enable", "pipeline.enable")
    if not torch.accelerator.is_available():
        text = text.replace("pipeline.enable_model_cpu_offload()", 'pipeline.to("cpu")')
    text = text.replace(f'"{HUB_DECODER}"', repr(str(paths.get("decoder"))))
    text = text.replace('"path/to/saved/model"', repr(str(paths.get("saved"))))
    text = text.replace("checkpoint-<N>", "checkpoint-2")
    text = re.sub(r"pipeline\((.*)\)\.images", r"pipeline(\1, **few).images", text)
    few = FEW | {"generator": torch.Generator().manual_seed(5)}
    names = {"negative_prompt": "blurry", "output_dir": str(paths.get("output_dir")), "few": few}
    exec(compile(text, "snippet", "exec"), names)
    image = names["image"]
    assert image.shape == (SIDE, SIDE, 3)
    assert np.isfinite(image).all()
    return image


def differ(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two pictures differ by more than rounding would."""
    return bool(np.abs(one - two).max() > 0.02)


# ---------------------------------------------------------------- the snippets


def test_prior_snippet(trained: Trained, tiny: Tiny) -> None:
    """The trained prior with the base decoder, and not the base's picture."""
    image = run_snippet(PRIOR_SNIPPET, output_dir=trained.prior, decoder=tiny.decoder)
    base = run_snippet(PRIOR_SNIPPET, output_dir=tiny.prior, decoder=tiny.decoder)
    assert differ(image, base)


def test_decoder_snippet(trained: Trained, tiny: Tiny) -> None:
    """The output folder alone: its card leads to the prior. Not the base's picture."""
    image = run_snippet(DECODER_SNIPPET, saved=trained.decoder)
    base = run_snippet(DECODER_SNIPPET, saved=tiny.decoder)
    assert differ(image, base)


def test_unet_snippet(trained: Trained, tiny: Tiny) -> None:
    """The UNet of a checkpoint in the base pipeline: neither the base's nor the end's picture."""
    text = UNET_SNIPPET.replace('/unet")', '/unet", torch_dtype=torch.float16)')
    image = run_snippet("import torch\n" + text, saved=trained.decoder, decoder=tiny.decoder)
    base = run_snippet(DECODER_SNIPPET, saved=tiny.decoder)
    end = run_snippet(DECODER_SNIPPET, saved=trained.decoder)
    assert differ(image, base) and differ(image, end)


def test_both_trained_parts(trained: Trained, tiny: Tiny) -> None:
    """The prior's snippet with the trained decoder in the base's place, as its tip says."""
    image = run_snippet(PRIOR_SNIPPET, output_dir=trained.prior, decoder=trained.decoder)
    for prior, decoder in ((trained.prior, tiny.decoder), (tiny.prior, trained.decoder)):
        assert differ(image, run_snippet(PRIOR_SNIPPET, output_dir=prior, decoder=decoder))


# ---------------------------------------------------------------- the folders


def test_the_folders_are_stock_pipelines(trained: Trained) -> None:
    """Each loads by itself as its class, with the trained weights in it."""
    import diffusers

    classes = {"prior": "KandinskyV22PriorPipeline", "decoder": "KandinskyV22Pipeline"}
    for role, name in classes.items():
        folder = getattr(trained, role)
        index = json.loads((folder / "model_index.json").read_text("utf-8"))
        assert index["_class_name"] == name
        pipeline = getattr(diffusers, name).from_pretrained(folder)
        network = getattr(pipeline, NETWORK[role])
        last = type(network).from_pretrained(folder / "checkpoint-4" / NETWORK[role])
        pairs = zip(network.state_dict().values(), last.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_the_frozen_parts_are_the_bases(trained: Trained, tiny: Tiny) -> None:
    """What was not trained is what the run started from, to the bit."""
    from e2e import assert_same_bits

    for part in ("image_encoder", "text_encoder"):
        assert_same_bits(trained.prior / part, tiny.prior / part)
    assert_same_bits(trained.decoder / "movq", tiny.decoder / "movq")
    for part, folders in (("scheduler", "prior"), ("scheduler", "decoder")):
        file = f"{part}/scheduler_config.json"
        ours, base = (
            json.loads((getattr(owner, folders) / file).read_text("utf-8"))
            for owner in (trained, tiny)
        )
        assert ours == base


def test_the_image_processor_is_named_for_all_versions(trained: Trained) -> None:
    """No file of the folder names the PIL flavour, which an older transformers does not know."""
    index = json.loads((trained.prior / "model_index.json").read_text("utf-8"))
    assert index["image_processor"] == ["transformers", "CLIPImageProcessor"]
    for file in trained.prior.rglob("*.json"):
        assert "CLIPImageProcessorPil" not in file.read_text("utf-8"), file


def test_the_cards(trained: Trained, tiny: Tiny) -> None:
    """The YAML header parses; the decoder's `prior` is a folder by its whole path; samples show."""
    from huggingface_hub import ModelCard

    for role in ("prior", "decoder"):
        folder = getattr(trained, role)
        text = (folder / "README.md").read_text("utf-8")
        header = yaml.safe_load(text.split("---")[1])
        assert header["library_name"] == "diffusers"
        assert "kandinsky" in header["tags"]
        assert ModelCard(text).data.to_dict()["license"] == "apache-2.0"
        assert "A robot naruto, 4k photo" in text and "روبوت" in text
        assert "| optimizer steps | 4 |" in text
        assert (folder / "samples.png").is_file()
        if role == "decoder":
            assert header["prior"] == [str(tiny.prior)]
            assert os.path.isabs(header["prior"][0])
        else:
            assert "prior" not in header


def test_the_cards_own_snippets(trained: Trained) -> None:
    """The Python in each card runs as it stands, but for the size and the offloading."""
    for role in ("prior", "decoder"):
        text = (getattr(trained, role) / "README.md").read_text("utf-8")
        code = text.split("```python\n")[1].split("```")[0]
        code = code.replace('image.save("picture.png")\n', "")
        run_snippet(code)


def test_a_relative_prior_is_found_from_elsewhere(
    trained: Trained, tiny: Tiny, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prior named by a relative path is written whole: the decoder loads from any folder."""
    monkeypatch.chdir(trained.prior.parent)
    flags = {"max_train_steps": 1, "pretrained_prior_model_name_or_path": "prior"}
    train("decoder", Path("on-prior"), tiny, photos, **flags)
    monkeypatch.chdir(tmp_path)
    run_snippet(DECODER_SNIPPET, saved=trained.prior.parent / "on-prior")


# ---------------------------------------------------------------- wassily generate


def generate(out: Path, prior: Path, decoder: Path, *more: object) -> list[np.ndarray]:
    """Two small pictures of one prompt, drawn by our command."""
    size = ("--height", SIDE, "--width", SIDE, "--steps", 4, "--prior_steps", 4)
    size += ("--scheduler", "stock")
    models = ("--prior", prior, "--decoder", decoder, "--out", out)
    prompt = "A robot naruto, 4k photo"
    outcome = wassily("generate", prompt, *models, *size, "--num_images", 2, "--seed", 5, *more)
    assert outcome.code == 0, outcome.text
    files = sorted(out.glob("[0-9]*.png"))
    assert len(files) == 2
    return [pixels(file) for file in files]


def test_generate_with_every_kind_of_folder(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """Base, output and checkpoint folders give pictures of their own; the same seed the same."""
    folders = {
        "base": (tiny.prior, tiny.decoder),
        "prior": (trained.prior, tiny.decoder),
        "decoder": (tiny.prior, trained.decoder),
        "both": (trained.prior, trained.decoder),
        "checkpoints": (trained.prior / "checkpoint-2", trained.decoder / "checkpoint-2"),
    }
    drawn = {name: generate(tmp_path / name, *pair) for name, pair in folders.items()}
    names = list(drawn)
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            assert differ(drawn[one][0] / 255, drawn[two][0] / 255), (one, two)
    again = generate(tmp_path / "again", *folders["both"], "--grid")
    assert all(np.array_equal(a, b) for a, b in zip(again, drawn["both"], strict=True))
    assert differ(again[0] / 255, again[1] / 255)
    assert (tmp_path / "again" / "sheet.png").is_file()
    last = (trained.prior / "checkpoint-4", trained.decoder / "checkpoint-4")
    end = generate(tmp_path / "end", *last)
    assert all(np.array_equal(a, b) for a, b in zip(end, drawn["both"], strict=True))


def test_generate_draws_the_snippets_picture(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """Our command and the stock combined pipeline, with the same seed, steps and size."""
    from diffusers import AutoPipelineForText2Image

    ours = generate(tmp_path / "ours", tiny.prior, trained.decoder)[0]
    pipeline = AutoPipelineForText2Image.from_pretrained(trained.decoder)
    stock = pipeline(
        "A robot naruto, 4k photo",
        generator=torch.Generator().manual_seed(5),
        **FEW | {"output_type": "pil"},
    ).images[0]
    assert np.abs(np.asarray(stock).astype(int) - ours.astype(int)).max() <= 1


def test_generate_with_the_wrong_folder(trained: Trained, tmp_path: Path) -> None:
    """Prior and decoder exchanged, a checkpoint of the other, a folder that is none: one line."""
    out = ("--out", tmp_path / "out")
    exchanged = ("--prior", trained.decoder, "--decoder", trained.prior)
    assert "it is a decoder's" in refused("generate", "a cat", *exchanged, *out)
    checkpoint = ("--prior", trained.decoder / "checkpoint-2", "--decoder", trained.decoder)
    assert "a checkpoint of a decoder" in refused("generate", "a cat", *checkpoint, *out)
    nothing = ("--prior", trained.prior, "--decoder", tmp_path)
    assert "no sub-folder 'unet'" in refused("generate", "a cat", *nothing, *out)
    assert not (tmp_path / "out").exists()


def test_a_photograph_is_not_needed_to_start_from_ones_own(
    trained: Trained, tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """Training goes on from an output folder as from any other model."""
    flags = {"max_train_steps": 1, "pretrained_decoder_model_name_or_path": trained.decoder}
    flags["pretrained_prior_model_name_or_path"] = trained.prior
    for role in ("prior", "decoder"):
        train(role, tmp_path / role, tiny, photos, **flags)
        assert (tmp_path / role / "model_index.json").is_file()
