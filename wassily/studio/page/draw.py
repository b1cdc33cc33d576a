"""Draw: prompts, models and adapters, the pictures, and those from before to draw again."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from wassily import schedulers
from wassily.checks import SCHEDULER
from wassily.commands import GenerateConfig
from wassily.errors import UserError
from wassily.studio import easel as easels
from wassily.studio import form, shelf
from wassily.studio.fence import Fence
from wassily.studio.page import parts
from wassily.studio.words import Say

MOST = 64  # pictures at once


def whole(name: str, text: str | None) -> int | None:
    """The whole number in a field, or None where it is empty. Raises UserError."""
    if not text or not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise UserError(f"--{name}: {text!r} is not a whole number") from None


def config_of(fence: Fence, cache_dir: str | None, out: Path, values: dict[str, Any]) -> Any:
    """The drawing that a page asks for, as of `wassily generate`. Raises UserError."""
    prompts = form.prompts(values["prompts"])
    count = whole("num_images", values["num_images"])
    count = 1 if count is None else count
    if len(prompts) * count > MOST:
        raise UserError(f"{len(prompts) * count} pictures at once; the studio draws {MOST} at most")
    given: dict[str, Any] = {"prompts": prompts, "num_images": count}
    for home in HOMES:
        given[home] = shelf.checked(fence.runs, home, values[home])
        given[f"{home}_lora"] = shelf.checked_adapter(fence.runs, home, values[f"{home}_lora"])
    if any(given[f"{home}_lora"] for home in HOMES):
        given["lora_scale"] = float(values["lora_scale"])
    for name in ("seed", "steps", "prior_steps", "width", "height"):
        if (number := whole(name, values[name])) is not None:
            given[name] = number
    for home, name in GUIDANCE.items():
        own = values[name]
        suits = shelf.guidance(fence.runs, home, given[home]) if own is None else float(own)
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


def tab(say: Say, fence: Fence, easel: easels.Easel, cache_dir: str | None) -> None:
    """The tab with all that it does."""
    jobs, folder = parts.Jobs(), fence.own / "pictures"
    with gr.Tab(say("draw"), id="draw") as place:
        fields: dict[str, Any] = {}
        with gr.Row():
            with gr.Column(scale=3, min_width=280):
                _what(say, fence, fields)
            with gr.Column(scale=2, min_width=280):
                with gr.Row():
                    go = gr.Button(say("draw"), variant="primary", elem_id="draw-go", min_width=120)
                    cancel = gr.Button(say("cancel"), elem_id="draw-cancel", min_width=100)
                note = parts.notice()
                drawn = parts.gallery(
                    label=say("pictures"),
                    columns=2,
                    elem_id="drawn",
                    buttons=["download", "fullscreen"],
                )
        again = _history(say, fence, easel, cache_dir, jobs, drawn, note)

    @parts.guarded(say, 1)
    def paint(
        values: dict[Any, Any], request: gr.Request, progress: Any = parts.PROGRESS
    ) -> tuple[Any, str]:
        given = {name: values[field] for name, field in fields.items()}
        job = jobs.begin(request, progress)
        config = config_of(fence, cache_dir, folder, given)
        found = easel.draw(config, job)
        shown = [
            (str(file), parts.caption(config.prompts[n // config.num_images], say, seed))
            for n, (file, seed) in enumerate(found)
        ]
        return shown, parts.good(say("drawn", count=len(found)), folder)

    event = go.click(
        paint,
        set(fields.values()),
        [drawn, note],
        concurrency_limit=1,
        concurrency_id=parts.DRAWING,
        api_visibility="private",
        show_progress_on=drawn,
    )
    event.then(
        lambda: shown_history(folder),
        None,
        again.gallery,
        show_progress="hidden",
        api_visibility="private",
    )
    jobs.wire(say, cancel, [event, again.event], note)
    networks = [fields[name] for name in (*HOMES, "prior_lora", "decoder_lora")]
    for home, name in GUIDANCE.items():
        fields[home].change(
            lambda chosen, home=home: gr.update(
                placeholder=f"{shelf.guidance(fence.runs, home, chosen):g}"
            ),
            fields[home],
            fields[name],
            show_progress="hidden",
            api_visibility="private",
        )

    def now(*kept: Any) -> tuple[Any, ...]:
        kept = kept or (None,) * len(networks)
        return *offered(say, fence, kept), shown_history(folder)

    outputs = [*networks, again.gallery]
    place.select(now, networks, outputs, show_progress="hidden", api_visibility="private")
    parts.at_opening(now, outputs)


def offered(say: Say, fence: Fence, kept: tuple[Any, ...]) -> list[Any]:
    """The choices of both networks and both adapters, as they are now."""
    none = [(say("none"), shelf.NONE)]
    lists = [shelf.networks(fence.runs, home, say) for home in HOMES]
    lists += [none + shelf.adapters(fence.runs, home, say) for home in HOMES]
    return [parts.among(choices, value) for choices, value in zip(lists, kept, strict=True)]


def _what(say: Say, fence: Fence, fields: dict[str, Any]) -> None:
    """The fields, by name."""
    fields["prompts"] = gr.Textbox(
        say("prompts_example"), label=say("prompts"), lines=3, elem_id="prompts"
    )
    with gr.Row():
        for home in HOMES:
            choices = shelf.networks(fence.runs, home, say)
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
    with gr.Accordion(say("how"), open=False):
        with gr.Row():
            fields["scheduler"] = gr.Dropdown(
                list(schedulers.KINDS), value=SCHEDULER, label=say("scheduler"), min_width=160
            )
            fields["steps"] = number(say("steps"), None, say("steps_info"), "draw-steps")
        with gr.Row():
            for home, name in GUIDANCE.items():
                suits = shelf.guidance(fence.runs, home, fields[home].value)
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
    with gr.Accordion(say("adapters"), open=False):
        with gr.Row():
            for home in HOMES:
                choices = [(say("none"), shelf.NONE), *shelf.adapters(fence.runs, home, say)]
                fields[f"{home}_lora"] = gr.Dropdown(
                    choices, value=shelf.NONE, label=say(f"{home}_lora"), min_width=200
                )
        fields["lora_scale"] = gr.Slider(0, 2, 1, step=0.05, label=say("lora_scale"))


def number(label: str, value: int | None, info: str | None = None, name: str | None = None) -> Any:
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


class _Again:
    """What the history gives to the tab around it."""

    gallery: Any
    event: Any


def shown_history(folder: Path) -> Any:
    """The history's pictures, none of them chosen."""
    files = [(str(file), file.stem) for file in easels.history(folder)]
    return gr.update(value=files, selected_index=None)


def _history(
    say: Say,
    fence: Fence,
    easel: easels.Easel,
    cache_dir: str | None,
    jobs: parts.Jobs,
    drawn: Any,
    note: Any,
) -> _Again:
    folder, it = fence.own / "pictures", _Again()
    with gr.Accordion(say("history"), open=False, elem_id="history-place"):
        gr.HTML(f'<p class="quiet">{say("history_info")}</p>')
        it.gallery = parts.gallery(
            value=[(str(file), file.stem) for file in easels.history(folder)],
            show_label=False,
            columns=5,
            elem_id="history",
            allow_preview=False,
        )
        told = gr.HTML(elem_id="history-notes")
        button = gr.Button(say("again"), elem_id="draw-again")
    chosen = gr.State(None)

    @parts.guarded(say, 1)
    def choose(event: gr.SelectData) -> tuple[Any, str]:
        file = folder / str(event.value["caption"] + ".png")
        if file not in easels.history(folder):
            raise UserError(f"{file.name}: not in the history")
        return str(file), _told(file)

    @parts.guarded(say, 1)
    def repeat(
        name: str | None, request: gr.Request, progress: Any = parts.PROGRESS
    ) -> tuple[Any, str]:
        if name is None:
            raise UserError(say("choose_picture"))
        old = easels.notes_of(Path(name))
        for home in HOMES:
            shelf.checked(fence.runs, home, getattr(old.config, home))
            shelf.checked_adapter(fence.runs, home, getattr(old.config, f"{home}_lora"))
        file = easel.again(old, folder, cache_dir, jobs.begin(request, progress))
        prompt = " / ".join(old.config.prompts)
        shown = [(str(file), parts.caption(prompt, say, old.config.seed))]
        return shown, parts.good(say("drawn", count=1), folder)

    it.gallery.select(
        choose, None, [chosen, told], api_visibility="private", show_progress="hidden"
    )
    it.event = button.click(
        repeat,
        chosen,
        [drawn, note],
        concurrency_limit=1,
        concurrency_id=parts.DRAWING,
        api_visibility="private",
        show_progress_on=drawn,
    )
    it.event.then(
        lambda: shown_history(folder),
        None,
        it.gallery,
        show_progress="hidden",
        api_visibility="private",
    )
    return it


def _told(file: Path) -> str:
    """What a picture's notes say, as a list."""
    config = easels.notes_of(file).config
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
