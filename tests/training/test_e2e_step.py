"""What makes the step faster or smaller: each against the plain run, and against being stopped."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e import NETWORK, ROLES, assert_same_bits, command, losses, network, refused, train
from torch.utils._python_dispatch import TorchDispatchMode

from wassily.mini.untrained import Tiny
from wassily.models import parts
from wassily.training import run

STEPS = 6
SAME: dict[str, Any] = {"max_train_steps": STEPS, "checkpointing_steps": 3, "logging_steps": 1}
BF16 = {"mixed_precision": "bf16"}
LION = {"optimizer": "lion", "learning_rate": 1e-4}
RELEASE = {"gradient_release": True, "max_grad_norm": 0}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "adafactor": ("decoder", {"optimizer": "adafactor"}),
    "lion": ("prior", LION),
    "bf16": ("prior", {"weights_dtype": "bf16"} | BF16),
    "bf16, decoder": ("decoder", {"weights_dtype": "bf16"} | BF16),
    "bf16, lion": ("decoder", LION | {"weights_dtype": "bf16", "mixed_precision": "bf16"}),
    "released": ("decoder", RELEASE),
    "released, bf16": ("prior", RELEASE | {"weights_dtype": "bf16"} | BF16),
}
if importlib.util.find_spec("bitsandbytes"):  # too large for the set-up of the tests
    WAYS["adamw8bit"] = ("decoder", {"optimizer": "adamw8bit"})


@pytest.mark.parametrize("way", WAYS)
def test_stopped_and_resumed(way: str, tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """From its checkpoint on, a run has the bits of the one that was not stopped, average
    included; what it leaves has the names of what it started from.
    """
    role, more = WAYS[way]
    flags = SAME | more | {"use_ema": True}
    train(role, tmp_path / "whole", tiny, photos, **flags)
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "rest" / "checkpoint-3")
    train(role, tmp_path / "rest", tiny, photos, **flags, resume_from_checkpoint="latest")
    last = f"checkpoint-{STEPS}"
    assert_same_bits(tmp_path / "whole" / last, tmp_path / "rest" / last)
    assert_same_bits(tmp_path / "whole" / NETWORK[role], tmp_path / "rest" / NETWORK[role])
    assert losses(tmp_path / "whole")[3:] == losses(tmp_path / "rest")
    assert all(math.isfinite(loss) for _, loss, _ in losses(tmp_path / "whole"))
    base = parts.load(NETWORK[role], str(getattr(tiny, role)))
    after = parts.load(NETWORK[role], str(tmp_path / "whole"))
    assert after.state_dict().keys() == base.state_dict().keys()


@pytest.mark.slow
def test_compiled(tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """The losses of the plain run, the names of its checkpoint, and the same bits after a stop;
    samples are drawn on the way.
    """
    flags = SAME | {"validation_prompts": "a cat", "validation_epochs": 1, "max_train_steps": 8}
    train("prior", tmp_path / "plain", tiny, photos, **flags)
    train("prior", tmp_path / "whole", tiny, photos, **flags, compile=True)
    plain, compiled = (losses(tmp_path / name) for name in ("plain", "whole"))
    assert [loss for _, loss, _ in compiled] == pytest.approx([x for _, x, _ in plain], rel=1e-4)
    for folder in ("", "checkpoint-3", "checkpoint-8"):
        one, two = (network(tmp_path / name / folder, "prior") for name in ("plain", "whole"))
        assert one.keys() == two.keys()
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "rest" / "checkpoint-3")
    again = {"compile": True, "resume_from_checkpoint": "latest"}
    train("prior", tmp_path / "rest", tiny, photos, **flags, **again)
    assert_same_bits(tmp_path / "whole" / "checkpoint-8", tmp_path / "rest" / "checkpoint-8")


def test_without_a_compiler(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, before the network is loaded; nothing is left behind that looks like a run."""
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, str(tmp_path / "none")))
    torch._dynamo.reset()
    line = refused(*command("prior", tmp_path / "out", tiny, photos, **SAME, compile=True))
    assert "--compile needs a C++ compiler (g++)" in line
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_what_a_compiler_gets_wrong(tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """Seen with torch 2.13: every gradient below the decoder's middle block is NaN."""
    flags = SAME | BF16 | {"compile": True}
    line = refused(*command("decoder", tmp_path / "out", tiny, photos, **flags))
    assert "--compile of the decoder in bf16 on a CPU" in line


class _Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device: a value that becomes a number, a size that
    depends on values.
    """

    NAMES = ("_local_scalar_dense", "nonzero", "equal", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.NAMES:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("role", ROLES)
def test_the_loop_does_not_wait(
    role: str, tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In four steps, with clipping, all weights and the average, the one number that is read is the
    loss that is logged after the last.
    """
    waits, plain = _Waits(), run.fit

    def watched(*given: Any, **more: Any) -> int:
        *others, batches = given
        ready = iter([next(batches) for _ in range(4)])  # examples are made on the CPU anyway
        events = dataclasses.replace(more.pop("events"), on_save=lambda done, pending: None)
        with waits:
            return plain(*others, ready, events=events, **more)

    monkeypatch.setattr(run, "fit", watched)
    flags = {"max_train_steps": 4, "logging_steps": 4, "use_ema": True, "snr_gamma": 5.0}
    own = {"variance_loss": 0.001} if role == "decoder" else {"condition_dropout": 0.5}
    train(role, tmp_path / "out", tiny, photos, **flags, **own)
    assert waits.seen == ["_local_scalar_dense"]


def _curve(
    out: Path, role: str, tiny: Tiny, photos: Path, **flags: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of 20 steps, and all the trained weights at their end."""
    more = {"max_train_steps": 20, "logging_steps": 1, "train_batch_size": 2}
    train(role, out, tiny, photos, **more | flags)
    last = network(out / "checkpoint-20", role)
    weights = [
        value.double().flatten() for key, value in sorted(last.items()) if ": clip_" not in key
    ]
    return torch.tensor([loss for _, loss, _ in losses(out)]), torch.cat(weights)


CURVES: dict[str, tuple[str, dict[str, Any], dict[str, Any], float]] = {
    # role, the switch, the run without it, most relative difference of a step's loss
    "released": ("prior", RELEASE, {"max_grad_norm": 0}, 1e-4),
    "bf16": ("prior", {"weights_dtype": "bf16"} | BF16, BF16, 0.03),
    "bf16, decoder": ("decoder", {"weights_dtype": "bf16"} | BF16, BF16, 0.03),
}
if "adamw8bit" in WAYS:
    CURVES["adamw8bit"] = ("decoder", {"optimizer": "adamw8bit"}, {}, 0.03)


@pytest.mark.parametrize("way", CURVES)
def test_the_losses_are_those_of_the_plain_run(
    way: str, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """Step by step within the tolerance, while the weights have moved."""
    role, switch, plain, tolerance = CURVES[way]
    curve, weights = _curve(tmp_path / "switch", role, tiny, photos, **switch)
    expected, wanted = _curve(tmp_path / "plain", role, tiny, photos, **plain)
    torch.testing.assert_close(curve, expected, rtol=tolerance, atol=0)
    base = parts.load(NETWORK[role], str(getattr(tiny, role))).state_dict()
    start = [v.double().flatten() for k, v in sorted(base.items()) if not k.startswith("clip_")]
    moved = wanted - torch.cat(start)
    assert (weights - wanted).norm() < 0.2 * moved.norm()


@pytest.mark.parametrize("way", ["channels_last", "fused AdamW"])
def test_what_is_always_on_keeps_the_losses(
    way: str, tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step those of the decoder in the usual order, or of AdamW one weight at a time."""
    curve, _ = _curve(tmp_path / "on", "decoder", tiny, photos)
    if way == "channels_last":
        monkeypatch.setattr("wassily.models.trainable._channels_last", lambda net: None)
    else:
        adamw = torch.optim.AdamW

        def single(*given: Any, **more: Any) -> torch.optim.Optimizer:
            assert more["fused"]
            return adamw(*given, **more | {"fused": None, "foreach": False})

        monkeypatch.setattr(torch.optim, "AdamW", single)
    plain, _ = _curve(tmp_path / "off", "decoder", tiny, photos)
    assert not torch.equal(curve, plain)
    torch.testing.assert_close(curve, plain, rtol=1e-3, atol=0)
