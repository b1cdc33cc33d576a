"""`wassily evaluate`: whole evaluations of tiny models, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from e2e import refused, train, wassily
from helpers import ROOT, read_jsonl, write_folder
from PIL import Image

from wassily import cli
from wassily.config import parsing
from wassily.config.evaluation import EvaluateConfig
from wassily.data import png
from wassily.errors import UserError
from wassily.evaluation import evaluate
from wassily.generation.pipelines import decoder_pipeline, prior_pipeline
from wassily.mini import world
from wassily.mini.untrained import SIDE, Tiny
from wassily.models import encode, parts
from wassily.training_data import holdout, training_set

sys.path.insert(0, str(ROOT))

from tools.mini import prompts

FEW = ("--steps", 2, "--prior_steps", 2, "--max_prompts", 4)


@pytest.fixture(scope="module")
def pics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    captions = [f"a picture, number {n}" for n in range(10)]
    return write_folder(tmp_path_factory.mktemp("eval") / "pics", captions)


def _scores(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    found = json.loads(path.read_text("utf-8"))["scores"]
    return {(score["group"], score["name"]): score for score in found}


def _evaluate(tiny: Tiny, out: Path, *words: object) -> tuple[str, dict[Any, Any]]:
    where = ("--prior", tiny.prior, "--decoder", tiny.decoder, "--out", out)
    done = wassily("evaluate", *where, *FEW, *words)
    assert done.code == 0, done.text
    return done.out, _scores(out)


def test_a_prior_that_was_trained_against_its_base(tiny: Tiny, pics: Path, tmp_path: Path) -> None:
    """On the pictures that its training held out: the losses are the log's, of the base at step 0
    and of the result at the end; the decoder, which is the same, has changed nothing.
    """
    flags = {"holdout": 0.4, "max_train_steps": 3, "learning_rate": 1e-2}
    train("prior", tmp_path / "run", tiny, pics, **flags)
    words = ("--train_data_dir", pics, "--holdout", 0.4, "--seed", 7, "--base_prior", tiny.prior)
    out, found = _evaluate(tiny, tmp_path / "s.json", *words, "--prior", tmp_path / "run")
    lines = list(read_jsonl(tmp_path / "run" / "log.jsonl"))
    first, last = [line["loss"] for line in lines if line.get("event") == "held_out"]
    loss = found["prior loss", "loss"]
    assert loss["tuned"]["value"] == pytest.approx(last, rel=1e-4)
    assert loss["base"]["value"] == pytest.approx(first, rel=1e-4)
    assert found["decoder loss", "loss"]["change"]["value"] == 0
    assert found["decoder", "source"]["change"]["value"] == 0
    assert found["prior", "picture"]["change"]["value"] != 0
    assert found["english", "drift"]["tuned"]["value"] < 1
    assert found["arabic", "drift"]["tuned"]["n"] == 2
    for group in ("prior", "decoder", "both", "english", "arabic"):
        assert any(key[0] == group for key in found)
    assert re.search(r"text to its drawn picture +-?0\.\d{4} \[", out)
    assert "change" in out


def test_a_model_against_itself(tiny: Tiny, pics: Path, tmp_path: Path) -> None:
    """Nothing changed, to the bit; the same command gives the same file; all pictures are taken
    when no share is named, up to the limit.
    """
    base = ("--base_prior", tiny.prior, "--base_decoder", tiny.decoder)
    words = ("--train_data_dir", pics, "--max_pictures", 3, *base)
    _, found = _evaluate(tiny, tmp_path / "s.json", *words)
    changes = [score["change"] for score in found.values() if score["change"]]
    assert len(changes) > 20
    assert all(change["value"] == change["low"] == change["high"] == 0 for change in changes)
    assert found["prior", "picture"]["tuned"]["n"] == 3
    first = (tmp_path / "s.json").read_bytes()
    _evaluate(tiny, tmp_path / "s.json", *words)
    assert (tmp_path / "s.json").read_bytes() == first


def test_prompts_alone(tiny: Tiny, tmp_path: Path) -> None:
    """A file of them, no pictures, no base: the two scores, from pictures that are the stock
    pipeline's, looked at by the stock encoders.
    """
    asked = ["a red cat", "قطة", "x"]
    file = tmp_path / "mine.txt"
    file.write_text("\n\n".join(asked), "utf-8")
    words = ("--prompts", file, "--max_prompts", 9, "--save_pictures", tmp_path / "drawn")
    out, found = _evaluate(tiny, tmp_path / "s.json", *words, "--batch_size", 2)
    assert set(found) == {("mine", "clip"), ("mine", "text")}
    assert "change" not in out
    stock = diffusers.AutoPipelineForText2Image.from_pretrained(tiny.decoder)
    processor = parts.load("image_processor", str(tiny.prior))
    cosines = []
    for number, prompt in enumerate(asked):
        with Image.open(tmp_path / "drawn" / "tuned" / f"mine-{number:03d}.png") as picture:
            assert picture.text["prompt"] == prompt
            drawn = picture.copy()
        expected = stock(
            prompt,
            height=SIDE,
            width=SIDE,
            num_inference_steps=2,
            prior_num_inference_steps=2,
            generator=torch.Generator().manual_seed(number),
        ).images[0]
        assert torch.allclose(
            *(torch.tensor(list(p.tobytes())).float() for p in (drawn, expected)), atol=1
        )
        with torch.no_grad():
            pixels = encode.clip_pixels(drawn, processor=processor)[None]
            image = stock.prior_image_encoder(pixels).image_embeds
            ids = stock.prior_tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
            text = stock.prior_text_encoder(ids).text_embeds
        cosines.append(float(torch.cosine_similarity(image, text)))
    value = found["mine", "clip"]["tuned"]["value"]
    assert value == pytest.approx(sum(cosines) / 3, abs=2e-3)


def test_a_checkpoint_and_pictures_that_cannot_be_read(
    tiny: Tiny, pics: Path, tmp_path: Path
) -> None:
    """A checkpoint folder is a network to evaluate; a broken picture is left out, and said."""
    train("decoder", tmp_path / "run", tiny, pics, max_train_steps=1)
    broken = tmp_path / "pics"
    shutil.copytree(pics, broken)
    (broken / "03.png").write_bytes(b"no picture")
    words = ("--decoder", tmp_path / "run" / "checkpoint-1", "--train_data_dir", broken)
    out, found = _evaluate(tiny, tmp_path / "s.json", *words)
    assert "left out 1 of 10 pictures" in out
    assert found["decoder", "kid"]["tuned"]["n"] == 9
    assert found["decoder", "kid"]["base"] is None


def test_the_lists() -> None:
    """100 different prompts in each language, line by line the same in both; Arabic is Arabic."""
    for config in (EvaluateConfig(), EvaluateConfig(prompts="mini")):
        lists = evaluate.prompt_lists(config)
        assert list(lists) == ["english", "arabic"]
        for lines in lists.values():
            assert len(set(lines)) == len(lines) == 100
        assert all(p.isascii() or "é" in p for p in lists["english"])
        assert all(re.search("[\u0621-\u064a]", p) for p in lists["arabic"])
    for given in ({"prior": "mini"}, {"base_prior": "mini"}, {"prompts": "mini"}):
        own = evaluate.prompt_lists(EvaluateConfig(**given))
        assert own == lists
    few = evaluate.prompt_lists(EvaluateConfig(max_prompts=64))
    assert [len(lines) for lines in few.values()] == [32, 32]


def test_the_bundled_models_list_is_of_its_world() -> None:
    """Written by the tool, and what it writes now; both languages ask for the same scenes."""
    lists = evaluate.prompt_lists(EvaluateConfig(prompts="mini"))
    for name, code in prompts.LANGUAGES.items():
        assert [prompt for prompt, _ in prompts.pairs(code)] == lists[name]
    scenes = [[scene for _, scene in prompts.pairs(code)] for code in ("en", "ar")]
    assert scenes[0] == scenes[1]


def test_pictures_of_the_little_world_are_judged(tmp_path: Path) -> None:
    """The scenes as they should be are all right; those of the next prompt are not."""
    asked = prompts.pairs("en")[:6]
    for number, (prompt, scene) in enumerate(asked):
        for side, shown in (("tuned", scene), ("base", asked[(number + 1) % 6][1])):
            path = tmp_path / side / f"english-{number:03d}.png"
            png.save_png(world.draw(shown), path, {"prompt": prompt})
    lines = prompts.report(tmp_path)
    assert [line.split("%")[0].split() for line in lines] == [
        ["base,", "english", "0.0"],
        ["tuned,", "english", "100.0"],
        ["change,", "english", "100.0"],
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--holdout", 0.1), "--holdout without pictures"),
        (("--holdout", 1, "--train_data_dir", "{tmp}"), "--holdout: 1 is not in [0, 1)"),
        (("--prompts", "{tmp}/none.txt"), "--prompts {tmp}/none.txt"),
        (("--prompts", "{tmp}/one.txt"), "at least 2 prompts"),
        (("--prior", "{tmp}"), "no sub-folder 'prior'"),
        (("--base_decoder", "{prior}"), "it is a prior's"),
        (("--base_prior", "mini"), "--base_prior mini has embeddings of"),
        (("--base_decoder", "mini"), "--base_decoder mini has embeddings of"),
        (("--train_data_dir", "{tmp}/single"), "at least 2 pictures are needed, not 1"),
        (("--out", "{tmp}/scores.txt"), "--out {tmp}/scores.txt: name a .json file"),
        (("--out", "{tmp}/one.txt/a.json"), "--out {tmp}/one.txt"),
        (("--resolution", 30), "--resolution: 30 is not a multiple of 8"),
        (("--max_prompts", 1), "--max_prompts: 1 is less than 2"),
        (("--steps", 1001), "more than the 1000"),
        (("--train_data_dir", "a", "--dataset_name", "b"), "both given"),
        (("--train_data_dir", "{tmp}/none"), "--train_data_dir {tmp}/none: no such folder"),
        (("--dataset_config_name", "b"), "--dataset_config_name belongs to --dataset_name"),
    ],
)
def test_mistakes(
    words: tuple[object, ...], message: str, tiny: Tiny, pics: Path, tmp_path: Path
) -> None:
    """One line, before anything is drawn."""
    (tmp_path / "one.txt").write_text("one\n")
    write_folder(tmp_path / "single", ["a"])
    names = {"tmp": tmp_path, "prior": tiny.prior, "pics": pics}
    given = [w.format(**names) if isinstance(w, str) else w for w in words]
    base = [w for w in ("--prior", tiny.prior, "--decoder", tiny.decoder) if "--prior" not in given]
    assert message.format(**names) in refused("evaluate", *base, *given)


def test_a_redrawing_begins_from_the_pictures_own_embedding(
    tiny: Tiny, pics: Path, tmp_path: Path
) -> None:
    """As the stock decoder pipeline paints it, with the embedding of nothing as its negative."""
    config = EvaluateConfig(
        prior=str(tiny.prior),
        decoder=str(tiny.decoder),
        train_data_dir=str(pics),
        max_pictures=2,
        steps=2,
        prior_steps=2,
        cache_dir=str(tmp_path),
        save_pictures=str(tmp_path),
    )
    names = evaluate.located(config).tuned
    pipelines = (
        prior_pipeline(str(tiny.prior), torch.float32, None),
        decoder_pipeline(str(tiny.decoder), torch.float32, None),
    )
    evaluator = evaluate.Evaluator(config, *pipelines, torch.device("cpu"), {})
    evaluator.hold_out(names, 1)
    evaluator.outcome("tuned")
    assert evaluator.truth is not None
    own = torch.from_numpy(evaluator.truth.pictures)
    drawn = pipelines[1](
        image_embeds=own,
        negative_image_embeds=pipelines[0].get_zero_embed(2, "cpu"),
        height=SIDE,
        width=SIDE,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(n) for n in range(2)],
    ).images
    for number, expected in enumerate(drawn):
        with Image.open(tmp_path / "tuned" / f"redrawn-{number:03d}.png") as picture:
            assert picture.tobytes() == expected.tobytes()
    order = holdout.held_out(
        holdout.contents_of(training_set.named_images(config, config.caption_column)), 1.0
    )
    assert evaluator.captions == [f"a picture, number {n}" for n in order[:2]]


def test_a_name_that_is_no_list() -> None:
    """The message names the flag."""
    with pytest.raises(UserError, match="--prompts builtins"):
        evaluate.prompt_lists(EvaluateConfig(prompts="builtins"))


@pytest.mark.docs
def test_the_commands_of_the_page(tiny: Tiny, tmp_path: Path, monkeypatch: Any) -> None:
    """Those of docs/evaluating.md, in their order, on tiny models and few steps; the bundled
    model's are taken by their parser.
    """
    write_folder(tmp_path / "pics", [f"a fox, number {n}" for n in range(12)])
    (tmp_path / "my_prompts.txt").write_text("a red fox\nثعلب أحمر\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "evaluating.md").read_text("utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", page, re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("wassily ")]
    verbs = ["train"] * 2 + ["evaluate"] * 3 + ["train", "report", "sweep", "evaluate"]
    assert [words[0] for words in commands] == verbs
    stand_ins = {
        "kandinsky-community/kandinsky-2-2-prior": str(tiny.prior),
        "kandinsky-community/kandinsky-2-2-decoder": str(tiny.decoder),
    }
    few = ["--steps", "2", "--prior_steps", "2", "--max_prompts", "4"]
    small = ["--max_train_steps", "2", "--resolution", str(SIDE), "--report_to", "none"]
    for home in ("prior", "decoder"):
        small += [f"--pretrained_{home}_model_name_or_path", str(getattr(tiny, home))]
    for words in commands:
        parsed = (
            parsing.parse(cli.VERBS[(words[0],)][0], words[1:], "x") if "mini" in words else None
        )
        if parsed is None:
            given = [stand_ins.get(word, word) for word in words]
            more = {"train": small, "report": [], "sweep": [*few, "--decoder", str(tiny.decoder)]}
            done = wassily(*given, *more.get(words[0], few))
            assert done.code == 0, done.text
    assert _scores(tmp_path / "scores.json")["prior loss", "loss"]["change"]["n"] >= 2
