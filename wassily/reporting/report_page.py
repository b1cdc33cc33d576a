"""A run's report as one HTML page: pure functions from what is known to text.

Nothing is loaded from anywhere, and no script runs. Whatever comes from a user - prompts, paths,
flags - is escaped, and prompts lie in their own direction of writing.
"""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wassily.reporting import charts as report_charts
from wassily.reporting.charts import Dot, Series
from wassily.reporting.report_style import STYLE
from wassily.reporting.run_log import Row

BLUE, ORANGE, GREEN = 212, 28, 160
FLAGS = {
    "scores": "add <code>--validation_scores 64</code>",
    "loss": "add <code>--holdout 0.05</code>",
    "pictures": "add <code>--validation_prompts</code>",
}


@dataclass(frozen=True)
class Shown:
    """A drawn picture: at which step, its data URI, whether it is so small that pixels show."""

    step: int
    uri: str
    small: bool


@dataclass(frozen=True)
class ReportContents:
    """All that a report tells. `exported` is the step whose weights are, or would be, exported."""

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    exported: int | None = None
    strips: Mapping[str, list[Shown]] = field(default_factory=dict)
    left_out: int = 0


def page(contents: ReportContents) -> str:
    """The whole file."""
    sections = [_verdict, _learned_and_kept, _pictures, _losses, _training, _data, _made]
    body = "\n".join(section(contents) for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{_text(contents.name)} - report</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{_head(contents)}
{body}
</main>
</body>
</html>
"""


POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def _text(value: object) -> str:
    """Anything as text that HTML shows and does not obey; lone surrogates become question marks."""
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"))


def _head(contents: ReportContents) -> str:
    facts = contents.facts
    last = max((row["step"] for row in contents.rows), default=0)
    of = f" of {_text(facts['steps'])}" if "steps" in facts else ""
    base = f" from <bdi>{_text(facts['base'])}</bdi>" if "base" in facts else ""
    command = facts.get("command")
    role = command[2] if isinstance(command, list) and len(command) > 2 else "network"
    return f"""<header>
<p class="kicker">The {_text(role)}, fine-tuned{base}</p>
<h1 dir="auto">{_text(contents.name)}</h1>
<p class="quiet">step {last:,}{of}</p>
</header>"""


# ---------------------------------------------------------------- is it better


def events(rows: Iterable[Row], kind: str) -> list[Row]:
    """The lines of one kind of measure, by step, the last one of each."""
    found = {row["step"]: row for row in rows if row.get("event") == kind}
    return [found[step] for step in sorted(found)]


MEASURES = (
    ("held_out", "loss", "Held-out loss", "on pictures it was never trained on; lower is better"),
    ("scores", "learned", "Learned", "likeness to held-out pictures; higher is better"),
    ("scores", "kept", "Kept", "how well generic prompts are still followed; higher is better"),
)


def _verdict(contents: ReportContents) -> str:
    tiles = [tile for measure in MEASURES if (tile := _tile(contents, *measure))]
    if not tiles:
        inner = (
            f"<p>Nothing was measured yet. To have it, {FLAGS['loss']}, or {FLAGS['scores']}.</p>"
        )
    else:
        inner = f'<div class="tiles">{"".join(tiles)}</div>'
    return f"<section><h2>Is it better than before?</h2>{inner}</section>"


def _lacking(title: str, line: str) -> str:
    return f'<section>{title}<p class="quiet">{line}</p></section>'


def _at(rows: list[Row], step: int | None) -> Row | None:
    """The row of a step; the last one if there is none of it."""
    return next((row for row in rows if row["step"] == step), rows[-1] if rows else None)


def _tile(contents: ReportContents, event: str, name: str, title: str, words: str) -> str:
    rows = [row for row in events(contents.rows, event) if name in row]
    now = _at(rows, contents.exported)
    if now is None:
        return ""
    base = rows[0] if rows[0]["step"] == 0 and now["step"] else None
    verdict, kind = "", "same"
    if base is not None:
        kind = _judged(base, now, name)
        change = now[name] - base[name]
        share = f" ({change / base[name]:+.1%})" if base[name] else ""
        told = f"{change:+.4f}{share}".replace("-", report_charts.MINUS)
        verdict = f"""<p class="change {kind}"><b>{CHANGES[kind]}</b> <span>{told}</span></p>"""
    before = f"{base[name]:.4f} <span class='arrow'>→</span> " if base is not None else ""
    return f"""<div class="tile"><h3>{title}</h3>
<p class="value">{before}<strong>{now[name]:.4f}</strong></p>
{verdict}<p class="quiet">base <span class="arrow">→</span> step {now["step"]:,}: {words}</p>
</div>"""


CHANGES = {"better": "▲ better", "worse": "▼ worse", "same": "● within the spread"}


def interval(row: Row, name: str) -> tuple[float, float, float]:
    """A value and the 95 % interval around it; for a loss two standard errors."""
    value = row[name]
    error = 1.96 * row.get("standard_error", 0.0) if name == "loss" else 0.0
    return value, row.get(f"{name}_low", value - error), row.get(f"{name}_high", value + error)


def _judged(base: Row, now: Row, name: str) -> str:
    """Whether each value lies outside of the other's interval, and on which side.

    That is a rough eye: both are of the same examples, and `wassily evaluate` compares in pairs.
    """
    one, other = interval(base, name), interval(now, name)
    if one[1] <= other[0] <= one[2] or other[1] <= one[0] <= other[2]:
        return "same"
    return "better" if (other[0] < one[0]) == (name == "loss") else "worse"


def _learned_and_kept(contents: ReportContents) -> str:
    rows = events(contents.rows, "scores")
    both = [row for row in rows if "learned" in row and "kept" in row]
    title = "<h2>Learned against kept</h2>"
    if not both:
        lacking = "needs held-out pictures and scores" if not rows else "needs held-out pictures"
        how = f"{FLAGS['loss']} and {FLAGS['scores']}"
        return _lacking(title, f"This curve {lacking}: {how}.")
    dots = [
        Dot(
            f"step {row['step']:,}" if row["step"] else "base",
            interval(row, "learned"),
            interval(row, "kept"),
            "exported" if row["step"] == contents.exported else "step" if row["step"] else "base",
        )
        for row in both
    ]
    chart = report_charts.dot_chart(
        dots, "One dot a validation, from the base on", "learned", "kept"
    )
    words = """<p>To the right is more of the new, upwards more of the old. A good run goes right
and stays high. The filled ring is what is exported, the hollow dot the model it began from; the
crosses are 95&nbsp;% intervals over the examples.</p>"""
    return f'<section>{title}<div class="beside">{chart}{words}</div></section>'


# ---------------------------------------------------------------- pictures


def _pictures(contents: ReportContents) -> str:
    title = "<h2>The same prompts and seeds, step by step</h2>"
    if not contents.strips:
        return _lacking(title, f"No pictures were drawn: {FLAGS['pictures']}.")
    strips = "".join(_strip(p, shown, contents.exported) for p, shown in contents.strips.items())
    more = f'<p class="quiet">{contents.left_out} more prompts are in <code>validation/</code>.</p>'
    return f"<section>{title}{strips}{more if contents.left_out else ''}</section>"


def _strip(prompt: str, shown: list[Shown], exported: int | None) -> str:
    cells = "".join(_cell(prompt, picture, exported) for picture in shown)
    named = f'<h3 class="prompt" dir="auto">{_text(prompt)}</h3>'
    return f'<article>{named}<div class="strip">{cells}</div></article>'


def _cell(prompt: str, picture: Shown, exported: int | None) -> str:
    label = f"step {picture.step:,}" if picture.step else "base model"
    kind = "base" if not picture.step else "exported" if picture.step == exported else ""
    mark = ' <span class="tag">exported</span>' if kind == "exported" else ""
    small = " small" if picture.small else ""
    return f"""<figure class="cell {kind}"><img class="drawn{small}" src="{_text(picture.uri)}"
alt="{label}: {_text(prompt)}" loading="lazy"><figcaption>{label}{mark}</figcaption></figure>"""


# ---------------------------------------------------------------- curves


def _losses(contents: ReportContents) -> str:
    rows = events(contents.rows, "held_out")
    title = "<h2>Loss on held-out pictures</h2>"
    if not rows:
        return _lacking(title, f"No pictures were held out: {FLAGS['loss']}.")
    whole = Series(
        "held-out loss",
        [(row["step"], row["loss"]) for row in rows],
        BLUE,
        [(row["step"], *interval(row, "loss")[1:]) for row in rows],
    )
    all_of_it = report_charts.line_chart(
        [whole], "All timesteps, with a 95 % interval", "step", "loss"
    )
    by_band = report_charts.line_chart(
        list(_bands(rows)), "By noise level, against the first measure", "step", "change, %"
    )
    words = """<p class="quiet">Where it rises while the training's loss falls, the pictures
are being learnt by heart. The bands are tenths of the noise schedule, the least noise first.</p>"""
    return f'<section>{title}<div class="charts">{all_of_it}{by_band}</div>{words}</section>'


def _bands(rows: list[Row]) -> Iterable[Series]:
    names = [name for name in rows[0] if name.startswith("band_")]
    for n, name in enumerate(names):
        first = rows[0][name]
        points = [(r["step"], 100 * (r[name] / first - 1)) for r in rows if name in r and first]
        share = 100 // len(names)
        # From blue over green to red, so that neighbours are told apart.
        yield Series(f"{n * share}–{(n + 1) * share} %", points, 250 - n * 240 // len(names))


def _training(contents: ReportContents) -> str:
    rows = [row for row in contents.rows if "train_loss" in row]
    if not rows:
        return ""
    loss = Series("training loss", [(r["step"], r["train_loss"]) for r in rows], ORANGE)
    rate = [(r["step"], r["pictures_per_second"]) for r in rows if "pictures_per_second" in r]
    charts = [
        report_charts.line_chart([loss], "Training loss", "step", "loss"),
        report_charts.line_chart(
            [Series("pictures/s", rate, GREEN)], "Pictures a second", "step", "pictures/s"
        ),
    ]
    drift = [(r["step"], r["variance_drift"]) for r in contents.rows if "variance_drift" in r]
    if drift:
        charts.append(
            report_charts.line_chart(
                [Series("drift", drift, BLUE)], "Drift of the variance half", "step", "drift"
            )
        )
    return f'<section><h2>Training</h2><div class="charts">{"".join(charts)}</div></section>'


# ---------------------------------------------------------------- facts

DATA = {
    "pictures": "pictures trained on",
    "shards": "shards, read as a stream",
    "held_out": "pictures held out",
    "duplicates": "copies among them",
    "captions": "captions",
    "different_captions": "different captions",
    "cut_captions": "captions cut",
    "longest_caption_in_tokens": "tokens a caption may have",
    "beside": "beside them",
}
MADE = {
    "trained": "what is trained",
    "steps": "steps in all",
    "global_batch": "pictures per step",
    "processes": "processes",
    "device": "device",
    "precision": "precision",
    "seed": "seed",
}


def _data(contents: ReportContents) -> str:
    data = contents.facts.get("data")
    if not isinstance(data, dict):
        return ""
    words = ["duplicates", "cut_captions"]
    warned = {name for name in words if data.get(name)}
    beside = contents.facts.get("beside")
    others = [str(line) for line in beside] if isinstance(beside, list) else []
    if others:
        data = {**data, "beside": "; ".join(others)}
    return f"<section><h2>Data</h2>{_list(data, DATA, warned)}</section>"


def _made(contents: ReportContents) -> str:
    facts = contents.facts
    if not facts:
        return ""
    command = facts.get("command")
    line = shlex.join(map(str, command)) if isinstance(command, list) else ""
    versions = facts.get("versions")
    told = versions if isinstance(versions, dict) else {}
    numbers = " · ".join(f"{_text(k)} {_text(v)}" for k, v in told.items())
    return f"""<section><h2>How it was made</h2>
<pre dir="ltr"><code>{_text(line)}</code></pre>
{_list(facts, MADE)}
<p class="quiet">{numbers}</p></section>"""


def _list(facts: Mapping[str, object], names: Mapping[str, str], warned: Iterable[str] = ()) -> str:
    rows = "".join(
        f"<div{' class=warned' if name in warned else ''}><dt>{words}</dt>"
        f'<dd dir="auto">{_counted(facts[name])}</dd></div>'
        for name, words in names.items()
        if facts.get(name) is not None
    )
    return f"<dl>{rows}</dl>"


def _counted(value: object) -> str:
    return f"{value:,}" if type(value) is int and value < 10**7 else _text(value)
