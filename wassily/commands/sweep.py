"""`wassily sweep`: how much of a fine-tune is best, between its base (0) and itself (1).

Weights half-way between a base and its fine-tune often keep most of the old and have most of the
new (arXiv 2109.01903). Each share is measured as `wassily evaluate` does, on the same pictures,
prompts and seeds; an adapter is swept the same way, by its scale.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wassily.commands import merge
from wassily.config import schema
from wassily.config.commands import MergeConfig
from wassily.config.evaluation import EvaluateConfig, MeasureConfig, SweepConfig
from wassily.config.training import DECODER, PRIOR
from wassily.errors import UserError
from wassily.evaluation import evaluate, metrics
from wassily.evaluation.metrics import Estimate
from wassily.evaluation.scores import GeneratedEmbeddings, Outcome, Truth
from wassily.files import atomic
from wassily.generation import load
from wassily.models import names, parts
from wassily.runtime.accelerator import quiet_libraries
from wassily.training_data import generic_prompts
from wassily.version import __version__

LEARNED = ":learned"
RULE = "the greatest sum of learned and kept; of equals the smaller share"


@dataclass(frozen=True)
class Tuned:
    """A fine-tune to take a share of: which network, its base, and its folder or adapter."""

    home: str
    base: str
    name: str
    adapter: bool

    def merging(self, alpha: float, cache_dir: str | None, out: str = "merged") -> MergeConfig:
        """The `wassily merge` that makes it with that share."""
        if self.adapter:
            given: dict[str, Any] = {"lora": self.name, "lora_scale": alpha}
        else:
            given = {"tuned": self.name, "alpha": alpha}
        return MergeConfig(base=self.base, cache_dir=cache_dir, out=out, **given)

    def network(self, alpha: float, cache_dir: str | None) -> parts.Network:
        """The network with that share, in fp32 on the CPU."""
        config = self.merging(alpha, cache_dir)
        return (merge.folded if self.adapter else merge.mixed)(config)[2]


@dataclass(frozen=True)
class Line:
    """The scores of one share; the changes are against the base, example by example."""

    alpha: float
    learned: Estimate
    kept: Estimate
    learned_change: Estimate
    kept_change: Estimate

    @property
    def both(self) -> float:
        """What the best is chosen by."""
        return self.learned.value + self.kept.value


def sweep(config: SweepConfig) -> None:
    """Measure each share, print the table, name the best, and write it if asked to."""
    quiet_libraries()
    tuned = all_tuned(config)
    evaluator = _evaluator(config, tuned)
    # The base is what all are compared with, whether or not it is in the row.
    values = {a: _measured(config, tuned, evaluator, a) for a in sorted({0.0, *config.alphas})}
    evaluator.bar.close()
    found = [_line(alpha, values, config.seed) for alpha in config.alphas]
    best = best_line(found)
    print("\n".join(table(found, best)))
    if config.json:
        atomic.write_text(Path(config.json), as_json(config, found, best))
        print(f"\n{config.json}")
    for one in tuned if config.out else ():
        merge.merge(one.merging(best.alpha, config.cache_dir, _out(config, one)))


def _out(config: SweepConfig, one: Tuned) -> str:
    assert config.out
    return config.out if len(config.tuned) == 1 else str(Path(config.out) / one.home)


def all_tuned(config: SweepConfig) -> list[Tuned]:
    """The fine-tunes of the command line, each of one network. Raises UserError."""
    bases = config.base if len(config.base) > 1 else config.base * len(config.tuned)
    found = [_tuned(name, base) for name, base in zip(config.tuned, bases, strict=True)]
    homes = [one.home for one in found]
    if len(set(homes)) < len(homes):
        raise UserError(f"--tuned: both are a {homes[0]}; name one of each network")
    for one in found:
        names.locate(one.base, one.home)
        if config.out:
            merge.check_new(Path(_out(config, one)))
    return found


def _tuned(name: str, base: str) -> Tuned:
    path = Path(name)
    adapter = path.is_file() or any((path / file).is_file() for file in names.ADAPTERS)
    home = merge.network_of(name, None)[1]["network"] if adapter else merge.home_of(name)
    return Tuned(home, base, name, adapter)


def _evaluator(config: SweepConfig, tuned: list[Tuned]) -> evaluate.Evaluator:
    """Both pipelines with the bases in them, and what is asked of each share."""
    named = {"prior": config.prior, "decoder": config.decoder}
    named |= {one.home: one.base for one in tuned}
    mini = "mini" in named.values()
    usual = {"prior": "mini" if mini else PRIOR, "decoder": "mini" if mini else DECODER}
    names: dict[str, Any] = {home: named[home] or usual[home] for home in usual}
    shared = {field.name for field in dataclasses.fields(MeasureConfig)}
    given = {name: getattr(config, name) for name in shared}
    question = EvaluateConfig(**given, **names)
    asked = evaluate.prompt_lists(question)
    if config.learned_prompts:
        # A list of its own, of a name that no file has.
        asked = asked | {LEARNED: generic_prompts.prompt_lines(Path(config.learned_prompts))}
    located = evaluate.located(question).tuned
    pipelines = load.pipelines(evaluate.generation_flags(question, *names.values()), located)
    evaluator = evaluate.Evaluator(question, *pipelines, asked)
    evaluator.hold_out(located, sides=len({0.0, *config.alphas}))
    return evaluator


def _measured(
    config: SweepConfig, tuned: list[Tuned], evaluator: evaluate.Evaluator, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """What a share learned (N,) and kept (M,), a cosine for each example."""
    for one in tuned:
        pipeline = {"prior": evaluator.prior, "decoder": evaluator.decoder}[one.home]
        role = parts.TRAINED[one.home]
        net = one.network(alpha, config.cache_dir).to(getattr(pipeline, role).dtype)
        pipeline.register_modules(**{role: net})
    side = evaluator.outcome(f"alpha-{alpha:g}")
    texts = {name: evaluator.texts(prompts) for name, prompts in evaluator.lists.items()}
    kept = [_clip(d, texts[name]) for name, d in side.lists.items() if name != LEARNED]
    return learned(side, evaluator.truth, texts, [one.home for one in tuned]), np.concatenate(kept)


def learned(
    side: Outcome, truth: Truth | None, texts: dict[str, np.ndarray], homes: list[str]
) -> np.ndarray:
    """One cosine for each example: of a held-out picture to what the tuned network makes of it,
    the mean of both if both are tuned; or of a prompt to its drawn picture.
    """
    if truth is None:
        return _clip(side.lists[LEARNED], texts[LEARNED])
    assert side.held_out is not None and side.redrawn is not None
    made = {"prior": side.held_out.embeds, "decoder": side.redrawn}
    return np.mean([metrics.cosine(made[home], truth.pictures) for home in homes], axis=0)


def _clip(drawn: GeneratedEmbeddings, texts: np.ndarray) -> np.ndarray:
    return metrics.cosine(texts, drawn.pictures)


def _line(alpha: float, values: dict[float, tuple[np.ndarray, np.ndarray]], seed: int) -> Line:
    own, base = values[alpha], values[0.0]
    scores = [metrics.mean(row, seed) for row in own]
    changes = [metrics.mean(row - other, seed) for row, other in zip(own, base, strict=True)]
    return Line(alpha, *scores, *changes)


def best_line(found: list[Line]) -> Line:
    """The best by RULE."""
    return max(found, key=lambda line: (line.both, -line.alpha))


# ---------------------------------------------------------------- telling


def table(found: list[Line], best: Line) -> list[str]:
    """The row of shares as lines for a terminal."""
    names = ("learned", "kept", "learned, change", "kept, change")
    head = f"{'alpha':<8}" + "".join(f"{name:<28}" for name in names) + "sum"
    lines = [f"n = {best.learned.n} learned, {best.kept.n} kept", head]
    for line in found:
        scores = [evaluate.cell(e, "") for e in (line.learned, line.kept)]
        changes = [evaluate.cell(e, "+") for e in (line.learned_change, line.kept_change)]
        cells = "".join(f"{cell:<28}" for cell in [*scores, *changes])
        mark = "  best" if line is best else ""
        lines.append(f"{line.alpha:<8g}{cells}{line.both:.4f}{mark}")
    level = f"in brackets: {metrics.LEVEL:.0%} bootstrap intervals over the examples"
    return [*lines, "", level, f"best: alpha {best.alpha:g} ({RULE})"]


def as_json(config: SweepConfig, found: list[Line], best: Line) -> str:
    """The same as JSON, with what it takes to get it again."""
    value = {
        "format": 1,
        "wassily": __version__,
        "config": schema.public(config),
        "rule": RULE,
        "best": best.alpha,
        "alphas": [dataclasses.asdict(line) | {"sum": line.both} for line in found],
    }
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
