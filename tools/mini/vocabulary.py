"""A small byte-level vocabulary in the form that `CLIPTokenizer` reads: any text can be written."""

from collections import Counter
from itertools import pairwise

import numpy as np
from transformers import CLIPTokenizer

from wassily.mini import world

CONTEXT = 32
SYLLABLES = "ba do fi gu ke lo mi nu pa ro su ta vi wo ze qui jax hel yor zin cum".split()
ARABIC_SYLLABLES = "با دو في كي لو مي نو سا رو تا وي زا شي حا قو يم هل جر طب عن صك غث ضف خذ".split()


def byte_letters():
    """The printable character that stands for each of the 256 bytes in byte-level BPE."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return {b: chr(b) if b in plain else chr(next(spare)) for b in range(256)}


def learn_merges(words):
    """Byte-pair merges, most frequent first, until each word of the Counter is one token."""
    letters = byte_letters()
    split = {w: [letters[b] for b in w.encode()] for w in words}
    for parts in split.values():
        parts[-1] += "</w>"
    merges = []
    while True:
        pairs = Counter()
        for word, parts in split.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        split = {w: _merge(parts, best) for w, parts in split.items()}


def _merge(parts, pair):
    merged, i = [], 0
    while i < len(parts):
        hit = tuple(parts[i : i + 2]) == pair
        merged.append("".join(pair) if hit else parts[i])
        i += 2 if hit else 1
    return merged


def build(n=4000):
    """The tokenizer: bytes, merges learned from n captions in two languages, two special tokens."""
    rng = np.random.default_rng(0)
    scenes = world.scenes(0, n)
    texts = [world.caption(s, rng, w) for s in scenes for w in ("en", "ar")]
    merges = learn_merges(Counter(w for t in texts for w in t.replace(",", " ").split()))
    letters = list(byte_letters().values())
    tokens = [*letters, *(c + "</w>" for c in letters), *map("".join, merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT)


def with_strange_word(text, rng):
    """The caption with one made-up word in it, so that unknown words do not upset the encoder."""
    arabic = any("\u0600" <= c <= "\u06ff" for c in text)
    syllables = ARABIC_SYLLABLES if arabic else SYLLABLES
    word = "".join(syllables[i] for i in rng.integers(len(syllables), size=rng.integers(1, 4)))
    words = text.split()
    words.insert(int(rng.integers(1, len(words))), word)
    return " ".join(words)
