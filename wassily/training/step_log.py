"""What is logged of each step, and the account of the steps that were skipped."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wassily.errors import UserError, listed
from wassily.files import disk
from wassily.reporting import run_log
from wassily.runtime.accelerator import Runtime


@dataclass(frozen=True)
class StepLog:
    """log.jsonl of an output folder, and the trackers; all processes call, the first one writes."""

    output_dir: Path
    runtime: Runtime

    def rewind(self, step: int) -> None:
        """The log as it was at `step`, where a run is resumed."""
        if self.runtime.main:
            run_log.rewind(self.output_dir, step)

    def log(self, step: int, values: dict[str, float]) -> None:
        """One line into log.jsonl, and the same numbers to the trackers."""
        self.runtime.log(values, step)
        self.write({"step": step, **values})

    def skipped(self, step: int, names: list[str]) -> None:
        """A line for a step that was left out, with the images of its batch."""
        self.write({"step": step, "event": "skipped", "pictures": names})
        self.runtime.say(
            f"step {step}: loss or gradient not finite, step skipped; its pictures: {listed(names)}"
        )

    def write(self, line: dict[str, Any]) -> None:
        """One line into log.jsonl."""
        if self.runtime.main:
            run_log.append(self.output_dir, line)

    def has(self, step: int, name: str) -> bool:
        """Whether a line of that step has an event or a value of that name."""
        rows = [row for row in run_log.read_log(self.output_dir) if row["step"] == step]
        return any(row.get("event") == name or name in row for row in rows)

    def measured(self, step: int) -> dict[str, float]:
        """What was measured at a step, by the names that --keep_best takes; on all processes."""
        read = functools.partial(run_log.read_log, self.output_dir)
        return dict(self.runtime.shared(lambda: run_log.measured(read(), step)))


class Skipped:
    """Counts skipped steps, names their images by `names_at` (step, from 0), and ends the run
    beyond `most`; None: at the first, for it could not be left out.
    """

    def __init__(
        self, count: int, most: int | None, names_at: Callable[[int], list[str]], log: StepLog
    ):
        self.count, self.most, self.names_at, self.log = count, most, names_at, log

    def note(self, steps: list[int]) -> None:
        """These were skipped, too. Raises UserError if that is too many."""
        for step in steps:
            self.log.skipped(step + 1, self.names_at(step))
        self.count += len(steps)
        if steps and self.count > (self.most or 0):
            folder = self.log.output_dir
            why = "--gradient_release cannot skip one"
            if self.most is not None:
                why = f"more than --max_bad_steps {self.most}"
            raise UserError(
                f"loss or gradient was not finite at {self.count} step(s), the last of them "
                f"{steps[-1] + 1} ({why}): {disk.checkpoint_remark(folder)}; look at "
                f"the pictures named in {folder / run_log.LOG}, or lower --learning_rate"
            )
