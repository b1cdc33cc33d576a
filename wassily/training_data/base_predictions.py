"""Base predictions for the preservation loss: made once on generic prompts, and cached.

Learning without forgetting (Li and Hoiem, arXiv 1606.09282): besides its own task a network is held
to what its old self gives. No old pictures are needed, because the base draws them; and no second
network is in memory, because the questions are fixed and their answers lie in the cache.

A drawing is one prompt with one seed; ANSWERS questions are asked about each, at timesteps spread
over the schedule. Nothing here depends on the seed of a run, so all runs on a base share the work.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wassily.config.training import TrainConfig
from wassily.data.example_order import Examples
from wassily.encodings import cache, lookup
from wassily.encodings.definitions import EncoderContext
from wassily.encodings.fill import Row
from wassily.generation import pipelines, sample
from wassily.maths import randomness
from wassily.models import encode, parts
from wassily.models.trainable import Trainable, make_trainable
from wassily.runtime.progress import progress
from wassily.training_data import generic_prompts

SEED = 0  # of the questions: not that of a run, so that all runs on a base share the cache
# With a quarter of the drawings a network learns to tell them from what it was not asked about.
DRAWINGS, ANSWERS = 2048, 4
# Drawings: the last bits of one depend on how many are made together.
AT_ONCE = {"prior": 16, "decoder": 4}
GROUP = 256  # so many are drawn, asked about and written before the next
EVERY = 8  # one question of so many is about the unconditional, for guidance's sake
# The prior's, by turns: as one draws, and weaker, for all that the base knows is to be kept.
GUIDANCES = (2.0, 4.0)
# Few steps, for the latents only say where it is asked.
DRAWINGS_OF = {
    role: sample.Drawing(
        steps=12, prior_steps=25, guidance_scale=2.5, batch_size=size, scheduler="stock"
    )
    for role, size in AT_ONCE.items()
}


@dataclass(frozen=True)
class Answers:
    """The questions and the base's answers, by number."""

    store: cache.Store
    seed: int  # of the order in which a run goes through them

    def __len__(self) -> int:
        return DRAWINGS * ANSWERS

    def __call__(self, index: int, step: int, slot: int) -> Row:
        """What the network in training is given, and `base`, the answer; step and slot are moot."""
        row = self.store[_key(index)]
        return {**row, "noise": _noise(index, row), "held": torch.tensor(1.0)}

    def examples(self, trainable: Trainable) -> Examples:
        """As a source of examples; each brings its own noise and timestep."""
        return Examples(self, self.seed, lambda index: (), len(trainable.objective.alpha_bars))


def answers(config: TrainConfig, context: EncoderContext, seed: int) -> Answers:
    """The base's answers from the cache, made first where they are missing. Raises UserError."""
    runtime = context.runtime
    wanted = generic_prompts.prompts(config, context.repositories)
    folder = context.root / f"base-{_space(context, wanted)}"
    runtime.shared(lambda: cache.sweep(context.root))
    keys = cache.stacked(map(_key, range(DRAWINGS * ANSWERS)))
    size = AT_ONCE[config.role]
    blocks = _blocks(cache.Store(folder).missing(keys), size)
    for share in runtime.shares():
        mine = blocks[share]
        writer = cache.Writer(folder, ("text_states",) if config.role == "prior" else ())
        shown = runtime.main and len(mine) > 0
        with progress("asking the base", len(mine) * size, shown, "drawing") as bar:
            for first in range(0, len(mine), GROUP // size):
                group = mine[first : first + GROUP // size]
                for number, row in _made(config, context, wanted, group):
                    writer.add(_key(number), row)
                writer.flush()
                bar.advance(len(group) * size)
        runtime.wait()
    runtime.let_go()
    cache.mark_used(folder)
    return Answers(cache.Store(folder), seed)


def _key(number: int) -> bytes:
    return cache.digest("answer", number)


def _blocks(missing: np.ndarray, size: int) -> list[int]:
    """The blocks of `size` drawings in which an answer is missing: each is made as a whole."""
    return sorted({int(number) // (size * ANSWERS) for number in missing})


def _space(context: EncoderContext, wanted: list[str]) -> str:
    """A digest of all that the answers depend on."""
    role = context.role
    roles = [*parts.PARTS] if role == "decoder" else ["prior", "text_encoder", "tokenizer"]
    size = context.resolution if role == "decoder" else 0
    drawing = str(DRAWINGS_OF[role])
    settings = (DRAWINGS, ANSWERS, EVERY, drawing, str(GUIDANCES), SEED, size, role)
    return context.space(*roles, also=(*settings, *wanted))


def _noise(number: int, row: Row) -> Tensor:
    """The noise of a question, in the shape of what it is added to."""
    clean = row["latents"] if "latents" in row else row["image_embeds"]
    return randomness.noise(SEED, number, 0, tuple(clean.shape))


def timestep(number: int, count: int) -> int:
    """The timestep of a question: one in each of ANSWERS equal stretches of [0, count)."""
    # Spread evenly, so that each drawing is asked about at all levels of noise.
    band = number % ANSWERS
    return randomness.probe_timestep(SEED, number // ANSWERS, band, ANSWERS, count)


def is_unconditional(number: int) -> bool:
    """Whether a question is about the unconditional; over the drawings at every stretch of t."""
    return (number % ANSWERS + number // ANSWERS) % EVERY == 0


# ---------------------------------------------------------------- making them


@torch.no_grad()
def _made(
    config: TrainConfig, context: EncoderContext, wanted: list[str], blocks: list[int]
) -> Iterator[tuple[int, Row]]:
    """Each question of some blocks with its answer, in their order."""
    runtime = context.runtime
    size = AT_ONCE[config.role]
    numbers = [block * size + i for block in blocks for i in range(size)]
    drawn = _drawn(context, [wanted[n % len(wanted)] for n in numbers], numbers)
    trainable = make_trainable(config, context.repositories)
    objective = trainable.objective.to(runtime.device).eval()
    count, dtype = len(objective.alpha_bars), runtime.weight_dtype
    for drawing, (clean, unconditional) in zip(numbers, drawn, strict=True):
        asked = range(drawing * ANSWERS, (drawing + 1) * ANSWERS)
        rows: list[Row] = [
            {
                **clean,
                **(unconditional if is_unconditional(number) else {}),
                "t": torch.tensor(timestep(number, count)),
            }
            for number in asked
        ]
        given = [{**row, "noise": _noise(n, row)} for n, row in zip(asked, rows, strict=True)]
        batch = runtime.to_device(lookup.collate(given))
        with runtime.accelerator.autocast():
            _, found = objective.output(batch, batch["noise"], batch["t"])
        for number, row, answer in zip(asked, rows, found.to("cpu", dtype), strict=True):
            yield number, {**row, "base": answer.clone()}


def _drawn(context: EncoderContext, wanted: list[str], seeds: list[int]) -> list[tuple[Row, Row]]:
    """What the base makes of prompts: the fields of an example, and those of its unconditional."""
    runtime, role = context.runtime, context.role
    dtype, drawing = runtime.weight_dtype, DRAWINGS_OF[role]
    where = (dtype, context.cache_dir)
    # The base itself, not the network in training: this runs before it is loaded.
    prior = pipelines.prior_pipeline(context.repositories["prior"], *where)
    embeds = _embedded(prior, wanted, seeds, drawing, runtime.device)
    kept = [e.to("cpu", dtype) for e in embeds[0]]
    if role == "prior":
        texts = _texts(prior, wanted, runtime.device, dtype)
        [empty] = _texts(prior, [""], runtime.device, dtype)
        return [({"image_embeds": e, **text}, empty) for e, text in zip(kept, texts, strict=True)]
    zero = {"image_embeds": encode.zero_image(prior.image_encoder)[0].to("cpu", dtype)}
    # The two pipelines need not fit the memory together.
    del prior
    decoder = pipelines.decoder_pipeline(context.repositories["decoder"], *where)
    latents = sample.paint(
        decoder,
        embeds,
        _generators(seeds),
        sample.at(drawing, context.resolution),
        runtime.device,
        output="latent",
    )
    rows = zip(kept, latents, strict=True)
    return [({"image_embeds": e, "latents": z.to("cpu", dtype)}, zero) for e, z in rows]


def _embedded(
    prior: sample.KandinskyV22PriorPipeline,
    wanted: list[str],
    seeds: list[int],
    drawing: sample.Drawing,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Embeddings and their negatives, each (N, D), block by block, each with its guidance."""
    size, found = drawing.batch_size, []
    with pipelines.on(prior, device):
        for first in range(0, len(wanted), size):
            part = slice(first, first + size)
            guidance = GUIDANCES[seeds[first] // size % len(GUIDANCES)]
            with_it = dataclasses.replace(drawing, prior_guidance_scale=guidance)
            generators = _generators(seeds[part])
            found.append(sample.embed(prior, wanted[part], generators, with_it))
    return torch.cat([positive for positive, _ in found]), torch.cat([n for _, n in found])


def _generators(seeds: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _texts(
    prior: sample.KandinskyV22PriorPipeline,
    wanted: list[str],
    device: torch.device,
    dtype: torch.dtype,
) -> list[Row]:
    """The text of each prompt as an example has it."""
    found: list[Row] = []
    take = functools.partial(encode.tokens, tokenizer=prior.tokenizer)
    with pipelines.on(prior, device):
        for prompt in wanted:
            ids, mask = take(prompt)[:, None]
            embeds, states = encode.text(prior.text_encoder, ids, int(mask.sum()))
            found.append(
                {
                    "text_embeds": embeds[0].to("cpu", dtype),
                    "text_states": states[0].to("cpu", dtype),
                }
            )
    return found
