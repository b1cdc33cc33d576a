"""Builds the documentation as a website, English and Arabic: python tools/website.py (`make docs`).

The pages are those of docs/ and docs/ar/, and both READMEs as the first ones. They are copied,
their links are bent to where a page stands on the site, Zensical makes HTML of them, once for each
language, and at last every link, anchor and picture of the HTML is followed: a broken one is an
error. Nothing on the site comes from the network. Opened as files the pages lack their search;
`python -m http.server --directory build/site` has it.
"""

from __future__ import annotations

import argparse
import html.parser
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
SITE = BUILD / "site"
WORK = BUILD / "pages"

# The navigation: a section in both languages, and its pages in their order.
SECTIONS = [
    ("Start", "البداية", ["first-picture", "guide", "moving"]),
    ("Training", "التدريب", ["data", "streaming", "training", "lora", "dreambooth", "learning"]),
    ("Measuring", "القياس", ["evaluating", "experiments"]),
    ("Drawing", "الرسم", ["drawing", "python", "studio"]),
    ("Machines", "الأجهزة", ["memory", "performance", "scale", "checkpoints", "reliability"]),
    ("Reference", "المرجع", ["flags", "troubleshooting", "how-it-works", "security"]),
    ("Development", "التطوير", ["dev/architecture"]),
]
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
DIRECTION = re.compile(r"^<(div dir=.*|/div)>\n", re.M)  # for readers of the file; the site knows
HEADING = re.compile(r'^(?:<a id="([\w-]+)"></a>\n+)?(#+) (.*)$', re.M)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Language:
    """One half of the site: where its pages are, where they go, and what it says."""

    code: str
    title: str
    readme: Path
    pages: Path
    site: Path
    column: int  # of SECTIONS

    @property
    def other(self) -> Language:
        """The other language."""
        return LANGUAGES[1 - LANGUAGES.index(self)]

    def html(self) -> list[Path]:
        """Its pages on the site."""
        every = sorted(self.site.glob("**/*.html"))
        inside = self.other.site if self.other.site.is_relative_to(self.site) else None
        return [page for page in every if not inside or inside not in page.parents]

    def names(self) -> dict[Path, str]:
        """Each page of the sources, and its name on this half of the site."""
        every = [*sorted(self.pages.glob("*.md")), *sorted(self.pages.glob("dev/*.md"))]
        found = {page: page.relative_to(self.pages).as_posix() for page in every}
        return found | {self.readme: "index.md"}


LANGUAGES = [
    Language("en", "wassily", ROOT / "README.md", ROOT / "docs", SITE, 0),
    Language("ar", "wassily بالعربية", ROOT / "README.ar.md", ROOT / "docs" / "ar", SITE / "ar", 1),
]


# ---------------------------------------------------------------- pages with their links bent


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it: letters, marks, digits, `_`, `-`."""
    kept = (c for c in heading.lower() if c in "_- " or unicodedata.category(c)[0] in "LMN")
    return "".join(kept).replace(" ", "-")


def anchored(heading: re.Match[str], seen: list[str]) -> str:
    """A heading with its anchor: the one that is given above it, or else GitHub's; one that was
    seen on the page before is numbered.
    """
    given, marks, words = heading.groups()
    name, again = given or slug(words), 0
    while (f"{name}-{again}" if again else name) in seen:
        again += 1
    seen.append(f"{name}-{again}" if again else name)
    return f"{marks} {words} {{#{seen[-1]}}}"


@dataclass
class Staging:
    """The copies of one language's pages, and of what they link to outside of the documentation."""

    language: Language
    folder: Path
    queue: list[Path] = field(default_factory=list)
    placed: dict[Path, str] = field(default_factory=dict)

    def fill(self) -> None:
        """Copy all pages, then what they need, until nothing is missing."""
        self.placed = dict(self.language.names())
        self.queue = list(self.placed)
        while self.queue:
            source = self.queue.pop()
            target = self.folder / self.placed[source]
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix == ".md":
                target.write_text(self.bent(source), encoding="utf-8")
            else:
                shutil.copyfile(source, target)

    def bent(self, page: Path) -> str:
        """A page whose links lead to places of the site; its code stays as it is."""
        text = page.read_text(encoding="utf-8")
        code = FENCE.findall(text)
        prose = DIRECTION.sub("", FENCE.sub("\0", text))
        seen: list[str] = []
        prose = HEADING.sub(lambda match: anchored(match, seen), prose)
        prose = LINK.sub(lambda match: self.link(page, *match.groups()), prose)
        return re.sub("\0", lambda _: code.pop(0), prose)

    def link(self, page: Path, mark: str, words: str, address: str) -> str:
        """One link or picture of a page, as the site has it."""
        if not mark:
            words = LINK.sub(lambda match: self.link(page, *match.groups()), words)
        if re.match(r"\w+:", address) or address.startswith("#"):
            return f"{mark}[{words}]({address})"
        name, _, anchor = address.partition("#")
        source = (page.parent / name).resolve()
        if source.is_dir():
            return words  # a folder of the sources has no page
        place = self.place(source)
        here = Path(self.placed[page]).parent
        to = os.path.relpath(place, here).replace(os.sep, "/")
        return f"{mark}[{words}]({to}{'#' * bool(anchor)}{anchor})"

    def place(self, source: Path) -> str:
        """Where a file stands on this half; it is copied there if it is not of the documentation.

        A page that is there in the other language only stands on the other half, as HTML already.
        """
        if not source.is_file():
            raise SystemExit(f"website: {source}: no such file")
        if source in self.placed:
            return self.placed[source]
        other = self.language.other
        name = source.name if source.suffix else source.name + ".txt"
        inside = source.relative_to(ROOT).parent
        own = f"files/{'-'.join([*inside.parts, name])}"
        page = other.names().get(source, own)
        if page != own or (source.suffix == ".md" and self.language.code != "en"):
            up = os.path.relpath(other.site, self.language.site)
            return f"{up}/{page.removesuffix('.md')}.html"
        self.placed[source] = own
        self.queue.append(source)
        return own


# ---------------------------------------------------------------- Zensical


SWITCH = "https://switch.invalid/"  # in the place of a page's twin, until the pages are there
FEATURES = ["navigation.sections", "navigation.footer", "navigation.top"]
FEATURES += ["search.highlight", "content.code.copy", "content.tooltips"]
EXTENSIONS = {
    "attr_list": {},
    "md_in_html": {},
    "tables": {},
    "toc": {"permalink": True},
    "pymdownx": {"highlight": {"anchor_linenums": False}, "superfences": {}, "inlinehilite": {}},
}
PALETTE = [
    {"media": f"(prefers-color-scheme: {name})", "scheme": scheme}
    for name, scheme in (("light", "default"), ("dark", "slate"))
]


def navigation(language: Language) -> list[object]:
    """The pages of one half by sections. Raises SystemExit if SECTIONS are not all pages, once."""
    known = {name.removesuffix(".md") for name in language.names().values()}
    listed = [page for section in SECTIONS for page in section[2]]
    if set(listed) != known - {"index"} or len(listed) != len(set(listed)):
        raise SystemExit(f"website: SECTIONS and the pages differ: {set(listed) ^ known}")
    parts = [{s[language.column]: [f"{page}.md" for page in s[2]]} for s in SECTIONS]
    return [{"wassily": "index.md"}, *parts]


def config(language: Language, staged: Path) -> dict[str, object]:
    """The settings of one half, as Zensical and MkDocs have them."""
    links = {language.code: "#", language.other.code: SWITCH}
    return {
        "site_name": language.title,
        "docs_dir": str(staged.relative_to(BUILD)),
        "site_dir": str(language.site.relative_to(BUILD)),
        "use_directory_urls": False,
        "nav": navigation(language),
        "plugins": {"search": {}},
        "extra_css": ["style.css"],
        "theme": {
            "language": language.code,
            "direction": "rtl" if language.code == "ar" else "ltr",
            "font": False,
            "features": FEATURES,
            "palette": PALETTE,
        },
        "extra": {
            "generator": False,
            "alternate": [
                {"name": name, "link": links[code], "lang": code}
                for code, name in (("en", "English"), ("ar", "العربية"))
            ],
        },
        "markdown_extensions": EXTENSIONS,
    }


STYLE = """
[dir=rtl] pre, [dir=rtl] code { direction: ltr; unicode-bidi: isolate; }
[dir=rtl] pre { text-align: left; }
code.short { white-space: nowrap; }
.md-grid { max-width: 78rem; }
.md-typeset table:not([class]) { font-size: .66rem; }
.md-typeset table:not([class]) :is(th, td) { min-width: 0; padding: .6em .8em; }
"""
SHORT = re.compile(r"<code>([^<]{1,32})</code>")  # a flag is not broken after its hyphens


def build(language: Language) -> None:
    """The HTML of one half. Raises CalledProcessError for a warning of Zensical's."""
    staged = WORK / language.code
    Staging(language, staged).fill()
    (staged / "style.css").write_text(STYLE, encoding="utf-8")
    settings = BUILD / f"{language.code}.yml"  # JSON is YAML
    settings.write_text(json.dumps(config(language, staged), ensure_ascii=False), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    subprocess.run([*command, "--config-file", str(settings)], check=True)


def finished(language: Language) -> None:
    """Lead from each page of a half to the same page of the other; keep short code on one line."""
    (language.site / "404.html").unlink()  # of a web server, with addresses from its root
    for page in language.html():
        twin = language.other.site / page.relative_to(language.site)
        if not twin.is_file():
            twin = language.other.site / "index.html"
        link = urllib.parse.quote(os.path.relpath(twin, page.parent))
        text = page.read_text(encoding="utf-8").replace(SWITCH, link)
        page.write_text(SHORT.sub(r'<code class="short">\1</code>', text), encoding="utf-8")


# ---------------------------------------------------------------- every link followed


class Found(html.parser.HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, page: Path):
        super().__init__()
        self.anchors, self.links, self.loads = set[str](), list[str](), list[str]()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what is of use."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if "src" in values or tag == "link":
            self.loads.append(values.get("src", values.get("href", "")))
        elif "href" in values:
            self.links.append(values["href"])


def faults(site: Path) -> list[str]:
    """A line for each link that leads nowhere and for each thing that is loaded from elsewhere."""
    pages = {page.resolve(): Found(page) for page in sorted(site.glob("**/*.html"))}
    lines = []
    for page, found in pages.items():
        away = [load for load in found.loads if re.match(r"(\w+:)?//", load)]
        lines += [f"{page.relative_to(site)}: {load} is not on this disk" for load in away]
        for link in [*found.links, *(load for load in found.loads if load not in away)]:
            if not re.match(r"(\w+:|//)", link) and not leads(page, link, pages):
                lines.append(f"{page.relative_to(site)}: {link} leads nowhere")
    return lines


def leads(page: Path, link: str, pages: dict[Path, Found]) -> bool:
    """Whether a link of a page leads to a file of the site, and to an anchor that it has."""
    name, _, anchor = urllib.parse.unquote(link).partition("#")
    target = (page.parent / name.partition("?")[0]).resolve() if name else page
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return False
    return not anchor or target not in pages or anchor in pages[target].anchors


def main() -> int:
    """Build both halves and follow all links; 1 if one is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.parse_args()
    if importlib.util.find_spec("zensical") is None:
        told = "Zensical is not installed: pip install -e '.[docs]' on Python 3.11 or newer"
        print(f"website: {told}", file=sys.stderr)
        return 2
    for folder in (WORK, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        for language in LANGUAGES:
            build(language)
    except subprocess.CalledProcessError:
        return 1
    for language in LANGUAGES:
        finished(language)
    if found := faults(SITE.resolve()):
        print("\n".join(["website: broken links:", *found]), file=sys.stderr)
        return 1
    print(f"website: open {SITE / 'index.html'} or {SITE / 'ar' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
