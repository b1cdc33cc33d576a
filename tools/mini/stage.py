"""What the two frozen parts share in training: a seeded loop that goes on where it stopped."""

import json
import math
import time
from pathlib import Path

import numpy as np
import torch

SAVE_EVERY = 50


def run(folder, name, module, loss_of, steps, rate, seed=0, warmup=100, decay=0.0):
    """Trains `module` for `steps` with loss_of(step, rng) -> {"loss": ..., ...}; cosine schedule.

    The state lies in folder/name.pt, a curve in folder/name.jsonl; all draws follow from
    (seed, step). Returns the minutes spent, all sittings together.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=decay, fused=True
    )
    start, spent, path = 0, 0.0, folder / f"{name}.pt"
    if path.exists():
        kept = torch.load(path, weights_only=True)
        module.load_state_dict(kept["module"])
        optimizer.load_state_dict(kept["optimizer"])
        start, spent = kept["step"], kept["seconds"]
    began, sums = time.time() - spent, {}
    module.train()
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, steps, warmup)
        torch.manual_seed(seed * 1_000_003 + step)
        losses = loss_of(step, np.random.default_rng([seed, step]))
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        sums = {k: sums.get(k, 0) + float(v.detach()) for k, v in losses.items()}
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            seconds = time.time() - began
            shown = {k: round(v / ((step % SAVE_EVERY) + 1), 5) for k, v in sums.items()}
            row = {"step": step + 1, "seconds": round(seconds), **shown}
            print(name, row, flush=True)
            with open(folder / f"{name}.jsonl", "a") as curve:
                curve.write(json.dumps(row) + "\n")
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step + 1, "seconds": seconds}, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
            sums = {}
    module.eval()
    return (time.time() - began) / 60


def schedule(step, steps, warmup):
    """Linear warm-up, then a half cosine down to a hundredth."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
