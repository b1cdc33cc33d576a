"""Batches of zeros of the shapes that a training has."""

from __future__ import annotations

import pytest
import torch

from wassily.config.training import DecoderConfig, PriorConfig, TrainConfig
from wassily.mini.untrained import SIDE, Tiny
from wassily.models.trainable import make_trainable
from wassily.planning import blank_batches


@pytest.mark.parametrize("kind", [PriorConfig, DecoderConfig])
def test_the_objective_takes_them(kind: type[TrainConfig], tiny: Tiny) -> None:
    """A loss for each example, and noise of the shape that the training draws."""
    config = kind(dataset_name="a/b", resolution=SIDE)
    trainable = make_trainable(config, {"prior": str(tiny.prior), "decoder": str(tiny.decoder)})
    batch, noise, t = blank_batches.blank_batch(config, trainable, 3)
    assert tuple(noise.shape) == (3, *trainable.noise_shape((SIDE, SIDE)))
    with torch.no_grad():
        losses = trainable.objective(batch, noise, t)
    assert losses.shape == (3,)
    assert torch.isfinite(losses).all()


@pytest.mark.parametrize("average", [False, True])
def test_the_bytes_of_a_checkpoint_by_hand(average: bool) -> None:
    """Weights in fp32, two moments of Adam for each trained number, an average in fp32."""
    net = torch.nn.Linear(3, 5)
    config = PriorConfig(dataset_name="a/b", use_ema=average)
    trained = [net.weight]
    moments = 2 * 4 * 15
    found = blank_batches.checkpoint_bytes(config, net, trained)
    # The optimizer keeps a step count for each tensor as well.
    assert 0 <= found - (4 * 20 + moments + (4 * 15 if average else 0)) <= 8
