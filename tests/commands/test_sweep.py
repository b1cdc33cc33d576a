"""`wassily sweep`: a row of shares between a base and its fine-tune, measured, and the best."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e import NETWORK, network, refused, train, wassily
from helpers import write_folder
from safetensors.torch import load_file

from wassily.commands import sweep
from wassily.commands.sweep import Line
from wassily.evaluation import metrics
from wassily.evaluation.metrics import Estimate
from wassily.evaluation.scores import GeneratedEmbeddings, Outcome, Truth
from wassily.mini.untrained import Tiny

FEW = ("--steps", 2, "--prior_steps", 2, "--max_prompts", 4)


@pytest.fixture(scope="module")
def pics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("sweep") / "pics", [f"c{n}" for n in range(6)])


@pytest.fixture(scope="module")
def runs(tiny: Tiny, pics: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior as a whole, and an adapter of the decoder."""
    out = tmp_path_factory.mktemp("runs")
    train("prior", out / "prior", tiny, pics, max_train_steps=2)
    train("decoder", out / "decoder", tiny, pics, max_train_steps=2, lora=True)
    return out


def _line(alpha: float, learned: float, kept: float) -> Line:
    one, two = (Estimate(v, v, v, 2) for v in (learned, kept))
    return Line(alpha, one, two, one, two)


# ---------------------------------------------------------------- the rule


def test_the_best_has_the_greatest_sum() -> None:
    """Of equals the smaller share, whatever their order."""
    row = [_line(0, 0.1, 0.9), _line(0.5, 0.5, 0.75), _line(0.75, 0.75, 0.5), _line(1, 0.8, 0.1)]
    assert sweep.best_line(row).alpha == sweep.best_line(row[::-1]).alpha == 0.5


def test_learned_is_a_cosine_to_the_true_picture() -> None:
    """Of the prior's embedding, of the redrawing, or the mean of both; or of text and picture."""
    rng = np.random.default_rng(0)
    true, text, embeds, redrawn, drawn = (rng.normal(size=(4, 3)) for _ in range(5))
    truth = Truth(true, text, np.arange(4))
    side = Outcome(
        GeneratedEmbeddings(embeds, drawn),
        redrawn,
        {},
        {sweep.LEARNED: GeneratedEmbeddings(embeds, drawn)},
    )
    one, two = metrics.cosine(embeds, true), metrics.cosine(redrawn, true)
    assert np.allclose(sweep.learned(side, truth, {}, ["prior"]), one)
    assert np.allclose(sweep.learned(side, truth, {}, ["decoder"]), two)
    assert np.allclose(sweep.learned(side, truth, {}, ["prior", "decoder"]), (one + two) / 2)
    own = sweep.learned(side, None, {sweep.LEARNED: text}, ["prior"])
    assert np.allclose(own, metrics.cosine(text, drawn))


# ---------------------------------------------------------------- whole sweeps


def test_a_prior_between_its_base_and_itself(
    tiny: Tiny, pics: Path, runs: Path, tmp_path: Path
) -> None:
    """The base has no change, the whole share has the scores that `evaluate` gives it, and the
    best is written as `merge` would.
    """
    words = ("--base", tiny.prior, "--tuned", runs / "prior", "--decoder", tiny.decoder)
    files = ("--json", tmp_path / "s.json", "--out", tmp_path / "best")
    asked = ("--train_data_dir", pics, *FEW)
    done = wassily("sweep", *words, *files, *asked, "--alphas", 0, 1)
    assert done.code == 0, done.text
    found = json.loads((tmp_path / "s.json").read_text("utf-8"))
    base, whole = found["alphas"]
    assert base["learned_change"]["value"] == base["kept_change"]["high"] == 0
    assert whole["learned"]["value"] != base["learned"]["value"]
    assert (whole["learned"]["n"], whole["kept"]["n"]) == (6, 4)
    assert re.search(rf"best: alpha {found['best']:g} \(the greatest sum", done.out)
    given = ("--prior", runs / "prior", "--decoder", tiny.decoder, "--out", tmp_path / "e.json")
    assert wassily("evaluate", *given, *asked).code == 0
    scores = json.loads((tmp_path / "e.json").read_text("utf-8"))["scores"]
    theirs = {(s["group"], s["name"]): s["tuned"]["value"] for s in scores}
    assert whole["learned"]["value"] == pytest.approx(theirs["prior", "picture"], abs=1e-5)
    kept = (theirs["english", "clip"] + theirs["arabic", "clip"]) / 2
    assert whole["kept"]["value"] == pytest.approx(kept, abs=1e-5)
    source = tiny.prior if found["best"] == 0 else runs / "prior"
    written = network(tmp_path / "best", "prior")
    expected = load_file(source / NETWORK["prior"] / "diffusion_pytorch_model.safetensors")
    assert len(written) == len(expected)
    assert all(value.equal(expected[name.split(": ")[1]]) for name, value in written.items())


def test_both_networks_and_an_adapter(tiny: Tiny, runs: Path, tmp_path: Path) -> None:
    """A whole prior and an adapter of the decoder share by share, on prompts of one's own; the best
    of each is written.
    """
    file = tmp_path / "new.txt"
    file.write_text("a c1\na c2\nقطة\n", "utf-8")
    words = ("--base", tiny.prior, tiny.decoder, "--tuned", runs / "prior", runs / "decoder")
    more = ("--learned_prompts", file, "--out", tmp_path / "best", "--alphas", 0.5, 1)
    done = wassily("sweep", *words, *more, *FEW)
    assert done.code == 0, done.text
    assert "n = 3 learned, 4 kept" in done.out
    for home in ("prior", "decoder"):
        assert (tmp_path / "best" / home / "model_index.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--base", "mini"), "sweep needs --tuned"),
        (("--tuned", "{runs}/prior"), "sweep needs --base"),
        (("--base", "mini", "--tuned", "{runs}/prior", "{runs}/prior"), "both are a prior"),
        (("--base", "mini", "--tuned", "{pics}"), "no output or checkpoint folder"),
        (("--base", "mini", "--tuned", "x", "--alphas", 1), "at least 2 shares"),
        (("--base", "mini", "--tuned", "x", "--alphas", 0, 2), "2 is not between 0 and 1"),
        (("--base", "mini", "--tuned", "x", "--alphas", 0.5, 0.5), "named twice"),
        (("--base", "mini", "--tuned", "x", "--learned_prompts", "y"), "name one of them"),
        (("--base", "mini", "--tuned", "x", "--json", "y.txt"), "--json y.txt: name a .json"),
        (("--base", "mini", "--tuned", "{runs}/prior", "--out", "{pics}"), "there already"),
    ],
)
def test_mistakes(words: tuple[Any, ...], message: str, pics: Path, runs: Path) -> None:
    """One line, before anything is drawn."""
    given = [w.format(runs=runs, pics=pics) if isinstance(w, str) else w for w in words]
    assert message in refused("sweep", "--train_data_dir", pics, *given)
