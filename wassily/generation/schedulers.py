"""The samplers of the decoder: diffusers' schedulers, by short names.

All are made from the decoder's own noise schedule. The stock one draws new noise at every step, of
the variance that the network learnt; the others solve the same process as a differential equation,
in fewer steps, and leave the variance aside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import diffusers
import torch

from wassily.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from diffusers.schedulers.scheduling_utils import SchedulerOutput


class _UniPC(diffusers.UniPCMultistepScheduler):
    """Takes the generator that the Kandinsky pipelines hand to any scheduler; it needs no noise."""

    def step(
        self,
        *given: object,
        generator: torch.Generator | list[torch.Generator] | None,
        **named: object,
    ) -> SchedulerOutput:
        """As in diffusers."""
        return super().step(*given, **named)


KINDS = {
    "ddim": diffusers.DDIMScheduler,  # arXiv 2010.02502, eta 0
    "dpm++": diffusers.DPMSolverMultistepScheduler,  # arXiv 2211.01095, order 2
    "unipc": _UniPC,  # arXiv 2302.04867, order 2
}


def make(
    name: str, stock: diffusers.SchedulerMixin, even: bool = False
) -> diffusers.SchedulerMixin:
    """The scheduler of a name for a pipeline whose own is `stock`; that one itself for "stock".

    The two of order 2 take most of their steps where little noise is left (arXiv 2206.00364, eq.
    5); `even` steps are as far apart in time, so that a share of them is that share of the way.
    Raises UserError for a schedule that diffusers' class does not know.
    """
    if name == "stock":
        return stock
    config = dict(stock.config)
    # A scheduler keeps settings that are not its own. With this one the pipeline would leave the
    # variance half in the network's answer, and DPM-Solver would cut that to three channels.
    config.pop("variance_type", None)
    config["use_karras_sigmas"] = not even
    try:
        return KINDS[name].from_config(config)
    except (NotImplementedError, ValueError) as error:
        raise UserError(f"--scheduler {name}: not for this decoder's schedule: {error}") from None


@contextlib.contextmanager
def exchanged(pipeline: DiffusionPipeline, name: str, even: bool = False) -> Iterator[None]:
    """Inside, a pipeline draws with the scheduler `make` gives; after it, with its own again."""
    stock = pipeline.scheduler
    pipeline.register_modules(scheduler=make(name, stock, even))
    try:
        yield
    finally:
        pipeline.register_modules(scheduler=stock)
