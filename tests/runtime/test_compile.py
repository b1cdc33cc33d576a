"""torch.compile of a network, block by block."""

from __future__ import annotations

import pytest
import torch

from wassily.errors import UserError
from wassily.mini.untrained import Tiny
from wassily.models import parts
from wassily.runtime import compile, fsdp


@pytest.mark.parametrize(
    ("role", "device", "precision", "refused"),
    [
        ("decoder", "cpu", "bf16", True),
        ("decoder", "cpu", "no", False),
        ("prior", "cpu", "bf16", False),
        ("decoder", "meta", "bf16", False),
    ],
)
def test_what_compiles_into_a_training_that_goes_wrong(
    role: str, device: str, precision: str, refused: bool
) -> None:
    """The decoder in bf16 on a CPU."""
    if refused:
        with pytest.raises(UserError, match="--mixed_precision no"):
            compile.check_launch(role, torch.device(device), precision)
    else:
        compile.check_launch(role, torch.device(device), precision)


@pytest.mark.parametrize("role", ["prior", "unet"])
def test_blocks_are_compiled_and_no_name_changes(role: str, tiny: Tiny) -> None:
    """At their first call, so nothing is compiled here; a checkpoint has the names of before."""
    net = parts.load(role, str(tiny.prior if role == "prior" else tiny.decoder))
    before = list(net.state_dict())
    compile.compile_in_place(net)
    assert list(net.state_dict()) == before
    blocks = list(fsdp.blocks(net))
    assert blocks
    assert all(block._compiled_call_impl is not None for block in blocks)
