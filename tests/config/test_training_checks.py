"""Values and combinations of a training's flags that are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from wassily.config.training import DecoderConfig, PriorConfig
from wassily.errors import UserError


def _make(cls: type, folder: Path, **values: Any) -> Any:
    return cls(**({"train_data_dir": str(folder)} | values))


WRONG: dict[str, list[Any]] = {
    "max_train_samples": [0, -1],
    "train_batch_size": [0],
    "gradient_accumulation_steps": [0],
    "num_train_epochs": [0],
    "max_train_steps": [0, -5],
    "checkpointing_steps": [0],
    "checkpointing_minutes": [0.0, -1.0, float("nan")],
    "max_bad_steps": [-1],
    "checkpoints_total_limit": [0],
    "validation_epochs": [0],
    "logging_steps": [0],
    "dataloader_num_workers": [-1, 257],
    "seed": [-1],
    "lr_warmup_steps": [-1],
    "adam_weight_decay": [-0.1],
    "learning_rate": [0.0, -1e-4],
    "adam_epsilon": [0.0],
    "max_grad_norm": [-1.0],
    "optimizer": ["adam", "AdamW"],
    "weights_dtype": ["fp16", "float32"],
    "gradient_release": [True],  # with the default clipping
    "snr_gamma": [0.0, -5.0],
    "condition_dropout": [1.0, -0.1],
    "ema_sigma_rel": [0.1],  # without --use_ema
    "adam_beta1": [1.0, -0.1],
    "adam_beta2": [1.0],
    "resolution": [0, 7, 500, -8],
    "holdout": [-0.1, 1.0],
    "output_dir": ["", " "],
    "mixed_precision": ["fp32", ""],
    "lr_scheduler": ["cosin"],
    "report_to": ["wandbb"],
    "validation_prompts": ["one"],
    "hub_model_id": ["me/x"],  # without --push_to_hub
    "hub_token": ["hf_x"],
    "hub_prior_id": ["me/prior"],
    "rank": [0, 8],  # the second without --lora, as those below
    "lora_alpha": [0, 8],
    "lora_dropout": [-0.1, 1.0, 0.0],
    "lora_targets": [("to_q", " "), ("to_q",)],
    "use_dora": [True],
    "resume_from_checkpoint": ["/no/such/checkpoint"],
    "dataset_config_name": ["en"],  # with --train_data_dir
    "dataset_name": ["me/pics"],  # with --train_data_dir
    "train_data_dir": ["/no/such/folder", __file__],
    "streaming": [True],  # with --train_data_dir
    "shuffle_buffer": [0, 5],  # the second without --streaming
    "instance_data_dir": ["/no/such/folder"],
    "instance_prompt": ["a dog", ""],  # without --instance_data_dir
    "with_prior_preservation": [True],  # without --class_data_dir
    "class_data_dir": ["dogs"],  # without --with_prior_preservation, as those below
    "class_prompt": ["a dog"],
    "num_class_images": [0, 50],
    "prior_loss_weight": [-1.0, 0.5],
    "sample_batch_size": [0, 2],
    "preserve": ["/no/such/file", __file__ + "/.."],
    "preserve_weight": [0.0, -1.0, float("inf"), float("nan"), 2.0],  # the last without --preserve
    "preserve_share": [0.0, 1.0, float("nan"), 0.25],
}


@pytest.mark.parametrize("cls", [PriorConfig, DecoderConfig])
@pytest.mark.parametrize("field", WRONG)
def test_wrong_values_name_their_flag(cls: type, field: str, tmp_path: Path) -> None:
    """At birth, in one line."""
    _make(cls, tmp_path)
    for value in WRONG[field]:
        with pytest.raises(UserError, match=f"--{field}") as caught:
            _make(cls, tmp_path, **{field: value})
        assert "\n" not in str(caught.value)
        assert "hf_x" not in str(caught.value)


RIGHT: dict[str, list[Any]] = {
    "max_grad_norm": [0.0],
    "dataloader_num_workers": [0, 256],
    "max_bad_steps": [0],
    "checkpointing_minutes": [0.5],
    "optimizer": ["adamw", "adamw8bit", "adafactor", "lion"],
    "weights_dtype": ["fp32"],
    "resolution": [8, 768, 1024],
    "adam_beta1": [0.0],
    "adam_weight_decay": [0.0],
    "lr_warmup_steps": [0],
    "resume_from_checkpoint": ["latest"],
    "mixed_precision": ["no", "fp16", "bf16", None],
    "report_to": ["all", "none", "wandb", "comet_ml", "trackio", "mlflow"],
    "seed": [0],
    "local_rank": [0, 3],
    "center_crop": [True],
    "preserve": ["builtin", __file__],
}


@pytest.mark.parametrize("field", RIGHT)
def test_borders_are_allowed(field: str, tmp_path: Path) -> None:
    """What lies just inside, and all the guide's choices."""
    for value in RIGHT[field]:
        assert getattr(_make(DecoderConfig, tmp_path, **{field: value}), field) == value


RELEASE = {"gradient_release": True, "max_grad_norm": 0.0}


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        (RELEASE | {"gradient_accumulation_steps": 2}, "--gradient_accumulation_steps 2"),
        (RELEASE | {"max_grad_norm": 1.0}, "--max_grad_norm 1"),
        (RELEASE | {"mixed_precision": "fp16"}, "--mixed_precision fp16"),
        (RELEASE | {"optimizer": "adafactor"}, "--optimizer adamw or lion"),
        (RELEASE | {"optimizer": "adamw8bit"}, "--optimizer adamw or lion"),
        (RELEASE | {"use_8bit_adam": True}, "--use_8bit_adam"),
        ({"use_8bit_adam": True, "optimizer": "lion"}, "--optimizer lion"),
        ({"optimizer": "lion", "adam_beta2": 0.99}, "--adam_beta2"),
        ({"optimizer": "adafactor", "adam_epsilon": 1e-6}, "--adam_epsilon"),
        ({"weights_dtype": "bf16", "adam_beta2": 0.999}, "--adam_beta2 0.999: so slow"),
        ({"weights_dtype": "bf16", "mixed_precision": "fp16"}, "--mixed_precision fp16"),
        ({"weights_dtype": "bf16", "mixed_precision": "no"}, "--mixed_precision no"),
        ({"weights_dtype": "bf16", "optimizer": "adafactor"}, "--optimizer adamw or lion"),
        ({"weights_dtype": "bf16", "use_8bit_adam": True}, "--use_8bit_adam"),
        (
            {"lora": True, "weights_dtype": "bf16", "adam_beta2": 0.99},
            "--lora and --weights_dtype bf16",
        ),
        (RELEASE | {"lora": True}, "--lora and --gradient_release"),
    ],
)
def test_settings_of_the_step_that_exclude_one_another(
    values: dict[str, Any], flag: str, tmp_path: Path
) -> None:
    """Each is refused in one line that names both; what is left without the second stands."""
    with pytest.raises(UserError, match=re.escape(flag)) as caught:
        _make(DecoderConfig, tmp_path, **values)
    assert "\n" not in str(caught.value)
    half = {"weights_dtype": "bf16", "mixed_precision": "bf16"}
    for kept in (RELEASE, half, half | RELEASE):
        _make(DecoderConfig, tmp_path, **kept)


def test_an_average_is_as_wide_as_can_be(tmp_path: Path) -> None:
    """Below 12^-1/2, which is the plain mean of all steps; and only where one is kept."""
    for width in (0.01, 0.1, 0.28):
        assert _make(PriorConfig, tmp_path, use_ema=True, ema_sigma_rel=width).use_ema
    for width in (0.0, -0.1, 0.29):
        with pytest.raises(UserError, match="--ema_sigma_rel"):
            _make(PriorConfig, tmp_path, use_ema=True, ema_sigma_rel=width)
    with pytest.raises(UserError, match="--ema_sigma_rel does nothing without --use_ema"):
        _make(PriorConfig, tmp_path, ema_sigma_rel=0.1)


def test_the_weight_of_the_variance_loss_is_not_negative(tmp_path: Path) -> None:
    """It is the decoder's alone."""
    assert _make(DecoderConfig, tmp_path, variance_loss=0.001).variance_loss == 0.001
    with pytest.raises(UserError, match="--variance_loss"):
        _make(DecoderConfig, tmp_path, variance_loss=-0.001)
    with pytest.raises(TypeError, match="variance_loss"):
        _make(PriorConfig, tmp_path, variance_loss=0.001)


def test_hub_settings_go_with_a_push(tmp_path: Path) -> None:
    """All three."""
    given = {"hub_model_id": "me/x", "hub_token": "hf_x", "hub_prior_id": "me/p"}
    _make(DecoderConfig, tmp_path, push_to_hub=True, **given)


def test_adapter_settings_go_with_lora(tmp_path: Path) -> None:
    """All of them; unset they leave the choice to the training."""
    given: dict[str, Any] = {"rank": 8, "lora_alpha": 16, "lora_dropout": 0.0, "use_dora": True}
    _make(DecoderConfig, tmp_path, lora=True, lora_targets=("to_q",), **given)
    assert _make(PriorConfig, tmp_path, lora=True).learning_rate == 1e-4
