"""The prompts in the little world's words, and whether pictures show what they ask for.

python -m tools.mini.prompts write           writes wassily/mini/prompts/*.txt
python -m tools.mini.prompts judge FOLDER    judges what `wassily evaluate --save_pictures` saved
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from wassily.evaluation import metrics
from wassily.mini import judge, scene, world
from wassily.models import parts

SEED, COUNT = 21, 100
LANGUAGES = {"english": "en", "arabic": "ar"}
ASKED = ("shape", "colour", "background", "count", "style")  # all right: the picture is right


def pairs(language: str) -> list[tuple[str, scene.Scene]]:
    """COUNT different held-out prompts and their scenes, the same scenes in both languages."""
    english = world.prompts(SEED, 4 * COUNT, language="en")
    said = world.prompts(SEED, 4 * COUNT, language=language)
    first: dict[str, int] = {}
    for index, (prompt, _) in enumerate(english):
        first.setdefault(prompt, index)
    return [said[index] for index in list(first.values())[:COUNT]]


def write(folder: Path) -> None:
    """One text file for each language."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, language in LANGUAGES.items():
        lines = "".join(f"{prompt}\n" for prompt, _ in pairs(language))
        (folder / f"{name}.txt").write_text(lines, "utf-8")


def right(folder: Path) -> dict[str, np.ndarray]:
    """List of prompts -> 1 for each of its pictures in a folder that is wholly right, else 0."""
    scenes = {prompt: scene for code in LANGUAGES.values() for prompt, scene in pairs(code)}
    found: dict[str, list[bool]] = {}
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as picture:
            scene = scenes.get(picture.text.get("prompt", ""))  # type: ignore[attr-defined]
            name = path.stem.rsplit("-", 1)[0]
            if scene is not None and name in LANGUAGES:
                verdict = judge.judge(picture)
                whole = all(getattr(verdict, a) == getattr(scene, a) for a in ASKED)
                found.setdefault(name, []).append(whole)
    return {name: np.array(values, float) for name, values in found.items()}


def report(folder: Path) -> list[str]:
    """Lines with the share of right pictures, of both models and their difference, in percent."""
    lines, sides = [], {path.name: right(path) for path in sorted(folder.iterdir())}
    for side, found in sides.items():
        for name, values in found.items():
            lines.append(_line(f"{side}, {name}", values))
    for name in sides.get("base", {}):
        lines.append(_line(f"change, {name}", sides["tuned"][name] - sides["base"][name]))
    return lines


def _line(what: str, values: np.ndarray) -> str:
    e = metrics.mean(values)
    return (
        f"{what:20s} {100 * e.value:6.1f} % wholly right "
        f"[{100 * e.low:.1f}, {100 * e.high:.1f}], {e.n} pictures"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write")
    commands.add_parser("judge").add_argument("folder", type=Path)
    asked = parser.parse_args()
    if asked.command == "write":
        write(parts.MINI / "prompts")
    else:
        print("\n".join(report(asked.folder)))


if __name__ == "__main__":
    main()
