"""What a run leaves behind besides checkpoints: its log, its samples, its pipeline folder."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from wassily.config.training import TrainConfig
from wassily.data import example_order, png, sheets
from wassily.errors import listed
from wassily.evaluation import validation_scores
from wassily.evaluation.heldout_loss import Losses
from wassily.evaluation.validation_scores import Gauge
from wassily.evaluation.variance_drift import Drift, NoDrift
from wassily.files import atomic
from wassily.generation import pipelines, sample
from wassily.maths.losses import Objective
from wassily.models.adapters import Lora, Whole
from wassily.reporting import next_command, report, run_facts, run_log
from wassily.reporting.model_card import Facts, model_card
from wassily.runtime import compile
from wassily.runtime.accelerator import Runtime
from wassily.runtime.progress import progress
from wassily.training import best
from wassily.training.best import Best, LastIsBest
from wassily.training.setup import Setup
from wassily.training.weights import Weights

SHOWN = 3  # steps that the announcement names before it jumps to the last

VALIDATION_STEPS = 20  # decoder steps of a sample drawn in training, as in the guide's script


@dataclass(frozen=True)
class Measures:
    """What is measured at each validation besides the samples, where it is asked for."""

    drift: Drift | NoDrift
    held_out_losses: Callable[[Objective], Losses] | None = None
    gauge: Gauge | None = None


@dataclass(frozen=True)
class Results:
    """The output folder of one run; all processes call each method, the first one writes."""

    setup: Setup
    weights: Weights
    adaptation: Whole | Lora
    measures: Measures

    @property
    def config(self) -> TrainConfig:
        """The flags of the run."""
        return self.setup.config

    @property
    def output_dir(self) -> Path:
        """Its output folder."""
        return self.setup.output_dir

    @property
    def runtime(self) -> Runtime:
        """The process."""
        return self.setup.runtime

    # -- numbers

    def begin(self, step: int, due: bool) -> None:
        """The log as it was at `step`; a new run's begins with what is measured of its base.

        A validation that is `due` at this step may have been lost to a stop: it is made up for.
        """
        if self.runtime.main:
            run_log.rewind(self.output_dir, step)
        if step == 0 or due:
            self.validate(step)

    def log(self, step: int, values: dict[str, float]) -> None:
        """One line into log.jsonl, and the same numbers to the trackers."""
        self.runtime.log(values, step)
        self._write({"step": step, **values})

    def skipped(self, step: int, names: list[str]) -> None:
        """A line for a step that was left out, with the pictures of its batch."""
        self._write({"step": step, "event": "skipped", "pictures": names})
        self.runtime.say(
            f"step {step}: loss or gradient not finite, step skipped; its pictures: {listed(names)}"
        )

    def _write(self, line: dict[str, Any]) -> None:
        if self.runtime.main:
            run_log.append(self.output_dir, line)

    def _has(self, step: int, name: str) -> bool:
        """Whether a line of that step has an event or a value of that name."""
        rows = [row for row in run_log.read_log(self.output_dir) if row["step"] == step]
        return any(row.get("event") == name or name in row for row in rows)

    def measured(self, step: int) -> dict[str, float]:
        """What was measured at a step, by the names that --keep_best takes; on all processes."""
        read = functools.partial(run_log.read_log, self.output_dir)
        return dict(self.runtime.shared(lambda: run_log.measured(read(), step)))

    @contextlib.contextmanager
    def _resting(self) -> Iterator[Weights]:
        """The weights that are measured and drawn with, on all processes; inside, none is trained.

        Averaged if so configured, whole on each process, without dropout, not compiled.
        """
        with (
            self.weights.everywhere() as whole,
            compile.paused(self.config.compile),
            whole.ema.applied(),
        ):
            whole.net.eval()
            yield whole
            whole.net.train()

    def _measure(self, step: int, objective: Objective) -> None:
        """The loss on the held-out pictures, if there are any, into the log and the trackers.

        Not if it is there: the end of a finished run may come again.
        """
        losses = self.measures.held_out_losses
        if losses is None or self.runtime.shared(lambda: self._has(step, "held_out")):
            return
        found = losses(objective).summary()
        self.runtime.log({f"held_out/{name}": value for name, value in found.items()}, step)
        self._write({"step": step, "event": "held_out", **found})
        self.runtime.say(
            f"step {step}: held-out loss {found['loss']:.4f} ± {found['standard_error']:.4f}"
        )

    def _measure_drift(self, step: int, objective: Objective) -> None:
        """Log it, unless it was: the end of a finished run may come again."""
        drift = self.measures.drift
        if isinstance(drift, NoDrift) or self._has(step, drift.name):
            return
        self.log(step, drift.measure(objective))

    # -- samples

    def validate(self, step: int) -> None:
        """Measure the held-out loss, the scores and the drift, and draw the validation prompts,
        with the weights in training (averaged, if so configured).

        Of step 0 these are the base's; what can fail here then fails before the first step.
        """
        with self._resting() as whole:
            self._measure(step, whole.objective)
            if self.runtime.main:
                if step:
                    self._measure_drift(step, whole.objective)
                self._draw(step, whole.net)
                report.refresh(self.output_dir, self.runtime.say)
            self.runtime.wait()

    def _draw(self, step: int, net: nn.Module) -> None:
        """What is to be drawn at a step: for the scores, and for the prompts."""
        scores = self.measures.gauge is not None and not self._has(step, "scores")
        samples = bool(self.config.validation_prompts)
        if scores or samples:
            with self._drawing(net) as (prior, decoder):
                if scores:
                    self._score(step, prior, decoder)
                if samples:
                    self._draw_samples(step, prior, decoder)

    @contextlib.contextmanager
    def _drawing(self, net: nn.Module) -> Iterator[tuple[Any, Any]]:
        """Both pipelines, one with the network in training; inside, they draw."""
        where = (self.runtime.weight_dtype, self.config.cache_dir)
        own: dict[str, Any] = {self.setup.role: net}
        nothing: dict[str, Any] = {}
        of_prior, of_decoder = (own, nothing) if self.setup.role == "prior" else (nothing, own)
        prior = pipelines.prior_pipeline(self.setup.repositories["prior"], *where, **of_prior)
        decoder = pipelines.decoder_pipeline(
            self.setup.repositories["decoder"], *where, **of_decoder
        )
        with self.runtime.accelerator.autocast():
            yield prior, decoder

    def _score(self, step: int, prior: Any, decoder: Any) -> None:
        asked, device = self.measures.gauge, self.runtime.device
        assert asked is not None
        with progress(f"scores at step {step}", asked.count(), unit="picture") as bar:
            found = asked.measure(prior, decoder, device, bar.advance)
        self.runtime.log({f"scores/{name}": score.value for name, score in found.items()}, step)
        self._write(validation_scores.as_row(step, found))
        told = ", ".join(f"{name} {score.value:.4f}" for name, score in found.items())
        self.runtime.say(f"step {step}: {told}")

    def show_samples_of(self, step: int) -> None:
        """Let samples.png be the sheet of that validation, whose weights are exported."""
        sheet = self.output_dir / "validation" / f"step-{step}" / "sheet.png"
        if self.runtime.main and sheet.is_file():
            atomic.copy(sheet, self.output_dir / "samples.png")

    def _draw_samples(self, step: int, prior: Any, decoder: Any) -> None:
        prompts, side = list(self.config.validation_prompts), self.config.resolution
        folder = self.output_dir / "validation" / f"step-{step}"
        atomic.check_own([folder.parent])
        atomic.remove(folder)
        drawing = sample.Drawing(
            steps=VALIDATION_STEPS, height=side, width=side, batch_size=1, scheduler="stock"
        )
        seed = self.setup.seed
        jobs = [(prompt, seed) for prompt in prompts]
        with progress(f"samples at step {step}", len(prompts), unit="picture") as bar:
            device = self.runtime.device
            drawn = sample.draw(prior, decoder, jobs, drawing, device, bar.advance)
        for number, (prompt, picture) in enumerate(zip(prompts, drawn, strict=True)):
            notes = {"prompt": prompt, "seed": seed, "step": step, "run": self.output_dir.name}
            png.save_png(picture, folder / f"{number:02d}.png", notes)
        sheet = sheets.sheet([[p] for p in drawn], [f"step {step}"], prompts)
        png.save_png(sheet, folder / "sheet.png", {})
        atomic.copy(folder / "sheet.png", self.output_dir / "samples.png")
        self.runtime.log_pictures("validation", drawn, prompts, step)

    # -- the pipeline

    def export(self, facts: Facts, weights: Weights) -> None:
        """Write the stock pipeline folder of the trained network, with its model card."""
        if self.runtime.main:
            rows = run_log.read_log(self.output_dir)
            told = dataclasses.replace(
                facts,
                counts=run_facts.read_summary(self.output_dir).get("data", {}),
                measured=run_log.measured(rows, facts.steps),
                before=run_log.measured(rows, 0),
            )
            card = model_card(self.config, told, self.runtime.precision)
            net, save = weights.net, functools.partial(self._save_pipeline, weights.net)
            with weights.ema.applied():
                self.adaptation.export(net, self.output_dir, save, card)
            report.refresh(self.output_dir, self.runtime.say)
        self.runtime.wait()

    def _save_pipeline(self, net: nn.Module, folder: Path) -> None:
        home = self.config.role
        make = pipelines.prior_pipeline if home == "prior" else pipelines.decoder_pipeline
        pipeline = make(
            self.setup.repositories[home],
            self.runtime.weight_dtype,
            self.config.cache_dir,
            **{self.setup.role: net},
        )
        pipeline.save_pretrained(folder)


def due(config: TrainConfig, batch: int, pictures: int | None, done: int) -> bool:
    """Whether there is one after so many steps: by steps, or where an epoch ends."""
    every = config.validation_steps
    if every:
        return done > 0 and done % every == 0
    ended = example_order.epochs_ended(done, batch, pictures) if pictures else ()
    return any(epoch % config.validation_epochs == 0 for epoch in ended)


def sample_lines(
    config: TrainConfig, batch: int, pictures: int | None, start: int, stop: int, folder: Path
) -> list[str]:
    """At which steps of a run samples come, and where they will lie; nothing if none do."""
    if not config.validation_prompts:
        return []
    steps = _steps(config, batch, pictures, start, stop)
    first = list(itertools.islice(steps, SHOWN))
    more = ["..."] if next(steps, None) is not None else []
    when = ", ".join([*map(str, first), *more, str(stop)])
    count = len(config.validation_prompts)
    what = f"samples of {count} prompt{'s' if count > 1 else ''} at step {when}"
    where = f"in {folder / 'validation'}, the newest as {folder / 'samples.png'}"
    return [f"{what}: {where}{next_command.samples_remark(config)}"]


def _steps(
    config: TrainConfig, batch: int, pictures: int | None, start: int, stop: int
) -> Iterator[int]:
    """The steps of the validations before the last, in order: the base's is one."""
    return (done for done in range(start, stop) if not done or due(config, batch, pictures, done))


class Validations:
    """The validations of a run of `pictures`, `batch` of them a step; all processes call them.

    Where the pictures are not counted, no epoch ends.
    """

    def __init__(
        self,
        config: TrainConfig,
        results: Results,
        best: Best | LastIsBest,
        batch: int,
        pictures: int | None,
    ):
        self.config, self.results, self.best = config, results, best
        self.batch, self.pictures = batch, pictures

    def due(self, done: int) -> bool:
        """Whether there is one after so many steps."""
        return due(self.config, self.batch, self.pictures, done)

    def begin(self, start: int, stop: int) -> bool:
        """Measure the base, or go on from a checkpoint; whether the run had its end there already.

        Such a run's stop may have come between the saving and the validation of that step.
        """
        due = 0 < start < stop and self.due(start)
        self.results.begin(start, due)
        return due and self._judge(start)

    def run(self, done: int) -> bool:
        """Measure and draw; whether the run should end here."""
        self.results.validate(done)
        return self._judge(done)

    def _judge(self, done: int) -> bool:
        values = self.results.measured(done)
        return bool(values) and self.best.judge(done, values)

    def why_ended(self, done: int, stop: int) -> str:
        """The line for a run that patience ended."""
        return (
            f"stopped at step {done} of {stop}: no better in {self.config.patience} validations "
            f"than {self.best.described({})}"
        )

    def choose(self, done: int, weights: Weights) -> tuple[int, str]:
        """Put the weights that are to be exported where an export takes them from.

        Their step, and what there is to say of the best, if one was kept.
        """
        folder, results = self.best.folder(), self.results
        if folder is None:
            return done, ""
        step = best.step_of(folder)
        if results.runtime.main:  # the only one that exports
            best.take_weights(folder, results.adaptation, weights.net, weights.ema)
        results.show_samples_of(step)
        words = self.best.described(results.measured(0))
        results.runtime.say(f"exporting the best weights: {words}")
        return step, f"{words}; the run had {done} steps"
