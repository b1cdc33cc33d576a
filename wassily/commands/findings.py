"""What a check found, as text for a person and as JSON for a program."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from wassily.errors import printable

Gravity = Literal["error", "warning", "note"]
GRAVITIES: tuple[Gravity, ...] = ("error", "warning", "note")
INDENT = "  "


@dataclass(frozen=True)
class Finding:
    """One thing found: its gravity, a fixed name, a sentence, and whom it concerns."""

    gravity: Gravity
    kind: str
    message: str
    items: Sequence[str] = ()


def counted(number: int, thing: str, plural: str = "") -> str:
    """A number and its noun: "1 picture", "2 pictures"."""
    return f"{number} {thing if number == 1 else plural or thing + 's'}"


def as_text(findings: Sequence[Finding], summary: Mapping[str, object], shown: int | None) -> str:
    """The findings, the gravest first and at most `shown` items of each, then the summary."""
    lines = []
    for gravity in GRAVITIES:
        of_it = [finding for finding in findings if finding.gravity == gravity]
        if of_it:
            lines.append(f"{gravity}s")
        for finding in of_it:
            lines.append(INDENT + finding.message)
            listed = list(finding.items)[:shown]
            lines += [2 * INDENT + printable(item) for item in listed]
            if more := len(finding.items) - len(listed):
                lines.append(f"{2 * INDENT}and {more} more; --verbose lists them all")
    lines += [*(["no findings"] if not findings else []), "summary", *_summary_lines(summary)]
    numbers = Counter(finding.gravity for finding in findings)
    counts = [counted(numbers[gravity], gravity) for gravity in GRAVITIES]
    return "\n".join([*lines, ", ".join(counts)]) + "\n"


def _summary_lines(summary: Mapping[str, object]) -> list[str]:
    width = max(map(len, summary), default=0)
    return [
        f"{INDENT}{name.replace('_', ' '):{width}}  {_value(value)}"
        for name, value in summary.items()
    ]


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(v)}" for name, v in value.items()) or "none"
    return f"{value:,g}" if isinstance(value, float) else str(value)


def as_json(
    findings: Sequence[Finding], summary: Mapping[str, object], about: Mapping[str, object]
) -> str:
    """The same, with every item: `about`, `summary`, `findings` and how many of each gravity."""
    numbers = Counter(finding.gravity for finding in findings)
    report = {
        **about,
        "counts": {gravity: numbers[gravity] for gravity in GRAVITIES},
        "findings": [asdict(finding) | {"count": len(finding.items)} for finding in findings],
        "summary": summary,
    }
    # A file name need not be UTF-8: escaped, it is still JSON.
    return json.dumps(report, indent=2) + "\n"
