"""Words of a command line become a config."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from wassily.config import parsing, schema
from wassily.config.generation import GenerateConfig
from wassily.config.training import DecoderConfig, PriorConfig
from wassily.errors import UserError


def _prior(*words: object) -> PriorConfig:
    return parsing.parse("PriorConfig", [str(w) for w in words], "wassily train prior")


def _toml(folder: Path, text: str) -> Path:
    file = folder / "run.toml"
    file.write_text(text, "utf-8")
    return file


def test_the_guides_command(tmp_path: Path) -> None:
    """Its flags as it writes them: `--name=value`, a bare switch, and quotes gone."""
    config = parsing.parse(
        "DecoderConfig",
        [
            "--dataset_name=lambdalabs/naruto-blip-captions",
            "--resolution=768",
            "--train_batch_size=1",
            "--gradient_accumulation_steps=4",
            "--gradient_checkpointing",
            "--max_train_steps=15000",
            "--learning_rate=1e-05",
            "--max_grad_norm=1",
            "--checkpoints_total_limit=3",
            "--lr_scheduler=constant",
            "--lr_warmup_steps=0",
            "--validation_prompts=A robot naruto, 4k photo",
            "--report_to=wandb",
            "--push_to_hub",
            "--output_dir=kandi2-decoder-naruto-model",
        ],
        "wassily train decoder",
    )
    assert config == DecoderConfig(
        dataset_name="lambdalabs/naruto-blip-captions",
        resolution=768,
        gradient_accumulation_steps=4,
        gradient_checkpointing=True,
        max_train_steps=15000,
        learning_rate=1e-5,
        max_grad_norm=1.0,
        checkpoints_total_limit=3,
        lr_warmup_steps=0,
        validation_prompts=("A robot naruto, 4k photo",),
        report_to="wandb",
        push_to_hub=True,
        output_dir="kandi2-decoder-naruto-model",
    )


def test_hyphens_work_as_well(tmp_path: Path) -> None:
    """In any mixture."""
    words = ["--train-data-dir", tmp_path, "--max-train_steps", 3, "--use-ema"]
    assert _prior(*words) == PriorConfig(
        train_data_dir=str(tmp_path), max_train_steps=3, use_ema=True
    )


@pytest.mark.parametrize("flag", ["--validation_prompts", "--validation_prompt"])
def test_prompts_by_both_names(flag: str, tmp_path: Path) -> None:
    """One or more, in any script, in order."""
    config = _prior("--train_data_dir", tmp_path, flag, "a cat", "قطة حمراء", "--seed", 3)
    assert config.validation_prompts == ("a cat", "قطة حمراء")
    assert config.seed == 3


def test_generate_takes_prompts_in_any_place() -> None:
    """Several, and a negative guidance word that starts with a hyphen by `=`."""
    config = parsing.parse("GenerateConfig", ["a", "b c", "--seed", "3", "--grid"], "x")
    assert config == GenerateConfig(prompts=("a", "b c"), seed=3, grid=True)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    """Of numbers, texts, lists and switches, also switched off; the rest is the file's."""
    file = _toml(
        tmp_path,
        f'train_data_dir = "{tmp_path}"\nmax_train_steps = 7\nlearning_rate = 1\n'
        'validation_prompt = "one"\nuse_ema = true\nallow_tf32 = true\n',
    )
    assert _prior("--config", file) == PriorConfig(
        train_data_dir=str(tmp_path),
        max_train_steps=7,
        learning_rate=1,
        validation_prompts=("one",),
        use_ema=True,
        allow_tf32=True,
    )
    words = ["--max_train_steps", 9, "--validation_prompts", "two", "three", "--no-use_ema"]
    config = _prior(*words, f"--config={file}")
    assert (config.max_train_steps, config.validation_prompts) == (9, ("two", "three"))
    assert (config.use_ema, config.allow_tf32, config.learning_rate) == (False, True, 1)


def test_a_contradiction_is_judged_on_the_whole(tmp_path: Path) -> None:
    """The file and the flags together; each alone would do."""
    file = _toml(tmp_path, f'train_data_dir = "{tmp_path}"\n')
    with pytest.raises(UserError, match="--dataset_name and --train_data_dir"):
        _prior("--config", file, "--dataset_name", "me/pics")
    file = _toml(tmp_path, 'hub_model_id = "me/x"\n')
    assert _prior("--config", file, "--train_data_dir", tmp_path, "--push_to_hub").push_to_hub


def test_a_saved_config_is_the_same_run_again(tmp_path: Path) -> None:
    """What is written beside the weights reads back as the config it was, all fields changed."""
    config = DecoderConfig(
        train_data_dir=str(tmp_path),
        validation_prompts=('a "quoted" cat', "قطة\nحمراء"),
        learning_rate=3e-6,
        snr_gamma=5,
        seed=0,
        use_ema=True,
        mixed_precision="bf16",
        resume_from_checkpoint="latest",
        push_to_hub=True,
        hub_token="hf_secret",
    )
    file = _toml(tmp_path, schema.to_toml(config))
    again = parsing.parse("DecoderConfig", ["--config", str(file)], "x")
    assert again == dataclasses.replace(config, hub_token=None)
