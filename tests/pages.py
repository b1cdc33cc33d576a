"""What the tests of the documentation read out of a Markdown page."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ARABIC = DOCS / "ar"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


def english_pages() -> list[Path]:
    """README.md and every page of docs/ and docs/dev/."""
    return [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("dev/*.md"))]


def arabic_pages() -> list[Path]:
    """README.ar.md and every page below docs/ar/."""
    return [ROOT / "README.ar.md", *sorted(ARABIC.rglob("*.md"))]


def arabic_of(page: Path) -> Path:
    """The Arabic page that belongs to an English one."""
    return ROOT / "README.ar.md" if page == ROOT / "README.md" else ARABIC / page.relative_to(DOCS)


def english_of(page: Path) -> Path:
    """The English page that belongs to an Arabic one; any other file is its own."""
    if ".ar." in page.name:
        return page.with_name(page.name.replace(".ar.", "."))
    return DOCS / page.relative_to(ARABIC) if page.is_relative_to(ARABIC) else page


def read(page: Path) -> str:
    """The page."""
    return page.read_text("utf-8")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and code of each block."""
    return FENCE.findall(read(page))


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return FENCE.sub("", read(page))


def headings(page: Path) -> list[tuple[int, str]]:
    """Level and text of each heading."""
    found = re.findall(r"^(#+) (.*)$", prose(page), re.M)
    return [(len(marks), text) for marks, text in found]


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it: letters, marks, digits, `_`, `-`."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    kept = (c for c in plain if c in "_- " or unicodedata.category(c)[0] in "LMN")
    return "".join(kept).replace(" ", "-")


def slugs(page: Path) -> list[str]:
    """The anchor of each heading, in order: the one that stands above it as `<a id="...">`, or else
    its own; one that comes again is numbered.
    """
    found: list[str] = []
    for given, heading in re.findall(r'^(?:<a id="([\w-]+)"></a>\n+)?#+ (.*)$', prose(page), re.M):
        name, again = given or slug(heading), 0
        while (f"{name}-{again}" if again else name) in found:
            again += 1
        found.append(f"{name}-{again}" if again else name)
    return found


def links(page: Path) -> list[tuple[Path, str]]:
    """File and anchor of each link that leads to a file of the project."""
    found = []
    for link in LINK.findall(prose(page)):
        if not re.match(r"\w+:", link):
            name, _, anchor = link.partition("#")
            found.append(((page.parent / name).resolve() if name else page, anchor))
    return found


def addresses(page: Path) -> set[str]:
    """The links of a page that lead out of the project."""
    return {link for link in LINK.findall(prose(page)) if re.match(r"https?:", link)}


def images(page: Path) -> list[Path]:
    """The pictures of a page."""
    return [(page.parent / name).resolve() for name in IMAGE.findall(prose(page))]


def tables(page: Path) -> list[tuple[int, int]]:
    """Rows and columns of each table."""
    found: list[tuple[int, int]] = []
    rows: list[str] = []
    for line in [*prose(page).splitlines(), ""]:
        if line.startswith("|"):
            rows.append(line)
        elif rows:
            found.append((len(rows), len(re.findall(r"(?<!\\)\|", rows[0])) - 1))
            rows = []
    return found


def flags(page: Path) -> set[str]:
    """Every flag that stands in backticks."""
    quoted = re.findall(r"`([^`\n]+)`", prose(page))
    return {flag for words in quoted for flag in re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", words)}


def arabic_share(text: str) -> float:
    """Share of the Arabic letters among all letters."""
    letters = [c for c in text if c.isalpha()]
    return sum("؀" <= c <= "ۿ" for c in letters) / max(1, len(letters))
