"""Kandinsky 2.2 in miniature, untrained: the stock classes and folders, 0.4 M random weights.

It draws noise. The tests run on it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
import transformers

EMBEDDING = 16  # width of the joint space, and of the text encoder, as in the real model
TOKENS = 77
SIDE = 32  # pixels that the image encoder and the decoder were "made for"
FACTOR = 4  # pixels per latent


@dataclass(frozen=True)
class Tiny:
    """The two stock pipeline folders."""

    prior: Path
    decoder: Path


def tokenizer(folder: Path) -> transformers.CLIPTokenizer:
    """A byte-level vocabulary without merges: every script is spelt, letter by letter.

    256 bytes, the same 256 at the end of a word, and the two marks: 514 tokens.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(b) for b in printable] + [chr(256 + n) for n in range(len(others))]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=TOKENS)


def text_encoder(vocabulary: int) -> transformers.CLIPTextModelWithProjection:
    """One layer; its end-of-text is the tokenizer's, or all texts would embed alike."""
    config = transformers.CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=EMBEDDING,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=EMBEDDING,
        max_position_embeddings=TOKENS,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return transformers.CLIPTextModelWithProjection(config)


def image_encoder() -> transformers.CLIPVisionModelWithProjection:
    """One layer over four patches."""
    config = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=EMBEDDING,
        image_size=SIDE,
        patch_size=16,
    )
    return transformers.CLIPVisionModelWithProjection(config)


def image_processor() -> object:
    """CLIP's own means, deviations and resampling, at 32 pixels."""
    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return kind(
        crop_size={"height": SIDE, "width": SIDE},
        size={"shortest_edge": SIDE},
        image_mean=[0.48145466, 0.4578275, 0.40821073],
        image_std=[0.26862954, 0.26130258, 0.27577711],
    )


def prior() -> diffusers.PriorTransformer:
    """Two layers; the statistics are neither 0 nor 1, so that forgetting them shows."""
    network = diffusers.PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        embedding_dim=EMBEDDING,
        num_embeddings=TOKENS,
        additional_embeddings=4,
    )
    with torch.no_grad():
        network.clip_mean.copy_(0.1 * torch.randn(1, EMBEDDING))
        network.clip_std.copy_(0.5 + torch.rand(1, EMBEDDING))
        # These start at zero in the class, and would hide a mistake in their order.
        network.positional_embedding.copy_(0.1 * torch.randn_like(network.positional_embedding))
        network.prd_embedding.copy_(0.1 * torch.randn_like(network.prd_embedding))
    return network


def unet(
    in_channels: int = 4, addition: str = "image", factor: int = FACTOR
) -> diffusers.UNet2DConditionModel:
    """The decoder's kinds of blocks, two of them; one for inpainting has 9 input channels, one that
    reads a hint has 8 and the addition "image_hint".
    """
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE // factor,
        in_channels=in_channels,
        out_channels=8,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=8,
        encoder_hid_dim=EMBEDDING,
        encoder_hid_dim_type="image_proj",
        addition_embed_type=addition,
        resnet_time_scale_shift="scale_shift",
    )


def movq(factor: int = FACTOR) -> diffusers.VQModel:
    """Four or eight pixels to a latent; the spatial norm of the real one."""
    halvings = factor.bit_length() - 1
    return diffusers.VQModel(
        block_out_channels=(32,) * (halvings + 1),  # SpatialNorm wants multiples of 32
        down_block_types=(*["DownEncoderBlock2D"] * halvings, "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * halvings),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        norm_type="spatial",
        num_vq_embeddings=32,
        vq_embed_dim=4,
    )


def decoder_scheduler(prediction_type: str = "epsilon") -> diffusers.DDPMScheduler:
    """The real decoder repository's."""
    return diffusers.DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        prediction_type=prediction_type,
        variance_type="learned_range",
    )


def prior_scheduler() -> diffusers.UnCLIPScheduler:
    """The real prior repository's."""
    return diffusers.UnCLIPScheduler(
        variance_type="fixed_small_log",
        prediction_type="sample",
        num_train_timesteps=1000,
        clip_sample=True,
        clip_sample_range=5.0,
    )


def make(out: Path, seed: int = 0) -> Tiny:
    """Write OUT/prior and OUT/decoder; the decoder's card names the prior by its full path."""
    folders = Tiny((out / "prior").resolve(), (out / "decoder").resolve())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = tokenizer(out / "words")
        diffusers.KandinskyV22PriorPipeline(
            prior=prior(),
            image_encoder=image_encoder(),
            text_encoder=text_encoder(len(words)),
            tokenizer=words,
            scheduler=prior_scheduler(),
            image_processor=image_processor(),
        ).save_pretrained(folders.prior)
        diffusers.KandinskyV22Pipeline(
            unet=unet(), scheduler=decoder_scheduler(), movq=movq()
        ).save_pretrained(folders.decoder)
    for file in ("model_index.json", "image_processor/preprocessor_config.json"):
        path = folders.prior / file
        path.write_text(path.read_text().replace("ProcessorPil", "Processor"))
    card = f"---\nprior:\n- {folders.prior}\ntags:\n- kandinsky\n---\n\nRandom weights.\n"
    (folders.decoder / "README.md").write_text(card, "utf-8")
    return folders


def make_decoder(folder: Path, kind: str, seed: int = 0) -> Path:
    """Write the folder of a decoder of another kind: "inpainting" or "hint"; its path.

    The hint's own layers have eight pixels to a latent, so that decoder has, too.
    """
    factor = 8 if kind == "hint" else FACTOR
    given = {"inpainting": (9, "image", factor), "hint": (8, "image_hint", factor)}[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        diffusers.KandinskyV22Pipeline(
            unet=unet(*given), scheduler=decoder_scheduler(), movq=movq(factor)
        ).save_pretrained(folder)
    return folder
