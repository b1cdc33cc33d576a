"""Everything drawn at random in training: pure functions of (seed, step, slot).

`step` counts optimizer steps from 0 and `slot` the place in the global batch, so the draws are the
same however the global batch is cut into processes and micro-batches, and a resumed run needs no
saved generator. Each purpose has a stream of its own: switching one on leaves the others as they
were.
"""

import numpy as np
import torch
from torch import Tensor

# A number is a part of the key of each draw of its purpose: a new purpose goes to the end, or runs
# that are resumed would draw something else.
ORDER, NOISE, TIMESTEP, FLIP, CAPTION, MODULES, TURNS, CONDITION, BLOCK, DRAWN = range(10)
SIDE = 32


def _generator(*key: int) -> np.random.Generator:
    # SeedSequence mixes the whole key, so neighbouring steps and slots are unrelated streams.
    return np.random.default_rng(key)


def fresh_seed() -> int:
    """A seed in [0, 2**31) from the operating system's entropy, for runs that name none."""
    # Below 2**31: every library takes such a seed.
    return int(np.random.SeedSequence().generate_state(1)[0] >> 1)


def order(seed: int, epoch: int, count: int, bucket: int = 0) -> np.ndarray:
    """The permutation of a bucket's `count` examples that `epoch` walks through, shape (count,)."""
    # A key of its own for every bucket but the first, which is the only one of most runs.
    return _generator(seed, ORDER, epoch, *([bucket] if bucket else [])).permutation(count)


def turns(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which the `count` steps of an epoch's buckets come, shape (count,)."""
    return _generator(seed, TURNS, epoch).permutation(count)


def block(seed: int, epoch: int, lane: int, number: int, count: int) -> np.ndarray:
    """The order of a stream's buffer, the `number`th of a lane's epoch, shape (count,)."""
    return _generator(seed, BLOCK, epoch, lane, number).permutation(count)


def subset(seed: int, count: int, keep: int) -> list[int]:
    """`keep` of `count` indices, drawn without replacement and sorted (`--max_train_samples`)."""
    # An epoch that no run reaches: the choice is apart from the order of the training.
    return sorted(order(seed, 2**32, count)[:keep].tolist())


def noise(seed: int, step: int, slot: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise for one example, fp32."""
    # By numpy on the CPU, so that all devices train on the same noise.
    values = _generator(seed, NOISE, step, slot).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(values)


def timestep(seed: int, step: int, slot: int, count: int) -> int:
    """A uniform timestep in [0, count)."""
    return int(_generator(seed, TIMESTEP, step, slot).integers(count))


def flip(seed: int, step: int, slot: int) -> bool:
    """Whether this example is mirrored: a fair coin."""
    return bool(_generator(seed, FLIP, step, slot).integers(2))


def choice(seed: int, step: int, slot: int, count: int) -> int:
    """Which of an example's `count` captions is used."""
    return int(_generator(seed, CAPTION, step, slot).integers(count))


def module_seed(seed: int, step: int, slot: int) -> int:
    """A seed for torch's own generator, for modules that draw inside `forward` (dropout)."""
    return int(_generator(seed, MODULES, step, slot).integers(2**31))


def adapter_seed(seed: int) -> int:
    """A seed for torch's own generator while the first values of an adapter are drawn."""
    return module_seed(seed, 2**32, 0)  # no step is so late


def drops(seed: int, step: int, slot: int, probability: float) -> bool:
    """Whether this example is learnt without its condition: true with `probability` in [0, 1)."""
    return bool(_generator(seed, CONDITION, step, slot).random() < probability)


def drawn(seed: int, step: int, slot: int, share: float, count: int) -> int | None:
    """Which of `count` drawn embeddings this example has; None with 1 - `share`: its own."""
    generator = _generator(seed, DRAWN, step, slot)
    return int(generator.integers(count)) if generator.random() < share else None


def side_seed(seed: int, number: int) -> int:
    """The seed of the `number`th source of examples beside the own ones.

    All of its draws and its order come from it, as the own ones come from `seed`: whether there is
    such a source changes nothing for the others.
    """
    return int(_generator(seed, SIDE, number).integers(2**63))


# ---------------------------------------------------------------- the measuring of held-out losses

PROBE_NOISE, PROBE_TIMESTEP = 64, 65  # apart from the streams of the training


def probe_noise(seed: int, number: int, band: int, shape: tuple[int, ...]) -> Tensor:
    """The noise with which held-out example `number` is measured in a band, the same each time."""
    values = _generator(seed, PROBE_NOISE, number, band).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(values)


def probe_timestep(seed: int, number: int, band: int, bands: int, count: int) -> int:
    """Its timestep: uniform in the band'th of `bands` equal stretches of [0, count)."""
    low, high = band * count // bands, (band + 1) * count // bands
    return int(_generator(seed, PROBE_TIMESTEP, number, band).integers(low, high))
