"""Flags and defaults of the guide, and what is refused."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from wassily.config import commands, generation_checks, training
from wassily.config.generation import GenerateConfig
from wassily.config.training import DecoderConfig, PriorConfig
from wassily.errors import UserError

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


def test_a_source_of_pictures_is_needed() -> None:
    """One, and only one."""
    with pytest.raises(UserError, match="--train_data_dir FOLDER or --dataset_name NAME"):
        PriorConfig()
    assert PriorConfig(dataset_name="me/pics", dataset_config_name="en").dataset_name == "me/pics"


def test_a_cache_is_verified_or_not_used(tmp_path: Path) -> None:
    """Not both; and days are not negative."""
    with pytest.raises(UserError, match="--no_cache and --verify_cache"):
        _make(PriorConfig, tmp_path, no_cache=True, verify_cache=True)
    assert commands.CacheConfig().unused_days == 30
    with pytest.raises(UserError, match="--unused_days"):
        commands.CacheConfig(unused_days=-1)


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "either --lora ADAPTER or --tuned"),
        ({"lora": "a", "tuned": "b"}, "either --lora ADAPTER or --tuned"),
        ({"lora": "a", "lora_scale": -1.0}, "--lora_scale"),
        ({"lora": "a", "alpha": 0.5}, "--alpha needs --tuned"),
        ({"base": "a", "tuned": "b", "alpha": 0.5, "lora_scale": 1.0}, "--lora_scale needs --lora"),
        ({"tuned": "b", "alpha": 0.5}, "--tuned needs --base"),
        ({"base": "a", "tuned": "b"}, "--tuned needs --alpha"),
        ({"base": "a", "tuned": "b", "alpha": 1.1}, "--alpha"),
    ],
)
def test_merge_refuses(values: dict[str, Any], message: str) -> None:
    """Before a model is loaded."""
    with pytest.raises(UserError, match=message):
        commands.MergeConfig(**values)


def test_configs_are_frozen(tmp_path: Path) -> None:
    """A config is a signature."""
    config = _make(PriorConfig, tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3
    assert (config.role, _make(DecoderConfig, tmp_path).role) == ("prior", "decoder")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "nothing to draw"),
        ({"prompts": ("a",), "num_images": 0}, "--num_images"),
        ({"prompts": ("a",), "steps": 0}, "--steps"),
        ({"prompts": ("a",), "prior_steps": 1}, "--prior_steps"),
        ({"prompts": ("a",), "batch_size": 0}, "--batch_size"),
        ({"prompts": ("a",), "height": 0}, "--height"),
        ({"prompts": ("a",), "width": -64}, "--width"),
        ({"prompts": ("a",), "seed": -1}, "--seed"),
        ({"prompts": ("a",), "guidance_scale": -1.0}, "--guidance_scale"),
        ({"prompts": ("a",), "dtype": "fp8"}, "--dtype"),
        ({"prompts": ("a",), "lora_scale": -0.5}, "--lora_scale"),
    ],
)
def test_generate_refuses(values: dict[str, Any], message: str) -> None:
    """Before a model is loaded."""
    with pytest.raises(UserError, match=message):
        GenerateConfig(**values)


def test_generate_has_the_pipelines_defaults() -> None:
    """Steps and guidance of the stock combined pipeline, read from its signature."""
    from diffusers import KandinskyV22CombinedPipeline

    stock = inspect.signature(KandinskyV22CombinedPipeline.__call__).parameters
    ours = GenerateConfig(prompts=("a",), scheduler="stock")
    assert generation_checks.steps(ours, ours) == stock["num_inference_steps"].default
    assert ours.prior_steps == stock["prior_num_inference_steps"].default
    assert ours.guidance_scale == stock["guidance_scale"].default
    assert ours.prior_guidance_scale == stock["prior_guidance_scale"].default
