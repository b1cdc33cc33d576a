"""`wassily generate` and `wassily mix` up to the first import that is slow."""

from __future__ import annotations

from pathlib import Path

from wassily import loading
from wassily.config.generation import DrawConfig, GenerateConfig, MixConfig
from wassily.errors import UserError
from wassily.models import missing


def generate(config: GenerateConfig) -> None:
    """Draw, after the first line. Raises UserError."""
    announce(config)
    with loading.uncollected():
        from wassily.generation import generate as loaded

    loaded.generate(config)


def mix(config: MixConfig) -> None:
    """The same of several texts and pictures. Raises UserError."""
    announce(config)
    with loading.uncollected():
        from wassily.generation import generate as loaded

    loaded.draw(config)


def announce(config: DrawConfig) -> None:
    """Say what takes a while. Raises UserError for a folder that is not there, or of a training
    that did not finish.
    """
    whole, adapters = (config.prior, config.decoder), (config.prior_lora, config.decoder_lora)
    for name in (*whole, *adapters):
        if name is None or name == "mini":
            continue
        what = "folder" if name in whole else "adapter"
        if told := missing.absent(name, what) or missing.unfinished(Path(name)):
            raise UserError(told)
    print(first_line(config), flush=True)


def first_line(config: DrawConfig) -> str:
    """What is loaded before the first picture begins."""
    if isinstance(config, GenerateConfig) and config.from_picture is not None:
        return f"loading what drew {config.from_picture}"
    return f"loading the prior {config.prior}, then the decoder {config.decoder}"
