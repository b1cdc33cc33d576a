"""Runs the steps of the Dockerfile without Docker: python -m tools.dockerfile_check

Each path of the container lies below --work here, and this Python stands for the container's.
Steps of the system, that of a user among them, are named and left out. The packages are installed
under constraints.txt as the Dockerfile does, so pip and the network are needed. The base image, a
GPU and the versions of the container's system are not tried.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SYSTEM = {"apt-get", "chown", "useradd", "userdel"}  # they want root, or change this machine
TRIED = (["--help"], ["doctor"])


def instructions(text: str) -> list[tuple[str, str]]:
    """Keyword and value of each instruction of a Dockerfile; continued lines are joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return [(word.upper(), value.strip()) for word, value in pairs]


def allowed(text: str) -> set[str]:
    """What a .dockerignore that begins with `*` lets in, by its first-level names."""
    lines = [line.strip() for line in text.splitlines()]
    if "*" not in lines:
        raise SystemExit(".dockerignore: no line `*`. Add it before the names that are let in.")
    return {line[1:] for line in lines if line.startswith("!")}


def commands(value: str) -> Iterator[list[str]]:
    """The words of each command of a RUN, which may be joined by && alone."""
    for part in value.split("&&"):
        words = shlex.split(part)
        if {"||", "|", ";", ">"} & set(words):
            raise SystemExit(
                f"Dockerfile: RUN {part.strip()}: only && is understood. Use RUN twice."
            )
        yield words


@dataclass
class Build:
    """A container's files below a folder, and what its instructions have set so far."""

    root: Path
    folder: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    entry: list[str] = field(default_factory=list)

    def here(self, path: str) -> Path:
        """A container's path on this machine."""
        return self.root / os.path.join(self.folder, path).lstrip("/")

    def value(self, text: str) -> str:
        """A value with its variables put in and the container's paths as they are here."""
        known = {"PATH": os.environ["PATH"]} | self.env
        parts = text.split(":")
        parts = [str(self.here(part)) if part.startswith("/") else part for part in parts]
        return re.sub(r"\$(\w+)", lambda name: known[name[1]], ":".join(parts))

    def run(self, words: list[str]) -> str:
        """The output of a command in the container's folder. Ends this program if it fails."""
        away = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
        env = {k: v for k, v in os.environ.items() if k not in away} | self.env
        words = [self.value(word) for word in words]
        program = (
            sys.executable if words[0] == "python3" else shutil.which(words[0], path=env["PATH"])
        )
        if program is None:
            raise SystemExit(f"Dockerfile: {words[0]}: no such program in its PATH")
        print("$", shlex.join(words), flush=True)
        done = subprocess.run(
            [program, *words[1:]], cwd=self.here("."), env=env, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"Dockerfile: {shlex.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def take(self, word: str, value: str, context: set[str]) -> None:
        """Carry out one instruction, with what the context may give."""
        if word in ("ENV", "ARG"):
            name, _, text = value.partition("=")
            self.env[name] = self.value(text)
        elif word == "WORKDIR":
            self.folder = value
            self.here(".").mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            self.copy(value.split(), context)
        elif word == "RUN":
            for words in commands(value):
                if words[0] in SYSTEM:
                    self.left_out.append(shlex.join(words))
                else:
                    self.run(words)
        elif word == "ENTRYPOINT":
            self.entry = json.loads(value)

    def copy(self, words: list[str], context: set[str]) -> None:
        """COPY, from the root of the sources."""
        *sources, target = words
        for source in sources:
            if source not in context:
                raise SystemExit(f".dockerignore: {source} is not let in. Add !{source}.")
            place = self.here(target)
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, place, ignore=ignored, dirs_exist_ok=True)
            else:
                shutil.copy(ROOT / source, place)


def main(argv: list[str] | None = None) -> None:
    """Build, then try the entry point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "dockerfile")
    work = parser.parse_args(argv).work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    build = Build(work, env={"PATH": os.environ["PATH"]})
    context = allowed((ROOT / ".dockerignore").read_text("utf-8"))
    for word, value in instructions((ROOT / "Dockerfile").read_text("utf-8")):
        build.take(word, value, context)
    for line in build.left_out:
        print(f"left out: {line}")
    for words in TRIED:
        print(build.run([*build.entry, *words]))


if __name__ == "__main__":
    main()
