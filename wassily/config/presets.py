"""What `--preset` sets, so that a training fits a GPU of that size. Flags given win over it.

Each is a bag of flag values for batch 1 and the guide's resolution; `wassily plan` tells what it
comes to, and docs/memory.md shows them all. From the largest to the smallest.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Flag: TypeAlias = Any  # the value of one: its config says of which type

_BF16: dict[str, Flag] = {"mixed_precision": "bf16", "weights_dtype": "bf16"}
_RELEASE: dict[str, Flag] = {"gradient_release": True, "max_grad_norm": 0.0}
_RECOMPUTE: dict[str, Flag] = {"gradient_checkpointing": True}

PRESETS: dict[str, dict[str, dict[str, Flag]]] = {
    "prior": {
        "80gb": {"mixed_precision": "bf16"},
        "24gb": {"mixed_precision": "bf16"},
        "16gb": _BF16,
        "12gb": _BF16,
        "8gb": _BF16 | _RELEASE | {"optimizer": "lion"},
    },
    "decoder": {
        "80gb": {"mixed_precision": "bf16"},
        "24gb": _BF16,
        "16gb": _BF16 | _RECOMPUTE,
        "12gb": _BF16 | _RECOMPUTE | _RELEASE,
    },
}
# An adapter is small: the frozen network in 16 bits is what takes memory, the same in every size.
ADAPTER: dict[str, dict[str, Flag]] = {
    **{name: {"mixed_precision": "bf16"} for name in ("80gb", "24gb", "16gb", "12gb")},
    "8gb": {"mixed_precision": "bf16"} | _RECOMPUTE,
}


def known(network: str, lora: bool) -> dict[str, dict[str, Flag]]:
    """Size -> flags, for all of a network or for an adapter of it."""
    return ADAPTER if lora else PRESETS[network]


def size(name: str) -> float:
    """The memory that a preset is made for, in GB."""
    return float(name.removesuffix("gb"))
