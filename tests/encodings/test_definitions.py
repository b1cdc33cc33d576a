"""Which encodings a network reads, each with a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wassily.config.training import DecoderConfig
from wassily.encodings import definitions
from wassily.mini.untrained import Tiny
from wassily.runtime.accelerator import Runtime


def test_an_encoder_of_other_weights_has_a_space_of_its_own(
    work: Callable[..., Any], tiny: Tiny, tmp_path: Path
) -> None:
    """A copy of the prior with one bit of the image encoder changed."""
    import shutil

    from safetensors.torch import load_file, save_file

    config = DecoderConfig(train_data_dir=str(tmp_path))
    runtime = Runtime(None, 1, str(tmp_path), "logs", "none")
    other = tmp_path / "other"
    shutil.copytree(tiny.prior, other)
    spaces = []
    for _ in range(2):
        context = definitions.of_training(config, {"prior": str(other)}, runtime, tmp_path / "c")
        spaces.append(definitions.image_encoding(context).space)
        file = other / "image_encoder" / "model.safetensors"
        tensors = load_file(file)
        first = sorted(tensors)[0]
        tensors[first] = tensors[first] + 1e-3
        save_file(tensors, file, metadata={"format": "pt"})
    assert spaces[0] != spaces[1]
