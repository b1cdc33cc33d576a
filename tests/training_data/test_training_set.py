"""From photographs to the loss: each way against the guide's preprocessing with stock modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from helpers import draw_picture, guide_pixels, image_files, read_jsonl, write_folder
from PIL import Image

from wassily.config.training import DecoderConfig, PriorConfig, TrainConfig
from wassily.data import datasets, example_order
from wassily.encodings import definitions
from wassily.errors import UserError
from wassily.maths import randomness
from wassily.mini.untrained import FACTOR, SIDE, TOKENS, Tiny
from wassily.models import parts
from wassily.models.trainable import Trainable, make_trainable
from wassily.runtime.accelerator import Runtime
from wassily.training import setup
from wassily.training_data import training_set

BATCH = 4


def _config(cls: type, tiny: Tiny, folder: Path, **values: Any) -> Any:
    base = {
        "pretrained_prior_model_name_or_path": str(tiny.prior),
        "pretrained_decoder_model_name_or_path": str(tiny.decoder),
        "train_data_dir": str(folder),
        "resolution": SIDE,
    }
    return cls(**(base | values))


def _trainable(config: TrainConfig, tiny: Tiny) -> Trainable:
    return make_trainable(config, {"prior": str(tiny.prior), "decoder": str(tiny.decoder)})


def _reading(config: TrainConfig, tiny: Tiny, out: Path, seed: int = 3) -> training_set.TrainingSet:
    runtime = Runtime(None, 1, str(out), "logs", "none")
    repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    context = definitions.of_training(config, repositories, runtime, out / "cache")
    source = training_set.chosen_images(config, seed, runtime)
    return training_set.make_reading(
        definitions.make_encodings(context),
        source,
        seed,
        context,
        flips=config.random_flip,
        skip_bad=config.skip_bad_images,
    )


def _batch(
    trainable: Trainable, reading: training_set.TrainingSet, seed: int = 3
) -> dict[str, torch.Tensor]:
    """The first batch of a run, as the loop gets it."""
    examples = training_set.make_examples(reading, trainable, seed)
    keys = example_order.keys(
        seed, reading.buckets.members(), example_order.Split(BATCH, 1, 1, 0), 0
    )
    return reading.finish(
        next(iter(example_order.loader(examples, keys, reading.collate, 0, False)))
    )


def _first(source: datasets.Pictures, seed: int = 3) -> list[datasets.Record]:
    keys = next(
        example_order.keys(seed, [range(len(source))], example_order.Split(BATCH, 1, 1, 0), 0)
    )
    return [source[index] for _, _, index in keys]


def _rgb(record: datasets.Record) -> Image.Image:
    with Image.open(str(record.image)) as picture:
        return picture.convert("RGB")


class Stock:
    """The guide's modules, loaded as its scripts do."""

    def __init__(self, tiny: Tiny):
        kind = getattr(transformers, "CLIPImageProcessorPil", None)
        kind = kind or transformers.CLIPImageProcessor
        self.processor = kind.from_pretrained(tiny.prior, subfolder="image_processor")
        self.tokenizer = transformers.CLIPTokenizer.from_pretrained(
            tiny.prior, subfolder="tokenizer"
        )
        self.image_encoder = transformers.CLIPVisionModelWithProjection.from_pretrained(
            tiny.prior, subfolder="image_encoder"
        ).eval()
        self.text_encoder = transformers.CLIPTextModelWithProjection.from_pretrained(
            tiny.prior, subfolder="text_encoder"
        ).eval()
        self.prior = diffusers.PriorTransformer.from_pretrained(tiny.prior, subfolder="prior")
        self.movq = diffusers.VQModel.from_pretrained(tiny.decoder, subfolder="movq").eval()
        self.unet = diffusers.UNet2DConditionModel.from_pretrained(tiny.decoder, subfolder="unet")
        self.schedule = diffusers.DDPMScheduler.from_pretrained(tiny.decoder, subfolder="scheduler")


@pytest.mark.parametrize("no_cache", [False, True])
@torch.no_grad()
def test_the_priors_loss_from_photographs(
    no_cache: bool, tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """The guide's script from the file to the loss, on the same noise and timesteps."""
    config = _config(PriorConfig, tiny, photos, no_cache=no_cache)
    trainable, reading = _trainable(config, tiny), _reading(config, tiny, tmp_path)
    batch, stock = _batch(trainable, reading), Stock(tiny)
    records = _first(reading.source)
    noise, t = batch.pop("noise"), batch.pop("t")

    pixels = stock.processor([_rgb(r) for r in records], return_tensors="pt").pixel_values
    tokens = stock.tokenizer(
        [r.captions[0] for r in records],
        max_length=TOKENS,
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    )
    text = stock.text_encoder(tokens.input_ids)
    x0 = stock.image_encoder(pixels).image_embeds
    x0 = (x0 - stock.prior.clip_mean) / stock.prior.clip_std
    schedule = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    predicted = stock.prior(
        schedule.add_noise(x0, noise, t),
        timestep=t,
        proj_embedding=text.text_embeds,
        encoder_hidden_states=text.last_hidden_state,
        attention_mask=tokens.attention_mask.bool(),
    ).predicted_image_embedding
    losses = trainable.objective(batch, noise, t)
    torch.testing.assert_close(losses.mean(), F.mse_loss(predicted, x0), atol=1e-5, rtol=1e-5)
    assert batch["text_states"].shape[1] == int(tokens.attention_mask.sum(1).max())  # no padding
    assert trainable.noise_shape((SIDE, SIDE)) == tuple(noise.shape[1:])


@pytest.mark.parametrize("no_cache", [False, True])
@torch.no_grad()
def test_the_decoders_loss_from_photographs(
    no_cache: bool, tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """The guide's script from the file to the loss; another resolution than the encoder's."""
    config = _config(DecoderConfig, tiny, photos, resolution=48, no_cache=no_cache)
    trainable, reading = _trainable(config, tiny), _reading(config, tiny, tmp_path)
    batch, stock = _batch(trainable, reading), Stock(tiny)
    pictures = [_rgb(r) for r in _first(reading.source)]
    noise, t = batch.pop("noise"), batch.pop("t")

    latents = stock.movq.encode(torch.stack([guide_pixels(p, 48) for p in pictures])).latents
    pixels = stock.processor(pictures, return_tensors="pt").pixel_values
    condition = {"image_embeds": stock.image_encoder(pixels).image_embeds}
    noisy = stock.schedule.add_noise(latents, noise, t)
    predicted = stock.unet(noisy, t, None, added_cond_kwargs=condition).sample[:, :4]
    losses = trainable.objective(batch, noise, t)
    torch.testing.assert_close(losses.mean(), F.mse_loss(predicted, noise), atol=1e-5, rtol=1e-5)
    assert (
        trainable.noise_shape((48, 48)) == (4, 48 // FACTOR, 48 // FACTOR) == tuple(noise.shape[1:])
    )
    assert trainable.noise_shape((48, 32)) == (4, 32 // FACTOR, 48 // FACTOR)


def test_a_cache_tells_resolutions_apart(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """One cache, two resolutions, and the first again: latents of the side asked for each time,
    while the image embeddings, which do not depend on it, are the same.
    """
    found = []
    for resolution in (32, 48, 32):
        config = _config(DecoderConfig, tiny, photos, resolution=resolution)
        found.append(_reading(config, tiny, tmp_path).fetch(0, 0, 0))
    sides = [tuple(row["latents"].shape) for row in found]
    assert sides == [(4, side // FACTOR, side // FACTOR) for side in (32, 48, 32)]
    assert torch.equal(found[0]["latents"], found[2]["latents"])
    assert torch.equal(found[0]["image_embeds"], found[1]["image_embeds"])


def test_a_flip_mirrors_both_views(tiny: Tiny, tmp_path: Path) -> None:
    """What the MoVQ and what the image encoder see is one picture, mirrored or not, by the coin of
    (seed, step, slot).
    """
    folder = write_folder(tmp_path / "pics", ["x"])
    config = _config(DecoderConfig, tiny, folder, no_cache=True, random_flip=True)
    reading = _reading(config, tiny, tmp_path)
    processor = parts.load("image_processor", str(tiny.prior))
    picture = draw_picture(0)
    seen = set()
    for step in range(12):
        got = reading.fetch(0, step, 1)
        flipped = randomness.flip(3, step, 1)
        turned = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else picture
        assert torch.equal(got["latents"], guide_pixels(turned, SIDE))
        expected = processor(turned, return_tensors="pt").pixel_values[0]
        assert torch.equal(torch.as_tensor(got["image"]), torch.as_tensor(expected))
        seen.add(flipped)
    assert seen == {True, False}


def test_one_caption_of_a_list_is_drawn(tiny: Tiny, tmp_path: Path) -> None:
    """All of them in time, by (seed, step, slot); a caption too long is cut and keeps its end."""
    captions = ["one", "two", "x" * 200]
    folder = write_folder(tmp_path / "pics", [captions])
    reading = _reading(_config(PriorConfig, tiny, folder, no_cache=True), tiny, tmp_path)
    tokenizer = parts.load("tokenizer", str(tiny.prior))
    seen = set()
    for step in range(20):
        ids, mask = reading.fetch(0, step, 0)["text"]
        chosen = randomness.choice(3, step, 0, 3)
        whole = tokenizer(captions[chosen]).input_ids
        expected = whole if len(whole) <= TOKENS else [*whole[: TOKENS - 1], whole[-1]]
        assert ids[mask.bool()].tolist() == expected
        assert ids.shape == (TOKENS,)
        seen.add(chosen)
    assert seen == {0, 1, 2}


# ---------------------------------------------------------------- checked pictures


def _checked(config: TrainConfig, tiny: Tiny, out: Path, seed: int = 0) -> datasets.Pictures:
    return _reading(config, tiny, out, seed).source


@pytest.mark.parametrize("no_cache", [False, True])
def test_unreadable_pictures_stop_the_run_with_the_list(
    no_cache: bool, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or are left out and counted, if so asked."""
    folder = write_folder(tmp_path / "pics", [f"c{n}" for n in range(6)])
    for name in ("01.png", "04.png"):
        (folder / name).write_bytes(b"no picture")
    config = _config(PriorConfig, tiny, folder, no_cache=no_cache)
    skipping = _config(PriorConfig, tiny, folder, no_cache=no_cache, skip_bad_images=True)
    with pytest.raises(UserError, match=r"2 of 6 .*01\.png.*04\.png.*--skip_bad_images"):
        _checked(config, tiny, tmp_path)
    kept = _checked(skipping, tiny, tmp_path)
    assert [r.captions[0] for r in kept] == ["c0", "c2", "c3", "c5"]
    assert "left out 2 of 6 pictures" in capsys.readouterr().out
    for path in folder.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no picture can be read"):
        _checked(skipping, tiny, tmp_path)


def test_max_train_samples_is_a_draw_by_the_seed(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """The same for the same seed; only those are checked; more than there are is all."""
    names = [r.name for r in training_set.open_images(_config(PriorConfig, tiny, photos))]
    config = _config(PriorConfig, tiny, photos, max_train_samples=3)
    kept = [r.name for r in _checked(config, tiny, tmp_path)]
    assert kept == [names[i] for i in randomness.subset(0, len(names), 3)]
    assert (
        len({tuple(r.name for r in _checked(config, tiny, tmp_path, seed)) for seed in range(5)})
        > 1
    )
    many = _config(PriorConfig, tiny, photos, max_train_samples=1000)
    assert [r.name for r in _checked(many, tiny, tmp_path)] == names


def test_the_caption_column_is_for_the_prior(tiny: Tiny, photos: Path) -> None:
    """The decoder reads none."""
    rows = list(read_jsonl(photos / "metadata.jsonl"))
    prior = training_set.open_images(_config(PriorConfig, tiny, photos))
    assert [r.captions for r in prior] == [(row["text"],) for row in rows]
    decoder = training_set.open_images(_config(DecoderConfig, tiny, photos))
    assert {r.captions for r in decoder} == {()}
    with pytest.raises(UserError, match="--caption_column"):
        training_set.open_images(_config(PriorConfig, tiny, photos, caption_column="label"))


def test_xformers_or_one_line(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is not installed, the flag says what is used instead."""
    import sys

    monkeypatch.setitem(sys.modules, "xformers", None)
    runtime = Runtime(None, 1, str(tmp_path), "logs", "none")
    setup.use_xformers(parts.load("prior", str(tiny.prior)), runtime)
    assert capsys.readouterr().out.count("xFormers is not installed") == 1


def test_pixels_are_not_all_alike(photos: Path) -> None:
    """The comparisons above compare something: photographs differ after the transform."""
    files = image_files(photos)
    with Image.open(files[0]) as a, Image.open(files[1]) as b:
        first, second = (guide_pixels(p.convert("RGB"), 16) for p in (a, b))
    assert np.abs((first - second).numpy()).max() > 0.1
