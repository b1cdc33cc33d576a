"""When a run validates, and what comes of it: the best weights are kept, and the run may end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from wassily import best
from wassily.best import Best, LastIsBest
from wassily.config.training import TrainConfig
from wassily.data import example_order
from wassily.reporting import next_command
from wassily.results import Results
from wassily.weights import Weights

SHOWN = 3  # steps that the announcement names before it jumps to the last


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
