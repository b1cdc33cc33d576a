"""Writes docs/memory.md: what `wassily plan` says of each preset. python tools/memory.py"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from wassily.config import presets, training  # noqa: E402
from wassily.planning import plan  # noqa: E402

PAGE = ROOT / "docs" / "memory.md"
SIDE = 768
CLASSES = {"prior": training.PriorPlan, "decoder": training.DecoderPlan}
HEAD = f"""# Memory

What a full fine-tune of the released model takes, in GB (10^9 bytes), at batch 1, the decoder at
{SIDE} pixels. These are estimates, worked out from the shapes of all tensors of a step by the same
code as `wassily plan`. What a GPU takes besides tensors (CUDA itself, the workspace of its
libraries, gaps) is assumed: 0.6 GB and 5 %. This page is written by `python tools/memory.py`.

Measured on an H100, the peak of PyTorch's allocator over three steps, GB, beside the estimate
without that rest: prior `8gb` 6.29 (6.30), decoder `12gb` 11.25 (10.70), decoder `16gb` 12.87
(12.57), the guide's commands in fp16 with 4 micro-batches as one, prior 16.5 (16.4), decoder 21.5
(20.7). Without gradient checkpointing the decoder's estimate is too low, 23.0 for 26.5
([figures](../benchmarks/results/2026-11-26-gpu-nvidia-h100.md)).

"""
TAIL = """
`encoding` is the moment when pictures and captions are encoded, before the training: the training's
network is not there yet then, and the encoders are gone afterwards. `training` is the fullest
moment of a step. Both are with the assumed rest.

```bash
wassily train prior   --preset 12gb --train_data_dir pics --output_dir runs/prior
wassily train decoder --preset 12gb --train_data_dir pics --output_dir runs/decoder --resolution 768
wassily plan  decoder --gpu_memory 12 --resolution 768 --train_batch_size 4
```

- A preset is a set of flags, the ones in its row; a flag that you give wins over it, and so does
  one in the file of `--config`.
- `--weights_dtype bf16` and `--optimizer lion` need `pip install torch-optimi`.
- Lion wants a learning rate 3 to 10 times lower than AdamW. It is there because nothing else trains
  the whole prior in 8 GB; no preset trains the whole decoder in 8 GB.
- `--gradient_release` goes with `--gradient_accumulation_steps 1` only: take the larger
  `--train_batch_size` instead.
- With `--lora` every preset sets `--mixed_precision bf16`, and `8gb` `--gradient_checkpointing` as
  well. Already without that the training of an adapter takes 2.9 GB the prior and 4.4 GB the
  decoder, `encoding` being as above.
- Drawing `--validation_prompts` puts the other networks on the GPU beside the training's: up to 7.6
  GB more in 16 bits, which the estimate leaves out. Without prompts nothing is drawn.

## Per weight

| | bytes for each trained weight |
|---|---|
| AdamW, fp32 | 16: weight, gradient, two moments; 18 with `--mixed_precision` |
| `--use_8bit_adam` | 10, and 12 with `--mixed_precision` |
| `--optimizer adafactor` | 8, and 10 with `--mixed_precision` |
| `--weights_dtype bf16` | 10: weight, gradient, two moments, and what rounding lost |
| the same with `--gradient_release` | 8 |
| the same with `--optimizer lion` | 6 |
| `--use_ema` | 4 more |

With `--mixed_precision` there is a copy of the weights in 16 bits during a pass.

## One batch instead of several

The micro-batches of one `--gradient_accumulation_steps` run as one batch where the estimate says
that it fits the memory that is free: the same examples and the same mean of their losses, with
fewer and larger operations. A line at the start says so. A run that goes on does as it did before,
whatever is free then; `--fuse_accumulation on` or `off` decides it by hand.
"""


def row(role: str, name: str) -> str:
    """A line of the table."""
    flags = presets.PRESETS[role][name]
    made = CLASSES[role](resolution=SIDE, **flags)
    repositories = {"prior": training.PRIOR, "decoder": training.DECODER}
    found = plan.estimate(made, repositories, plan.precision_of(made))
    cells = [f"{found.peak_at(moment) / plan.GB:.1f}" for moment in ("encoding", "step")]
    return f"| {role} | `{name}` | " + " | ".join(cells) + f" | `{plan.words(flags)}` |"


def rows() -> list[tuple[str, str]]:
    """Network and preset of each line."""
    return [(role, name) for role, known in presets.PRESETS.items() for name in known]


def main() -> None:
    """Write the page."""
    lines = ["| network | preset | encoding | training | flags |", "|---|---|---|---|---|"]
    lines += [row(role, name) for role, name in rows()]
    PAGE.write_text(HEAD + "\n".join(lines) + "\n" + TAIL, encoding="utf-8")


if __name__ == "__main__":
    main()
