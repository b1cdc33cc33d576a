"""run.json: what a run was of."""

from __future__ import annotations

import json
from pathlib import Path


def test_the_facts_hold_no_secret(tmp_path: Path) -> None:
    from wassily.config import schema
    from wassily.config.training import PriorConfig

    given = {"train_data_dir": str(tmp_path), "validation_prompts": ("a b", "c"), "seed": 3}
    config = PriorConfig(**given, lora=True, push_to_hub=True, hub_token="hf_secret")  # type: ignore[arg-type]
    words = schema.to_flags(config)
    assert "hf_secret" not in json.dumps(words)
    from wassily.config import parsing

    again = parsing.parse("PriorConfig", words, "x")
    assert schema.public(again) == schema.public(config)
