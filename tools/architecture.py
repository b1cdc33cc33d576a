"""The rooms of the package and the imports between them: the README's list and a drawing of it.

python -m tools.architecture          # writes docs/images/architecture.svg and the READMEs' lists
python -m tools.architecture --long   # prints the list with a line for each file as well

Everything is read from the sources: a room is a folder of `wassily/`, its line is the first line of
its docstring, an arrow is an import, in functions and for types too. `tests/test_layers.py` reads
the imports with the functions of this file.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from statistics import fmean
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "wassily"
FILES = sorted(PACKAGE.rglob("*.py"))
DRAWING = ROOT / "docs" / "images" / "architecture.svg"
READMES = (ROOT / "README.md", ROOT / "README.ar.md")
OPEN = frozenset(
    {"errors", "loading", "version"}
)  # what every room may import, so that no arrow shows it
BEGIN, END = "<!-- rooms: python -m tools.architecture -->", "<!-- end of rooms -->"

Graph = Mapping[str, frozenset[str]]

# ---------------------------------------------------------------- the imports


def name_of(path: Path) -> str:
    """A module's dotted name below `wassily`, that of a package by its folder: `studio.page`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


NAMES = {name_of(path) for path in FILES}


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"))


def imports(path: Path, types: bool = True) -> set[str]:
    """Dotted names that a file imports anywhere, `from a import b` as a.b; with or without those
    for type checkers alone. Raises ValueError for a relative import.
    """
    aside: set[ast.AST] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
            aside |= {inner for child in node.body for inner in ast.walk(child)}
    found: set[str] = set()
    for node in set(ast.walk(tree(path))) - aside:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path.name}: a relative import")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_of(name: str) -> str:
    """The module behind a name that is imported: the longest part of it that is one."""
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in NAMES:
        parts.pop()
    return ".".join(parts) or "__init__"


def ours(path: Path, types: bool = True) -> set[str]:
    """Modules of wassily that a file imports."""
    names = {name for name in imports(path, types) if name.split(".")[0] == "wassily"}
    return {module_of(name) for name in names}


def room_of(name: str) -> str:
    """The folder below the package that a module lies in, or the module itself at the top."""
    return name.split(".")[0]


def arrows() -> dict[str, frozenset[str]]:
    """Room or top module -> those that it imports, without the two that are open to all."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        room = room_of(name_of(path))
        # What `import wassily` gives is fetched when asked for: those of its types are no imports.
        others = {room_of(other) for other in ours(path, types=room != "__init__")}
        found.setdefault(room, set()).update(others - {room} - OPEN)
    return {room: frozenset(others) for room, others in found.items()}


def floors(graph: Graph) -> dict[str, int]:
    """Room -> 1 more than the highest room that it imports; 1 for one that imports none.

    Raises ValueError for a circle.
    """
    found: dict[str, int] = {}

    def floor(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise ValueError(f"a circle of imports: {' -> '.join((*above, name))}")
        if name not in found:
            below = (floor(other, (*above, name)) for other in sorted(graph[name]))
            found[name] = 1 + max(below, default=0)
        return found[name]

    for name in sorted(graph):
        floor(name, ())
    return found


def reduced(graph: Graph) -> dict[str, frozenset[str]]:
    """The arrows that no chain of others implies: the transitive reduction of a graph without
    circles.
    """

    def reached(name: str) -> set[str]:
        return set(graph[name]).union(*(reached(other) for other in graph[name]))

    return {
        name: to - frozenset(set().union(*(reached(other) for other in to)))
        for name, to in graph.items()
    }


# ---------------------------------------------------------------- the list


def first_line(path: Path) -> str:
    """The first line of a file's docstring, without its full stop."""
    return (ast.get_docstring(tree(path)) or "").split("\n")[0].rstrip(".")


def rooms() -> list[str]:
    """The rooms that are folders, the highest floor first, each floor by name."""
    height = floors(arrows())
    folders = [name for name in height if (PACKAGE / name).is_dir()]
    return sorted(folders, key=lambda name: (-height[name], name))


def entries() -> dict[str, str]:
    """Name -> line: each file at the top, then each room from the highest floor down."""
    tops = {path.name: first_line(path) for path in FILES if path.parent == PACKAGE}
    return tops | {f"{name}/": first_line(PACKAGE / name / "__init__.py") for name in rooms()}


def block(lines: Mapping[str, str]) -> str:
    """The list as a block of code between its marks."""
    rows = [f"  {name:<15} {line}".rstrip() for name, line in lines.items()]
    return "\n".join([BEGIN, "```", "wassily/", *rows, "```", END])


def with_list(text: str, arabic: bool = False) -> str:
    """A page with the list between its two marks made anew; an Arabic one retains the line that it
    has for a name. Raises ValueError for a page without the marks.
    """
    before, mark, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"the page lacks the marks {BEGIN} and {END}")
    lines = entries()
    if arabic:
        said = dict(re.findall(r"^ {2}([\w.]+/?) +(.*)$", old, re.M))
        lines = {name: said.get(name, line) for name, line in lines.items()}
    return before + block(lines) + after


def long_list() -> Iterator[str]:
    """The list with a line for each file of a room below the room's own."""
    for name, line in entries().items():
        yield f"{name:<18} {line}"
        inside = sorted((PACKAGE / name).rglob("*.py")) if name.endswith("/") else []
        for path in inside:
            if path != PACKAGE / name / "__init__.py":
                yield f"  {path.relative_to(PACKAGE / name).as_posix():<24} {first_line(path)}"


# ---------------------------------------------------------------- the drawing

BOX, GAP, STOREY, MARGIN = 30, 40, 84, 50  # pixels
LETTER, PADDING = 8, 12  # pixels; a letter's width rounded up, so that no label is cut
STYLE = (
    "text{font:13px ui-monospace,Menlo,Consolas,monospace;fill:#1f2933}"
    "rect{fill:#e3ecf7;stroke:#52667a}.top rect{fill:#fff;stroke-dasharray:4 3}"
    "path{fill:none;stroke:#75879a;stroke-width:1.3}.floor{fill:#75879a}"
)
Place = tuple[str, int]  # a room and its floor, or `room other` and a floor that their arrow passes


def _label(name: str) -> str:
    return name if (PACKAGE / name).is_dir() else f"{name}.py"


def _wide(place: Place) -> float:
    """Width that a box or a passing arrow takes, in pixels."""
    return 10 if " " in place[0] else len(_label(place[0])) * LETTER + 2 * PADDING


def _chains(graph: Graph) -> list[list[Place]]:
    """Each arrow to draw, from room to room, with the floors that it passes between them."""
    height, found = floors(graph), []
    for name, others in sorted(reduced(graph).items()):
        for other in sorted(others):
            passed = range(height[name] - 1, height[other], -1)
            between = [(f"{name} {other}", floor) for floor in passed]
            found.append([(name, height[name]), *between, (other, height[other])])
    return found


def _spread(row: list[Place], wished: Mapping[Place, float]) -> dict[Place, float]:
    """Centres of a row as near to the wished ones as its order and the gaps allow."""
    steps = [(_wide(a) + _wide(b)) / 2 + GAP for a, b in itertools.pairwise(row)]
    left, right = [wished[place] for place in row], [wished[place] for place in row]
    for i, step in enumerate(steps):
        left[i + 1] = max(left[i + 1], left[i] + step)
    for i, step in reversed(list(enumerate(steps))):
        right[i] = min(right[i], right[i + 1] - step)
    return {p: (a + b) / 2 for p, a, b in zip(row, left, right, strict=True)}


def places(graph: Graph) -> dict[Place, float]:
    """Centre of each box and of each place where an arrow passes a floor: the order of a floor
    follows the mean of the neighbours above and below, some rounds long (Sugiyama's method).
    """
    chains = _chains(graph)
    near: dict[Place, list[Place]] = {(n, floor): [] for n, floor in floors(graph).items()}
    for chain in chains:
        for above, below in itertools.pairwise(chain):
            near.setdefault(above, []).append(below)
            near.setdefault(below, []).append(above)
    by_floor: dict[int, list[Place]] = {}
    for place in sorted(near):
        by_floor.setdefault(place[1], []).append(place)
    at = {
        p: 1000 * (i + 1) / (len(row) + 1) for row in by_floor.values() for i, p in enumerate(row)
    }
    for turn in range(40):
        for floor in sorted(by_floor, reverse=turn % 2 == 0):
            row = by_floor[floor]
            wished = {p: fmean([at[q] for q in near[p]] or [at[p]]) for p in row}
            if turn < 20:  # the order first, then the distances
                row.sort(key=lambda p: (wished[p], p))
            at |= _spread(row, wished)
    first = min(at[p] - _wide(p) / 2 for p in at)
    return {p: x - first + MARGIN for p, x in at.items()}


def svg(graph: Graph) -> str:
    """The rooms as boxes on their floors, an arrow for each import that no other implies."""
    at, highest = places(graph), max(floors(graph).values())
    width = round(max(at[p] + _wide(p) / 2 for p in at) + MARGIN / 2)
    tall = 20 + (highest - 1) * STOREY + BOX + 20

    def top(floor: int) -> int:
        return 20 + (highest - floor) * STOREY

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {tall}" width="{width}" '
        f'height="{tall}" role="img">',
        "<title>The rooms of wassily: each imports only rooms below it</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" style="fill:#75879a"/></marker>'
        "</defs>",
        # A ground of its own: a page in dark colours shows the drawing on white.
        f'<rect width="{width}" height="{tall}" style="fill:#fff;stroke:none"/>',
    ]
    for chain in _chains(graph):
        x, y = at[chain[0]], top(chain[0][1]) + BOX
        line = f"M{x:.0f} {y}"
        for place in chain[1:]:
            to, end, half = at[place], top(place[1]), STOREY / 2 - BOX / 2
            bent = f"C{x:.0f} {y + half:.0f} {to:.0f} {end - half:.0f} " if len(chain) > 2 else "L"
            line += f"{bent}{to:.0f} {end}"
            if " " in place[0]:  # straight down beside the boxes of a floor that it passes
                line += f"v{BOX}"
            x, y = to, end + BOX
        parts.append(f'<path d="{line}" marker-end="url(#head)"/>')
    for floor in range(1, highest + 1):
        parts.append(f'<text class="floor" x="16" y="{top(floor) + 20}">{floor}</text>')
    for place in sorted(p for p in at if " " not in p[0]):
        name, x, y, box = _label(place[0]), at[place], top(place[1]), _wide(place)
        kind = ' class="top"' if name.endswith(".py") else ""
        shape = f'x="{x - box / 2:.0f}" y="{y}" width="{box:.0f}" height="{BOX}" rx="5"'
        text = f'<text x="{x:.0f}" y="{y + 20}" text-anchor="middle">{escape(name)}</text>'
        parts.append(f"<g{kind}><rect {shape}/>{text}</g>")
    return "\n".join([*parts, "</svg>", ""])


def shown() -> dict[str, frozenset[str]]:
    """The arrows of a drawing: without the files at the top that every room imports."""
    return {name: others for name, others in arrows().items() if name not in OPEN}


def main(words: list[str]) -> None:
    """Write the drawing and the lists, or print the long list."""
    if "--long" in words:
        print("\n".join(long_list()))
        return
    DRAWING.write_text(svg(shown()), "utf-8")
    for page in READMES:
        text = page.read_text("utf-8")
        page.write_text(with_list(text, arabic=page != READMES[0]), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
