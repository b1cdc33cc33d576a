"""Trains the two CLIP towers of `mini` on captioned pictures of the little world.

Plain contrastive training would learn colours only: the batches are made of groups that share
their colours (hard negatives), and linear heads read every attribute and a map of what is covered
from the embeddings, so that a decoder finds shape, size and place there too. Shapes in colours that
have no name, and what each patch is a part of, keep the encoder from learning shapes by colour.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tools.mini import bank, stage, vocabulary
from wassily.mini import world

WIDTH = 128
GROUP = 8  # pictures of the same two colours in a row of the batch
BATCH = 64
DOODLES = 16
RECOLOURED = 64
WEIGHTS = {"contrast": 1, "named": 0.5, "said": 0.5, "covered": 10, "patch": 10, "part": 1}
STRANGE = 0.1  # fraction of captions with a made-up word
MEAN, STD = (0.5, 0.5, 0.5), (0.35, 0.35, 0.35)


class Towers(nn.Module):
    """Both encoders, and the heads that only training uses."""

    def __init__(self, tokenizer):
        super().__init__()
        self.text = CLIPTextModelWithProjection(text_config(tokenizer))
        self.image = CLIPVisionModelWithProjection(vision_config())
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.heads = nn.ModuleDict(
            {name: nn.Linear(WIDTH, len(values)) for name, values in bank.ATTRIBUTES.items()}
        )
        self.map = nn.Linear(WIDTH, bank.MASK**2)
        self.patch = nn.Linear(WIDTH, 4 + len(world.SHAPES))


def text_config(tokenizer):
    """Three causal layers; the end token must be the tokenizer's own."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=vocabulary.CONTEXT,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def vision_config():
    """Patches of 4, three layers."""
    return CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=world.SIZE,
        patch_size=4,
        projection_dim=WIDTH,
    )


def processor():
    """The image processor: pixels / 255, centred."""
    return CLIPImageProcessor(
        size={"shortest_edge": world.SIZE},
        crop_size={"height": world.SIZE, "width": world.SIZE},
        image_mean=list(MEAN),
        image_std=list(STD),
    )


def pixels(pictures):
    """uint8 (B, H, W, 3) -> what `processor` gives, (B, 3, H, W)."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def tokens(tokenizer, texts):
    """Token ids (B, L), padded to the longest."""
    return tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids


def hard_batch(bank_, pairs, rng):
    """Indices (BATCH,): groups of pictures that share colour and background."""
    chosen = rng.choice(len(pairs), BATCH // GROUP, replace=False)
    return np.concatenate([rng.choice(pairs[i], GROUP) for i in chosen])


def same_colours(labels):
    """A list of index arrays, one for each (colour, background)."""
    key = labels[:, 1] * 100 + labels[:, 2]
    return [np.flatnonzero(key == k) for k in np.unique(key)]


def recoloured(data, chosen, rng):
    """Plain pictures in colours of no name: shape must not hang on colour. uint8 (B, H, W, 3).

    Colours whose nearest names make a held-out triple with the picture's shape are drawn again.
    """
    palette = np.array(list(world.COLOURS.values()), float)
    grounds = np.array([world.COLOURS[b] for b in world.BACKGROUNDS], float)
    labels = data.labels[chosen]
    old = palette[labels[:, 1]], grounds[labels[:, 2]]
    step = (old[0] - old[1])[:, None, None]
    pictures = data.pictures[chosen].astype(float) - old[1][:, None, None]
    alpha = ((pictures * step).sum(-1) / (step**2).sum(-1)).clip(0, 1)[..., None]
    new = np.stack([_strange_colours(world.SHAPES[k], palette, rng) for k in labels[:, 0]])
    front, back = new[:, 0, None, None], new[:, 1, None, None]
    return (back + alpha * (front - back)).round().astype(np.uint8)


def _strange_colours(shape, palette, rng):
    names = list(world.COLOURS)
    while True:
        pair = rng.uniform(0, 255, (2, 3))
        near = np.linalg.norm(pair[:, None] - palette, axis=-1).argmin(1)
        apart = np.linalg.norm(pair[0] - pair[1]) > 90
        if apart and not world.is_held_out(shape, names[near[0]], names[near[1]]):
            return pair


def losses(towers, tokenizer, data, index, rng):
    """Contrastive, attribute and coverage losses of one batch."""
    texts = [data.texts[i][rng.integers(2 * bank.CAPTIONS)] for i in index]
    texts = [vocabulary.with_strange_word(t, rng) if rng.random() < STRANGE else t for t in texts]
    other = rng.choice(np.flatnonzero(data.labels[:, 5] == 0), RECOLOURED)
    blots, blot_maps = bank.doodles(rng, DOODLES)
    known = np.concatenate([index, other])
    pictures = [data.pictures[index], recoloured(data, other, rng), blots]
    maps = torch.from_numpy(np.concatenate([data.masks[known], blot_maps])).float() / 255
    labels = torch.from_numpy(data.labels[known])
    output = towers.image(pixels(np.concatenate(pictures)), output_hidden_states=True)
    seen, inner = output.image_embeds, output.hidden_states[-2][:, 1:]
    said = towers.text(tokens(tokenizer, texts)).text_embeds
    parts = {
        "contrast": contrastive(
            seen[:BATCH], said, labels[:BATCH], towers.scale.exp().clamp(max=60)
        ),
        "named": named(towers.heads, seen[: len(known)], labels),
        "said": named(towers.heads, said, labels[:BATCH]),
        "covered": F.mse_loss(towers.map(seen), maps.flatten(1)),
        **dense(towers, inner, maps, labels),
    }
    return {"loss": sum(WEIGHTS[k] * v for k, v in parts.items()), **parts}


def named(heads, embeds, labels):
    """Sum of the cross-entropies of all attributes; the recoloured have no names of colours."""
    total = 0
    for k, (name, head) in enumerate(heads.items()):
        n = BATCH if name in ("colour", "background") else len(embeds)
        total = total + F.cross_entropy(head(embeds[:n]), labels[:n, k])
    return total


def dense(towers, inner, maps, labels):
    """What each patch is covered by, and of which shape it is a part, before the last layer."""
    side = world.SIZE // 4
    patches = maps.unflatten(2, (side, 2)).unflatten(1, (side, 2)).permute(0, 1, 3, 2, 4)
    patches = patches.flatten(3).flatten(1, 2)  # (B, 64, 4)
    output = towers.patch(inner)
    inside = patches[: len(labels)].mean(-1) > 0.25
    shapes = labels[:, :1].expand(-1, inside.shape[1])[inside]
    return {
        "patch": F.mse_loss(output[..., :4], patches),
        "part": F.cross_entropy(output[: len(labels), :, 4:][inside], shapes),
    }


def contrastive(seen, said, labels, scale):
    """Symmetric InfoNCE; pairs with equal attributes share the target."""
    similar = scale * F.normalize(seen, dim=-1) @ F.normalize(said, dim=-1).T
    equal = (labels[:, None] == labels[None]).all(-1).float()
    target = equal / equal.sum(1, keepdim=True)
    return (F.cross_entropy(similar, target) + F.cross_entropy(similar.T, target)) / 2


def train(work, steps=1600, n=100_000):
    """Trains, or goes on; writes tokenizer, text_encoder, image_encoder, image_processor."""
    tokenizer = vocabulary.build()
    data = bank.load(work, 1, n)
    pairs = same_colours(data.labels)
    torch.manual_seed(0)
    towers = Towers(tokenizer)

    def loss_of(step, rng):
        return losses(towers, tokenizer, data, hard_batch(data, pairs, rng), rng)

    minutes = stage.run(work, "clip", towers, loss_of, steps, rate=1e-3, decay=0.01)
    save(work, towers, tokenizer)
    return minutes


def save(work, towers, tokenizer):
    """Writes the four parts under work/parts."""
    parts = {
        "tokenizer": tokenizer,
        "text_encoder": towers.text,
        "image_encoder": towers.image,
        "image_processor": processor(),
    }
    for name, part in parts.items():
        part.save_pretrained(f"{work}/parts/{name}")
