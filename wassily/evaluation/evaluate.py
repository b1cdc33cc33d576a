"""`wassily evaluate`: what two networks have learnt, and what they kept, in numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wassily.config import schema
from wassily.config.evaluation import EvaluateConfig
from wassily.config.generation import DrawConfig
from wassily.data import entries, png
from wassily.data.datasets import Pictures
from wassily.encodings import cache, definitions, fill
from wassily.encodings.definitions import EncoderContext
from wassily.errors import UserError
from wassily.evaluation import heldout_loss, metrics, scores
from wassily.evaluation.scores import GeneratedEmbeddings, Outcome, Score, Truth
from wassily.evaluation.validation_scores import Embedded, SeededPipelines, as_array
from wassily.files import atomic
from wassily.generation import load, pipelines, sample
from wassily.generation.load import Networks
from wassily.maths import losses
from wassily.models import names, parts
from wassily.runtime.accelerator import Runtime, quiet_libraries
from wassily.runtime.progress import Progress
from wassily.training_data import generic_prompts, holdout, training_set
from wassily.version import __version__

# Home -> the field of a network's configuration that has the width of an image embedding.
WIDTHS = {"prior": "embedding_dim", "decoder": "encoder_hid_dim"}


def evaluate(config: EvaluateConfig) -> None:
    """Print the scores as a table, and write them as JSON if a file is named."""
    names = located(config)
    found = _scored(config, names)
    print("\n".join(table(found)))
    if config.out:
        atomic.write_text(Path(config.out), as_json(config, names.tuned, found))
        print(f"\n{config.out}")


def scored(config: EvaluateConfig) -> list[Score]:
    """Draw with the networks and with their base, and score both. Raises UserError."""
    return _scored(config, located(config))


def _scored(config: EvaluateConfig, names: Located) -> list[Score]:
    asked = prompt_lists(config)
    _check_out(config)
    quiet_libraries()
    drawing = generation_flags(config, config.prior, config.decoder)
    prior, decoder, device = load.pipelines(drawing, names.tuned)
    evaluator = Evaluator(config, prior, decoder, device, asked)
    evaluator.hold_out(names.tuned, 1 + (names.base is not None))
    tuned = evaluator.outcome("tuned")
    base = None
    if names.base is not None:
        _exchange(drawing, names.base, prior, decoder)
        base = evaluator.outcome("base")
    evaluator.bar.close()
    texts = {name: evaluator.texts(prompts) for name, prompts in asked.items()}
    return scores.all_scores(tuned, base, evaluator.truth, texts, config.seed)


@dataclass(frozen=True)
class Located:
    """Both networks to measure, and those to compare them with, if any are named."""

    tuned: Networks
    base: Networks | None


def located(config: EvaluateConfig) -> Located:
    """All names, looked at before anything is loaded. Raises UserError."""
    tuned = load.find(generation_flags(config, config.prior, config.decoder))
    _check_plain("decoder", config.decoder, tuned, config.cache_dir)
    if not (config.base_prior or config.base_decoder):
        return Located(tuned, None)
    names = (config.base_prior or config.prior, config.base_decoder or config.decoder)
    base = load.find(generation_flags(config, *names))
    if config.base_decoder:
        _check_plain("base_decoder", config.base_decoder, base, config.cache_dir)
    for home, width in WIDTHS.items():
        both = (base.at(home), tuned.at(home))
        theirs, ours = (_config_of(one, home, config.cache_dir).get(width) for one in both)
        if theirs != ours:
            raise UserError(
                f"--base_{home} {getattr(config, f'base_{home}')} has embeddings of {theirs} "
                f"values, --{home} {getattr(config, home)} of {ours}: it is not the base of that"
            )
    return Located(tuned, base)


def _check_plain(flag: str, named: str, networks: Networks, cache_dir: str | None) -> None:
    """Raise UserError for a decoder that does not generate from an embedding alone."""
    network = _config_of(networks.decoder, "decoder", cache_dir)
    pipelines.check_kind(f"--{flag} {named}", network, "plain")


def _config_of(found: names.Trained, home: str, cache_dir: str | None) -> dict[str, Any]:
    return parts.load_config(parts.TRAINED[home], found.repository, cache_dir)


def _check_out(config: EvaluateConfig) -> None:
    """Raise UserError if what is to be written cannot be: known before anything is drawn."""
    for flag, folder in (
        ("out", Path(config.out).parent if config.out else None),
        ("save_pictures", Path(config.save_pictures) if config.save_pictures else None),
    ):
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--{flag} {folder}: {error.strerror or error}") from None


def generation_flags(config: EvaluateConfig, prior: str, decoder: str) -> DrawConfig:
    """The drawing whose pipelines are wanted."""
    return DrawConfig(prior=prior, decoder=decoder, dtype=config.dtype, cache_dir=config.cache_dir)


def _exchange(drawing: DrawConfig, base: Networks, prior: Any, decoder: Any) -> None:
    """Put the base's trained networks into the pipelines; the frozen parts stay."""
    theirs = load.pipelines(drawing, base)
    prior.register_modules(prior=theirs[0].prior)
    decoder.register_modules(unet=theirs[1].unet)


# ---------------------------------------------------------------- prompts


def prompt_lists(config: EvaluateConfig) -> dict[str, list[str]]:
    """The generic prompts by list, of each at least 2. Raises UserError."""
    if config.prompts in ("builtin", "mini"):
        found = generic_prompts.builtin("mini" in (config.prior, config.base_prior, config.prompts))
    else:
        found = {Path(config.prompts).stem: generic_prompts.prompt_lines(Path(config.prompts))}
    short = generic_prompts.shortened(found, config.max_prompts)
    if any(len(prompts) < 2 for prompts in short.values()):
        raise UserError(f"--prompts {config.prompts}: at least 2 prompts are needed")
    return short


# ---------------------------------------------------------------- drawing


@dataclass
class Evaluator:
    """Two pipelines, and all that is drawn with whichever trained networks are in them."""

    config: EvaluateConfig
    prior: Any
    decoder: Any
    device: torch.device
    lists: dict[str, list[str]]
    truth: Truth | None = None
    bar: Progress = field(init=False)  # from `hold_out` on

    def __post_init__(self) -> None:
        config = self.config
        side = config.resolution or pipelines.native_size(self.decoder)
        drawing = sample.Drawing(
            config.steps,
            config.prior_steps,
            config.guidance_scale,
            config.prior_guidance_scale,
            None,
            side,
            side,
            config.batch_size,
            scheduler="stock",
        )
        self.seeded = SeededPipelines(self.prior, self.decoder, self.device, drawing, config.seed)
        precision = {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(self.prior.prior.dtype)
        self.runtime = Runtime(precision or "no", 1, ".", "logs", "none")
        self.captions: list[str] = []
        self.probes: dict[str, heldout_loss.HeldOutLoss] = {}

    def hold_out(self, names: Networks, sides: int) -> None:
        """Encode the held-out pictures and captions, if pictures were named; tell the time that
        `sides` measures take.
        """
        config = self.config
        if config.train_data_dir or config.dataset_name:
            self._encode(names)
        drawings = 2 * len(self.captions) + sum(map(len, self.lists.values()))
        self.bar = Progress("drawing", sides * drawings, unit="picture")

    def _encode(self, names: Networks) -> None:
        config, root = self.config, cache.default_folder(self.config.cache_dir)
        source: Pictures | None = None
        side = int(self.seeded.drawing.height or 0)
        for role in parts.TRAINED:
            context = EncoderContext(
                role, names.repositories, self.runtime, root, side, cache_dir=config.cache_dir
            )
            source = source or held_out_images(config, context)
            wanted = definitions.make_encodings(context)
            reading = training_set.make_reading(wanted, source, config.seed, context, skip_bad=True)
            source = reading.source  # without those that cannot be read
            if len(source) < 2:
                raise UserError("at least 2 pictures that can be read are needed")
            self.probes[role] = heldout_loss.held_out_loss(reading, config.seed, config.batch_size)
        self.captions = list(self.probes["prior"].captions)
        batches = self.probes["prior"].batches
        self.truth = Truth(
            as_array(torch.cat([batch["image_embeds"] for batch in batches])),
            as_array(torch.cat([batch["text_embeds"] for batch in batches])),
            scores.other_texts(self.captions),
        )

    def outcome(self, label: str) -> Outcome:
        """Everything that is asked, with the networks that are in the pipelines now."""
        drawn = {n: self._drawn(p, f"{label}/{n}") for n, p in self.lists.items()}
        if self.truth is None:
            return Outcome(lists=drawn)
        return Outcome(
            self._drawn(self.captions, f"{label}/held_out"),
            self._redrawn(f"{label}/redrawn"),
            self._losses(),
            drawn,
        )

    def _drawn(self, prompts: list[str], name: str) -> GeneratedEmbeddings:
        """Prompts through both networks, each with a seed of its own, the same on both sides."""
        embedded = self.seeded.of_prompts(prompts)
        return GeneratedEmbeddings(embedded.values(), self._painted(embedded, prompts, name))

    def _redrawn(self, name: str) -> np.ndarray:
        """The held-out pictures painted from their own embeddings: (N, D)."""
        assert self.truth is not None
        own = self.seeded.of_images(torch.from_numpy(self.truth.pictures))
        return self._painted(own, self.captions, name)

    def _painted(self, embedded: Embedded, prompts: list[str], name: str) -> np.ndarray:
        """The decoder's images of embeddings, saved if that is wished, as numbers: (N, D)."""
        drawn = self.seeded.paint(embedded, self.bar.advance)
        if self.config.save_pictures:
            for number, (picture, prompt) in enumerate(zip(drawn, prompts, strict=True)):
                path = Path(self.config.save_pictures) / f"{name}-{number:03d}.png"
                seed = self.config.seed + number
                png.save_png(picture, path, {"prompt": prompt, "seed": seed})
        return self.seeded.look(drawn)

    def texts(self, prompts: list[str]) -> np.ndarray:
        """Prompts in the same space: (N, D)."""
        return self.seeded.read(prompts)

    def _losses(self) -> dict[str, np.ndarray]:
        """The loss of each network on each held-out picture in each band of timesteps."""
        schedule = self.decoder.scheduler
        asked = {
            "prior": (self.prior, losses.Prior(self.prior.prior, parts.prior_alpha_bars())),
            "decoder": (
                self.decoder,
                losses.Decoder(
                    self.decoder.unet, schedule.alphas_cumprod, schedule.config.prediction_type
                ),
            ),
        }
        found = {}
        for role, (pipeline, objective) in asked.items():
            with pipelines.on(pipeline, self.device):
                objective.to(self.device)
                found[role] = self.probes[role].losses(objective, self.runtime).values
        return found


def held_out_images(config: EvaluateConfig, context: EncoderContext) -> Pictures:
    """The held-out pictures, or as many as are wanted; at least 2. Raises UserError."""
    source = training_set.named_images(config, config.caption_column)
    entries.tell(source.remarks, source.root, context.runtime.say)
    # All pictures are "held out" with a share of 1: their order is that of their contents, too.
    contents, _ = fill.image_contents(source, context.root, context.runtime)
    kept = holdout.held_out(contents, config.holdout or 1.0)[: config.max_pictures]
    if len(kept) < 2:
        raise UserError(f"at least 2 pictures are needed, not {len(kept)}")
    return source.select(kept)


# ---------------------------------------------------------------- telling


TITLES = {
    "prior": "prior, on held-out captions (cosines)",
    "decoder": "decoder, on held-out pictures",
    "both": "both, on held-out captions",
    "prior loss": "prior, loss on held-out pictures",
    "decoder loss": "decoder, loss on held-out pictures",
}


def table(found: list[Score]) -> list[str]:
    """The report as lines for a terminal."""
    compared = any(score.change for score in found)
    lines: list[str] = []
    group = ""
    for score in found:
        if score.group != group:
            group = score.group
            title = f"{TITLES.get(group, f'prompts, {group}')}, n = {score.tuned.n}"
            lines += ["", _line(title, ["tuned", "base", "change"] if compared else [])]
        estimates = [(score.tuned, ""), (score.base, ""), (score.change, "+")]
        lines.append(_line(f"  {score.what}", [cell(e, sign) for e, sign in estimates]))
    return [*lines, "", f"in brackets: {metrics.LEVEL:.0%} bootstrap intervals over the examples"]


def _line(what: str, cells: list[str]) -> str:
    return (f"{what:46s}" + "".join(f"{cell:28s}" for cell in cells)).rstrip()


def cell(estimate: metrics.Estimate | None, sign: str) -> str:
    """A score and its interval; nothing of none."""
    if estimate is None:
        return ""
    value, low, high = (f"{v:{sign}.4f}" for v in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def as_json(config: EvaluateConfig, names: Networks, found: list[Score]) -> str:
    """The report as JSON, with what it takes to get it again."""
    value = {
        "format": 1,
        "wassily": __version__,
        "config": schema.public(config),
        "space": f"the CLIP image encoder of {names.prior.repository}",
        "level": metrics.LEVEL,
        "resamples": metrics.RESAMPLES,
        "scores": [score.plain() for score in found],
    }
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
