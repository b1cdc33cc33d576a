"""`--drawn_embeds`: the decoder learns a share of the pictures from what a prior draws."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e import assert_same_bits, command, refused, train
from helpers import image_files
from safetensors.torch import load_file

from wassily.encodings import cache, lookup
from wassily.generation import pipelines
from wassily.maths import randomness
from wassily.mini.untrained import Tiny
from wassily.training_data import generated_embeddings

CAPTION = "a red robot"


def _files(store: Path) -> dict[str, bytes]:
    found = (store / "wassily").glob("drawn-*/*.safetensors")
    return {str(path): path.read_bytes() for path in found}


def _kept(store: Path) -> torch.Tensor:
    """All embeddings that were drawn."""
    found = (store / "wassily").glob("drawn-*/*.safetensors")
    return torch.cat([load_file(path)["image_embeds"] for path in found])


def test_the_share_is_the_share() -> None:
    """Of 4000 turns so many are drawn as asked for (5 standard errors), each draw as often."""
    numbers = [
        randomness.drawn(3, step, slot, 0.25, 8) for step in range(1000) for slot in range(4)
    ]
    chosen = Counter(n for n in numbers if n is not None)
    count = chosen.total()
    assert abs(count - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5
    assert sorted(chosen) == list(range(8))
    assert all(abs(n - count / 8) < 5 * (count / 8) ** 0.5 for n in chosen.values())
    assert not any(randomness.drawn(3, step, 0, 0.0, 8) for step in range(50))


def test_only_the_embedding_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With share 1 each embedding is one of its own caption's, but where it was dropped; all else
    stays. The index of what was drawn is not read again for an example.
    """

    class Source:
        def __getitem__(self, index: int) -> Any:
            return type("Record", (), {"captions": (f"caption {index}",)})()

    writer = cache.Writer(tmp_path)
    for index in range(2):
        for number in range(generated_embeddings.DRAWS):
            row = {"image_embeds": torch.full((3,), 100.0 * index + number)}
            writer.add(generated_embeddings._key(f"caption {index}", number), row)
    writer.flush()

    def fetch(index: int, step: int, slot: int) -> dict[str, torch.Tensor]:
        return {"image_embeds": torch.full((3,), -1.0), "latents": torch.full((2,), index * 1.0)}

    choice = lookup.ExampleDraws(5, False, condition_dropout=0.5)
    mixed = generated_embeddings.WithGeneratedEmbeddings(
        fetch, Source(), choice, 1.0, cache.Store(tmp_path)
    )  # type: ignore[arg-type]
    monkeypatch.setattr(cache.Store, "refresh", None)
    for step in range(40):
        for index in range(2):
            row = mixed(index, step, index)
            assert row["latents"].tolist() == [index, index]
            value = row["image_embeds"][0].item()
            if randomness.drops(5, step, index, 0.5):
                assert value == -1.0
            else:
                assert 100 * index <= value < 100 * index + generated_embeddings.DRAWS


def test_a_drawing_is_the_stock_pipelines(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """What is kept is what the prior's pipeline gives for the caption at that guidance and seed."""
    store = tmp_path / "cache"
    out = tmp_path / "run"
    flags: dict[str, Any] = {"drawn_embeds": tiny.prior, "cache_dir": store, "max_train_steps": 1}
    train("decoder", out, tiny, photos, **flags)
    kept = _kept(store)
    assert (
        len(kept) == 7 * generated_embeddings.DRAWS
    )  # seven photographs, each with a caption of its own
    pipeline = pipelines.prior_pipeline(str(tiny.prior), torch.float32, None)
    caption = _captions(photos)[0]
    for part, guidance in enumerate(generated_embeddings.GUIDANCES):
        numbers = range(part * generated_embeddings.EACH, (part + 1) * generated_embeddings.EACH)
        found = pipeline(
            [caption] * generated_embeddings.EACH,
            num_inference_steps=generated_embeddings.STEPS,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(number) for number in numbers],
        ).image_embeds
        [folder] = (store / "wassily").glob("drawn-*")
        rows = [
            cache.Store(folder)[generated_embeddings._key(caption, number)] for number in numbers
        ]
        assert torch.equal(torch.stack([row["image_embeds"] for row in rows]), found)


def _captions(photos: Path) -> list[str]:
    from wassily.data import datasets

    return list(datasets.read_folder(str(photos), "image", "text").all_captions())


def test_it_changes_the_training_and_is_gone_on_with_to_the_bit(
    tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """Another loss than without it; cut and gone on with, the same bits; drawn once."""
    store = tmp_path / "cache"
    flags: dict[str, Any] = {
        "drawn_embeds": tiny.prior,
        "cache_dir": store,
        "train_batch_size": 2,
        "max_train_steps": 4,
        "checkpointing_steps": 2,
        "condition_dropout": 0.2,
    }
    train("decoder", tmp_path / "whole", tiny, photos, **flags)
    before = _files(store)
    train("decoder", tmp_path / "cut", tiny, photos, **flags | {"max_train_steps": 2})
    train("decoder", tmp_path / "cut", tiny, photos, **flags, resume_from_checkpoint="latest")
    assert_same_bits(tmp_path / "whole" / "checkpoint-4", tmp_path / "cut" / "checkpoint-4")
    assert _files(store) == before
    train("decoder", tmp_path / "own", tiny, photos, **flags | {"drawn_embeds": None})
    ends = [
        load_file(tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors")
        for name in ("whole", "own")
    ]
    assert any(not torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_a_lost_part_is_drawn_again_with_the_same_bits(
    tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """A cache that lost what it drew is filled again."""
    store = tmp_path / "cache"
    flags: dict[str, Any] = {"drawn_embeds": tiny.prior, "cache_dir": store, "max_train_steps": 1}
    train("decoder", tmp_path / "one", tiny, photos, **flags)
    kept = _kept(store)
    shutil.rmtree(next((store / "wassily").glob("drawn-*")))
    train("decoder", tmp_path / "two", tiny, photos, **flags)
    assert np.array_equal(kept.numpy(), _kept(store).numpy())


def test_another_prior_is_another_run(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """A checkpoint is not gone on with by another's drawings."""
    out, store = tmp_path / "run", tmp_path / "cache"
    flags: dict[str, Any] = {"cache_dir": store, "max_train_steps": 2, "checkpointing_steps": 1}
    train("decoder", out, tiny, photos, **flags | {"max_train_steps": 1}, drawn_embeds=tiny.prior)
    other = tmp_path / "prior"
    train("prior", other, tiny, photos, **flags)
    words = command("decoder", out, tiny, photos, **flags, drawn_embeds=other)
    assert "drawn embeddings" in refused(*words, "--resume_from_checkpoint", "latest")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"drawn_share": 0.25}, "--drawn_share does nothing without --drawn_embeds"),
        ({"drawn_embeds": "mini", "drawn_share": 0.0}, "--drawn_share: 0 is not in"),
        ({"drawn_embeds": "mini", "no_cache": True}, "--drawn_embeds and --no_cache"),
        ({"drawn_embeds": "./nowhere"}, "./nowhere: no such folder"),
        ({"drawn_embeds": "mini"}, "--drawn_embeds mini makes embeddings of"),
        ({"drawn_embeds": "DECODER"}, "no sub-folder 'prior'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    flags: dict[str, Any], named: str, tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """In one line that names flag or folder, before anything is made."""
    flags = {name: tiny.decoder if v == "DECODER" else v for name, v in flags.items()}
    assert named in refused(*command("decoder", tmp_path / "run", tiny, photos, **flags))
    assert not (tmp_path / "run").exists()


def test_pictures_without_captions_are_refused(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """A bare folder does for the decoder otherwise."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for picture in image_files(photos)[:2]:
        shutil.copy(picture, bare)
    words = command("decoder", tmp_path / "run", tiny, bare, drawn_embeds=tiny.prior)
    assert str(bare) in refused(*words)


def test_one_thing_is_drawn_from_its_prompt(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """With --instance_data_dir the caption is --instance_prompt, and must be there."""
    store = tmp_path / "cache"
    flags: dict[str, Any] = {
        "drawn_embeds": tiny.prior,
        "cache_dir": store,
        "max_train_steps": 1,
        "instance_data_dir": photos,
    }
    words = command("decoder", tmp_path / "no", tiny, None, **flags)
    assert "--drawn_embeds draws from captions: add --instance_prompt" in refused(*words)
    train("decoder", tmp_path / "run", tiny, None, **flags, instance_prompt=CAPTION)
    assert len(_kept(store)) == generated_embeddings.DRAWS
