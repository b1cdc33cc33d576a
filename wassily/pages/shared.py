"""What the tabs share: the header, the look, one line for an error."""

from __future__ import annotations

import functools
import html
import logging
import re
import textwrap
import threading
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from wassily.errors import UserError, masked, out_of_memory, printable
from wassily.files import disk
from wassily.studio.generation_queue import Cancelled, Job
from wassily.studio.texts import Say

CAPTION = 60  # letters of a prompt under a picture
DRAWING = "drawing"  # gradio's name of the one queue
PROGRESS = gr.Progress()  # as a handler's default: it gets that of its own call
SILENT = {"show_progress": "hidden", "api_visibility": "private"}  # an event without a spinner
QUEUED = {"concurrency_limit": 1, "concurrency_id": DRAWING, "api_visibility": "private"}
Handler = Callable[..., tuple[object, ...]]  # gives new values of an event's outputs
Values = dict[str, Any]  # of the fields of a form, by name: texts, numbers, ticks
Fields = dict[str, gr.components.Component]  # of a form, by name
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "Noto Sans Arabic", "sans-serif"]
HEAD = """<script>
(() => {
  const root = document.documentElement;
  const arabic = /\\/ar\\/?$/.test(location.pathname);
  root.lang = arabic ? "ar" : "en";
  root.dir = arabic ? "rtl" : "ltr";
  const wanted = new URLSearchParams(location.search).get("__theme");
  let dark = wanted ? wanted === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  try { if (!wanted && localStorage.studioDark) dark = localStorage.studioDark === "yes"; }
  catch (error) { }
  const paint = () => document.body && document.body.classList.toggle("dark", dark);
  const hold = () => {  // against gradio, which asks the machine alone
    paint();
    const again = () => document.body.classList.contains("dark") === dark || paint();
    new MutationObserver(again).observe(document.body, { attributeFilter: ["class"] });
  };
  if (new URLSearchParams(location.search).has("token"))  // it is in a cookie now
    history.replaceState(null, "", location.pathname);
  if (document.body) hold(); else addEventListener("DOMContentLoaded", hold);
  window.studioTheme = () => {
    dark = !document.body.classList.contains("dark");
    try { localStorage.studioDark = dark ? "yes" : "no"; } catch (error) { }
    paint();
  };
  document.addEventListener("load", event => {
    const image = event.target;
    if (image.tagName === "IMG" && image.naturalWidth && image.naturalWidth <= 128)
      image.style.imageRendering = "pixelated";
  }, true);
})();
</script>"""
CSS = """
.gradio-container{max-width:72rem!important;width:100%!important;margin-inline:auto!important}
body{background:var(--body-background-fill)!important;color-scheme:light}
body.dark{color-scheme:dark}
.nav-holder{display:none!important}
.grid-wrap{min-height:0!important;max-height:none!important;height:auto!important}
[dir=rtl] .block[dir=ltr],[dir=rtl] .block span[dir=ltr],[dir=rtl] .block div[dir=ltr]{
direction:rtl}
[dir=rtl] .secondary-wrap{direction:ltr}
[dir=rtl] label:has(input[type=radio]){gap:.5rem}
textarea,input[type=text],input[type=number]{unicode-bidi:plaintext;text-align:start}
.topbar{display:flex;flex-wrap:wrap;align-items:baseline;gap:.3rem 1rem;padding:.4rem .2rem}
.topbar h1{font-size:1.5rem;font-weight:700;margin:0}
.topbar .quiet{flex:1 1 16rem}
.topbar a,.topbar button{color:var(--link-text-color);background:none;border:0;padding:.3rem .2rem;
font:inherit;cursor:pointer;text-decoration:underline;text-underline-offset:.2em}
.quiet{color:var(--body-text-color-subdued);font-size:.92rem}
.wrong{color:var(--error-text-color);background:var(--error-background-fill);
border:1px solid var(--error-border-color);border-radius:.4rem;padding:.5rem .7rem;margin:.2rem 0;
overflow-wrap:anywhere}
.good{margin:.2rem 0;overflow-wrap:anywhere}
.command pre{direction:ltr;text-align:left;white-space:pre-wrap;overflow-wrap:anywhere;margin:0;
padding:.7rem .9rem;border:1px solid var(--border-color-primary);border-radius:.4rem;
background:var(--background-fill-secondary);font-size:.86rem;
font-family:ui-monospace,Menlo,"DejaVu Sans Mono",monospace}
.state{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;align-items:baseline;margin:.2rem 0}
.state b{font-size:1.1rem}
.bar{height:.5rem;border-radius:.25rem;background:var(--background-fill-secondary);
border:1px solid var(--border-color-primary);overflow:hidden;margin:.3rem 0}
.bar span{display:block;height:100%;background:var(--color-accent)}
.chart figure{margin:0;direction:ltr;max-width:34rem}
.chart figcaption{font-weight:600;font-size:.9rem}
.chart svg{width:100%;height:auto;display:block;overflow:visible}
.chart svg text{fill:var(--body-text-color-subdued);font-size:11px}
.chart .grid{stroke:var(--border-color-primary);stroke-width:1}
.chart .axis{stroke:var(--body-text-color-subdued);stroke-width:1}
.chart .line{fill:none;stroke:hsl(var(--hue) 62% 50%);stroke-width:2;stroke-linejoin:round}
.chart .point{fill:hsl(var(--hue) 62% 50%)}
.chart .legend{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem .9rem;padding:0;
margin:.4rem 0 0;font-size:.82rem;color:var(--body-text-color-subdued)}
.chart .key{display:inline-block;width:.8rem;height:.2rem;margin-inline-end:.35rem;
vertical-align:middle;background:hsl(var(--hue) 62% 50%)}
.finding{border-inline-start:.25rem solid var(--border-color-accent);padding:.1rem .8rem;
margin:.8rem 0;overflow-wrap:anywhere}
.finding.error{border-color:#c0392b}.finding.warning{border-color:#c98a16}
.finding h3{font-size:1rem;margin:0}
.finding ul{margin:.2rem 0;padding-inline-start:1.1rem;font-size:.86rem;
direction:ltr;text-align:left}
.finding p{margin:.15rem 0}
.grid-wrap .thumbnail-lg{aspect-ratio:auto;height:auto;display:flex;flex-direction:column}
.grid-wrap .thumbnail-lg>img{aspect-ratio:1;height:auto;min-height:0}
.grid-wrap .caption-label{position:static;max-width:100%;width:100%;border:0;border-radius:0;
opacity:1!important;white-space:normal;overflow-wrap:anywhere;unicode-bidi:plaintext;
text-align:start;background:none}
.said{direction:ltr;text-align:left;font-size:.86rem;overflow-wrap:anywhere;margin:.1rem 0}
.summary{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));
gap:0 2rem;margin:.4rem 0;font-size:.9rem}
.summary div{display:flex;justify-content:space-between;gap:1rem;padding:.25rem 0;
border-bottom:1px solid var(--border-color-primary)}
.summary dt{color:var(--body-text-color-subdued)}
.summary dd{margin:0;text-align:end;overflow-wrap:anywhere}
"""


def theme() -> gr.themes.Base:
    """Quiet colours, and the fonts that the machine has: none is fetched."""
    return gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONO)


MONO = ["ui-monospace", "Menlo", "DejaVu Sans Mono", "monospace"]


def header(say: Say) -> None:
    """Name, the way to the other language, light and dark."""
    other = "./" if say.right_to_left else "ar"
    gr.HTML(
        f'<header class="topbar"><h1>wassily</h1><span class="quiet">{say("subtitle")}</span>'
        f'<a id="language" href="{other}">{say("other_language")}</a>'
        f'<button id="theme" type="button" onclick="studioTheme()">{say("light_dark")}</button>'
        "</header>"
    )


def wrong(message: str) -> str:
    """What went wrong, in one line."""
    return f'<p class="wrong" role="alert" dir="auto">{html.escape(printable(masked(message)))}</p>'


def good(message: str, path: object = "", states: str = "") -> str:
    """What was done, in one line, and where, which is written from left to right; where it holds
    for some states of a training alone, it names them.
    """
    during = f' data-states="{states}"' if states else ""
    where = f' <bdi dir="ltr">{html.escape(printable(str(path)))}</bdi>' if path else ""
    text = html.escape(printable(masked(message)))
    return f'<p class="good" role="status" dir="auto"{during}>{text}{where}</p>'


def outlived(line: str | None, state: str) -> object:
    """Takes a line away that names states of which this is none."""
    found = re.search(r' data-states="([\w ]+)"', line or "")
    return "" if found and state not in found[1].split() else gr.skip()


def caption(prompt: str, say: Say, seed: int) -> str:
    """What stands under a picture: its prompt, cut where it is long, and its seed."""
    return f"{textwrap.shorten(prompt, CAPTION, placeholder='…')} · {say('seed_of', seed=seed)}"


def gallery(**more: object) -> gr.Gallery:
    """Pictures side by side, as they are: nothing is cropped or taken in."""
    usual = {"fit_columns": False, "height": "auto", "object_fit": "contain", "buttons": []}
    more = {"format": "png"} | more  # `access` serves no other kind of file
    return gr.Gallery(**usual | more, interactive=False)


def notice() -> gr.HTML:
    """The place of these lines."""
    return gr.HTML(elem_classes="notice")


def guarded(say: Say, outputs: int) -> Callable[[Handler], Handler]:
    """A handler that gives so many outputs and a notice; where it fails they stay, and the notice
    is one line.
    """

    def around(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def one_line(*values: object, **more: object) -> tuple[object, ...]:
            same = (gr.skip(),) * outputs
            try:
                return handler(*values, **more)
            except Cancelled:
                return *same, good(say("cancelled"))
            except UserError as error:
                return *same, wrong(str(error))
            except Exception as error:
                if out_of_memory(error):
                    return *same, wrong(disk.full(None, error))
                logging.getLogger(__name__).debug("in %s", handler, exc_info=True)
                line = str(error).partition("\n")[0]
                return *same, wrong(masked(f"{type(error).__name__}: {line}"))

        return one_line

    return around


class Jobs:
    """The drawing that each open page waits for, so that it can be cancelled."""

    def __init__(self) -> None:
        self._of: dict[str, threading.Event] = {}

    def begin(self, request: gr.Request, progress: Callable[[float], object]) -> Job:
        """A new drawing of a page."""
        job = Job(progress)
        self._of[str(request.session_hash)] = job.cancelled
        return job

    def wire(
        self, say: Say, button: gr.Button, events: list[gr.events.Dependency], note: gr.HTML
    ) -> None:
        """Let a button cancel these events: one that waits is not begun, one that runs ends after
        the step it is at, and nobody hears of it but by the notice.
        """

        def cancel(request: gr.Request) -> str:
            event = self._of.pop(str(request.session_hash), None)
            if event is not None:
                event.set()
            return good(say("cancelled"))

        button.click(
            cancel,
            None,
            note,
            cancels=events,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )


def at_opening(fill: Callable[[], object], outputs: Sequence[gr.components.Component]) -> None:
    """Whenever the page is loaded: what it was built with is as old as the studio."""
    gr.on(fn=fill, outputs=outputs, show_progress="hidden", api_visibility="private")


def among(choices: Sequence[tuple[str, str]], value: object, usual: str = "") -> object:
    """A dropdown's new choices; its value stays if it is among them, else it is the usual one."""
    kept = value if value in [name for _, name in choices] else first(choices, usual)
    return gr.update(choices=list(choices), value=kept)


def first(choices: Sequence[tuple[str, str]], usual: str = "") -> str | None:
    """The name that is chosen before anybody chooses: the usual one if it is there."""
    names = [name for _, name in choices]
    return usual if usual in names else next(iter(names), None)
