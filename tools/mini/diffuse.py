"""Trains the prior and the decoder of `mini` on encoded pictures with the project's own loop."""

import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tools.mini import bank, encoded, nets, stage
from wassily.files import atomic, output_folder
from wassily.maths import losses
from wassily.maths.ema import Ema
from wassily.models import adapters, parts
from wassily.runtime.accelerator import Runtime
from wassily.training import checkpoints, optimizer_state
from wassily.training.loop import Events, Learner, Pending, Span, fit, forward_backward

DROPPED = 0.1  # fraction of examples trained without their condition
PICTURES = 80_000
BANK = 4  # seed: other pictures than those that the encoders were trained on
SNR_GAMMA = 5.0
SAVE_EVERY = 500
LOG_EVERY = 50


@dataclass(frozen=True)
class Plan:
    """How a network is trained."""

    steps: int
    batch: int
    rate: float
    warmup: int = 200
    seed: int = 0
    decay: float = 0.999  # of the average that is kept


def train_prior(work, steps=6000):
    """Trains, or goes on; the average of the weights goes to work/parts/prior."""
    data = bank.load(work, BANK, PICTURES)
    embeds = encoded.embeddings(work, "train", data.pictures)[:-1]
    captions, rows = encoded.distinct(encoded.captions_of(data))
    texts = encoded.texts(work, "train", captions)
    torch.manual_seed(0)
    net = nets.prior(embeds)
    alpha_bars = parts.prior_alpha_bars()
    objective = losses.Prior(net, alpha_bars, snr_gamma=SNR_GAMMA)
    each = len(rows) // len(embeds)

    def example(rng, batch):
        index = rng.integers(len(embeds), size=batch)
        chosen = torch.from_numpy(rows[index * each + rng.integers(each, size=batch)])
        chosen[torch.from_numpy(rng.random(batch) < DROPPED)] = 0
        length = int(texts.mask[chosen].sum(1).max())
        return {
            "image_embeds": embeds[index],
            "text_embeds": texts.embeds[chosen],
            "text_states": texts.states[chosen, :length].float(),
            "text_mask": texts.mask[chosen, :length],
        }

    plan = Plan(steps, batch=128, rate=1e-3)
    return train(work, "prior", net, objective, example, "image_embeds", plan)


def train_decoder(work, steps=7000):
    """Trains, or goes on; the average of the weights goes to work/parts/unet."""
    data = bank.load(work, BANK, PICTURES)
    embeds = encoded.embeddings(work, "train", data.pictures)
    latents = encoded.latents(work, "train", data.pictures)
    torch.manual_seed(0)
    net = nets.decoder().to(memory_format=torch.channels_last)  # 1.3x on a CPU
    alpha_bars = nets.decoder_scheduler().alphas_cumprod
    objective = losses.Decoder(net, alpha_bars, snr_gamma=SNR_GAMMA)

    def example(rng, batch):
        index = rng.integers(len(latents), size=batch)
        given = np.where(rng.random(batch) < DROPPED, len(embeds) - 1, index)
        return {"latents": latents[index], "image_embeds": embeds[given]}

    plan = Plan(steps, batch=64, rate=1e-3)
    return train(work, "unet", net, objective, example, "latents", plan)


def train(work, role, net, objective, example, target, plan):
    """Runs `fit` from the newest checkpoint of work/role; returns the minutes of all sittings."""
    folder = Path(work) / role
    folder.mkdir(parents=True, exist_ok=True)
    atomic.sweep(folder)
    runtime = Runtime("no", 1, str(folder), "logs", "none")
    trained = adapters.trained_parameters(net)
    parameters = list(trained.values())
    optimizer = torch.optim.AdamW(
        parameters, lr=plan.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    ema = Ema(trained, plan.decay)
    state = restore(folder, net, optimizer, trained, ema)
    objective, optimizer = runtime.prepare(objective, optimizer)
    began = time.time() - state["seconds"]

    def on_log(done, values):
        row = {"step": done, "seconds": round(time.time() - began), **values}
        with open(Path(work) / f"{role}.jsonl", "a") as curve:
            curve.write(json.dumps(row) + "\n")
        print(role, row, flush=True)

    def on_save(done, pending):
        kept = {"step": done, "role": role, "seconds": time.time() - began}
        write = save(net, optimizer, trained, ema, kept)
        atomic.write_whole(folder / f"checkpoint-{done}", write)
        checkpoints.rotate(folder, 2)

    fit(
        Learner(
            objective=objective,
            run=forward_backward(objective, runtime),
            trained=parameters,
            optimizer=optimizer,
            learning_rate=lambda step: plan.rate * stage.schedule(step, plan.steps, plan.warmup),
            max_grad_norm=1.0,
            ema=ema,
        ),
        batches(example, target, len(objective.alpha_bars), plan, state["step"]),
        span=Span(state["step"], plan.steps, 1, plan.seed, plan.batch),
        events=Events(
            log_every=LOG_EVERY,
            on_log=on_log,
            save_at=lambda done: done % SAVE_EVERY == 0,
            on_save=on_save,
            stop_at=lambda done: False,
            on_skipped=lambda steps: print("skipped", *steps) if steps else None,
            validate_at=lambda done: False,
            on_validate=print,
        ),
        runtime=runtime,
        pending=Pending(torch.zeros(())),
    )
    with ema.applied():
        net.save_pretrained(Path(work) / "parts" / role)
    return (time.time() - began) / 60


def batches(example, target, timesteps, plan, start):
    """Endless batches from step `start`, each drawn from (seed, step): encodings, noise, t."""
    for step in itertools.count(start):
        rng = np.random.default_rng([plan.seed, step])
        batch = example(rng, plan.batch)
        noise = rng.standard_normal(batch[target].shape, dtype=np.float32)
        t = torch.from_numpy(rng.integers(timesteps, size=plan.batch))
        yield batch | {"noise": torch.from_numpy(noise), "t": t}


def save(net, optimizer, trained, ema, state):
    """A function that writes a resumable checkpoint into a folder."""

    def write(folder):
        net.save_pretrained(folder / state["role"])
        save_file({k: v.contiguous() for k, v in ema.averages.items()}, folder / "ema.safetensors")
        optimizer_state.save_optimizer(folder, optimizer, trained)
        (folder / output_folder.STATE).write_text(json.dumps(state), "utf-8")

    return write


def restore(folder, net, optimizer, trained, ema):
    """Puts the newest checkpoint back, if there is one; its state."""
    found = output_folder.checkpoints_in(folder)
    if not found:
        return {"step": 0, "seconds": 0.0}
    newest = found[-1][1]
    state = json.loads((newest / output_folder.STATE).read_text("utf-8"))
    net.load_state_dict(parts.load_network(newest / state["role"], state["role"]).state_dict())
    optimizer_state.load_optimizer(newest, optimizer, trained)
    ema.load(load_file(newest / "ema.safetensors"))
    return state
