"""Fine-tune and run Kandinsky 2.2: the names of `import wassily`, imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from wassily import loading
from wassily.version import __version__ as __version__

# Here, because every entry point comes by before it imports torch.
loading.wait_asleep()

__all__ = [
    "Canvas",
    "DecoderConfig",
    "Drawing",
    "EvaluateConfig",
    "Mix",
    "Pipelines",
    "PriorConfig",
    "Score",
    "UserError",
    "evaluate",
    "load_pipelines",
    "open_picture",
    "train_decoder",
    "train_prior",
]

if TYPE_CHECKING:
    from wassily.api import (
        Pipelines,
        evaluate,
        load_pipelines,
        open_picture,
        train_decoder,
        train_prior,
    )
    from wassily.config.evaluation import EvaluateConfig
    from wassily.config.training import DecoderConfig, PriorConfig
    from wassily.errors import UserError
    from wassily.evaluation.scores import Score
    from wassily.generation.sample import Canvas, Drawing, Mix
else:
    # Where each name is fetched from when it is first asked for: the import itself stays light.
    _HOMES = {
        "EvaluateConfig": "config.evaluation",
        "DecoderConfig": "config.training",
        "PriorConfig": "config.training",
        "UserError": "errors",
        "Canvas": "generation.sample",
        "Drawing": "generation.sample",
        "Mix": "generation.sample",
        "Score": "evaluation.scores",
    }

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'api')}")
        return getattr(home, name)

    def __dir__():
        return sorted([*globals(), *__all__])
