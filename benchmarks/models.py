"""Kandinsky 2.2 with random weights in three sizes, as stock pipeline folders, and pictures.

`full` has the real sizes. `small` has their blocks at an eighth of the widths, with half the layers
of the prior and of both encoders, so that a CPU shows the proportions. `tiny` is for trying the
scripts out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

from wassily.mini import untrained
from wassily.mini.untrained import Tiny as Folders

LEVEL = "SimpleCrossAttn"  # the decoder's levels below the first; the first has no attention


@dataclass(frozen=True)
class Size:
    """Widths and depths of the five networks."""

    embedding: int  # the joint space
    vocabulary: int | None  # None: as many as the tokenizer has
    text: tuple[int, int, int, int]  # width, width of the MLP, layers, heads
    vision: tuple[int, int, int, int]
    prior: tuple[int, int, int]  # heads, width of a head, layers
    unet: tuple[int, ...]  # channels by level
    unet_layers: int
    unet_head: int
    unet_context: int
    unet_groups: int
    movq: tuple[int, ...]
    movq_layers: int
    movq_groups: int
    movq_codes: int


SIZES = {
    "tiny": Size(
        embedding=32,
        vocabulary=None,
        text=(32, 64, 2, 4),
        vision=(32, 64, 2, 4),
        prior=(2, 16, 2),
        unet=(32, 64),
        unet_layers=1,
        unet_head=16,
        unet_context=32,
        unet_groups=16,
        movq=(32, 64),
        movq_layers=1,
        movq_groups=8,
        movq_codes=64,
    ),
    "small": Size(
        embedding=160,
        vocabulary=None,
        text=(160, 640, 16, 5),
        vision=(208, 1024, 24, 4),
        prior=(8, 32, 10),
        unet=(48, 96, 144, 192),
        unet_layers=3,
        unet_head=16,
        unet_context=96,
        unet_groups=16,
        movq=(32, 64, 64, 128),
        movq_layers=2,
        movq_groups=8,
        movq_codes=64,
    ),
    "full": Size(
        embedding=1280,
        vocabulary=49408,
        text=(1280, 5120, 32, 20),
        vision=(1664, 8192, 48, 16),
        prior=(32, 64, 20),
        unet=(384, 768, 1152, 1536),
        unet_layers=3,
        unet_head=64,
        unet_context=768,
        unet_groups=32,
        movq=(128, 256, 256, 512),
        movq_layers=2,
        movq_groups=32,
        movq_codes=16384,
    ),
}
# The real prior and decoder behind encoders of one layer: for the memory of a training.
SIZES["trained"] = replace(
    SIZES["full"],
    vocabulary=None,
    text=(1280, 1280, 1, 20),
    vision=(64, 64, 1, 4),
    movq=(32, 64, 64, 128),
    movq_layers=1,
    movq_groups=8,
    movq_codes=64,
)


# ---------------------------------------------------------------- the networks


def text_encoder(size: Size, words: int) -> transformers.CLIPTextModelWithProjection:
    """The text tower; its end-of-text is the tokenizer's."""
    width, mlp, layers, heads = size.text
    config = transformers.CLIPTextConfig(
        vocab_size=size.vocabulary or words,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=size.embedding,
        max_position_embeddings=untrained.TOKENS,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )
    return transformers.CLIPTextModelWithProjection(config)


def image_encoder(size: Size) -> transformers.CLIPVisionModelWithProjection:
    """The image tower over 256 patches of a 224-pixel picture."""
    width, mlp, layers, heads = size.vision
    config = transformers.CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=size.embedding,
        image_size=224,
        patch_size=14,
    )
    return transformers.CLIPVisionModelWithProjection(config)


def prior(size: Size) -> diffusers.PriorTransformer:
    """The prior, with statistics that leave the embeddings as they are."""
    heads, head, layers = size.prior
    network = diffusers.PriorTransformer(
        num_attention_heads=heads,
        attention_head_dim=head,
        num_layers=layers,
        embedding_dim=size.embedding,
        num_embeddings=untrained.TOKENS,
        additional_embeddings=4,
    )
    torch.nn.init.ones_(network.clip_std)  # zero in the class
    return network


def unet(size: Size) -> diffusers.UNet2DConditionModel:
    """The decoder: attention on every level but the first."""
    below = len(size.unet) - 1
    return diffusers.UNet2DConditionModel(
        in_channels=4,
        out_channels=8,
        down_block_types=("ResnetDownsampleBlock2D", *[f"{LEVEL}DownBlock2D"] * below),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=(*[f"{LEVEL}UpBlock2D"] * below, "ResnetUpsampleBlock2D"),
        block_out_channels=size.unet,
        layers_per_block=size.unet_layers,
        norm_num_groups=size.unet_groups,
        cross_attention_dim=size.unet_context,
        attention_head_dim=size.unet_head,
        encoder_hid_dim=size.embedding,
        encoder_hid_dim_type="image_proj",
        addition_embed_type="image",
        resnet_time_scale_shift="scale_shift",
    )


def movq(size: Size) -> diffusers.VQModel:
    """The MoVQ: attention on the innermost level only."""
    plain = len(size.movq) - 1
    return diffusers.VQModel(
        block_out_channels=size.movq,
        down_block_types=(*["DownEncoderBlock2D"] * plain, "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * plain),
        latent_channels=4,
        layers_per_block=size.movq_layers,
        norm_num_groups=size.movq_groups,
        norm_type="spatial",
        num_vq_embeddings=size.movq_codes,
        vq_embed_dim=4,
    )


def image_processor() -> Any:
    """CLIP's own."""
    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return kind(
        crop_size={"height": 224, "width": 224},
        size={"shortest_edge": 224},
        image_mean=[0.48145466, 0.4578275, 0.40821073],
        image_std=[0.26862954, 0.26130258, 0.27577711],
    )


def parameters(name: str) -> dict[str, float]:
    """Millions of parameters of each network of a size; nothing is allocated."""
    size = SIZES[name]
    with torch.device("meta"):
        networks = {
            "text encoder": text_encoder(size, 514),
            "image encoder": image_encoder(size),
            "prior": prior(size),
            "MoVQ": movq(size),
            "decoder": unet(size),
        }
    return {k: sum(p.numel() for p in n.parameters()) / 1e6 for k, n in networks.items()}


def make(out: Path, name: str, seed: int = 0) -> Folders:
    """Write OUT/prior and OUT/decoder of a size, unless they are there; made on a GPU if it can be.

    `full` takes 20 GB of disk and is refused where there is no GPU.
    """
    size, gpu = SIZES[name], torch.cuda.is_available()
    folders = Folders((out / "prior").resolve(), (out / "decoder").resolve())
    if (folders.decoder / "README.md").is_file():  # written last
        return folders
    if name == "full" and not gpu:
        shown = ", ".join(f"{k} {v:,.1f} M" for k, v in parameters(name).items())
        raise SystemExit(f"size full ({shown} parameters) wants a GPU, and there is none")
    words = untrained.tokenizer(out / "words")
    torch.manual_seed(seed)
    with torch.device("cuda" if gpu else "cpu"):
        first = prior(size), image_encoder(size), text_encoder(size, len(words))
    diffusers.KandinskyV22PriorPipeline(
        prior=first[0],
        image_encoder=first[1],
        text_encoder=first[2],
        tokenizer=words,
        scheduler=untrained.prior_scheduler(),
        image_processor=image_processor(),
    ).save_pretrained(folders.prior)
    del first
    with torch.device("cuda" if gpu else "cpu"):
        second = unet(size), movq(size)
    diffusers.KandinskyV22Pipeline(
        unet=second[0], scheduler=untrained.decoder_scheduler(), movq=second[1]
    ).save_pretrained(folders.decoder)
    for file in ("model_index.json", "image_processor/preprocessor_config.json"):
        path = folders.prior / file
        path.write_text(path.read_text().replace("ProcessorPil", "Processor"))
    card = f"---\nprior:\n- {folders.prior}\ntags:\n- kandinsky\n---\n\nRandom weights.\n"
    (folders.decoder / "README.md").write_text(card, "utf-8")
    return folders


# ---------------------------------------------------------------- pictures


def draw_pictures(folder: Path, count: int, side: int) -> Path:
    """`count` smooth random JPEGs of `side` pixels and their metadata.jsonl, unless it is there."""
    table = folder / "metadata.jsonl"
    if table.is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    lines = []
    for number in range(count):
        coarse = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        name = f"{number:05d}.jpg"
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(folder / name)
        text = f"a photo of a thing {number % 20}"
        lines.append(json.dumps({"file_name": name, "text": text}))
    table.write_text("\n".join(lines) + "\n", "utf-8")
    return folder
