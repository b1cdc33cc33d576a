"""Pictures laid out as labelled sheets.

Beside `images`, `png` and `colours` the only file that knows PIL.
"""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FONT = Path(__file__).parent / "fonts" / "labels.ttf"


def _font(size: int) -> Font:
    if FONT.exists():
        engine = ImageFont.Layout.RAQM if features.check("raqm") else ImageFont.Layout.BASIC
        return ImageFont.truetype(str(FONT), size, layout_engine=engine)
    return ImageFont.load_default(size)


def _wrap(text: str, font: Font, width: int, most: int) -> list[str]:
    """Words in at most `most` lines no wider than `width` pixels; the last ends in "…" if cut."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    lines.append(line)
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    last = lines[-1]
    if font.getlength(last) <= width:
        return lines
    while len(last) > 1 and font.getlength(last + "…") > width:
        last = last[:-1]
    return [*lines[:-1], last + "…"]


def sheet(
    rows: list[list[Image.Image]], columns: list[str], labels: list[str], title: str = ""
) -> Image.Image:
    """A labelled contact sheet: one row of pictures per label, one column per heading.

    Small pictures are enlarged without smoothing, so that a 32-pixel model is not flattered. The
    labels' column is as wide as they are, up to 240 pixels.
    """
    everything = [picture for row in rows for picture in row]
    scale = max(1, round(160 / max(max(picture.size) for picture in everything)))
    gap, size = 10, 15
    font = _font(size)
    line = size + 6
    down = max(picture.height for picture in everything) * scale
    across = _column(everything, columns, scale, font)
    wrapped = [_wrap(label, font, 240 - 2 * gap, max(1, down // line)) for label in labels]
    widest = max(font.getlength(words) for lines in wrapped for words in lines)
    left = 2 * gap + math.ceil(widest) if widest else gap
    top = gap + line * (bool(title) + any(columns)) + gap
    width = left + (across + gap) * max(len(row) for row in rows) + gap
    page = Image.new("RGB", (width, top + (down + gap) * len(rows)), "white")
    pen = ImageDraw.Draw(page)
    if title:
        pen.text((gap, gap), _wrap(title, font, width - 2 * gap, 1)[0], fill="black", font=font)
    for c, heading in enumerate(columns):
        cut = _wrap(heading, font, across, 1)[0]
        pen.text((left + c * (across + gap), top - line - 2), cut, fill="#555", font=font)
    for r, row in enumerate(rows):
        y = top + r * (down + gap)
        for i, words in enumerate(wrapped[r]):
            pen.text((gap, y + i * line), words, fill="black", font=font)
        for c, picture in enumerate(row):
            big = picture.resize(
                (picture.width * scale, picture.height * scale), Image.Resampling.NEAREST
            )
            page.paste(big, (left + c * (across + gap), y))
    return page


def _column(everything: list[Image.Image], headings: list[str], scale: int, font: Font) -> int:
    """How wide a column is: as its widest picture, or as its heading, up to a square of the longest
    side.
    """
    widest = max(picture.width for picture in everything) * scale
    longest = max(max(picture.size) for picture in everything) * scale
    named = max((math.ceil(font.getlength(heading)) for heading in headings), default=0)
    return max(widest, min(named, longest))
