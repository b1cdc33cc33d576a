"""What `--preset` sets, so that a full fine-tune fits a GPU of that size. Flags given win over it.

Each is a bag of flag values for batch 1 and the guide's resolution; `wassily plan` tells what it
comes to, and docs/memory.md shows them all. From the largest to the smallest.
"""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "prior": {
        "80gb": {"mixed_precision": "bf16"},
        "24gb": {"mixed_precision": "bf16"},
        "16gb": {"mixed_precision": "bf16", "use_8bit_adam": True},
        "12gb": {"mixed_precision": "bf16", "use_8bit_adam": True},
        "8gb": {"mixed_precision": "bf16", "use_8bit_adam": True},
    },
    "decoder": {
        "80gb": {"mixed_precision": "bf16"},
        "24gb": {"mixed_precision": "bf16", "use_8bit_adam": True},
        "16gb": {"mixed_precision": "bf16", "use_8bit_adam": True, "gradient_checkpointing": True},
        "12gb": {"mixed_precision": "bf16", "use_8bit_adam": True, "gradient_checkpointing": True},
        "8gb": {"mixed_precision": "bf16", "use_8bit_adam": True, "gradient_checkpointing": True},
    },
}


def size(name: str) -> float:
    """The memory that a preset is made for, in GB."""
    return float(name.removesuffix("gb"))
