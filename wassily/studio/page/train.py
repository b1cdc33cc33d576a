"""Train: a form that shows its command, a process of its own, and what it says while it runs."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from wassily.commands import demo
from wassily.data import images, png
from wassily.errors import UserError
from wassily.studio import command_words, model_choices, process, run_status
from wassily.studio.allowed_folders import AllowedFolders
from wassily.studio.page import generate, shared
from wassily.studio.texts import Say

ALIVE = "starting running"
EVERY = 2.0  # seconds between two looks
PRESETS = ("8gb", "12gb", "16gb", "24gb", "80gb")
Held = Mapping[gr.components.Component, object]  # the value of each field
WHOLE = (
    "resolution train_batch_size gradient_accumulation_steps max_train_steps checkpointing_steps "
    "validation_steps seed rank"
).split()


def words_of(allowed: AllowedFolders, values: shared.Values) -> list[str]:
    """The words of the training that a page asks for, checked. Raises UserError."""
    network = values["network"]
    if network not in command_words.CLASSES:
        raise UserError(f"{network}: neither prior nor decoder")
    flags: dict[str, object] = {
        "train_data_dir": allowed.data_folder(values["train_data_dir"]),
        "output_dir": str(allowed.new_run(values["name"])),
    }
    for home in generate.HOMES:
        flags[f"pretrained_{home}_model_name_or_path"] = model_choices.checked(
            allowed.runs, home, values[home]
        )
    flags |= {name: generate.whole(name, values[name]) for name in WHOLE}
    flags["validation_prompts"] = command_words.prompts(values["validation_prompts"])
    if not flags["validation_prompts"] and not values["holdout"]:
        flags["validation_steps"] = None
    if not values["lora"]:
        flags["rank"] = None
    for name in ("learning_rate", "holdout"):
        flags[name] = None if values[name] in (None, 0) else float(values[name])
    others = ("preset", "mixed_precision", "lora", "use_ema", "gradient_checkpointing")
    flags |= {name: values[name] for name in others}
    return command_words.train(network, flags)


@dataclass(frozen=True)
class _Command:
    """The words that the form makes, the button that starts them, and its notice."""

    shown: gr.HTML
    start: gr.Button
    started: gr.HTML


@dataclass(frozen=True)
class _Watched:
    """The chosen training and its state, chart, samples, buttons and their notice."""

    run: gr.Dropdown
    state: gr.HTML
    stop: gr.Button
    resume: gr.Button
    told: gr.HTML
    chart: gr.HTML
    samples: gr.Gallery

    @property
    def outputs(self) -> list[gr.components.Component]:
        """In the order of `seen`."""
        return [self.state, self.chart, self.samples, self.stop, self.resume]


def tab(say: Say, allowed: AllowedFolders) -> None:
    """The tab with its events."""
    with gr.Tab(say("train"), id="train") as place:
        fields: shared.Fields = {}
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                _form(say, allowed, fields)
                command = _command(say)
            with gr.Column(scale=1, min_width=280):
                watched = _watching(say, allowed)
    show = _wire_command(say, allowed, fields, command, watched.run)
    _wire_proposals(allowed, fields)
    _wire_buttons(say, allowed, watched)
    _wire_refresh(say, allowed, place, fields, watched.run, show, command.shown)
    with place:
        tick = gr.Timer(EVERY)
    lines = [command.started, watched.told]
    live = shared.SILENT | {
        "fn": lambda name, *lines: seen(say, allowed, name, lines),
        "inputs": [watched.run, *lines],
        "outputs": [*watched.outputs, *lines],
    }
    tick.tick(**live, trigger_mode="once")
    watched.run.change(**live)


def _command(say: Say) -> _Command:
    gr.HTML(f'<p class="quiet">{say("command")}</p>')
    shown = gr.HTML(elem_id="command", elem_classes="command")
    start = gr.Button(say("start"), variant="primary", elem_id="train-start")
    return _Command(shown, start, shared.notice())


def _wire_command(
    say: Say, allowed: AllowedFolders, fields: shared.Fields, command: _Command, run: gr.Dropdown
) -> Callable[[Held], str]:
    """Each change of a field shows the new command, and the button starts it. The handler that
    shows it.
    """
    every = set(fields.values())

    def given(held: Held) -> shared.Values:
        return {name: held[field] for name, field in fields.items()}

    def show(held: Held) -> str:
        try:
            return _shown(words_of(allowed, given(held)))
        except UserError as error:
            return shared.wrong(str(error))

    @shared.guarded(say, 2)
    def begin(held: Held) -> tuple[object, ...]:
        words = words_of(allowed, given(held))
        folder = allowed.new_run(given(held)["name"])
        process.start(process.process_of(allowed, folder), words)
        told = shared.good(say("started", name=folder.name), states=ALIVE)
        return _shown(words), _runs(allowed, folder.name), told

    for field in fields.values():
        field.change(
            show,
            every,
            command.shown,
            trigger_mode="always_last",
            concurrency_limit=1,  # one after another, so that the last word is the newest
            **shared.SILENT,
        )
    outputs = [command.shown, run, command.started]
    command.start.click(begin, every, outputs, api_visibility="private")
    return show


def _wire_proposals(allowed: AllowedFolders, fields: shared.Fields) -> None:
    """Another network has another name and number of steps, where nobody has changed them."""

    def follow(network: str, name: str, steps: str) -> list[object]:
        own_name, own_steps = command_words.untouched(name, steps)
        return [
            allowed.unused(command_words.NAMES[network]) if own_name else gr.skip(),
            str(demo.TRAINING[network]) if own_steps else gr.skip(),
        ]

    followers = [fields["name"], fields["max_train_steps"]]
    fields["network"].input(follow, [fields["network"], *followers], followers, **shared.SILENT)


def _wire_buttons(say: Say, allowed: AllowedFolders, watched: _Watched) -> None:
    """Stop and resume the chosen training."""

    @shared.guarded(say, 0)
    def end(name: str | None) -> tuple[str]:
        process.stop(process.process_of(allowed, allowed.run(name)))
        return (shared.good(say("stopping", name=name), states="stopping"),)

    @shared.guarded(say, 0)
    def go_on(name: str | None) -> tuple[str]:
        folder = allowed.run(name)
        process.start(process.process_of(allowed, folder), command_words.resume(folder))
        return (shared.good(say("started", name=name), states=ALIVE),)

    run, told = watched.run, watched.told
    watched.stop.click(lambda name: end(name)[0], run, told, api_visibility="private")
    watched.resume.click(lambda name: go_on(name)[0], run, told, api_visibility="private")


def _wire_refresh(
    say: Say,
    allowed: AllowedFolders,
    place: gr.Tab,
    fields: shared.Fields,
    run: gr.Dropdown,
    show: Callable[[Held], str],
    command: gr.HTML,
) -> None:
    """Opening the tab or the page reads the networks, folders and trainings again."""

    def refresh(
        prior: str = "", decoder: str = "", folder: str = "", name: str = ""
    ) -> list[object]:
        lists = [model_choices.networks(allowed.runs, home, say) for home in generate.HOMES]
        lists.append([(f, f) for f in allowed.folders()])
        kept = zip(lists, (prior, decoder, folder), strict=True)
        return [*(shared.among(c, v, "mini") for c, v in kept), _runs(allowed, name)]

    lists = [fields["prior"], fields["decoder"], fields["train_data_dir"], run]
    event = place.select(refresh, lists, lists, **shared.SILENT)
    event.then(show, set(fields.values()), command, concurrency_limit=1, **shared.SILENT)
    shared.at_opening(
        lambda: [*refresh(), allowed.unused(command_words.NAMES["prior"])], [*lists, fields["name"]]
    )


def _shown(words: list[str]) -> str:
    return f'<pre dir="ltr">{html.escape(command_words.shown(words))}</pre>'


def _form(say: Say, allowed: AllowedFolders, fields: shared.Fields) -> None:
    """The settings, by name; those of `WHOLE` and others are flags."""
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


def _watching(say: Say, allowed: AllowedFolders) -> _Watched:
    names = run_status.trainings(allowed)
    run = gr.Dropdown(
        names,
        value=names[0] if names else None,
        label=say("training"),
        elem_id="run",
        info=None if names else say("no_training"),
    )
    state = gr.HTML(elem_id="state")
    with gr.Row():
        stop = gr.Button(say("stop"), elem_id="train-stop", variant="stop", min_width=100)
        resume = gr.Button(say("resume"), elem_id="train-resume", min_width=100)
    told = shared.notice()
    chart = gr.HTML(elem_id="losses", elem_classes="chart")
    samples = shared.gallery(
        label=say("samples"),
        columns=3,
        elem_id="samples",
        visible=False,
    )
    return _Watched(run, state, stop, resume, told, chart, samples)


def _runs(allowed: AllowedFolders, chosen: str | None) -> object:
    names = run_status.trainings(allowed)
    if chosen and chosen not in names:  # it has only just begun
        names.insert(0, chosen)
    value = chosen or (names[0] if names else None)
    return gr.update(choices=names, value=value, info=None)


def seen(
    say: Say, allowed: AllowedFolders, name: str | None, lines: Sequence[str | None]
) -> list[object]:
    """State, losses and samples of a training, its buttons and the lines about it, as outputs;
    nothing of one that is not allowed.
    """
    try:
        folder = allowed.run(name)
    except UserError:
        nothing = f'<p class="quiet">{say("no_training")}</p>'
        shown = [nothing, "", gr.update(visible=False), *_buttons("none")]
        return [*shown, *(gr.skip() for _ in lines)]
    rows = run_status.logged(folder)
    titles = (say("loss"), say("step"), say("on_training"), say("on_held_out"))
    chart = run_status.chart(rows, titles) or f'<p class="quiet">{say("no_loss")}</p>'
    step, files = run_status.samples(folder)
    now = run_status.look(allowed, folder)
    told = [shared.outlived(line, now.state) for line in lines]
    return [_state(say, now), chart, _samples(say, step, files), *_buttons(now.state), *told]


def _buttons(state: run_status.State) -> list[object]:
    """Stop and go on, each where it can be done."""
    running = state in ("starting", "running")
    resting = state in ("stopped", "finished")
    return [gr.update(interactive=running), gr.update(interactive=resting)]


def _samples(say: Say, step: int, files: list[Path]) -> object:
    found = []
    for path in files:
        try:
            picture = images.open_rgb(path)
        except images.BadPicture:  # it is being written
            continue
        found.append((picture, png.png_notes(path).get("prompt", path.stem)))
    if not found:
        return gr.update(visible=False)
    return gr.update(value=found, visible=True, label=say("samples_at", step=step))


def _state(say: Say, now: run_status.Seen) -> str:
    """The line of state, step and time left, a bar, and what it said last."""
    pieces = [f'<b data-state="{now.state}">{say("state_" + now.state)}</b>']
    if now.steps:
        pieces.append(f"<span>{say('step_of', step=now.step, steps=now.steps)}</span>")
    if now.left is not None:
        pieces.append(f"<span>{say('left', time=run_status.clock(now.left))}</span>")
    text = f'<p class="state">{"".join(pieces)}</p>'
    if now.steps:
        share = min(100, 100 * now.step / now.steps)
        text += f'<div class="bar"><span style="width:{share:.1f}%"></span></div>'
    if now.line:
        line = html.escape(now.line[:300])
        text += f'<p class="quiet">{say("said")}:</p><p class="said" dir="ltr">{line}</p>'
    return text
