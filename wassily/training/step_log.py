"""The account of steps that were left out because loss or gradient was not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wassily.errors import UserError
from wassily.files import disk
from wassily.reporting.run_log import LOG
from wassily.training.validation import Results


class Skipped:
    """Counts them, names their pictures by `names_at` (step, from 0), and ends the run beyond
    `most`; None: at the first, for it could not be left out.
    """

    def __init__(
        self,
        count: int,
        most: int | None,
        names_at: Callable[[int], list[str]],
        results: Results,
        output_dir: Path,
    ):
        self.count, self.most, self.names_at = count, most, names_at
        self.results, self.output_dir = results, output_dir

    def note(self, steps: list[int]) -> None:
        """These were skipped, too. Raises UserError if that is too many."""
        for step in steps:
            self.results.skipped(step + 1, self.names_at(step))
        self.count += len(steps)
        if steps and self.count > (self.most or 0):
            why = "--gradient_release cannot skip one"
            if self.most is not None:
                why = f"more than --max_bad_steps {self.most}"
            raise UserError(
                f"loss or gradient was not finite at {self.count} step(s), the last of them "
                f"{steps[-1] + 1} ({why}): {disk.checkpoint_remark(self.output_dir)}; look at "
                f"the pictures named in {self.output_dir / LOG}, or lower --learning_rate"
            )
