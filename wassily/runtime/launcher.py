"""The launcher's settings: DDP or FSDP2 between the processes, and what is refused.

accelerate starts no FSDP on a CPU and says nothing, and on a GPU it splits a network only where it
is told the names of layers. So the launcher's wish is read here, `fsdp` fulfils it with torch's
own `fully_shard` on any device, and accelerate, which would do it a second time, does not hear of
it: what is tested on a CPU is what runs on GPUs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from wassily.errors import UserError

ASKED = "ACCELERATE_USE_FSDP"
TRY = "accelerate launch --use_fsdp --fsdp_version 2"
OTHERS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
# What else a launcher may ask of FSDP, and what to do instead.
OPTIONS = {
    "FSDP_OFFLOAD_PARAMS": (
        "fsdp_offload_params",
        "the weights stay on the GPUs: leave it out, and launch more processes",
    ),
    "FSDP_ACTIVATION_CHECKPOINTING": (
        "fsdp_activation_checkpointing",
        "leave it out, and give --gradient_checkpointing to wassily",
    ),
}


def sharded(variables: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher asked for FSDP2. Raises UserError for what there is not."""
    for variable, name in OTHERS.items():
        if _on(variables, variable):
            raise UserError(
                f"{name} was asked for by the launcher, and wassily has DDP (--multi_gpu) and "
                f"FSDP2: {TRY}"
            )
    if not _on(variables, ASKED):
        return False
    version = variables.get("FSDP_VERSION", "1")
    if version != "2":
        raise UserError(
            f"FSDP {version} was asked for by the launcher, and wassily has version 2: {TRY}"
        )
    for variable, (name, remedy) in OPTIONS.items():
        if _on(variables, variable):
            raise UserError(f"{name} was asked for by the launcher: {remedy}")
    return True


def _on(variables: Mapping[str, str], name: str) -> bool:
    return variables.get(name, "false").lower() in ("1", "true", "yes")


def reshards(variables: Mapping[str, str] = os.environ) -> bool:
    """Whether a block's gathered weights are let go between forward and backward: the default."""
    return variables.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in ("true", "full_shard")


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Within, a library that reads the launcher's wish for FSDP finds none."""
    before = os.environ.pop(ASKED, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[ASKED] = before


def got(wished: bool, found: str, processes: int) -> str:
    """The line that tells which engine runs: `found` is FSDP2, DDP or nothing.

    Raises UserError if FSDP2 was wished for and is not there.
    """
    if wished and found != "FSDP2":
        raise UserError(
            f"FSDP was asked for by the launcher, and {found or 'one process alone'} is what "
            "started: launch several processes, or leave --use_fsdp out"
        )
    return f"engine: {found}, {processes} processes" if found else "engine: one process"
