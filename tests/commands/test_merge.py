"""`wassily merge`: mixing by hand, stock folders that load, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoPipelineForText2Image, DiffusionPipeline
from e2e import NETWORK, ROLES, network, refused, train, wassily

from wassily.commands import merge
from wassily.errors import UserError
from wassily.mini import untrained
from wassily.mini.untrained import Tiny
from wassily.models import names, parts
from wassily.models.adapters import Lora

FILE = names.ADAPTER


@pytest.fixture(scope="module", params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    """Both networks, one after the other."""
    return request.param


@pytest.fixture(scope="module")
def tuned(role: str, tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, photos: Path) -> Path:
    """The output folder of a full fine-tune."""
    out = tmp_path_factory.mktemp(f"tuned-{role}") / "run"
    train(role, out, tiny, photos, max_train_steps=2, use_ema=True)
    return out


def _base(role: str, tiny: Tiny) -> Path:
    return tiny.prior if role == "prior" else tiny.decoder


def test_mixing_is_by_the_formula(role: str, tuned: Path, tiny: Tiny, tmp_path: Path) -> None:
    """(1 - alpha) A + alpha B for every weight; the ends are A and B to the bit."""
    a, b = network(_base(role, tiny), role), network(tuned, role)
    for alpha in (0, 0.6, 1):
        out = tmp_path / f"mixed-{alpha}"
        words = ["--base", _base(role, tiny), "--tuned", tuned, "--alpha", alpha, "--out", out]
        done = wassily("merge", *words)
        assert done.code == 0, done.text
        found = network(out, role)
        assert found.keys() == a.keys()
        for name, value in found.items():
            if alpha in (0, 1):
                assert torch.equal(value, (a, b)[alpha][name])
            expected = (1 - alpha) * a[name] + alpha * b[name]
            torch.testing.assert_close(value, expected, atol=1e-7, rtol=1e-5)
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_is_mixed_by_its_average(
    role: str, tuned: Path, tiny: Tiny, tmp_path: Path
) -> None:
    """As `wassily generate` takes it."""
    words = ["--base", _base(role, tiny), "--tuned", tuned / "checkpoint-2", "--alpha", 1]
    assert wassily("merge", *words, "--out", tmp_path / "out").code == 0
    expected = parts.load_network(tuned / "checkpoint-2" / f"{NETWORK[role]}_ema", NETWORK[role])
    found = parts.load_network(tmp_path / "out" / NETWORK[role], NETWORK[role])
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)


def test_the_folder_is_a_stock_one(role: str, tuned: Path, tiny: Tiny, tmp_path: Path) -> None:
    """diffusers loads it; a decoder finds its prior through the card. A second run does not write
    over it.
    """
    out = tmp_path / "out"
    words = ["merge", "--base", _base(role, tiny), "--tuned", tuned, "--alpha", 0.5, "--out", out]
    assert wassily(*words).code == 0
    if role == "prior":
        assert type(DiffusionPipeline.from_pretrained(out)).__name__ == "KandinskyV22PriorPipeline"
    else:
        pipeline = AutoPipelineForText2Image.from_pretrained(out)
        assert pipeline.prior_prior.config.embedding_dim == untrained.EMBEDDING
    assert "mixed with its fine-tune at alpha 0.5" in (out / "README.md").read_text("utf-8")
    assert "there already" in refused(*words)


def test_an_adapter_without_notes(role: str, tiny: Tiny, tmp_path: Path) -> None:
    """Of another program: the names tell the network, and the base must be named."""
    net = parts.load(NETWORK[role], str(_base(role, tiny)))
    lora = Lora(NETWORK[role], rank=2)
    lora.attach(net, torch.float32, 0)
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.data.fill_(0.1)
    lora.save(net, tmp_path)
    words = ["merge", "--lora", tmp_path, "--out", tmp_path / "out"]
    assert "give --base" in refused(*words)
    done = wassily(*words, "--base", _base(role, tiny))
    assert done.code == 0, done.text
    a, b = network(_base(role, tiny), role), network(tmp_path / "out", role)
    changed = [name for name in a if not torch.equal(a[name], b[name])]
    assert changed and all(".to_" in name or ".add_" in name for name in changed)


def test_what_does_not_go_together(role: str, tuned: Path, tiny: Tiny, tmp_path: Path) -> None:
    """An adapter as a fine-tune, another network, another shape, nothing at all."""
    words = ["merge", "--base", _base(role, tiny), "--alpha", 0.5, "--out", tmp_path / "out"]
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    net = parts.load(NETWORK[role], str(_base(role, tiny)))
    lora = Lora(NETWORK[role])
    lora.attach(net, torch.float32, 0)
    lora.save(net, adapter)
    assert "--lora takes it" in refused(*words, "--tuned", adapter)
    assert "no output or checkpoint folder" in refused(*words, "--tuned", tmp_path)
    other = tiny.decoder if role == "prior" else tiny.prior
    assert str(tiny.prior.parent) in refused(*words, "--tuned", other)
    small = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="no fine-tune of --base"):
        merge.interpolate(small, torch.nn.Linear(2, 3), 0.5)
    with pytest.raises(UserError, match="no fine-tune of --base"):
        merge.interpolate(small, torch.nn.Sequential(small, small), 0.5)


def test_out_is_checked_first(tiny: Tiny, tmp_path: Path) -> None:
    """A file, a folder with something in it; an empty one will do."""
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path):
        line = refused("merge", "--lora", tmp_path / "none", "--out", out)
        assert f"--out {out}: there already" in line
    shutil.rmtree(tmp_path / "new", ignore_errors=True)
    (tmp_path / "new").mkdir()
    assert "no such adapter" in refused(
        "merge", "--lora", tmp_path / "none", "--out", tmp_path / "new"
    )
