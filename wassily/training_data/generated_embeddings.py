"""Image embeddings that a prior draws from captions: what the decoder will be given in the end.

The decoder learns from the embeddings of pictures and then paints from those that a prior drew,
which are a little different. Where the prior was tuned on the same pictures, a share of them can be
learnt from what it draws of their captions. Each draw has a caption and a number; nothing depends
on the seed of a run, so all runs with that prior share the work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from wassily.config.training import TrainConfig
from wassily.data.datasets import Pictures
from wassily.encodings import cache, lookup
from wassily.encodings.definitions import EncoderContext
from wassily.encodings.fill import Row
from wassily.generation import pipelines, sample
from wassily.maths import randomness
from wassily.models import kinds, names
from wassily.runtime.progress import progress
from wassily.training_data.training_set import TrainingSet

GUIDANCES = (2.0, 4.0)  # of the prior: moderate, and the stock pipeline's
EACH = 4  # draws of a caption with each, made together: the last bits depend on how many those are
DRAWS = EACH * len(GUIDANCES)
STEPS = 25


def repository(config: TrainConfig, decoder: str) -> str | None:
    """The folder or hub name of the prior that is to draw; None if none is. Raises UserError."""
    name = getattr(config, "drawn_embeds", None)
    if name is None:
        return None
    found = names.resolve(name, "prior")
    both = {"prior": found, "decoder": decoder}
    kinds.check_widths(both, config.cache_dir, flag="drawn_embeds")
    return found


def mixed(reading: TrainingSet, config: TrainConfig, context: EncoderContext) -> TrainingSet:
    """A reading of which the configured share has drawn embeddings, made where they are missing."""
    prior = repository(config, context.repositories["decoder"])
    if prior is None:
        return reading
    there = dataclasses.replace(context, repositories={**context.repositories, "prior": prior})
    store = _filled(there, list(dict.fromkeys(reading.source.all_captions())))
    choice = lookup.ExampleDraws(reading.seed, config.random_flip, config.condition_dropout)
    share = getattr(config, "drawn_share", 0.0)
    fetch = WithGeneratedEmbeddings(reading.fetch, reading.source, choice, share, store)
    also = {"drawn embeddings": store.folder.name}
    return dataclasses.replace(reading, fetch=fetch, also=also)


@dataclass(frozen=True)
class WithGeneratedEmbeddings:
    """An example as `fetch` has it, with a drawn embedding in the place of its picture's own."""

    fetch: Callable[[int, int, int], Row]
    source: Pictures
    choice: lookup.ExampleDraws
    share: float
    store: cache.Store

    def __call__(self, index: int, step: int, slot: int) -> Row:
        """The row; what is learnt without its condition stays so."""
        row, choice = self.fetch(index, step, slot), self.choice
        number = randomness.drawn(choice.seed, step, slot, self.share, DRAWS)
        dropped = randomness.drops(choice.seed, step, slot, choice.condition_dropout)
        if number is None or dropped:
            return row
        caption = choice.caption(self.source[index], step, slot)
        return {**row, **self.store[_key(caption, number)]}


def _key(caption: str, number: int) -> bytes:
    return cache.digest("drawn", cache.caption_key(caption), number)


def _filled(context: EncoderContext, captions: list[str]) -> cache.Store:
    """Every draw of some captions; what is missing is made first."""
    settings = (GUIDANCES, EACH, STEPS)
    space = context.space("prior", "text_encoder", "tokenizer", also=(str(settings),))
    folder = context.root / f"drawn-{space}"
    keys = cache.stacked(_key(caption, n) for caption in captions for n in range(DRAWS))
    missing = cache.Store(folder).missing(keys)
    todo = sorted({(int(number) // EACH) for number in missing})
    for share in context.runtime.shares():
        mine = todo[share]
        writer = cache.Writer(folder)
        shown = context.runtime.main and len(mine) > 0
        with progress("drawing embeddings", len(mine) * EACH, shown, "drawing") as bar:
            for key, row in _made(context, captions, mine):
                writer.add(key, row)
                bar.advance()
        writer.flush()
        context.runtime.wait()
    context.runtime.let_go()
    cache.mark_used(folder)
    return cache.Store(folder)


@torch.no_grad()
def _made(
    context: EncoderContext, captions: list[str], groups: list[int]
) -> Iterator[tuple[bytes, Row]]:
    """The draws of some groups, of EACH draws of a caption with one guidance."""
    if not groups:
        return
    runtime, dtype = context.runtime, context.runtime.weight_dtype
    prior = pipelines.prior_pipeline(context.repositories["prior"], dtype, context.cache_dir)
    with pipelines.on(prior, runtime.device):
        for group in groups:
            which, part = divmod(group, len(GUIDANCES))
            numbers = range(part * EACH, (part + 1) * EACH)
            drawing = sample.Drawing(prior_steps=STEPS, prior_guidance_scale=GUIDANCES[part])
            generators = [torch.Generator().manual_seed(number) for number in numbers]
            embeds, _ = sample.embed(prior, [captions[which]] * EACH, generators, drawing)
            for number, embed in zip(numbers, embeds.to("cpu", dtype), strict=True):
                yield _key(captions[which], number), {"image_embeds": embed.clone()}
