"""The quick-start notebooks: stored without outputs, the same code in both languages, and run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pages
import pytest
from e2e import wassily
from PIL import Image

FILES = {"en": pages.DOCS / "quick-start.ipynb", "ar": pages.DOCS / "quick-start.ar.ipynb"}
FEWER = {"max_train_steps=200": "max_train_steps=2", "max_train_steps=300": "max_train_steps=2"}
languages = pytest.mark.parametrize("language", FILES)


def _cells(language: str, kind: str) -> list[str]:
    notebook = json.loads(FILES[language].read_text("utf-8"))
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == kind]


def _run_line(line: str) -> None:
    """A line for the shell, in this process and with fewer pictures."""
    program, *words = shlex.split(line)
    assert program == "wassily"
    done = wassily(*words, *(["--pictures", "6"] if "--write_data" in words else []))
    assert done.code == 0, done.text


@languages
def test_its_form(language: str) -> None:
    """As Jupyter reads it: version 4.5, each cell with its name, and no output is stored."""
    notebook = json.loads(FILES[language].read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert cell["cell_type"] in ("code", "markdown")
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_the_same_code_but_for_a_prompt() -> None:
    one, two = (re.sub("[\u0600-\u06ff ]+", " ", "\n".join(_cells(k, "code"))) for k in FILES)
    english = '"a large red circle on a blue background"'
    assert one.count(english) == 2
    assert one.replace(english, '" "') == two
    assert len(_cells("en", "markdown")) == len(_cells("ar", "markdown"))
    text = re.sub(r"`[^`]*`|<[^>]*>", "", "".join(_cells("ar", "markdown")))
    assert pages.arabic_share(text) > 0.6


@languages
def test_pages_that_it_names_are_there(language: str) -> None:
    named = re.findall(r"`(docs/[\w/.-]+)`", "".join(_cells(language, "markdown")))
    assert len(named) == 3 and all((pages.ROOT / name).is_file() for name in named)


@pytest.mark.docs
@languages
def test_it_runs(language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells in order, with few steps: the right side of the sheet is not the left one."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"_run_line": _run_line}
    for code in _cells(language, "code"):
        for many, few in FEWER.items():
            code = code.replace(many, few)
        code = re.sub(r"^!(.*)$", lambda m: f"_run_line({m[1]!r})", code, flags=re.M)
        exec(compile(code, FILES[language].name, "exec"), names)
    sheet = names["sheet"]
    assert isinstance(sheet, Image.Image)
    halves = [sheet.crop((x, 0, x + 256, 512)).tobytes() for x in (0, 256)]
    assert halves[0] != halves[1]
    assert max(sheet.getextrema()[0]) > 0
    assert Path("runs/decoder/unet/config.json").is_file()
