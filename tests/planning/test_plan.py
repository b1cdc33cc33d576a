"""`wassily plan` and `--preset`: what is told before anything is loaded, and which flag wins."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from e2e import ROLES, command, refused
from helpers import ROOT, run_cli, run_command

from wassily.config import parsing, presets
from wassily.config.training import DECODER, PRIOR, DecoderPlan, PriorPlan
from wassily.mini.untrained import Tiny
from wassily.models import adapters, names, parts
from wassily.planning import plan

PLANS = {"prior": PriorPlan, "decoder": DecoderPlan}


def _names(tiny: Tiny) -> dict[str, Any]:
    return {
        "pretrained_prior_model_name_or_path": str(tiny.prior),
        "pretrained_decoder_model_name_or_path": str(tiny.decoder),
        "resolution": 32,
    }


def _plan(role: str, tiny: Tiny, **flags: Any) -> str:
    words = [str(w) for name, value in (_names(tiny) | flags).items() for w in (f"--{name}", value)]
    done = run_cli("plan", role, *words)
    assert done.code == 0, done.text
    return done.out


def _row(text: str, name: str) -> list[str]:
    return re.search(rf"^  {name} +(.*)$", text, re.M)[1].split()  # type: ignore[index]


def test_a_flag_of_the_preset_is_not_told_as_ones_own(tmp_path: Path) -> None:
    """Who typed only the preset and an accumulation is told where the other flag comes from."""
    words = ("train", "prior", "--train_data_dir", tmp_path, "--gradient_accumulation_steps", "4")
    assert "--gradient_release (of --preset 8gb) and --gradient_accumulation_steps 4" in refused(
        *words, "--preset", "8gb"
    )
    assert "--gradient_release and --gradient_acc" in refused(*words, "--gradient_release")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("measure", [plan.at_most, lambda *known: plan.estimate(*known, "no")])
def test_every_part_is_looked_for_in_cache_dir(
    role: str, measure: Any, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler as well as the networks."""
    asked, real = [], parts.load_config

    def load_config(role: str, repository: str, cache_dir: str | None = None) -> dict[str, Any]:
        asked.append((role, cache_dir))
        return real(role, repository, cache_dir)

    monkeypatch.setattr(parts, "load_config", load_config)
    config = PLANS[role](**_names(tiny), cache_dir=str(tmp_path))
    measure(config, {"prior": str(tiny.prior), "decoder": str(tiny.decoder)})
    assert parts.TRAINED[role] in dict(asked)
    assert {where for _, where in asked} == {str(tmp_path)}


@pytest.mark.parametrize("role", ROLES)
def test_without_data(role: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds and moments, and what would tell more; no weight is read."""
    monkeypatch.setattr(parts, "load", None)
    text = _plan(role, tiny, gpu_memory=1)
    assert re.search(r"^ +encoding +step +update$", text, re.M)
    assert [cell != "-" for cell in _row(text, "encoders")] == [True, False, False]
    assert _row(text, r"context, gaps \(assumed\)") == ["0.60"] * 3
    assert "memory: 0.6 GB fits 1.0 GB" in text
    assert "pictures: none named" in text and "--pictures_per_second N" in text
    assert "does not fit 0.1 GB, nor does any preset" in _plan(role, tiny, gpu_memory=0.1)


def test_steps_disk_and_time(tiny: Tiny, photos: Path) -> None:
    """Of 7 pictures, or of as many as there will be."""
    text = _plan("prior", tiny, train_data_dir=photos, train_batch_size=2, num_train_epochs=3)
    assert "pictures: 7, global batch 2 on one process: 11 steps = 3.1 epochs" in text
    text = _plan("decoder", tiny, pictures=1000, max_train_steps=7200, pictures_per_second=2)
    assert "7200 steps = 7.2 epochs" in text and "15 checkpoint(s)" in text
    assert "time: 1.0 h for 7200 steps at 2 pictures/s" in text
    text = _plan("decoder", tiny, pictures=10, max_train_steps=7200, checkpoints_total_limit=3)
    assert "4 checkpoint(s)" in text


def test_held_out_pictures_are_not_trained_on(tiny: Tiny, photos: Path) -> None:
    """About their share of the pictures, and two at least, as the training does it."""
    text = _plan("prior", tiny, train_data_dir=photos, holdout=0.01, num_train_epochs=4)
    assert "pictures: 7, about 2 of them held out, global batch 1 on one process: 20 steps" in text
    text = _plan("decoder", tiny, pictures=1000, holdout=0.1, max_train_steps=1800)
    assert "1800 steps = 2.0 epochs" in text
    line = refused("plan", "decoder", "--pictures", "2", "--holdout", "0.5")
    assert line.endswith("--holdout 0.5: none of 2 pictures is left to train on")


def test_a_training_by_hand(tiny: Tiny) -> None:
    """Weights, two moments, an average and gradients in fp32; halves with what rounding lost."""
    repositories = names.repositories(str(tiny.prior), str(tiny.decoder))
    net = parts.load("prior", repositories["prior"])
    count = sum(p.numel() for p in net.parameters())
    trained = count - 2 * net.config.embedding_dim

    def found(**flags: Any) -> tuple[dict[str, int], int]:
        made = plan.estimate(PriorPlan(**_names(tiny), **flags), repositories, "no")
        return dict(made.moments["update"]), made.checkpoint

    full = {"weights": 4 * count, "optimizer state": 8 * trained, "gradients": 4 * trained}
    assert found(use_ema=True) == (full | {"EMA": 4 * trained}, 4 * count + 12 * trained)
    half = {"weights": 2 * count, "optimizer state": 6 * trained, "gradients": 2 * trained}
    assert found(weights_dtype="bf16", adam_beta2=0.99)[0] == half
    released = found(
        weights_dtype="bf16", adam_beta2=0.99, gradient_release=True, max_grad_norm=0.0
    )[0]
    assert released == {k: v for k, v in half.items() if k != "gradients"}


@pytest.mark.parametrize("role", ROLES)
def test_an_adapter_by_hand(role: str, tiny: Tiny) -> None:
    """The frozen network in 16 bits but for its norms; all the rest is the adapter's, in fp32, and
    so is a checkpoint.
    """
    repositories = names.repositories(str(tiny.prior), str(tiny.decoder))
    made = PLANS[role](**_names(tiny), lora=True, mixed_precision="bf16", use_ema=True)
    net: Any = parts.load(parts.TRAINED[role], repositories[role])
    adapters.chosen_adaptation(made).attach(net, torch.bfloat16, 0)
    trained = sum(p.numel() for p in adapters.trained_parameters(net).values())
    found = plan.estimate(made, repositories, "bf16")
    assert dict(found.moments["update"]) == {
        "weights": sum(p.numel() * p.element_size() for p in net.parameters()),
        "optimizer state": 8 * trained,
        "EMA": 4 * trained,
        "gradients": 4 * trained,
    }
    assert found.checkpoint == 16 * trained


def test_help_is_quick_and_a_bad_flag_is_found_first() -> None:
    """Before anything heavy: neither imports torch."""
    code = (
        "import sys\nfrom wassily.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', 'torch' in sys.modules or 'numpy' in sys.modules)\n"
    )
    for words in (["--help"], ["--gpu_memory", "-1"]):
        done = run_command("python", "-c", code, "plan", "prior", *words)
        assert "HEAVY False" in done.stdout
    assert refused("plan", "prior", "--gpu_memory", "0").endswith(
        "--gpu_memory: 0.0 is not above 0"
    )
    line = refused("plan", "prior", "--gpu_memory", "1e300")
    assert line.endswith("--gpu_memory: 1e+300 is in GB; it is not below 1e6")
    assert "plan needs the network" in refused("plan")


def test_what_a_launch_would_refuse_is_refused(tiny: Tiny) -> None:
    """Weights in bf16 with nothing said of the arithmetic, here and on the command line."""
    models = ["--pretrained_prior_model_name_or_path", tiny.prior]
    models += ["--pretrained_decoder_model_name_or_path", tiny.decoder]
    line = refused("plan", "decoder", *models, "--weights_dtype", "bf16")
    assert "add --mixed_precision bf16" in line


# ---------------------------------------------------------------- presets


def _parse(role: str, folder: Path, *words: str) -> Any:
    name = f"{role.capitalize()}Config"
    return parsing.parse(name, ["--train_data_dir", str(folder), *words], "x")


def test_flags_win_over_the_file_and_both_over_the_preset(tmp_path: Path) -> None:
    """As one would read it; a switch that the preset turns on may be named, or turned off."""
    made = _parse("decoder", tmp_path, "--preset=12gb")
    for key, value in presets.PRESETS["decoder"]["12gb"].items():
        assert getattr(made, key) == value
    file = tmp_path / "run.toml"
    file.write_text('preset = "16gb"\nmixed_precision = "no"\nweights_dtype = "fp32"\n', "utf-8")
    made = _parse("decoder", tmp_path, "--config", str(file), "--gradient_checkpointing")
    assert (made.preset, made.mixed_precision) == ("16gb", "no")
    assert made.gradient_checkpointing
    off = _parse("decoder", tmp_path, "--preset", "16gb", "--no_gradient_checkpointing")
    assert not off.gradient_checkpointing
    assert (
        _parse("prior", tmp_path, "--preset", "24gb", "--mixed_precision", "fp16").preset == "24gb"
    )
    assert _parse("prior", tmp_path).mixed_precision is None


@pytest.mark.parametrize("role", ROLES)
def test_a_preset_of_an_adapter(role: str, tmp_path: Path) -> None:
    """Nothing that only the whole network needs; every size there is, --lora by flag or by file."""
    file = tmp_path / "run.toml"
    file.write_text("lora = true\n", "utf-8")
    for name in ("8gb", "12gb", "80gb"):
        for words in (["--lora"], ["--config", str(file)]):
            made = _parse(role, tmp_path, "--preset", name, *words)
            assert (made.mixed_precision, made.weights_dtype) == ("bf16", "fp32")
            assert made.gradient_checkpointing == (name == "8gb")


@pytest.mark.parametrize("role", ROLES)
def test_an_adapter_of_the_released_model_fits_its_least_preset(role: str) -> None:
    """Both in 8 GB at 768 pixels, in shapes; the figures are those of the page."""
    tool = _page_tool()
    made = PLANS[role](lora=True, resolution=tool.SIDE, **presets.known(role, True)["12gb"])
    repositories = {"prior": PRIOR, "decoder": DECODER}
    found = plan.estimate(made, repositories, "bf16")
    assert found.peak <= 8 * plan.GB
    told = tool.TAIL.split("With `--lora`")[1].split("\n\n")[0]
    assert f"{found.peak_at('step') / plan.GB:.1f} GB the {role}" in " ".join(told.split())


def test_a_preset_that_is_none(tmp_path: Path) -> None:
    """An unknown one is refused like any value; so is the size that nothing fits."""
    line = refused("train", "decoder", "--train_data_dir", tmp_path, "--preset", "8gb")
    assert line.endswith("--preset 8gb: the decoder as a whole does not fit; take 12gb")
    assert run_cli("train", "prior", "--train_data_dir", tmp_path, "--preset", "9gb").code == 2


def _page_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("page", ROOT / "tools" / "memory.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("role", ROLES)
def test_the_page_of_memory_is_fresh_and_presets_fit(role: str) -> None:
    """The words around the table, a line for each preset that fits its size; the line of 12 GB is
    worked out anew: the whole released model, in shapes.
    """
    tool = _page_tool()
    text = tool.PAGE.read_text("utf-8")
    assert text.startswith(tool.HEAD) and text.endswith(tool.TAIL)
    lines = re.findall(r"^\| (\w+) \| `(\d+gb)` \| ([\d.]+) \| ([\d.]+) \| `(.*)` \|$", text, re.M)
    assert [(network, name) for network, name, *_ in lines] == tool.rows()
    for network, name, encoding, training, flags in lines:
        assert max(float(encoding), float(training)) <= presets.size(name)
        assert flags == plan.words(presets.PRESETS[network][name])
    assert f"{tool.row(role, '12gb')}\n" in text


# ---------------------------------------------------------------- out of memory


@pytest.mark.parametrize("fuse", ["on", "off"])
def test_out_of_memory_is_one_line(
    fuse: str, tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate and the flag for less, from the middle of a step."""

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("wassily.maths.losses.Prior.forward", full)
    monkeypatch.setattr(
        plan, "estimate", lambda *_: plan.MemoryEstimate({"step": plan.Kinds()}, 0, 0)
    )
    flags = {"gradient_accumulation_steps": 2, "fuse_accumulation": fuse}
    line = refused(*command("prior", tmp_path / "run", tiny, photos, **flags))
    head = "out of memory: the estimate was 0.6 GB; "
    wanted = {"on": "add --fuse_accumulation off", "off": "no preset takes less"}
    assert f"{head}{wanted[fuse]}" in line
