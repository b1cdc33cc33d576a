"""What each way of fine-tuning learns and what it keeps, on the bundled model: one row a way.

python -m benchmarks.experiments --work runs/experiments

Every run has the same 200 pictures of something new, the same batch and the same numbers of steps.
The judge of the bundled world reads what was drawn of new prompts and of old ones, at seeds that
are the same before and after, so what a fine-tune costs is a mean of differences of pairs. What is
done is kept in --work and not done again; the page is written from what there is.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import report, runs
from wassily.config.generation import GenerateConfig
from wassily.evaluation import metrics
from wassily.generation import generate, load, sample
from wassily.mini import judge, world
from wassily.mini.scene import Scene
from wassily.planning import plan
from wassily.runtime.accelerator import quiet_libraries

PICTURES, BATCH, ROLES = 200, 16, ("prior", "decoder")
READ = {"inked": ("style",), "zorb": ("shape",)}  # what makes the new thing
WHOLE = ("shape", "colour", "background", "count", "style")
PROMPT_SEED, FIRST_SEED = 12, 1000
DRAWING = sample.Drawing(10, 25, 2.5, 4.0, batch_size=32, scheduler="unipc")
CHUNK = 64


@dataclass(frozen=True)
class Way:
    """Flags of a fine-tune, for both networks and for each; `alpha` mixes the result with the
    base. The value OWN stands for the prior of the same run.
    """

    flags: dict[str, Any] = field(default_factory=dict)
    prior: dict[str, Any] = field(default_factory=dict)
    decoder: dict[str, Any] = field(default_factory=dict)
    of: str | None = None  # the way whose networks are mixed with the base's
    alpha: float | None = None


SLOWING = {"lr_scheduler": "cosine", "lr_warmup_steps": 20}
RATE = {"learning_rate": 1e-3} | SLOWING
HOLD = {"preserve": "builtin"}
OWN, MERGED = "the run's own prior", "prior-merged"
STRONG: dict[str, Any] = {
    "prior": {"preserve_weight": 10},
    "decoder": {"preserve_weight": 3, "drawn_embeds": OWN},
}
# A style is in the convolutions; the first ones of each block, the largest, are left out.
ADAPTED = {"lora": True, "rank": 8} | SLOWING
DEEP = {
    "learning_rate": 5e-3,
    "lora_targets": "to_q,to_k,to_v,to_out.0,add_k_proj,add_v_proj,"
    "conv2,conv_in,conv_out,conv_shortcut",
}
LORA: dict[str, Any] = {"prior": {"learning_rate": 1e-3}, "decoder": DEEP}
WAYS: dict[str, Way] = {
    "guide": Way(),
    "preserve": Way(RATE | HOLD, **STRONG),
    "preserve, LoRA 8": Way(ADAPTED | HOLD, **{role: LORA[role] | STRONG[role] for role in ROLES}),
    "LoRA 8": Way(ADAPTED, **LORA),
    "half-way": Way(of="guide", alpha=0.5),
    "dropout": Way({"condition_dropout": 0.1}),
    "Min-SNR": Way({"snr_gamma": 5.0}),
    "EMA": Way({"use_ema": True, "ema_sigma_rel": 0.1}),
    "hybrid": Way(decoder={"variance_loss": 0.001}),
}


def options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--work", type=Path, metavar="FOLDER", default=Path("runs/experiments"))
    add("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    add("--things", nargs="+", choices=READ, default=["inked"])
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--steps", type=int, default=1500, help="of each network; one folder is for one number")
    add("--new", type=int, default=256, help="new prompts, each drawn once a run")
    add("--old", type=int, default=1000, help="old prompts, likewise")
    add("--results", type=Path, metavar="FOLDER", default=report.RESULTS)
    add("--page_only", action="store_true", help="write the page from what is there")
    return parser.parse_args(words)


# ---------------------------------------------------------------- runs


def words_of(
    way: Way, role: str, thing: str, seed: int, work: Path, name: str, steps: int
) -> list[str]:
    """The words of one training."""
    flags = {
        "pretrained_prior_model_name_or_path": "mini",
        "pretrained_decoder_model_name_or_path": "mini",
        "train_data_dir": work / f"{thing}-{seed}",
        "output_dir": folder_of(work, name, thing, seed) / role,
        "resolution": world.SIZE,
        "train_batch_size": BATCH,
        "max_train_steps": steps,
        "checkpointing_steps": 10_000,
        "checkpoints_total_limit": 1,
        "seed": seed,
        "report_to": "none",
        **way.flags,
        **(way.prior if role == "prior" else way.decoder),
    }
    words = ["train", role]
    for flag, value in flags.items():
        if value == OWN:
            out = folder_of(work, name, thing, seed)
            value = out / (MERGED if way.flags.get("lora") else "prior")
        words += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
    return words


def merge_prior(out: Path, work: Path) -> None:
    """Make a whole prior of a run's adapter, for the decoder to learn from."""
    if not (out / MERGED).exists():
        words = ["merge", "--lora", out / "prior", "--out", out / MERGED]
        runs.launch(["-m", "wassily", *map(str, words)], work)


def folder_of(work: Path, name: str, thing: str, seed: int) -> Path:
    """Where the two networks of a run are."""
    return work / f"{generate.slug(name)}-{thing}-{seed}"


def trained(name: str, thing: str, seed: int, work: Path, steps: int) -> GenerateConfig:
    """Train both networks if they are not there; what `wassily generate` would be given."""
    way = WAYS[name]
    if way.of is not None:
        trained(way.of, thing, seed, work, steps)
        return mixed(name, thing, seed, work)
    folder = work / f"{thing}-{seed}"
    if not folder.exists():
        world.write(folder, thing, PICTURES, seed)
    out = folder_of(work, name, thing, seed)
    for role in ROLES:
        done = out / f"{role}.done"
        if not done.exists():
            if role == "decoder" and OWN in way.decoder.values() and way.flags.get("lora"):
                merge_prior(out, work)
            words = words_of(way, role, thing, seed, work, name, steps)
            print("$ wassily", shlex.join(words), flush=True)
            runs.launch(["-m", "wassily", *words, f"--cache_dir={work / 'cache'}"], work)
            done.touch()
    if way.flags.get("lora"):
        lora = {"prior_lora": str(out / "prior"), "decoder_lora": str(out / "decoder")}
        return GenerateConfig(prompts=("-",), prior="mini", decoder="mini", **lora)
    return GenerateConfig(prompts=("-",), prior=str(out / "prior"), decoder=str(out / "decoder"))


def mixed(name: str, thing: str, seed: int, work: Path) -> GenerateConfig:
    """The networks of another way, mixed with the base's by `wassily merge`."""
    way, out = WAYS[name], folder_of(work, name, thing, seed)
    assert way.of is not None
    for role in ROLES:
        if not (out / role).exists():
            tuned = folder_of(work, way.of, thing, seed) / role
            words = ["merge", "--base", "mini", "--tuned", tuned, "--alpha", way.alpha]
            words += ["--out", out / role]
            runs.launch(["-m", "wassily", *map(str, words)], work)
    return GenerateConfig(prompts=("-",), prior=str(out / "prior"), decoder=str(out / "decoder"))


# ---------------------------------------------------------------- reading


def jobs(thing: str, new: int, old: int) -> dict[str, list[tuple[str, Scene]]]:
    """The prompts and the scenes that they ask for."""
    return {
        "new": world.prompts(PROMPT_SEED, new, "all", thing),
        "old": world.prompts(PROMPT_SEED, old, "held_out"),
    }


def read(config: GenerateConfig, thing: str, asked: dict[str, Any]) -> dict[str, dict[str, list]]:
    """For each kind of prompt and each attribute whether the picture shows it, in order."""
    prior, decoder, device = load.pipelines(config, load.find(config))
    found: dict[str, dict[str, list]] = {}
    for kind, pairs in asked.items():
        seen: dict[str, list] = {attribute: [] for attribute in judge.JUDGED}
        for start in range(0, len(pairs), CHUNK):
            part = list(enumerate(pairs))[start : start + CHUNK]
            prompts = [(prompt, FIRST_SEED + i) for i, (prompt, _) in part]
            drawn = sample.draw(prior, decoder, prompts, DRAWING, device)
            for picture, (_, (_, scene)) in zip(drawn, part, strict=True):
                verdict = judge.judge(picture)
                for attribute, values in seen.items():
                    values.append(int(getattr(verdict, attribute) == getattr(scene, attribute)))
        found[kind] = seen
    return found


def run(args: argparse.Namespace) -> None:
    """Every run that is not in the record yet; the base first."""
    for thing in args.things:
        asked = jobs(thing, args.new, args.old)
        base = GenerateConfig(prompts=("-",), prior="mini", decoder="mini")
        for name, seed in [("base", -1), *((w, s) for s in args.seeds for w in args.ways)]:
            counts = {"new": args.new, "old": args.old}
            if any(same(row, name, thing, seed, counts) for row in record(args.work)):
                continue
            config = base if name == "base" else trained(name, thing, seed, args.work, args.steps)
            row = {"way": name, "thing": thing, "seed": seed, **counts}
            row["seen"] = read(config, thing, asked)
            with (args.work / "record.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(name, thing, seed, summary(row), flush=True)


def same(row: dict[str, Any], name: str, thing: str, seed: int, counts: dict[str, int]) -> bool:
    """Whether a row is of this run, with at least so many prompts."""
    there = (row["way"], row["thing"], row["seed"]) == (name, thing, seed)
    return there and all(row[kind] >= count for kind, count in counts.items())


def record(work: Path) -> list[dict[str, Any]]:
    """What was read so far."""
    path = work / "record.jsonl"
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


# ---------------------------------------------------------------- numbers


def right(row: dict[str, Any], kind: str, names: tuple[str, ...]) -> np.ndarray:
    """For each prompt 100 if all of these attributes are as asked, else 0."""
    return 100.0 * np.min([row["seen"][kind][name] for name in names], axis=0)


def summary(row: dict[str, Any]) -> str:
    """A run in one line."""
    learnt = right(row, "new", READ[row["thing"]]).mean()
    shape = right(row, "new", ("shape",)).mean()
    return f"learnt {learnt:.1f}, its shape {shape:.1f}, kept {right(row, 'old', WHOLE).mean():.1f}"


def lines(rows: list[dict[str, Any]], thing: str) -> Iterator[tuple[str, ...]]:
    """Each way: learnt, kept, and what the old lost, with intervals of 95 % over all pictures."""
    [base] = [row for row in rows if row["way"] == "base" and row["thing"] == thing][-1:]
    for name in ["base", *WAYS]:
        mine = [row for row in rows if row["way"] == name and row["thing"] == thing]
        if not mine:
            continue
        latest = list({row["seed"]: row for row in mine}.values())
        learnt = np.concatenate([right(row, "new", READ[thing]) for row in latest])
        kept = [right(row, "old", WHOLE) for row in latest]
        before = right(base, "old", WHOLE)
        # The same prompt and seed before and after: pairs. Resampled by prompt, for the runs
        # share the prompts.
        lost = np.mean([before[: len(k)] - k for k in kept], axis=0)
        yield (
            name,
            str(len(latest)),
            shown(metrics.mean(learnt)),
            shown(metrics.mean(np.concatenate(kept))),
            shown(metrics.mean(lost)) if name != "base" else "",
            str(sum(map(len, kept))),
        )


def described(way: Way) -> str:
    """The flags of a way, as one types them."""
    if way.of is not None:
        return f"`wassily merge --alpha {way.alpha:g}` of {way.of}"
    given = [("", way.flags), ("prior ", way.prior), ("decoder ", way.decoder)]
    words = [f"{who}`{plan.words(flags)}`" for who, flags in given if flags]
    return ", ".join(words) or "nothing"


def shown(found: metrics.Estimate) -> str:
    """A mean with its interval."""
    return f"{found.value:.1f} ({found.low:.1f} to {found.high:.1f})"


def about(steps: int) -> str:
    """What a reader of the page must know."""
    return f"""The bundled model, {PICTURES} pictures of something new, batches of {BATCH}, {steps}
steps of the prior and as many of the decoder, rate 1e-4 where no other is named. Learnt: the new
style (inked) or shape (zorb) is seen in what new prompts draw. Old wholly right: shape, colour,
background, count and style as old prompts ask, which are of triples that the model was never
trained on. Lost: base less tuned, pairs of the same prompt and seed. In brackets intervals of 95 %:
over the pictures, and for the loss over the prompts, of which each is drawn once a run. Drawn in
{DRAWING.steps} steps of {DRAWING.scheduler}, as `wassily generate` does, with a guidance of
{DRAWING.prior_guidance_scale:g} of the prior and {DRAWING.guidance_scale:g} of the decoder."""


def main(words: list[str] | None = None) -> None:
    """Run, and write the page."""
    args = options(words)
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(int(torch.get_num_threads()))
    quiet_libraries()
    if not args.page_only:
        run(args)
    rows = record(args.work)
    head = ("way", "runs", "learnt, %", "old wholly right, %", "lost, points", "old pictures")
    parts = []
    for thing in args.things:
        parts += [f"## {thing}", report.table(head, list(lines(rows, thing)))]
    given = "; ".join(f"{name}: {described(way)}" for name, way in WAYS.items())
    report.write(
        f"experiments-{args.steps}",
        "What is learnt, and what is kept",
        [about(args.steps), given, *parts],
        args.results,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
