"""The form of a training: its fields with the values that suit `mini`."""

from __future__ import annotations

import gradio as gr

from wassily.commands import demo
from wassily.pages import generate, shared
from wassily.studio import command_words, model_choices
from wassily.studio.allowed_folders import AllowedFolders
from wassily.studio.texts import Say

PRESETS = ("8gb", "12gb", "16gb", "24gb", "80gb")


def fill(say: Say, allowed: AllowedFolders, fields: shared.Fields) -> None:
    """Add the settings to `fields`, by the names of their flags where they have one."""
    _source_fields(say, allowed, fields)
    _length_fields(say, fields)
    _validation_fields(say, fields)
    with gr.Accordion(say("more"), open=False):
        _further_fields(say, fields)


def _source_fields(say: Say, allowed: AllowedFolders, fields: shared.Fields) -> None:
    """The network, the training's name, its images, and the models that it starts from."""
    networks = [(say("prior"), "prior"), (say("decoder"), "decoder")]
    fields["network"] = gr.Radio(
        networks, value="prior", label=say("network"), elem_id="train-network"
    )
    with gr.Row():
        fields["name"] = gr.Textbox(
            allowed.unused(command_words.NAMES["prior"]),
            max_lines=1,
            label=say("name"),
            info=say("name_info", folder=allowed.runs),
            elem_id="train-name",
            min_width=160,
        )
        folders = allowed.folders()
        fields["train_data_dir"] = gr.Dropdown(
            folders,
            value=folders[0] if folders else None,
            label=say("data_folder"),
            info=None if folders else say("no_data"),
            elem_id="train-data",
            min_width=160,
        )
    with gr.Row():
        for home in generate.HOMES:
            choices = model_choices.networks(allowed.runs, home, say)
            fields[home] = gr.Dropdown(
                choices,
                value=shared.first(choices, "mini"),
                label=say(f"start_{home}"),
                elem_id=f"train-{home}",
                min_width=180,
            )


def _length_fields(say: Say, fields: shared.Fields) -> None:
    """The size of images and batches, and the number of steps."""
    with gr.Row():
        fields["resolution"] = generate.number(say("resolution"), 32, name="train-resolution")
        fields["train_batch_size"] = generate.number(say("batch"), 16, name="train-batch")
        fields["max_train_steps"] = generate.number(
            say("max_steps"), demo.TRAINING["prior"], name="train-steps"
        )
        fields["learning_rate"] = gr.Number(1e-4, label=say("rate"), min_width=140)
        fields["checkpointing_steps"] = generate.number(say("checkpoints"), 50, name="train-every")
        fields["seed"] = generate.number(say("seed"), None, say("seed_info"))


def _validation_fields(say: Say, fields: shared.Fields) -> None:
    fields["validation_prompts"] = gr.Textbox(
        label=say("validation_prompts"), lines=2, elem_id="train-prompts"
    )
    with gr.Row():
        fields["validation_steps"] = generate.number(
            say("validation_steps"), 50, name="train-validation"
        )
        fields["holdout"] = gr.Slider(0, 0.5, 0, step=0.01, label=say("holdout"), min_width=160)


def _further_fields(say: Say, fields: shared.Fields) -> None:
    """Memory, adapters and the EMA."""
    usual = [(say("usual"), "")]
    with gr.Row():
        fields["preset"] = gr.Dropdown(
            [*usual, *((name, name) for name in PRESETS)], value="", label=say("preset")
        )
        fields["mixed_precision"] = gr.Dropdown(
            [*usual, *((name, name) for name in ("no", "fp16", "bf16"))],
            value="",
            label=say("precision"),
        )
        fields["gradient_accumulation_steps"] = generate.number(say("accumulation"), None)
    with gr.Row():
        fields["lora"] = gr.Checkbox(False, label=say("lora"))
        fields["rank"] = generate.number(say("rank"), None)
    fields["use_ema"] = gr.Checkbox(False, label=say("ema"))
    fields["gradient_checkpointing"] = gr.Checkbox(False, label=say("gradient_checkpointing"))
