"""One example at its turn: its encodings looked up, or made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from wassily.config.training import DecoderConfig, PriorConfig
from wassily.generation import pipelines
from wassily.maths import randomness
from wassily.mini.untrained import Tiny
from wassily.training_data import training_set


def batch_of(reading: training_set.TrainingSet, indices: list[int]) -> dict[str, torch.Tensor]:
    rows = [reading.fetch(index, 3, slot) for slot, index in enumerate(indices)]
    return reading.finish(reading.collate(rows))


@pytest.mark.parametrize("kind", [PriorConfig, DecoderConfig])
@pytest.mark.parametrize("flags", [{}, {"random_flip": True, "condition_dropout": 0.5}])
def test_cached_equals_live_to_the_bit(
    work: Callable[..., Any], kind: Any, flags: dict[str, Any]
) -> None:
    """Whatever else was in the encoder's batch: batches of one, and of all in another order."""
    cached, _ = work(kind, **flags)
    live, _ = work(kind, **flags, no_cache=True)
    for indices in ([2], [4, 0, 3, 1, 2]):
        ours, theirs = batch_of(cached, indices), batch_of(live, indices)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", [PriorConfig, DecoderConfig])
@pytest.mark.parametrize("no_cache", [False, True])
def test_a_dropped_condition_is_the_unconditional_of_the_pipeline(
    work: Callable[..., Any], tiny: Tiny, kind: Any, no_cache: bool
) -> None:
    """What the stock prior pipeline guides away from takes the condition's place in the rows that
    are drawn; all else in them, and every other row, is as without the flag, to the bit.
    """
    pipeline = pipelines.prior_pipeline(str(tiny.prior), torch.float32, None)
    if kind is PriorConfig:
        found = pipeline._encode_prompt("x", torch.device("cpu"), 1, True, None)
        (embed, states, mask) = (both[0] for both in found)  # the unconditional half comes first
        absent = {"text_embeds": embed, "text_states": states[mask.bool()]}
    else:
        absent = {"image_embeds": pipeline.get_zero_embed()[0]}
    plain, _ = work(kind, random_flip=True, no_cache=no_cache)
    dropping, _ = work(kind, random_flip=True, no_cache=no_cache, condition_dropout=0.4)
    drawn = []
    for step in range(5):
        for slot in range(2):
            expected, got = one(plain, 3, step, slot), one(dropping, 3, step, slot)
            drawn.append(randomness.drops(0, step, slot, 0.4))
            for name, value in got.items():
                if drawn[-1] and name in absent:
                    torch.testing.assert_close(value, absent[name], atol=1e-5, rtol=1e-5)
                else:
                    assert torch.equal(value, expected[name]), name
    assert set(drawn) == {False, True}


def one(
    reading: training_set.TrainingSet, index: int, step: int, slot: int
) -> dict[str, torch.Tensor]:
    """The encodings of one example, without the batch's axis and its mask."""
    batch = reading.finish(reading.collate([reading.fetch(index, step, slot)]))
    return {name: value[0] for name, value in batch.items() if name != "text_mask"}


def test_text_states_are_unpadded_and_masked(work: Callable[..., Any]) -> None:
    """A batch is as long as its longest caption; the mask tells each one's length."""
    reading, _ = work(PriorConfig)
    lengths = [len(reading.fetch(i, 0, 0)["text_states"]) for i in range(5)]
    batch = batch_of(reading, [0, 3])
    assert batch["text_states"].shape[1] == max(lengths[0], lengths[3])
    assert batch["text_mask"].sum(1).tolist() == [lengths[0], lengths[3]]
    assert lengths[4] < lengths[0] < lengths[3]
