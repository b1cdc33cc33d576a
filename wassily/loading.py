"""How the heavy libraries are loaded: what their threads do while they wait, and no collection.

Imports nothing heavy, for it has to run before torch is loaded.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path

POLICY = "OMP_WAIT_POLICY"
# Settings of a user, each of which says how long a thread of OpenMP spins before it sleeps.
SETTINGS = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
# The device files of an NVIDIA and of an AMD driver. Those of a screen tell nothing.
GPUS = ("/dev/nvidiactl", "/dev/kfd")


def wait_asleep(
    variables: MutableMapping[str, str] = os.environ, gpus: tuple[str, ...] = GPUS
) -> None:
    """Have the threads of OpenMP sleep while they wait for each other; child processes inherit it.

    Spinning threads take the processor from the thread that they wait for as soon as another
    program runs. Has no effect where torch is loaded already: its OpenMP reads the variable once.
    """
    # Measured with the OpenMP of torch for Linux, see benchmarks/busy.py; others wait otherwise.
    if sys.platform != "linux" or any(name in variables for name in SETTINGS):
        return
    # With a GPU the threads of the CPU have little to do, and nothing was measured there. Its
    # device file is looked for, because to ask torch would load it.
    if not _hidden(variables) and any(Path(gpu).exists() for gpu in gpus):
        return
    variables[POLICY] = "passive"


def _hidden(variables: MutableMapping[str, str]) -> bool:
    """Whether the user keeps a GPU from torch, or from accelerate."""
    return variables.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or variables.get(
        "ACCELERATE_USE_CPU", ""
    ).lower() in ("1", "true", "yes")


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Inside no garbage is collected: a fifth of the time of an import, and it finds none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
