"""Flags and defaults of the guide, all of them read somewhere."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from wassily.config import commands, training
from wassily.config.generation import GenerateConfig
from wassily.config.training import DecoderConfig, PriorConfig

# The flags of the guide's two scripts with their defaults, written down from their parsers, but
# for mixed_precision and resume, which start unset in both, and report_to.
GUIDE: dict[str, Any] = {
    "pretrained_decoder_model_name_or_path": "kandinsky-community/kandinsky-2-2-decoder",
    "pretrained_prior_model_name_or_path": "kandinsky-community/kandinsky-2-2-prior",
    "dataset_name": None,
    "dataset_config_name": None,
    "train_data_dir": None,
    "image_column": "image",
    "max_train_samples": None,
    "validation_prompts": (),
    "output_dir": "kandi_2_2-model-finetuned",
    "cache_dir": None,
    "seed": None,
    "resolution": 512,
    "train_batch_size": 1,
    "num_train_epochs": 100,
    "max_train_steps": None,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
    "learning_rate": 1e-4,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 500,
    "snr_gamma": None,
    "use_8bit_adam": False,
    "allow_tf32": False,
    "use_ema": False,
    "dataloader_num_workers": 0,
    "adam_beta1": 0.9,
    "adam_beta2": None,  # 0.999: see test_optim
    "adam_weight_decay": 0.0,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "push_to_hub": False,
    "hub_token": None,
    "hub_model_id": None,
    "logging_dir": "logs",
    "mixed_precision": None,
    "report_to": "tensorboard",
    "local_rank": -1,
    "checkpointing_steps": 500,
    "checkpoints_total_limit": None,
    "resume_from_checkpoint": None,
    "enable_xformers_memory_efficient_attention": False,
    "validation_epochs": 5,
    "tracker_project_name": "text2image-fine-tune",
}
NEW = {
    "validation_steps": None,
    "validation_scores": 0,
    "keep_best": None,
    "patience": None,
    "preset": None,
    "fuse_accumulation": "auto",
    "checkpointing_minutes": None,
    "max_bad_steps": 100,
    "random_flip": False,
    "logging_steps": 10,
    "skip_bad_images": False,
    "hub_prior_id": None,
    "no_cache": False,
    "verify_cache": False,
    "optimizer": "adamw",
    "weights_dtype": "fp32",
    "gradient_release": False,
    "compile": False,
    "cuda_graphs": "auto",
    "lora": False,
    "rank": None,
    "lora_alpha": None,
    "lora_dropout": None,
    "lora_targets": (),
    "use_dora": False,
    "condition_dropout": 0.0,
    "ema_sigma_rel": None,
    "holdout": 0.0,
    "preserve": None,
    "preserve_weight": 1.0,
    "preserve_share": 0.5,
}
# diffusers' DreamBooth scripts have these names; the defaults are theirs where they have one.
DREAMBOOTH = {
    "streaming": False,
    "shuffle_buffer": 1000,
    "instance_data_dir": None,
    "instance_prompt": None,
    "class_data_dir": None,
    "class_prompt": None,
    "with_prior_preservation": False,
    "prior_loss_weight": 1.0,
    "num_class_images": 100,
    "sample_batch_size": 4,
    "center_crop": False,
}
NEW |= DREAMBOOTH
ONLY_ACCEPTED = ("local_rank", "center_crop")  # so that others' commands run; each says so
SETTINGS = [PriorConfig, DecoderConfig, GenerateConfig, commands.CacheConfig, commands.DemoConfig]
SETTINGS.append(commands.MergeConfig)


@pytest.mark.parametrize("cls", [PriorConfig, DecoderConfig])
def test_names_and_defaults_are_the_guides(cls: type) -> None:
    """All of them, and besides them only what is listed as new."""
    own: dict[str, Any] = {"caption_column": "text"}
    if cls is DecoderConfig:
        own |= {"bucket": False, "variance_loss": 0.0, "drawn_embeds": None, "drawn_share": 0.5}
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    assert {name: defaults[name] for name in GUIDE | NEW | own if name in defaults} == (
        GUIDE | NEW | own
    )
    assert set(defaults) == set(GUIDE | NEW | own)


@pytest.mark.parametrize("cls", SETTINGS)
def test_every_setting_is_read_somewhere(cls: type) -> None:
    """None declared and ignored: each name is used outside of `config.training`, but those that
    are only accepted.
    """
    package = Path(training.__file__).parents[1]
    text = "\n".join(
        p.read_text("utf-8") for p in package.rglob("*.py") if str(p) != training.__file__
    )
    for field in dataclasses.fields(cls):
        used = re.search(rf"config\.{field.name}\b|\"{field.name}\"", text)
        assert used or field.name in ONLY_ACCEPTED, field.name


def _make(cls: type, folder: Path, **values: Any) -> Any:
    return cls(**({"train_data_dir": str(folder)} | values))


def test_configs_are_frozen(tmp_path: Path) -> None:
    """A config is a signature."""
    config = _make(PriorConfig, tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3
    assert (config.role, _make(DecoderConfig, tmp_path).role) == ("prior", "decoder")
