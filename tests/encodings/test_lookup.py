"""One example at its turn: its encodings looked up, or made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import write_folder

from wassily.config.training import DecoderConfig, PriorConfig, TrainConfig
from wassily.encodings import definitions, fill
from wassily.generation import pipelines
from wassily.maths import randomness
from wassily.mini.untrained import Tiny
from wassily.runtime.accelerator import Runtime
from wassily.training_data import training_set

CAPTIONS = ["a red cat", "قطة حمراء صغيرة", "a red cat", "a very long caption of a small bird", "b"]


@pytest.fixture
def work(tmp_path: Path, tiny: Tiny) -> Callable[..., Any]:
    """work(PriorConfig | DecoderConfig, **flags) -> (reading of five pictures, calls).

    The calls say how many items each encoding prepared to make it.
    """
    write_folder(tmp_path / "pics", CAPTIONS)

    def make(kind: type[TrainConfig], **flags: Any) -> Any:
        config = kind(
            pretrained_prior_model_name_or_path=str(tiny.prior),
            pretrained_decoder_model_name_or_path=str(tiny.decoder),
            train_data_dir=str(tmp_path / "pics"),
            output_dir=str(tmp_path / "out"),
            **({"resolution": 32} | flags),
        )
        runtime = Runtime(None, 1, str(tmp_path), "logs", "none")
        repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
        context = definitions.of_training(config, repositories, runtime, tmp_path / "cache")
        calls: dict[str, int] = {}
        wanted = [counted(e, calls) for e in definitions.make_encodings(context)]
        source = training_set.chosen_pictures(config, 0, runtime)
        return training_set.make_reading(
            wanted, source, 0, context, flips=config.random_flip, skip_bad=config.skip_bad_images
        ), calls

    return make


def counted(encoding: fill.Encoding, calls: dict[str, int]) -> fill.Encoding:
    """The same encoding, noting how many items it prepared."""
    from dataclasses import replace

    def prepare(item: Any) -> torch.Tensor:
        calls[encoding.name] = calls.get(encoding.name, 0) + 1
        return encoding.prepare(item)

    return replace(encoding, prepare=prepare)


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
