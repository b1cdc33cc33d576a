"""The report's page and its curves: what is told, what is escaped, where the points lie."""

from __future__ import annotations

import itertools
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from e2e import refused, train, wassily
from helpers import write_folder
from PIL import Image

from wassily.data import png
from wassily.mini.untrained import Tiny
from wassily.reporting import charts, report, report_page, run_facts, run_log
from wassily.reporting.charts import Dot, Scale, Series
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


# ---------------------------------------------------------------- curves


def test_round_ticks() -> None:
    """By hand: 1, 2, 2.5 or 5 times a power of ten apart, none outside."""
    assert charts.ticks(0, 100) == [0, 25, 50, 75, 100]
    assert charts.ticks(0.028, 0.0331) == [0.028, 0.03, 0.032]
    assert charts.ticks(-1, 1) == [-1, -0.5, 0, 0.5, 1]
    assert [charts.number(v) for v in (-1000, 0.5, 1e-7)] == ["−1,000", "0.5", "1e−07"]


def test_a_scale_is_a_straight_line() -> None:
    scale = Scale(10, 20, 100, 0)
    assert [scale(v) for v in (10, 15, 20)] == [100, 50, 0]


def test_a_long_line_is_thinned_by_means() -> None:
    """The mean of all is kept, the order too; what is not finite is no part of it."""
    points = [(float(n), float(n % 7)) for n in range(960)] + [(1.0, math.inf)]
    thin = charts.thinned(points)
    assert len(thin) == 240
    assert sum(y for _, y in thin) / 240 == pytest.approx(sum(n % 7 for n in range(960)) / 960)
    assert thin == sorted(thin)


def test_a_single_point() -> None:
    """The axis goes from zero to its step, not from one half of a step to another."""
    made = charts.line_chart([Series("a", [(10.0, 5.0)], 10)], "t", "x", "y")
    assert ">0<" in made and ">10<" in made and ">9.6<" not in made and ">10.4<" not in made
    assert "<circle" in charts.line_chart([Series("a", [(0.0, 5.0)], 10)], "t", "x", "y")


def test_points_lie_within_the_axes() -> None:
    """Lines, areas and dots, of one point and of equal values too."""
    rows = [(0.0, 5.0), (10.0, 5.0), (20.0, 7.0)]
    for points in (rows, rows[:1], rows[:2]):
        spread = [(x, y - 1, y + 1) for x, y in points]
        made = charts.line_chart([Series("a<b", points, 10, spread)], "t", "x", "y")
        for x, y in re.findall(r"([\d.]+),([\d.]+)", " ".join(re.findall('points="(.*?)"', made))):
            assert charts.LEFT <= float(x) <= charts.WIDTH - charts.RIGHT
            assert charts.TOP <= float(y) <= charts.HEIGHT - charts.BOTTOM
        assert "a&lt;b" in made and "a<b" not in made
    dots = [
        Dot(f"step {n}", (n, n - 1, n + 1), (1, 0, 2), "base" if not n else "step")
        for n in range(3)
    ]
    made = charts.dot_chart(dots, "t", "x", "y")
    assert made.count("<circle") == 3 and made.count('class="dot base"') == 1
    assert charts.dot_chart([], "t", "x", "y") == charts.line_chart([], "t", "x", "y") == ""


# ---------------------------------------------------------------- from a folder


def _folder(out: Path, steps: list[int], side: int, prompt: str = "a") -> Path:
    for step in steps:
        place = out / "validation" / f"step-{step}"
        picture = Image.new("RGB", (side, side), (step % 256, 0, 0))
        png.save_png(picture, place / "00.png", {"prompt": prompt})
        png.save_png(picture, place / "sheet.png", {})
    run_log.append(out, {"step": 1, "train_loss": 1.0})
    return out


def test_steps_are_chosen_evenly() -> None:
    """The base's, the exported and the last always; no more than there is room for."""
    steps = list(range(0, 1000, 10))
    found = report.chosen_steps(steps, 500)
    assert len(found) == 8 and {0, 500, 990} <= set(found) and found == sorted(found)
    assert max(b - a for a, b in itertools.pairwise(found)) < 350
    assert report.chosen_steps([20, 0, 10], None) == [0, 10, 20]


def test_pictures_are_small_and_whole(tmp_path: Path) -> None:
    """Tiny ones to the pixel, large ones as small JPEGs; a broken one is left out."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    tiny = report.contents_of(_folder(tmp_path / "a", [0, 10], 32))
    assert [(s.step, s.small) for s in tiny.strips["a"]] == [(0, True), (10, True)]
    assert tiny.strips["a"][0].uri.startswith("data:image/png;base64,")
    big = _folder(tmp_path / "b", [0, 10, 20], 1024, HOSTILE.replace("\udce4", ""))
    (big / "validation" / "step-20" / "00.png").write_bytes(b"no picture")
    ((_, shown),) = report.contents_of(big).strips.items()
    assert [s.step for s in shown] == [0, 10]
    assert shown[0].uri.startswith("data:image/jpeg;base64,") and len(shown[0].uri) < 40_000


def test_the_exported_step_is_that_of_the_rule() -> None:
    rows = _rows()
    assert report.exported_step(rows, None) == 20
    assert report.exported_step(rows, "loss") == 10
    assert report.exported_step(rows, "learned") == 20
    assert report.exported_step(rows, "both") == 10
    assert report.exported_step([row for row in rows if not row["step"]], "loss") is None


def test_a_log_that_was_cut_and_facts_of_nonsense(tmp_path: Path) -> None:
    """A report is still made of them."""
    (tmp_path / run_log.LOG).write_text('{"step": 1, "train_loss": 1.0}\n[1]\n{"step": 2, "tr')
    (tmp_path / run_facts.FILE).write_text('{"data": 3, "command": "x", "versions": [1]}')
    assert wassily("report", tmp_path).code == 0
    assert "Training loss" in (tmp_path / report.FILE).read_text("utf-8")


def test_no_run(tmp_path: Path) -> None:
    """One line."""
    assert "no output folder of a training" in refused("report", tmp_path)
    assert "no such folder" in refused("report", tmp_path / "none")
    assert "name a folder" in refused("report")


def test_a_report_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / report.FILE).mkdir()
    said: list[str] = []
    report.refresh(tmp_path, said.append)
    assert said and said[0].startswith("report.html was not written")


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


def test_the_facts_hold_no_secret(tmp_path: Path) -> None:
    from wassily.config import schema
    from wassily.config.training import PriorConfig

    given = {"train_data_dir": str(tmp_path), "validation_prompts": ("a b", "c"), "seed": 3}
    config = PriorConfig(**given, lora=True, push_to_hub=True, hub_token="hf_secret")  # type: ignore[arg-type]
    words = schema.to_flags(config)
    assert "hf_secret" not in json.dumps(words)
    from wassily.config import parsing

    again = parsing.parse("PriorConfig", words, "x")
    assert schema.public(again) == schema.public(config)
