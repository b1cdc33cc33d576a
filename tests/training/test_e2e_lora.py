"""Whole runs with --lora: the base stays as it is, the adapter goes wherever the network went."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e import (
    NETWORK,
    ROLES,
    SIDE,
    assert_same_bits,
    checkpoints,
    command,
    losses,
    pixels,
    ranks,
    refused,
    tensors,
    train,
    wassily,
)
from helpers import run_command
from safetensors import safe_open
from safetensors.torch import load_file
from stand_in_hub import StandInHub

from wassily.mini.untrained import Tiny
from wassily.models import names, parts

FILE, AVERAGED = names.ADAPTER, names.ADAPTER_EMA
STEPS = 8
# An epoch of 7 pictures is 3.5 steps; losses are logged every 3, so checkpoint-2 cuts a window.
SAME: dict[str, Any] = {
    "lora": True,
    "rank": 2,
    "lora_alpha": 4,
    "lora_dropout": 0.1,
    "max_train_steps": STEPS,
    "gradient_accumulation_steps": 2,
    "checkpointing_steps": 2,
    "logging_steps": 3,
    "use_ema": True,
    "learning_rate": 0.02,
    "validation_prompts": ["a robot"],
}
FEW = ["--steps", 2, "--prior_steps", 2, "--height", SIDE, "--width", SIDE, "--seed", 5]


@pytest.fixture(scope="module", params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    """Both networks, one after the other."""
    return request.param


@pytest.fixture(scope="module")
def before(tiny: Tiny) -> dict[Path, bytes]:
    """The base's files as they were."""
    return {p: p.read_bytes() for p in tiny.prior.parent.rglob("*.safetensors")}


@pytest.fixture(scope="module")
def whole(
    role: str,
    before: dict[Path, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    tiny: Tiny,
    photos: Path,
) -> Path:
    """The output folder of the run that was never stopped."""
    out = tmp_path_factory.mktemp(f"lora-{role}") / "run"
    done = train(role, out, tiny, photos, **SAME)
    assert re.search(r"training the \w+: [\d,]+ parameters in \d+ tensors", done.out)
    assert "LoRA of rank 2, alpha 4, dropout 0.1 on to_q, " in done.out
    return out


# ---------------------------------------------------------------- what is left behind


def test_the_output_folder(whole: Path, role: str, before: dict[Path, bytes]) -> None:
    """An adapter, its card, samples and checkpoints of the adapter; nothing of the base, whose own
    files are untouched.
    """
    large = sorted({p.name for p in whole.rglob("*.safetensors")})
    assert large == ["optimizer.safetensors", FILE, AVERAGED]
    assert (whole / "validation" / f"step-{STEPS}" / "00.png").is_file()
    for path, content in before.items():
        assert path.read_bytes() == content, path
    assert all(value.dtype == torch.float32 for value in load_file(whole / FILE).values())


def test_the_header_of_the_file(whole: Path, role: str, tiny: Tiny) -> None:
    """Network, base, rank and alpha; what is exported is the average."""
    with safe_open(whole / FILE, "pt") as file:
        notes = file.metadata()
    base = tiny.prior if role == "prior" else tiny.decoder
    assert (notes["network"], notes["base"]) == (role, base.name)  # no folder of this machine
    assert (notes["rank"], notes["alpha"]) == ("2", "4")
    net = parts.load(NETWORK[role], str(base))
    assert notes["base_fingerprint"] == parts.fingerprint(net)
    last = whole / f"checkpoint-{STEPS}"
    exported, averaged = load_file(whole / FILE), load_file(last / AVERAGED)
    assert all(torch.equal(exported[name], averaged[name]) for name in averaged)
    raw = load_file(last / FILE)
    assert any(not torch.equal(exported[name], raw[name]) for name in raw)
    assert all(value.abs().max() > 0 for value in raw.values())


def test_the_snippet_of_the_card(whole: Path, role: str, tiny: Tiny, tmp_path: Path) -> None:
    """As it stands there, but for size, steps and seed: diffusers alone draws, and not what the
    base does.
    """
    (code,) = re.findall(r"^```python\n(.*?)^```$", (whole / "README.md").read_text(), re.M | re.S)
    few = (
        f"height={SIDE}, width={SIDE}, num_inference_steps=4, prior_num_inference_steps=4,"
        "generator=torch.Generator().manual_seed(5)"
    )
    code = code.replace("torch.float16", "torch.float32")
    code = code.replace('prompt="a robot"', f'prompt="a robot", {few}')
    for name, kept in (("with", True), ("without", False)):
        lines = code.replace("picture.png", str(tmp_path / f"{name}.png"))
        if not kept:
            lines = re.sub(
                r"^pipeline\.\w+\.load_lora_adapter\(.*?^\)\n", "", lines, flags=re.M | re.S
            )
            assert lines.count("load_lora_adapter") == 0
        exec(compile(lines, "card", "exec"), {})
    assert (pixels(tmp_path / "with.png") != pixels(tmp_path / "without.png")).any()


# ---------------------------------------------------------------- going on


def test_a_run_that_goes_on(
    whole: Path, role: str, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """From checkpoint-2, in the middle of an epoch and a window: the same bits, averages too; and
    with gradient checkpointing up to the order of summing.
    """
    for name, more in (("run", {}), ("again", {"gradient_checkpointing": True})):
        out = tmp_path / name
        shutil.copytree(whole / "checkpoint-2", out / "checkpoint-2")
        done = train(role, out, tiny, photos, **SAME, **more, resume_from_checkpoint="latest")
        assert "at step 2" in done.out
        if name == "run":
            assert checkpoints(out) == checkpoints(whole)
            assert_same_bits(whole / f"checkpoint-{STEPS}", out / f"checkpoint-{STEPS}")
            assert torch.equal(*(_first(folder / FILE) for folder in (whole, out)))
        last, other = (dict(_by_step(folder))[STEPS] for folder in (whole, out))
        assert last == pytest.approx(other, rel=1e-5)


def _first(file: Path) -> torch.Tensor:
    return torch.cat([value.flatten() for _, value in sorted(load_file(file).items())])


def _by_step(folder: Path) -> Iterator[tuple[int, float]]:
    for step, loss, _ in losses(folder):
        yield step, loss


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rank": 4}, "rank was 2 and is 4"),
        ({"lora_alpha": 2}, "lora_alpha was 4 and is 2"),
        ({"lora_targets": ["to_q", "to_k"]}, "lora_targets was"),
        ({"use_dora": True}, "use_dora was False and is True"),
    ],
)
def test_another_adapter_is_refused(
    whole: Path, role: str, tiny: Tiny, photos: Path, change: dict[str, Any], field: str
) -> None:
    """By the name of what differs."""
    flags = SAME | change | {"resume_from_checkpoint": "latest"}
    assert field in refused(*command(role, whole, tiny, photos, **flags))


def test_another_base_is_refused(
    whole: Path, role: str, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """An adapter belongs to the weights that it was trained on; and to --lora."""
    base = tmp_path / "base"
    shutil.copytree(tiny.prior if role == "prior" else tiny.decoder, base)
    net = parts.load(NETWORK[role], str(base))
    next(net.parameters()).data.add_(0.1)
    net.save_pretrained(base / NETWORK[role])
    words = command(role, whole, tiny, photos, **SAME, resume_from_checkpoint="latest")
    other = [str(base) if i and words[i - 1].endswith(f"{role}_model_name_or_path") else w
             for i, w in enumerate(words)]  # fmt: skip
    assert "base model was" in refused(*other)
    plain = {k: v for k, v in SAME.items() if "lora" not in k and k != "rank"}
    line = refused(*command(role, whole, tiny, photos, **plain, resume_from_checkpoint="latest"))
    assert "other --lora" in line and FILE in line


def test_a_target_that_is_not_there(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Named before pictures are read or weights are loaded, with those that are there."""
    words = command(role, tmp_path / "run", tiny, photos, lora=True, lora_targets=["to_q", "to_x"])
    line = refused(*words)
    assert "--lora_targets to_x" in line and "to_out.0" in line
    assert not (tmp_path / "run").exists()


def test_own_targets_with_commas(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """As diffusers' scripts write them."""
    flags = {"lora": True, "lora_targets": ["to_q,to_v"], "max_train_steps": 1, "use_dora": True}
    train(role, tmp_path, tiny, photos, **flags)
    layers = {re.search(r"(\w+)\.lora_", name)[1] for name in load_file(tmp_path / FILE)}  # type: ignore[index]
    assert layers == {"to_q", "to_v"}


# ---------------------------------------------------------------- processes, precision


def test_two_processes(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Two gloo processes of batch 1 have the losses and the adapter of one of batch 2, up to the
    order of summing (a step is in proportion to its gradient by the large epsilon).
    """
    flags = {"lora": True, "use_ema": True, "max_train_steps": 5, "logging_steps": 1}
    flags |= {"adam_epsilon": 0.01, "learning_rate": 0.1, "gradient_checkpointing": True}
    words = command(role, tmp_path / "two", tiny, photos, **flags)
    for code, output in ranks(2, words, tmp_path / "output"):
        assert code == 0, output
    train(role, tmp_path / "one", tiny, photos, **flags, train_batch_size=2)
    for (_, one, _), (_, two, _) in zip(
        *map(losses, (tmp_path / "one", tmp_path / "two")), strict=True
    ):
        assert one == pytest.approx(two, rel=1e-5)
    one, two = (tensors(tmp_path / n / "checkpoint-5") for n in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_compiled(tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """The losses of the plain run, names as ever, and the same bits after a stop."""
    flags = SAME | {"logging_steps": 1, "lora_dropout": 0.0, "max_train_steps": 4}
    train("prior", tmp_path / "plain", tiny, photos, **flags)
    flags |= {"compile": True}
    train("prior", tmp_path / "whole", tiny, photos, **flags)
    plain, compiled = (losses(tmp_path / name) for name in ("plain", "whole"))
    assert [loss for _, loss, _ in compiled] == pytest.approx([x for _, x, _ in plain], rel=1e-4)
    one, two = (load_file(tmp_path / name / FILE) for name in ("plain", "whole"))
    assert one.keys() == two.keys()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "rest" / "checkpoint-2")
    train("prior", tmp_path / "rest", tiny, photos, **flags, resume_from_checkpoint="latest")
    assert_same_bits(tmp_path / "whole" / "checkpoint-4", tmp_path / "rest" / "checkpoint-4")


def test_bf16_keeps_the_base_short(role: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """The adapter in fp32, losses near those of fp32, and a resume with the same bits."""
    flags = SAME | {"mixed_precision": "bf16", "max_train_steps": 4, "logging_steps": 1}
    train(role, tmp_path / "whole", tiny, photos, **flags)
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "run" / "checkpoint-2")
    train(role, tmp_path / "run", tiny, photos, **flags, resume_from_checkpoint="latest")
    assert_same_bits(tmp_path / "whole" / "checkpoint-4", tmp_path / "run" / "checkpoint-4")
    assert {v.dtype for v in load_file(tmp_path / "run" / FILE).values()} == {torch.float32}
    train(role, tmp_path / "plain", tiny, photos, **flags | {"mixed_precision": "no"})
    for (_, one, _), (_, two, _) in zip(
        *map(losses, (tmp_path / "whole", tmp_path / "plain")), strict=True
    ):
        assert one == pytest.approx(two, rel=0.02)


# ---------------------------------------------------------------- drawing


def _draw(out: Path, tiny: Tiny, **flags: Any) -> Any:
    named = {"prior": tiny.prior, "decoder": tiny.decoder} | flags
    words = [word for name, value in named.items() for word in (f"--{name}", value)]
    done = wassily("generate", "a robot", *FEW, *words, "--out", out)
    assert done.code == 0, done.text
    return pixels(out)


def test_all_ways_to_draw_with_it(whole: Path, role: str, tmp_path: Path, tiny: Tiny) -> None:
    """The output folder, the file and the last checkpoint as an adapter, and the output folder and
    the checkpoint as the model itself: one picture. At scale 0 it is the base's.
    """
    base = _draw(tmp_path / "base.png", tiny)
    last = whole / f"checkpoint-{STEPS}"
    ways = [{f"{role}_lora": name} for name in (whole, whole / FILE, last)]
    ways += [{role: name} for name in (whole, last)]
    drawn = [_draw(tmp_path / f"{n}.png", tiny, **way) for n, way in enumerate(ways)]
    assert (drawn[0] != base).any()
    assert all((one == drawn[0]).all() for one in drawn)
    none, half = (_draw(tmp_path / f"s{s}.png", tiny, **ways[0], lora_scale=s) for s in (0, 0.5))
    assert (none == base).all()
    assert (half != base).any() and (half != drawn[0]).any()


def test_a_merged_folder_draws_the_same(whole: Path, role: str, tmp_path: Path, tiny: Tiny) -> None:
    """`wassily merge` writes a stock folder; half of the adapter is what half of it draws."""
    for scale in ([], ["--lora_scale", 0.5]):
        out = tmp_path / f"merged-{len(scale)}"
        done = wassily("merge", "--lora", whole, "--out", out, *scale)
        assert done.code == 0, done.text
        flags = {"lora_scale": 0.5} if scale else {}
        expected = _draw(tmp_path / "a.png", tiny, **{f"{role}_lora": whole}, **flags)
        assert (_draw(tmp_path / "b.png", tiny, **{role: out}) == expected).all()


def test_what_is_no_adapter(whole: Path, role: str, tmp_path: Path, tiny: Tiny) -> None:
    """Told before anything is drawn."""
    other = {"prior": "decoder", "decoder": "prior"}[role]
    draw = ["generate", "a", "--prior", tiny.prior, "--decoder", tiny.decoder, "--out", tmp_path]
    line = refused(*draw, f"--{other}_lora", whole)
    assert f"an adapter of a {role}, not of a {other}" in line
    assert "no adapter there" in refused(*draw, f"--{role}_lora", tmp_path)
    assert "no such adapter" in refused(*draw, f"--{role}_lora", tmp_path / "none")
    assert "--lora_scale does nothing" in refused(*draw, "--lora_scale", 0.5)
    start = f"--pretrained_{role}_model_name_or_path"
    line = refused("train", role, "--train_data_dir", tmp_path, start, whole)
    assert "wassily merge" in line


# ---------------------------------------------------------------- the hub


def test_the_adapter_is_uploaded(tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """With its card and samples, and nothing else; no folder of this machine is named in it."""
    with StandInHub() as server:
        flags = {"lora": True, "max_train_steps": 1, "push_to_hub": True, "hub_model_id": "fox"}
        flags |= {"validation_prompts": ["a"], "hub_prior_id": "me/prior"}
        words = command("decoder", tmp_path / "run", tiny, photos, **flags)
        done = run_command("wassily", *words, env=server.environment())
        assert done.returncode == 0, done.stderr
        files = server.repositories["someone/fox"]
    assert {".gitattributes", *files} == {".gitattributes", "README.md", "samples.png", FILE}
    with safe_open(tmp_path / "run" / FILE, "pt") as file:
        assert str(tiny.prior.parent) not in json.dumps(file.metadata())
    card = (tmp_path / "run" / "README.md").read_text("utf-8")
    assert str(tiny.decoder) not in card
    assert "base_model_relation: adapter" in card
