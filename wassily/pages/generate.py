"""Draw: prompts, models and adapters, the pictures, and those from before to draw again."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from wassily.config.generation import GenerateConfig
from wassily.config.generation_checks import SCHEDULER
from wassily.errors import UserError
from wassily.generation import schedulers
from wassily.pages import shared
from wassily.studio import command_words, generation_queue, model_choices
from wassily.studio.allowed_folders import AllowedFolders
from wassily.studio.texts import Say

MOST = 64  # pictures at once


def whole(name: str, text: str | None) -> int | None:
    """The whole number in a field, or None where it is empty. Raises UserError."""
    if not text or not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise UserError(f"--{name}: {text!r} is not a whole number") from None


def config_of(
    allowed: AllowedFolders, cache_dir: str | None, out: Path, values: shared.Values
) -> GenerateConfig:
    """The drawing that a page asks for, as of `wassily generate`. Raises UserError."""
    prompts = command_words.prompts(values["prompts"])
    count = whole("num_images", values["num_images"])
    count = 1 if count is None else count
    if len(prompts) * count > MOST:
        raise UserError(f"{len(prompts) * count} pictures at once; the studio draws {MOST} at most")
    given: dict[str, Any] = {"prompts": prompts, "num_images": count}
    for home in HOMES:
        given[home] = model_choices.checked(allowed.runs, home, values[home])
        given[f"{home}_lora"] = model_choices.checked_adapter(
            allowed.runs, home, values[f"{home}_lora"]
        )
    if any(given[f"{home}_lora"] for home in HOMES):
        given["lora_scale"] = float(values["lora_scale"])
    for name in ("seed", "steps", "prior_steps", "width", "height"):
        if (number := whole(name, values[name])) is not None:
            given[name] = number
    for home, name in GUIDANCE.items():
        own = values[name]
        suits = (
            model_choices.guidance(allowed.runs, home, given[home]) if own is None else float(own)
        )
        given[f"{name}_scale"] = suits
    return GenerateConfig(
        **given,
        negative_prompt=values["negative"] or None,
        scheduler=values["scheduler"],
        out=str(out),
        cache_dir=cache_dir,
    )


HOMES = ("prior", "decoder")
GUIDANCE = {"decoder": "guidance", "prior": "prior_guidance"}  # in the order of the fields


@dataclass(frozen=True)
class _Page:
    """One language's tab, and the queue and folder that it shares with the others."""

    say: Say
    allowed: AllowedFolders
    queue: generation_queue.GenerationQueue
    cache_dir: str | None
    jobs: shared.Jobs

    @property
    def folder(self) -> Path:
        """Where the images go."""
        return self.allowed.images[0]


@dataclass(frozen=True)
class _Results:
    """The right half: both buttons, the notice and the new images."""

    go: gr.Button
    cancel: gr.Button
    note: gr.HTML
    drawn: gr.Gallery


def tab(
    say: Say,
    allowed: AllowedFolders,
    queue: generation_queue.GenerationQueue,
    cache_dir: str | None,
) -> None:
    """The tab with its events."""
    page = _Page(say, allowed, queue, cache_dir, shared.Jobs())
    with gr.Tab(say("draw"), id="draw") as place:
        fields: shared.Fields = {}
        with gr.Row():
            with gr.Column(scale=3, min_width=280):
                _main_fields(say, allowed, fields)
                _how_fields(say, allowed, fields)
                _adapter_fields(say, allowed, fields)
            with gr.Column(scale=2, min_width=280):
                new = _results(say)
        history = _history(page)
        again = _wire_history(page, history, new)
    event = new.go.click(
        _painter(page, fields),
        set(fields.values()),
        [new.drawn, new.note],
        show_progress_on=new.drawn,
        **shared.QUEUED,
    )
    event.then(lambda: shown_history(page.folder), None, history.gallery, **shared.SILENT)
    page.jobs.wire(say, new.cancel, [event, again], new.note)
    _show_usual_guidance(allowed, fields)
    networks = [fields[name] for name in (*HOMES, "prior_lora", "decoder_lora")]

    def now(*kept: object) -> tuple[object, ...]:
        kept = kept or (None,) * len(networks)
        return *offered(say, allowed, kept), shown_history(page.folder)

    outputs = [*networks, history.gallery]
    place.select(now, networks, outputs, **shared.SILENT)
    shared.at_opening(now, outputs)


def _results(say: Say) -> _Results:
    with gr.Row():
        go = gr.Button(say("draw"), variant="primary", elem_id="draw-go", min_width=120)
        cancel = gr.Button(say("cancel"), elem_id="draw-cancel", min_width=100)
    note = shared.notice()
    drawn = shared.gallery(
        label=say("pictures"), columns=2, elem_id="drawn", buttons=["download", "fullscreen"]
    )
    return _Results(go, cancel, note, drawn)


def _painter(page: _Page, fields: shared.Fields) -> shared.Handler:
    """The handler of the draw button."""
    say = page.say

    @shared.guarded(say, 1)
    def paint(
        values: dict[gr.components.Component, object],
        request: gr.Request,
        progress: gr.Progress = shared.PROGRESS,
    ) -> tuple[object, str]:
        given = {name: values[field] for name, field in fields.items()}
        job = page.jobs.begin(request, progress)
        config = config_of(page.allowed, page.cache_dir, page.folder, given)
        found = page.queue.draw(config, job)
        shown = [
            (str(file), shared.caption(config.prompts[n // config.num_images], say, seed))
            for n, (file, seed) in enumerate(found)
        ]
        return shown, shared.good(say("drawn", count=len(found)), page.folder)

    return paint


def _show_usual_guidance(allowed: AllowedFolders, fields: shared.Fields) -> None:
    """An empty guidance field shows the value for the chosen network."""
    for home, name in GUIDANCE.items():
        fields[home].change(
            lambda chosen, home=home: gr.update(
                placeholder=f"{model_choices.guidance(allowed.runs, home, chosen):g}"
            ),
            fields[home],
            fields[name],
            **shared.SILENT,
        )


def offered(say: Say, allowed: AllowedFolders, kept: tuple[object, ...]) -> list[object]:
    """The choices of both networks and both adapters, as they are now."""
    none = [(say("none"), model_choices.NONE)]
    lists = [model_choices.networks(allowed.runs, home, say) for home in HOMES]
    lists += [none + model_choices.adapters(allowed.runs, home, say) for home in HOMES]
    return [shared.among(choices, value) for choices, value in zip(lists, kept, strict=True)]


def _main_fields(say: Say, allowed: AllowedFolders, fields: shared.Fields) -> None:
    """Prompts, networks, seed and count."""
    fields["prompts"] = gr.Textbox(
        say("prompts_example"), label=say("prompts"), lines=3, elem_id="prompts"
    )
    with gr.Row():
        for home in HOMES:
            choices = model_choices.networks(allowed.runs, home, say)
            fields[home] = gr.Dropdown(
                choices,
                value=choices[0][1],
                label=say(home),
                info=say(f"{home}_info"),
                elem_id=f"draw-{home}",
                min_width=200,
            )
    with gr.Row():
        fields["seed"] = number(say("seed"), None, say("seed_info"), "draw-seed")
        fields["num_images"] = number(say("num_images"), 1, None, "draw-count")


def _how_fields(say: Say, allowed: AllowedFolders, fields: shared.Fields) -> None:
    """Scheduler, steps, guidance and size."""
    with gr.Accordion(say("how"), open=False):
        with gr.Row():
            fields["scheduler"] = gr.Dropdown(
                list(schedulers.KINDS), value=SCHEDULER, label=say("scheduler"), min_width=160
            )
            fields["steps"] = number(say("steps"), None, say("steps_info"), "draw-steps")
        with gr.Row():
            for home, name in GUIDANCE.items():
                suits = model_choices.guidance(allowed.runs, home, fields[home].value)
                fields[name] = gr.Number(
                    None,
                    label=say(name),
                    info=say("guidance_info"),
                    placeholder=f"{suits:g}",
                    elem_id=f"draw-{name.replace('_', '-')}",
                    min_width=140,
                )
            fields["prior_steps"] = number(say("prior_steps"), 25)
        fields["negative"] = gr.Textbox(label=say("negative"), max_lines=1)
        with gr.Row():
            fields["width"] = number(say("width"), None, say("size_info"))
            fields["height"] = number(say("height"), None, say("size_info"))


def _adapter_fields(say: Say, allowed: AllowedFolders, fields: shared.Fields) -> None:
    with gr.Accordion(say("adapters"), open=False):
        with gr.Row():
            for home in HOMES:
                choices = [
                    (say("none"), model_choices.NONE),
                    *model_choices.adapters(allowed.runs, home, say),
                ]
                fields[f"{home}_lora"] = gr.Dropdown(
                    choices, value=model_choices.NONE, label=say(f"{home}_lora"), min_width=200
                )
        fields["lora_scale"] = gr.Slider(0, 2, 1, step=0.05, label=say("lora_scale"))


def number(
    label: str, value: int | None, info: str | None = None, name: str | None = None
) -> gr.Textbox:
    """A field for a whole number, which may be empty."""
    return gr.Textbox(
        "" if value is None else str(value),
        label=label,
        info=info,
        elem_id=name,
        min_width=140,
        max_lines=1,
    )


# ---------------------------------------------------------------- history


@dataclass(frozen=True)
class _History:
    """Earlier images, the notes of the chosen one, its path, and the button to draw it again."""

    gallery: gr.Gallery
    notes: gr.HTML
    again: gr.Button
    chosen: gr.State


def shown_history(folder: Path) -> object:
    """The history's pictures, none of them chosen."""
    files = [(str(file), file.stem) for file in generation_queue.history(folder)]
    return gr.update(value=files, selected_index=None)


def _history(page: _Page) -> _History:
    say = page.say
    with gr.Accordion(say("history"), open=False, elem_id="history-place"):
        gr.HTML(f'<p class="quiet">{say("history_info")}</p>')
        gallery = shared.gallery(
            value=[(str(file), file.stem) for file in generation_queue.history(page.folder)],
            show_label=False,
            columns=5,
            elem_id="history",
            allow_preview=False,
        )
        notes = gr.HTML(elem_id="history-notes")
        again = gr.Button(say("again"), elem_id="draw-again")
    return _History(gallery, notes, again, gr.State(None))


def _wire_history(page: _Page, history: _History, new: _Results) -> gr.events.Dependency:
    """Choosing an image shows its notes; the button draws it again. The event of the button."""

    @shared.guarded(page.say, 1)
    def choose(event: gr.SelectData) -> tuple[str, str]:
        file = page.folder / str(event.value["caption"] + ".png")
        if file not in generation_queue.history(page.folder):
            raise UserError(f"{file.name}: not in the history")
        return str(file), _told(file)

    history.gallery.select(choose, None, [history.chosen, history.notes], **shared.SILENT)
    event = history.again.click(
        _repeater(page),
        history.chosen,
        [new.drawn, new.note],
        show_progress_on=new.drawn,
        **shared.QUEUED,
    )
    event.then(lambda: shown_history(page.folder), None, history.gallery, **shared.SILENT)
    return event


def _repeater(page: _Page) -> shared.Handler:
    """The handler of the button that draws a chosen image again."""
    say, allowed = page.say, page.allowed

    @shared.guarded(say, 1)
    def repeat(
        name: str | None, request: gr.Request, progress: gr.Progress = shared.PROGRESS
    ) -> tuple[object, str]:
        if name is None:
            raise UserError(say("choose_picture"))
        old = generation_queue.provenance_of(Path(name))
        config = old.config
        assert isinstance(config, GenerateConfig) and config.seed is not None  # others are refused
        for home in HOMES:
            model_choices.checked(allowed.runs, home, getattr(config, home))
            model_choices.checked_adapter(allowed.runs, home, getattr(config, f"{home}_lora"))
        job = page.jobs.begin(request, progress)
        file = page.queue.again(old, page.folder, page.cache_dir, job)
        prompt = " / ".join(config.prompts)
        shown = [(str(file), shared.caption(prompt, say, config.seed))]
        return shown, shared.good(say("drawn", count=1), page.folder)

    return repeat


def _told(file: Path) -> str:
    """What a picture's notes say, as a list."""
    config = generation_queue.provenance_of(file).config
    assert isinstance(config, GenerateConfig)  # others are refused
    rows = {
        "prompt": " / ".join(config.prompts),
        "seed": config.seed,
        "prior": config.prior,
        "decoder": config.decoder,
        "scheduler": config.scheduler,
        "steps": config.steps,
    }
    items = "".join(
        f'<div><dt>{name}</dt><dd dir="auto">{html.escape(str(value))}</dd></div>'
        for name, value in rows.items()
    )
    return f'<dl class="summary">{items}</dl>'
