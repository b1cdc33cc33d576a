"""The weights of a run on one process: themselves, wherever they are needed."""

from __future__ import annotations

from pathlib import Path

import torch

from wassily.maths import losses
from wassily.maths.ema import NoEma
from wassily.mini.untrained import Tiny
from wassily.models import parts
from wassily.runtime.accelerator import Runtime
from wassily.training import weights


def test_one_process_has_them_whole(tiny: Tiny, tmp_path: Path) -> None:
    """Nothing is spread or copied: what is computed with and written is what is trained."""
    net = parts.load("prior", str(tiny.prior))
    objective = losses.Prior(net, parts.prior_alpha_bars())
    runtime = Runtime(None, 1, str(tmp_path), "logs", "none")
    outline = weights.spread(objective, runtime)
    assert outline is None
    trained = dict(net.named_parameters())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    found = weights.weights_of(objective, trained, NoEma(), optimizer, outline, runtime)
    assert found.net is net
    with found.everywhere() as here, found.to_write(state=True) as written:
        assert here is found and written is found
        assert written.optimizer is optimizer
