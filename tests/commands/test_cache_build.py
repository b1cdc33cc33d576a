"""`wassily cache build`, then info and prune by command."""

from __future__ import annotations

from pathlib import Path

from e2e import wassily as run
from helpers import write_folder

from wassily.encodings import cache
from wassily.mini.untrained import Tiny

CAPTIONS = ["a red cat", "قطة حمراء صغيرة", "a red cat", "a very long caption of a small bird", "b"]


def test_build_info_and_prune_by_command(tiny: Tiny, tmp_path: Path) -> None:
    """`cache build` encodes and trains nothing; `info` counts it; `prune` removes it."""
    write_folder(tmp_path / "pics", CAPTIONS)
    place = ["--cache_dir", str(tmp_path / "c")]
    models = ["--pretrained_prior_model_name_or_path", str(tiny.prior)]
    models += ["--pretrained_decoder_model_name_or_path", str(tiny.decoder)]
    words = [*place, *models, "--train_data_dir", str(tmp_path / "pics"), "--resolution", "32"]
    done = run("cache", "build", "decoder", *words, "--output_dir", str(tmp_path / "out"))
    assert done.code == 0, done.text
    assert not (tmp_path / "out").exists()
    assert "5 entries" in " ".join(run("cache", "info", *place).out.split())
    run("cache", "prune", *place, "--unused_days", "0")
    assert not list(cache.default_folder(str(tmp_path / "c")).rglob("*.safetensors"))
