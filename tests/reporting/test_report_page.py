"""The report's page: what is told, and what is escaped."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from e2e import train, wassily
from helpers import write_folder

from wassily.mini.untrained import Tiny
from wassily.reporting import report_page, run_facts, run_log
from wassily.reporting.report_page import ReportContents, Shown

HOSTILE = '</title><script>alert(1)</script><img src=x onerror="alert(2)">\' & "q" \udce4'
PIXEL = "data:image/png;base64,AAAA"


class Reader(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        """All words of the page."""
        return " ".join(" ".join(self.words).split())


def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step, loss, learned, kept in (
        (0, 2.0, 0.4, 0.7),
        (10, 1.0, 0.6, 0.69),
        (20, 1.5, 0.7, 0.5),
    ):
        bands = {f"band_{n}": loss * (n + 1) / 5.5 for n in range(10)}
        rows.append(
            {"step": step, "event": "held_out", "loss": loss, "standard_error": 0.1, **bands}
        )
        scores: dict[str, Any] = {"step": step, "event": "scores"}
        for name, value in (("learned", learned), ("kept", kept)):
            scores |= {name: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05}
        rows.append(scores)
    for step in range(5, 25, 5):
        rate = {"pictures_per_second": 30.0 + step}
        rows.append({"step": step, "train_loss": 1 / step, **rate})
    return rows


def _contents(**more: Any) -> ReportContents:
    facts = {
        "command": ["wassily", "train", "prior", "--validation_prompts", HOSTILE],
        "base": HOSTILE,
        "steps": 20,
        "versions": {"torch": HOSTILE},
        "data": {"pictures": 1200, "duplicates": 3, "cut_captions": 0},
        "beside": ["1 of 50 class pictures a step, weight 1", HOSTILE],
    }
    strips = {HOSTILE: [Shown(0, PIXEL, True), Shown(10, PIXEL, True)], "قطة": []}
    return ReportContents(
        **(
            {"name": HOSTILE, "facts": facts, "rows": _rows(), "exported": 10, "strips": strips}
            | more
        )
    )


# ---------------------------------------------------------------- the page


def test_nothing_of_a_users_is_obeyed() -> None:
    """Markup in a prompt, a path, a version: shown as text; every tag is closed; nothing is loaded
    and nothing runs.
    """
    made = report_page.page(_contents())
    made.encode("utf-8")
    read = Reader(made)
    assert not read.open
    kinds = {tag for tag, _ in read.tags}
    assert not kinds & {"script", "link", "iframe", "object", "base", "form"}
    assert "<script>alert(1)</script>" in read.text
    for tag, attributes in read.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), attributes  # type: ignore[union-attr]
    assert not re.search(r"url\(|@import|https?://", made)
    policies = [a["content"] for t, a in read.tags if "http-equiv" in a]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_what_a_page_tells() -> None:
    """Base against the exported step, the change and whether it is one; data; the command."""
    text = Reader(report_page.page(_contents())).text
    assert "Held-out loss 2.0000 → 1.0000 ▲ better −1.0000 (−50.0%)" in text
    assert "Learned 0.4000 → 0.6000 ▲ better +0.2000 (+50.0%)" in text
    assert "Kept 0.7000 → 0.6900 ● within the spread −0.0100 (−1.4%)" in text
    worse = Reader(report_page.page(_contents(exported=20))).text
    assert "Kept 0.7000 → 0.5000 ▼ worse" in worse
    assert "pictures trained on 1,200" in text and "copies among them 3" in text
    assert "beside them 1 of 50 class pictures a step, weight 1; </title>" in text
    assert "step 10 exported" in text and "base model" in text
    assert "wassily train prior --validation_prompts" in text


def test_prompts_lie_in_their_own_direction() -> None:
    """Arabic from the right, English from the left, as the browser finds."""
    read = Reader(report_page.page(_contents()))
    prompts = [a for t, a in read.tags if a.get("class") == "prompt"]
    assert len(prompts) == 2 and all(a["dir"] == "auto" for a in prompts)


def test_a_run_of_which_nothing_is_known() -> None:
    """An empty page says which flags fill it; one without a base compares nothing."""
    text = Reader(report_page.page(ReportContents("x"))).text
    for flag in ("--holdout", "--validation_scores", "--validation_prompts"):
        assert flag in text
    rows = [row for row in _rows() if row["step"] == 10]
    alone = Reader(report_page.page(ReportContents("x", rows=rows, exported=10))).text
    assert "better" not in alone.replace("is better", "").replace("Is it better", "")
    assert "Held-out loss 1.0000" in alone


def test_numbers_that_are_none_are_left_out() -> None:
    rows = [{"step": 1, "train_loss": math.nan}, {"step": 2, "train_loss": 1.0}]
    made = report_page.page(ReportContents("x", rows=rows))
    assert "nan" not in made and made.count("<circle") == 1


# ---------------------------------------------------------------- from a folder


@pytest.mark.parametrize("role", ["prior", "decoder"])
def test_a_run_with_all_of_it(role: str, tiny: Tiny, tmp_path: Path) -> None:
    """Base and later pictures of each prompt, scores at each validation, the command without the
    secret; `wassily report` writes the same file again.
    """
    pics = write_folder(tmp_path / "pics", [f"c{n}" for n in range(8)] + ["c0"])
    (pics / "08.png").write_bytes((pics / "00.png").read_bytes())
    out = tmp_path / "run"
    prompts = ["a cat", "قطة <b>"]
    flags: dict[str, Any] = {"validation_steps": 1, "validation_scores": 3, "holdout": 0.2}
    flags |= {"keep_best": "both", "max_train_steps": 2, "validation_prompts": prompts}
    done = train(role, out, tiny, pics, **flags, logging_steps=1)
    assert re.search(r"step 0: learned -?\d\.\d{4}, kept -?\d\.\d{4}", done.out)
    rows = report_page.events(run_log.read_log(out), "scores")
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert rows[0]["kept_low"] <= rows[0]["kept"] <= rows[0]["kept_high"]
    assert (rows[0]["kept_n"], rows[0]["learned_n"]) == (
        3,
        min(3, run_facts.read_summary(out)["data"]["held_out"]),
    )
    assert rows[0]["learned"] != rows[2]["learned"]
    made = (out / "report.html").read_bytes()
    text = Reader(made.decode("utf-8")).text
    assert "base model" in text and "قطة <b>" in text and "Learned" in text
    assert len(re.findall(b'<img class="drawn', made)) == 6
    assert f"wassily train {role}" in text
    best = max(rows[1:], key=lambda row: row["learned"] + row["kept"])["step"]
    assert (out / f"best-{best}").is_dir()
    assert wassily("report", out).code == 0
    assert (out / "report.html").read_bytes() == made
