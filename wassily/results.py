"""What a run leaves behind besides checkpoints: its log, its samples, its pipeline folder."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from wassily import checkpoint, compiled, models, pictures, sample
from wassily.adapt import Lora, Whole
from wassily.card import Facts, model_card
from wassily.config import TrainConfig
from wassily.drift import Drift, NoDrift
from wassily.ema import Ema, NoEma
from wassily.errors import listed
from wassily.heldout import Losses
from wassily.runtime import Progress, Runtime

LOG = "log.jsonl"
VALIDATION_STEPS = 20  # decoder steps of a sample drawn in training, as in the guide's script


def _step_of(line: str) -> int:
    """The step of a line of the log; -1 if it is none, as when a kill cut it."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


class Results:
    """The output folder of one run; all processes call each method, the first one writes."""

    def __init__(
        self,
        config: TrainConfig,
        repositories: dict[str, str],
        output_dir: Path,
        runtime: Runtime,
        seed: int,
        role: str,
        net: nn.Module,
        ema: Ema | NoEma,
        adaptation: Whole | Lora,
        drift: Drift | NoDrift,
        held_out_losses: Callable[[], Losses] | None = None,
    ):
        self.config, self.repositories, self.output_dir = config, repositories, output_dir
        self.runtime, self.seed, self.role, self.net = runtime, seed, role, net
        self.ema, self.adaptation, self.drift = ema, adaptation, drift
        self.held_out_losses = held_out_losses

    # -- numbers

    def begin(self, step: int) -> None:
        """The log as it was at `step`; a new run's begins with the held-out loss of its base."""
        self.rewind(step)
        if step == 0:
            self.measure(0)

    def rewind(self, step: int) -> None:
        """Drop what was logged after `step`: a run that was killed goes on from its checkpoint."""
        path = self.output_dir / LOG
        if self.runtime.main and path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if step > 0 <= _step_of(line) <= step]
            checkpoint.write_text(path, "".join(f"{line}\n" for line in kept))

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
            with (self.output_dir / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def measure(self, step: int) -> None:
        """The loss on the held-out pictures, if there are any, into the log and the trackers.

        Not if it is there: the end of a finished run may come again.
        """
        if self.held_out_losses is None or self.runtime.shared(lambda: self._has_measured(step)):
            return
        self.net.eval()
        with compiled.paused(self.config.compile), self.ema.applied():
            found = self.held_out_losses().summary()
        self.net.train()
        self.runtime.log({f"held_out/{name}": value for name, value in found.items()}, step)
        self._write({"step": step, "event": "held_out", **found})
        self.runtime.say(
            f"step {step}: held-out loss {found['loss']:.4f} ± {found['standard_error']:.4f}"
        )

    def _has_measured(self, step: int) -> bool:
        path = self.output_dir / LOG
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines if _step_of(line) == step]
        return any(row.get("event") == "held_out" for row in rows)

    def _measure_drift(self, step: int) -> None:
        """Log it, unless it was: the end of a finished run may come again."""
        if isinstance(self.drift, NoDrift):
            return
        with self.ema.applied():
            found = self.drift.measure()
        path = self.output_dir / LOG
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines if _step_of(line) == step]
        if not any(self.drift.name in row for row in rows):
            self.log(step, found)

    # -- samples

    def validate(self, step: int) -> None:
        """Measure the held-out loss and the drift, and draw the validation prompts, with the
        weights in training (averaged, if so configured).
        """
        self.measure(step)
        if self.runtime.main:
            self._measure_drift(step)
        if self.config.validation_prompts and self.runtime.main:
            self._draw_samples(step)
        self.runtime.wait()

    def _draw_samples(self, step: int) -> None:
        prompts = list(self.config.validation_prompts)
        folder = self.output_dir / "validation" / f"step-{step}"
        if (folder / "sheet.png").exists():
            shutil.rmtree(folder)
        bar = Progress(
            f"samples at step {step}", len(prompts), shown=self.runtime.main, unit="picture"
        )
        self.net.eval()
        with (
            compiled.paused(self.config.compile),
            self.ema.applied(),
            self.runtime.accelerator.autocast(),
        ):
            drawn = self._draw([(prompt, self.seed) for prompt in prompts], bar)
        self.net.train()
        bar.close()
        for number, (prompt, picture) in enumerate(zip(prompts, drawn, strict=True)):
            notes = {"prompt": prompt, "seed": self.seed, "step": step, "run": self.output_dir.name}
            pictures.save_png(picture, folder / f"{number:02d}.png", notes)
        sheet = pictures.sheet([[p] for p in drawn], [f"step {step}"], prompts)
        pictures.save_png(sheet, folder / "sheet.png", {})
        shutil.copyfile(folder / "sheet.png", self.output_dir / "samples.png")
        self.runtime.log_pictures("validation", drawn, prompts, step)

    def _draw(self, jobs: list[tuple[str, int]], bar: Progress) -> list[Any]:
        prior = sample.prior_pipeline(
            self.repositories["prior"],
            self.runtime.weight_dtype,
            self.config.cache_dir,
            **({"prior": self.net} if self.role == "prior" else {}),
        )
        decoder = sample.decoder_pipeline(
            self.repositories["decoder"],
            self.runtime.weight_dtype,
            self.config.cache_dir,
            **({"unet": self.net} if self.role == "unet" else {}),
        )
        side = self.config.resolution
        drawing = sample.Drawing(steps=VALIDATION_STEPS, height=side, width=side, batch_size=1)
        return sample.draw(prior, decoder, jobs, drawing, self.runtime.device, bar.advance)

    # -- the pipeline

    def export(self, facts: Facts) -> None:
        """Write the stock pipeline folder of the trained network, with its model card."""
        if self.runtime.main:
            card = model_card(self.config, facts, self.runtime.precision)
            with self.ema.applied():
                self.adaptation.export(self.net, self.output_dir, self._save_pipeline, card)
            self.runtime.say(f"the {facts.role} is in {self.output_dir}: {self._next(facts)}")
        self.runtime.wait()

    def _save_pipeline(self, folder: Path) -> None:
        home = self.config.role
        make = sample.prior_pipeline if home == "prior" else sample.decoder_pipeline
        pipeline = make(
            self.repositories[home],
            self.runtime.weight_dtype,
            self.config.cache_dir,
            **{self.role: self.net},
        )
        pipeline.save_pretrained(folder)

    def _next(self, facts: Facts) -> str:
        known = models.example_prompt(self.repositories[facts.role], facts.role)
        prompt = (*self.config.validation_prompts, known)[0]
        ends = {h: models.public_name(n, h) for h, n in self.repositories.items()}
        ends[facts.role] = str(self.output_dir)
        where = ["--prior", ends["prior"], "--decoder", ends["decoder"]]
        return shlex.join(["wassily", "generate", prompt, *where])
