"""The report: the gravest first, cut where it is long, whole as JSON."""

from __future__ import annotations

import json

from wassily.commands.findings import Finding, as_json, as_text

FOUND = [
    Finding("note", "small", "3 pictures are small", ["a", "b", "c"]),
    Finding("error", "broken", "1 picture cannot be read", ["x\n\x1b[31m: torn"]),
]


def test_text() -> None:
    """No line break and no terminal code of a name comes through."""
    assert as_text(FOUND, {"shorter_edge": {"least": 1.5}, "pictures": 4}, 2) == (
        "errors\n  1 picture cannot be read\n    x\\x0a\\x1b[31m: torn\n"
        "notes\n  3 pictures are small\n    a\n    b\n    and 1 more; --verbose lists them all\n"
        "summary\n  shorter edge  least 1.5\n  pictures      4\n"
        "1 error, 0 warnings, 1 note\n"
    )
    assert "    c\n" in as_text(FOUND, {}, None)
    assert as_text([], {}, 2).startswith("no findings\nsummary\n")


def test_json_has_every_item() -> None:
    """Also a name that is no UTF-8."""
    odd = [*FOUND, Finding("warning", "cut", "cut", ["\udcff.png"])]
    report = json.loads(as_json(odd, {"pictures": 4}, {"folder": "pics"}).encode("utf-8"))
    assert report["counts"] == {"error": 1, "warning": 1, "note": 1}
    assert report["findings"][0] == {
        "gravity": "note",
        "kind": "small",
        "message": "3 pictures are small",
        "items": ["a", "b", "c"],
        "count": 3,
    }
    assert report["findings"][2]["items"] == ["\udcff.png"]
    assert (report["folder"], report["summary"]) == ("pics", {"pictures": 4})
