"""tools/website.py: pages and their links on the site, and the search for broken ones."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pages
import pytest


@pytest.fixture(scope="module")
def website() -> ModuleType:
    spec = importlib.util.spec_from_file_location("website", pages.ROOT / "tools" / "website.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["website"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_navigation_has_every_page_once(website: ModuleType) -> None:
    for language in website.LANGUAGES:
        settings = website.config(language, website.WORK / language.code)
        listed = [
            page for section in settings["nav"][1:] for part in section.values() for page in part
        ]
        assert sorted([*listed, "index.md"]) == sorted(language.names().values())


def test_a_page_that_is_not_in_the_navigation_is_noticed(
    website: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(website, "SECTIONS", website.SECTIONS[1:])
    with pytest.raises(SystemExit, match="SECTIONS and the pages differ"):
        website.config(website.LANGUAGES[0], website.WORK / "en")


def test_every_page_is_placed(website: ModuleType, tmp_path: Path) -> None:
    """With what it links to; code stays as it is, and each heading has its anchor."""
    for language in website.LANGUAGES:
        staging = website.Staging(language, tmp_path / language.code)
        staging.fill()
        for source, name in staging.placed.items():
            placed = tmp_path / language.code / name
            assert placed.is_file()
            if source.suffix != ".md":
                continue
            assert pages.blocks(source) == pages.blocks(placed)
            given = re.findall(r"^#+ .* \{#(.*)\}$", pages.prose(placed), re.M)
            assert given == pages.slugs(source), source


def test_where_links_lead(website: ModuleType, tmp_path: Path) -> None:
    english, arabic = (website.Staging(one, tmp_path) for one in website.LANGUAGES)
    for staging in (english, arabic):
        staging.placed = staging.language.names()
    root, docs = pages.ROOT, pages.DOCS
    bend = english.link
    assert bend(root / "README.md", "", "x", "docs/data.md#a-folder") == "[x](data.md#a-folder)"
    assert bend(docs / "data.md", "", "x", "../README.md#flags") == "[x](index.md#flags)"
    assert bend(docs / "data.md", "", "x", "#pictures") == "[x](#pictures)"
    assert bend(docs / "data.md", "", "x", "https://a.b/c") == "[x](https://a.b/c)"
    assert bend(docs / "data.md", "", "x", "../wassily/training_data/prompts") == "x"
    assert bend(root / "README.md", "", "x", "README.ar.md") == "[x](ar/index.html)"
    assert bend(root / "README.md", "", "x", "LICENSE") == "[x](files/LICENSE.txt)"
    change = "../../CHANGELOG.md"
    assert arabic.link(docs / "ar/data.md", "", "x", change) == "[x](../files/CHANGELOG.html)"
    assert arabic.link(root / "README.ar.md", "", "x", "README.md") == "[x](../index.html)"
    with pytest.raises(SystemExit, match="no such file"):
        bend(docs / "data.md", "", "x", "nowhere.md")


def test_broken_links_are_found(website: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "two.html").write_text('<h1 id="here">x</h1>', "utf-8")
    good = '<a href="two.html#here">x</a> <a href="https://a.b">x</a> <img src="two.html">'
    (tmp_path / "one.html").write_text(good, "utf-8")
    assert website.faults(tmp_path) == []
    bad = '<a href="three.html">x</a><a href="two.html#there">x</a><script src="//a.b/c"></script>'
    (tmp_path / "one.html").write_text(good + bad, "utf-8")
    assert website.faults(tmp_path) == [
        "one.html: //a.b/c is not on this disk",
        "one.html: three.html leads nowhere",
        "one.html: two.html#there leads nowhere",
    ]


@pytest.mark.docs
def test_the_site_is_built(website: ModuleType) -> None:
    """With no broken link; each page leads to itself in the other language, and Arabic is written
    from the right.
    """
    command = [sys.executable, str(pages.ROOT / "tools" / "website.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=pages.ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in pages.english_pages():
        inside = page.relative_to(pages.DOCS) if page.is_relative_to(pages.DOCS) else Path("index")
        name = inside.with_suffix(".html").as_posix()
        english, arabic = (pages.read(one.site / name) for one in website.LANGUAGES)
        up = "../" * name.count("/")
        assert f'href="{up}ar/{name}" hreflang="ar"' in english
        assert f'href="{up}../{name}" hreflang="en"' in arabic
        assert re.search(r'<html[^>]* lang="?ar', arabic) and re.search(r'dir="?rtl', arabic)
        assert not re.search(r'dir="?rtl', english)
