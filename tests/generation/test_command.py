"""`wassily generate` up to the first import that is slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from wassily.config.generation import GenerateConfig
from wassily.errors import UserError
from wassily.generation import command
from wassily.mini.untrained import Tiny


def test_the_first_line_says_what_is_loaded(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both networks; nothing is said of a folder that is not there but that."""
    there = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    command.announce(GenerateConfig(prompts=("a",), **there))
    assert capsys.readouterr().out == (
        f"loading the prior {tiny.prior}, then the decoder {tiny.decoder}\n"
    )
    gone = str(tmp_path / "gone")
    for flag in ("prior", "decoder", "prior_lora", "decoder_lora"):
        with pytest.raises(UserError, match="gone"):
            command.announce(GenerateConfig(prompts=("a",), **(there | {flag: gone})))
    assert not capsys.readouterr().out
