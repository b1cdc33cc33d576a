"""Compare: base and choices side by side, at one seed, and two of them under a line to move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from wassily.config.generation import GenerateConfig
from wassily.errors import UserError
from wassily.pages import generate, shared
from wassily.studio import command_words, generation_queue, model_choices
from wassily.studio.allowed_folders import AllowedFolders
from wassily.studio.texts import Say

MOST = 8  # columns


@dataclass(frozen=True)
class Column:
    """A pair of networks, and what it is called."""

    title: str
    prior: str
    decoder: str


def choices_of(say: Say, allowed: AllowedFolders) -> list[tuple[str, str]]:
    """(what is shown, network and name) of all that can be compared with the base."""
    return [
        (one.shown(say, say(f"of_{one.home}")), f"{one.home}:{one.name}")
        for one in model_choices.model_choices(allowed.runs)
    ]


def columns_of(
    say: Say, allowed: AllowedFolders, prior: str, decoder: str, picked: list[str]
) -> list[Column]:
    """The base, then each choice in the base's place. Raises UserError."""
    if not picked:
        raise UserError(say("nothing_to_compare"))
    if len(picked) >= MOST:
        raise UserError(f"{len(picked)} choices; {MOST - 1} at most stand beside the base")
    base = {
        "prior": model_choices.checked(allowed.runs, "prior", prior),
        "decoder": model_choices.checked(allowed.runs, "decoder", decoder),
    }
    columns = [Column(say("base"), base["prior"], base["decoder"])]
    for one in picked:
        home, _, name = one.partition(":")
        if home not in base:
            raise UserError(f"{one}: neither a prior nor a decoder")
        pair = base | {home: model_choices.checked(allowed.runs, home, name)}
        place = Path(name).relative_to(allowed.runs) if Path(name).is_dir() else name
        columns.append(Column(str(place), pair["prior"], pair["decoder"]))
    return columns


def table(
    columns: list[Column], drawn: list[list[Path]], prompts: tuple[str, ...]
) -> list[tuple[str, str]]:
    """(file, caption) row by row: all columns of the first prompt, then of the second, ..."""
    return [
        (str(drawn[c][r]), column.title if len(prompts) == 1 else f"{column.title}: {prompt}")
        for r, prompt in enumerate(prompts)
        for c, column in enumerate(columns)
    ]


def pair(files: list[str], width: int, index: int) -> tuple[str, str]:
    """The base of the row of a picture, and it; of a base, the picture after it."""
    row, column = divmod(index, width)
    return files[row * width], files[row * width + (column or 1)]


@dataclass(frozen=True)
class _Inputs:
    """The left half: prompts and choices. The right half: base models, seed and both buttons."""

    prompts: gr.Textbox
    picked: gr.Dropdown
    bases: list[gr.Dropdown]
    seed: gr.Textbox
    go: gr.Button
    cancel: gr.Button

    @property
    def networks(self) -> list[gr.Dropdown]:
        """The fields whose choices change while the page is open."""
        return [*self.bases, self.picked]


@dataclass(frozen=True)
class _Outputs:
    """The notice, all images, two of them in a slider, and (files, columns) for that slider."""

    note: gr.HTML
    sheet: gr.Gallery
    slider: gr.ImageSlider
    state: gr.State


def tab(
    say: Say,
    allowed: AllowedFolders,
    queue: generation_queue.GenerationQueue,
    cache_dir: str | None,
) -> None:
    """The tab with its events."""
    jobs = shared.Jobs()
    with gr.Tab(say("compare"), id="compare") as place:
        gr.HTML(f'<p class="quiet">{say("compare_info")}</p>')
        asked = _inputs(say, allowed)
        shown = _outputs(say)
    event = asked.go.click(
        _comparison(say, allowed, queue, cache_dir, jobs),
        [asked.prompts, *asked.networks, asked.seed],
        [shown.sheet, shown.slider, shown.state, shown.note],
        show_progress_on=shown.sheet,
        **shared.QUEUED,
    )
    jobs.wire(say, asked.cancel, [event], shown.note)

    def show(held: tuple[list[str], int] | None, event: gr.SelectData) -> object:
        return pair(held[0], held[1], event.index) if held else gr.skip()

    shown.sheet.select(show, shown.state, shown.slider, **shared.SILENT)

    def offered(prior: str = "", decoder: str = "", chosen: Sequence[str] = ()) -> list[object]:
        now = choices_of(say, allowed)
        kept = [value for value in chosen if value in [name for _, name in now]]
        lists = [model_choices.networks(allowed.runs, home, say) for home in generate.HOMES]
        both = [shared.among(c, v, "mini") for c, v in zip(lists, (prior, decoder), strict=True)]
        return [*both, gr.update(choices=now, value=kept)]

    place.select(offered, asked.networks, asked.networks, **shared.SILENT)
    shared.at_opening(offered, asked.networks)


def _inputs(say: Say, allowed: AllowedFolders) -> _Inputs:
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            prompts = gr.Textbox(
                say("prompts_example"), label=say("prompts"), lines=3, elem_id="compare-prompts"
            )
            picked = gr.Dropdown(
                choices_of(say, allowed),
                value=[],
                multiselect=True,
                label=say("choices"),
                elem_id="compare-choices",
            )
        with gr.Column(scale=2, min_width=280):
            bases = [_base(say, allowed, home) for home in generate.HOMES]
            seed = generate.number(say("seed"), 0)
            with gr.Row():
                go = gr.Button(
                    say("compare_button"), variant="primary", elem_id="compare-go", min_width=140
                )
                cancel = gr.Button(say("cancel"), min_width=100)
    return _Inputs(prompts, picked, bases, seed, go, cancel)


def _base(say: Say, allowed: AllowedFolders, home: str) -> gr.Dropdown:
    choices = model_choices.networks(allowed.runs, home, say)
    return gr.Dropdown(
        choices,
        value=shared.first(choices, "mini"),
        label=say(f"base_{home}"),
        elem_id=f"compare-{home}",
    )


def _outputs(say: Say) -> _Outputs:
    note = shared.notice()
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            sheet = shared.gallery(
                label=say("side_by_side"), elem_id="compared", columns=2, allow_preview=False
            )
        with gr.Column(scale=2, min_width=280):
            slider = gr.ImageSlider(
                label=say("before_after"),
                elem_id="slider",
                interactive=False,
                buttons=["fullscreen"],
            )
            gr.HTML(f'<p class="quiet">{say("pick_pair")}</p>')
    return _Outputs(note, sheet, slider, gr.State(None))


def _comparison(
    say: Say,
    allowed: AllowedFolders,
    queue: generation_queue.GenerationQueue,
    cache_dir: str | None,
    jobs: shared.Jobs,
) -> shared.Handler:
    """The handler of the compare button."""
    _, folder = allowed.images

    @shared.guarded(say, 3)
    def compare(
        text: str,
        prior: str,
        decoder: str,
        chosen: list[str],
        seed: str | None,
        request: gr.Request,
        progress: gr.Progress = shared.PROGRESS,
    ) -> tuple[object, ...]:
        columns = columns_of(say, allowed, prior, decoder, chosen)
        lines = command_words.prompts(text)
        first = generate.whole("seed", seed) or 0
        configs = configs_of(allowed, columns, lines, first, folder, cache_dir)
        drawn = _draw(queue, configs, jobs.begin(request, progress), progress)
        cells = table(columns, drawn, lines)
        files = [file for file, _ in cells]
        width = len(columns)
        return (
            gr.update(value=cells, columns=width),
            pair(files, width, 1),
            (files, width),
            shared.good(say("drawn", count=len(files)), folder),
        )

    return compare


def configs_of(
    allowed: AllowedFolders,
    columns: list[Column],
    prompts: tuple[str, ...],
    seed: int,
    out: Path,
    cache_dir: str | None,
) -> list[GenerateConfig]:
    """One command for each column, all with the guidance of the first. Raises UserError."""
    guidance: dict[str, Any] = {
        f"{name}_scale": model_choices.guidance(allowed.runs, home, getattr(columns[0], home))
        for home, name in generate.GUIDANCE.items()
    }
    configs = [
        GenerateConfig(
            prompts=prompts,
            **guidance,
            prior=c.prior,
            decoder=c.decoder,
            seed=seed,
            out=str(out),
            cache_dir=cache_dir,
        )
        for c in columns
    ]
    if (count := len(prompts) * len(columns)) > generate.MOST:
        raise UserError(f"{count} pictures; {generate.MOST} at most")
    return configs


def _draw(
    queue: generation_queue.GenerationQueue,
    configs: list[GenerateConfig],
    job: generation_queue.Job,
    progress: Callable[[float], object],
) -> list[list[Path]]:
    """The files of each config, one config after another; `progress` covers all of them."""
    drawn = []
    for number, config in enumerate(configs):

        def share(of_one: float, before: int = number) -> object:
            return progress((before + of_one) / len(configs))

        files = queue.draw(config, generation_queue.Job(share, job.cancelled))
        drawn.append([file for file, _ in files])
    return drawn
