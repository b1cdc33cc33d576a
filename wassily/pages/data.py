"""Data: the doctor's findings of a folder, with the pictures that they are about."""

from __future__ import annotations

import html
from dataclasses import dataclass

import gradio as gr

from wassily.commands.findings import Finding
from wassily.errors import printable
from wassily.pages import generate, shared
from wassily.studio import data_findings, model_choices
from wassily.studio.allowed_folders import AllowedFolders
from wassily.studio.texts import Say


@dataclass(frozen=True)
class _Fields:
    """The questions, the button, and the answer."""

    folder: gr.Dropdown
    side: gr.Textbox
    captions: gr.Checkbox
    prior: gr.Dropdown
    go: gr.Button
    note: gr.HTML
    findings: gr.HTML
    thumbs: gr.Gallery


def tab(say: Say, allowed: AllowedFolders) -> None:
    """The tab with its events."""
    with gr.Tab(say("data"), id="data") as place:
        fields = _fields(say, allowed)

    @shared.guarded(say, 2)
    def check(name: str | None, side: str | None, captions: bool, prior: str) -> tuple[object, ...]:
        base = model_choices.checked(allowed.runs, "prior", prior)
        resolution = generate.whole("resolution", side)
        looked = data_findings.look(
            allowed, name, 512 if resolution is None else resolution, captions, base
        )
        cells = [
            (picture, f"{file}: {say('find_' + finding.kind)}")
            for finding in looked.findings
            for picture, file in data_findings.thumbnails(finding, allowed)
        ]
        return page_of(say, looked), gr.update(value=cells, visible=bool(cells)), ""

    fields.go.click(
        check,
        [fields.folder, fields.side, fields.captions, fields.prior],
        [fields.findings, fields.thumbs, fields.note],
        concurrency_limit=1,
        api_visibility="private",
    )
    place.select(
        lambda name: shared.among([(f, f) for f in allowed.folders()], name),
        fields.folder,
        fields.folder,
        **shared.SILENT,
    )
    shared.at_opening(
        lambda: shared.among([(f, f) for f in allowed.folders()], None), [fields.folder]
    )


def _fields(say: Say, allowed: AllowedFolders) -> _Fields:
    gr.HTML(f'<p class="quiet">{say("data_info")}</p>')
    folders = allowed.folders()
    with gr.Row():
        folder = gr.Dropdown(
            folders,
            value=folders[0] if folders else None,
            label=say("data_folder"),
            info=None if folders else say("no_data"),
            elem_id="data-folder",
            min_width=220,
        )
        side = generate.number(say("resolution"), 32, name="data-resolution")
        choices = model_choices.networks(allowed.runs, "prior", say)
        prior = gr.Dropdown(choices, value="mini", label=say("prior"), min_width=160)
    captions = gr.Checkbox(True, label=say("captions"))
    go = gr.Button(say("check"), variant="primary", elem_id="data-go")
    note = shared.notice()
    findings = gr.HTML(elem_id="findings")
    thumbs = shared.gallery(
        label=say("thumbnails"),
        columns=6,
        elem_id="thumbnails",
        allow_preview=False,
        visible=False,
    )
    return _Fields(folder, side, captions, prior, go, note, findings, thumbs)


def page_of(say: Say, looked: data_findings.Looked) -> str:
    """Findings and summary as HTML."""
    found = "".join(_finding(say, finding) for finding in looked.findings)
    rows = "".join(
        f"<div><dt>{html.escape(name.replace('_', ' '))}</dt>"
        f'<dd dir="auto">{_escaped(_value(value))}</dd></div>'
        for name, value in looked.summary.items()
    )
    return (
        (found or f"<p>{say('no_findings')}</p>")
        + f'<details><summary>{say("summary")}</summary><dl class="summary" dir="ltr">{rows}</dl>'
        "</details>"
    )


def _finding(say: Say, finding: Finding) -> str:
    items = [
        f"<li>{html.escape(printable(item))}</li>" for item in finding.items[: data_findings.LISTED]
    ]
    if more := len(finding.items) - len(items):
        items.append(f'<li dir="auto">{say("and_more", count=more)}</li>')
    listed = f"<ul>{''.join(items)}</ul>" if items else ""
    return (
        f'<section class="finding {finding.gravity}" data-kind="{finding.kind}">'
        f"<h3>{say(finding.gravity)}: {say('find_' + finding.kind)}</h3>"
        f'<p class="quiet" dir="ltr">{_escaped(finding.message)}</p>{listed}</section>'
    )


def _escaped(text: str) -> str:
    """As HTML; a file name may hold bytes that are no UTF-8, which no page can carry."""
    return html.escape(printable(text))


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(v)}" for name, v in value.items())
    return f"{value:,g}" if isinstance(value, float) else str(value)
