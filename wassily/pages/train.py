"""Train: a form that shows its command, a process of its own, and what it says while it runs."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from wassily.commands import demo
from wassily.data import images, png
from wassily.errors import UserError, printable
from wassily.files.reading import NONSENSE
from wassily.pages import generate, shared, train_form
from wassily.studio import command_words, model_choices, process, resume_command, run_status
from wassily.studio.allowed_folders import AllowedFolders
from wassily.studio.texts import Say

ALIVE = "starting running"
RESTING = ("stopped", "finished")
EVERY = 2.0  # seconds between two looks
Held = Mapping[gr.components.Component, object]  # the value of each field
WHOLE = (
    "resolution train_batch_size gradient_accumulation_steps max_train_steps checkpointing_steps "
    "validation_steps seed rank"
).split()


def words_of(allowed: AllowedFolders, cache_dir: str | None, values: shared.Values) -> list[str]:
    """The words of the training that a page asks for, checked. Raises UserError."""
    network = values["network"]
    if network not in command_words.CLASSES:
        raise UserError(f"{network}: neither prior nor decoder")
    flags: dict[str, object] = {
        "train_data_dir": allowed.data_folder(values["train_data_dir"]),
        "output_dir": str(allowed.new_run(values["name"])),
        "cache_dir": cache_dir,
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
    """The chosen training: its state, buttons, command to resume, notice, chart and samples."""

    run: gr.Dropdown
    state: gr.HTML
    stop: gr.Button
    resume: gr.Button
    command: gr.HTML
    told: gr.HTML
    chart: gr.HTML
    samples: gr.Gallery

    @property
    def outputs(self) -> list[gr.components.Component]:
        """In the order of `seen`."""
        return [self.state, self.chart, self.samples, self.stop, self.resume]


def tab(say: Say, allowed: AllowedFolders, cache_dir: str | None) -> None:
    """The tab with its events."""
    with gr.Tab(say("train"), id="train") as place:
        fields: shared.Fields = {}
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                train_form.fill(say, allowed, fields)
                command = _command(say)
            with gr.Column(scale=1, min_width=280):
                watched = _watching(say, allowed)
    show = _wire_command(say, allowed, cache_dir, fields, command, watched.run)
    _wire_proposals(allowed, fields)
    _wire_buttons(say, allowed, cache_dir, watched)
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
    say: Say,
    allowed: AllowedFolders,
    cache_dir: str | None,
    fields: shared.Fields,
    command: _Command,
    run: gr.Dropdown,
) -> Callable[[Held], str]:
    """Each change of a field shows the new command, and the button starts it. The handler that
    shows it.
    """
    every = set(fields.values())

    def given(held: Held) -> shared.Values:
        return {name: held[field] for name, field in fields.items()}

    def show(held: Held) -> str:
        try:
            return _shown(words_of(allowed, cache_dir, given(held)))
        except UserError as error:
            return shared.wrong(str(error))

    @shared.guarded(say, 2)
    def begin(held: Held) -> tuple[object, ...]:
        words = words_of(allowed, cache_dir, given(held))
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


def _wire_buttons(
    say: Say, allowed: AllowedFolders, cache_dir: str | None, watched: _Watched
) -> None:
    """Stop and resume the chosen training, with the command that resumes it while it rests."""

    @shared.guarded(say, 0)
    def end(name: str | None) -> tuple[str]:
        process.stop(process.process_of(allowed, allowed.run(name)))
        return (shared.good(say("stopping", name=name), states="stopping"),)

    @shared.guarded(say, 0)
    def resumed(name: str | None) -> tuple[str]:
        folder = allowed.run(name)
        words = resume_command.words(allowed, folder, cache_dir)
        process.start(process.process_of(allowed, folder), words)
        return (shared.good(say("started", name=name), states=ALIVE),)

    @shared.guarded(say, 0)
    def show(name: str | None, state: str | None) -> tuple[str]:
        rests = any(f'data-state="{one}"' in (state or "") for one in RESTING)
        if not name or not rests:
            return ("",)
        return (_shown(resume_command.words(allowed, allowed.run(name), cache_dir)),)

    run, told = watched.run, watched.told
    watched.stop.click(lambda name: end(name)[0], run, told, api_visibility="private")
    watched.resume.click(lambda name: resumed(name)[0], run, told, api_visibility="private")
    gr.on(  # whenever one of the inputs changes
        fn=lambda *values: show(*values)[0],
        inputs=[run, watched.state],
        outputs=watched.command,
        **shared.SILENT,
    )


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
        again = gr.Button(say("resume"), elem_id="train-resume", min_width=100)
    gr.HTML(f'<p class="quiet">{say("resume_command")}</p>')
    command = gr.HTML(elem_id="resume-command", elem_classes="command")
    told = shared.notice()
    chart = gr.HTML(elem_id="losses", elem_classes="chart")
    samples = shared.gallery(
        label=say("samples"),
        columns=3,
        elem_id="samples",
        visible=False,
    )
    return _Watched(run, state, stop, again, command, told, chart, samples)


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
    try:
        shown, state = _looked_at(say, allowed, folder)
    except (UserError, *NONSENSE) as error:  # somebody else's folder may hold anything
        problem = shared.wrong(f"{folder}: {error}")
        shown, state = [problem, "", gr.update(visible=False), *_buttons("none")], "none"
    return [*shown, *(shared.outlived(line, state) for line in lines)]


def _looked_at(
    say: Say, allowed: AllowedFolders, folder: Path
) -> tuple[list[object], run_status.State]:
    """State, losses, samples and buttons of a training, and its state alone."""
    rows = run_status.logged(folder)
    titles = (say("loss"), say("step"), say("on_training"), say("on_held_out"))
    chart = run_status.chart(rows, titles) or f'<p class="quiet">{say("no_loss")}</p>'
    step, files = run_status.samples(folder)
    now = run_status.look(allowed, folder)
    return [_state(say, now), chart, _samples(say, step, files), *_buttons(now.state)], now.state


def _buttons(state: run_status.State) -> list[object]:
    """Stop and resume, each where it can be done."""
    running = state in ALIVE.split()
    return [gr.update(interactive=running), gr.update(interactive=state in RESTING)]


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
        line = html.escape(printable(now.line[:300]))
        text += f'<p class="quiet">{say("said")}:</p><p class="said" dir="ltr">{line}</p>'
    return text
