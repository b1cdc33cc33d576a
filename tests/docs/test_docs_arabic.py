"""The Arabic pages beside the English ones: page for page, command for command, row for row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest

PAIRS = [(english, pages.arabic_of(english)) for english in pages.english_pages()]
pairs = pytest.mark.parametrize(("english", "arabic"), PAIRS, ids=lambda page: page.name)
QUOTED = re.compile(r'("[^"\n]*")')
COMMENT = re.compile(r"(?:^|(?<=\s))#(?!!).*$", re.M)


def _has_arabic(text: str) -> bool:
    return bool(re.search("[؀-ۿ]", text))


def test_each_page_has_its_arabic_one_and_no_more() -> None:
    assert {arabic for _, arabic in PAIRS} == {page for page in pages.arabic_pages()}
    missing = [arabic.name for _, arabic in PAIRS if not arabic.is_file()]
    assert not missing


@pairs
def test_the_same_headings_and_anchors(english: Path, arabic: Path) -> None:
    """As many, of the same levels; an anchor is the same in both languages, so that no link breaks
    with the wording of a heading.
    """
    one, two = pages.headings(english), pages.headings(arabic)
    assert [level for level, _ in one] == [level for level, _ in two]
    assert pages.slugs(english)[1:] == pages.slugs(arabic)[1:]


def _differences(language: str, one: str, two: str) -> Iterator[str]:
    """What may not differ between a block and its Arabic twin, and does."""
    if language in ("bash", "python", "py", "toml"):
        one, two = COMMENT.sub("", one), COMMENT.sub("", two)
        two = two.replace(" --language ar", "")  # an Arabic page opens the Arabic studio
        first, second = QUOTED.split(one), QUOTED.split(two)
        if len(first) != len(second):
            yield f"{one!r} and {two!r}"
        for a, b in zip(first, second, strict=False):
            same = [line.rstrip() for line in a.splitlines()] == [
                line.rstrip() for line in b.splitlines()
            ]
            if not same and not (a.startswith('"') and _has_arabic(b)):
                yield f"{a!r} and {b!r}"
        return
    first, second = one.splitlines(), two.splitlines()
    if len(first) != len(second):
        yield f"{len(first)} and {len(second)} lines"
    for a, b in zip(first, second, strict=False):
        # A line that tells something in words has them in Arabic, behind the same name.
        told = _has_arabic(b) and (
            not re.match(r"\s*[\w./-]+\s\s", a) or a.split()[0] == b.split()[0]
        )
        if a != b and not told:
            yield f"{a!r} and {b!r}"


@pairs
def test_the_same_code(english: Path, arabic: Path) -> None:
    """To the letter, but for comments, prompts in quotes, the language of the studio, and words
    beside the names in a tree.
    """
    one, two = pages.blocks(english), pages.blocks(arabic)
    assert [language for language, _ in one] == [language for language, _ in two]
    for (language, code), (_, twin) in zip(one, two, strict=True):
        assert not list(_differences(language, code, twin))


@pairs
def test_the_same_tables_flags_and_images(english: Path, arabic: Path) -> None:
    assert pages.tables(english) == pages.tables(arabic)
    assert pages.flags(english) == pages.flags(arabic)
    assert pages.images(english) == pages.images(arabic)
    assert pages.addresses(english) == pages.addresses(arabic)


@pairs
def test_it_is_in_arabic(english: Path, arabic: Path) -> None:
    """Most letters outside of code, and some in each heading that is no name of a command."""
    text = re.sub(r"`[^`\n]*`|\]\([^)]*\)", "", pages.prose(arabic))
    assert pages.arabic_share(text) > 0.6
    assert pages.arabic_share(pages.prose(english)) < 0.1


@pairs
def test_links_lead_to_the_same_places_in_arabic(english: Path, arabic: Path) -> None:
    """Each leads to the Arabic page where there is one, to the same heading."""

    def places(page: Path) -> set[tuple[Path, str]]:
        return {(pages.english_of(file), anchor) for file, anchor in pages.links(page)}

    switch = {(english, "")}  # from each README to the other
    assert places(english) - switch == places(arabic) - switch
    for file, _ in pages.links(arabic):
        twin = pages.arabic_of(file) if file in dict(PAIRS) else None
        assert twin is None or file == english, f"{file.name} is there in Arabic, too"
