"""Tries wassily in environments of their own: python -m tools.environments package

package   build sdist and wheel, install the wheel into an empty environment, run the demo there
lowest    the lower bounds of pyproject.toml, and a part of the tests on them
trackers  every tracker that --report_to knows and that runs without an account, and their tests
browser   the studio, and its tests in a real Chromium; what .venv holds is taken from there

The environments lie under --work and are made anew each time; pip and the network are needed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
# What touches the libraries' borders: networks, pipelines, adapters, data, trackers, whole runs.
LOWEST_TESTS = "parts sample sample_conditions schedulers losses adapters optimizers"
LOWEST_TESTS += " datasets encode generate merge accelerator run_state trackers e2e_lora"
LOWEST_TESTS += " e2e_trackers guide_snippets"
TESTING = ("pytest", "pytest-timeout", "hypothesis", "torch-optimi", "pyyaml")
TRACKERS = ("wandb", "trackio", "mlflow")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


class Bare:
    """An empty environment of the Python that runs this."""

    def __init__(self, folder: Path):
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        self.bin = folder / "bin"

    def install(self, *words: str) -> None:
        """What pip is asked for."""
        run(self.bin / "python", "-m", "pip", "install", "--quiet", "--no-compile", *words)

    def versions(self, *names: str) -> str:
        """Of what was installed."""
        code = "import sys, importlib.metadata as m; print(*(n + ' ' + m.version(n) for n in "
        code += "sys.argv[1:]), sep=', ')"
        return run(self.bin / "python", "-c", code, *names, quiet=True).strip()


def run(*words: object, folder: Path = ROOT, quiet: bool = False) -> str:
    """A program's output; its fault ends this one. It sees the environment it is of alone."""
    line = [str(word) for word in words]
    if not quiet:
        print("$", " ".join(line), flush=True)
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    began = time.time()
    done = subprocess.run(
        line, cwd=folder, env=env, stdout=subprocess.PIPE if quiet else None, text=True
    )
    if done.returncode:
        sys.exit(f"tools.environments: {line[0]} gave exit code {done.returncode}")
    if not quiet:
        print(f"  {time.time() - began:.0f} s", flush=True)
    return done.stdout or ""


def project() -> dict[str, Any]:
    """The project table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def lower_bounds(requirements: list[str]) -> list[str]:
    """`name>=version` -> `name==version`, as pip reads it; a marker stays."""
    return [re.sub(r">=", "==", requirement, count=1) for requirement in requirements]


def package(args: argparse.Namespace) -> None:
    """From the sources to the demo of an installed wheel, in a folder that is not this one."""
    dist = args.work / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", dist)
    (wheel,) = dist.glob("*.whl")
    for file in sorted(dist.iterdir()):
        print(f"  {file.name}: {file.stat().st_size / 2**20:.1f} MiB")
    bare = Bare(args.work / "package")
    bare.install(str(wheel), "-c", str(ROOT / "constraints.txt"))
    away = args.work / "away"
    shutil.rmtree(away, ignore_errors=True)
    away.mkdir()
    where = run(
        bare.bin / "python",
        "-c",
        "import wassily; print(wassily.__file__)",
        folder=away,
        quiet=True,
    )
    if not Path(where.strip()).is_relative_to(args.work):
        sys.exit(f"tools.environments: {where.strip()} is not the wheel's")
    run(bare.bin / "wassily", "doctor", folder=away)
    run(bare.bin / "wassily", "demo", *args.more, folder=away)


def lowest(args: argparse.Namespace) -> None:
    """Exactly the lower bounds, but for --instead; then tests of what touches the libraries."""
    bounds = lower_bounds(project()["dependencies"])
    named = {re.split(r"[=<>]", word)[0] for word in args.instead}
    wanted = [b for b in bounds if re.split(r"[=<>]", b)[0] not in named] + args.instead
    bare = Bare(args.work / "lowest")
    bare.install(*wanted, *TESTING)
    bare.install("--no-deps", "--editable", str(ROOT))
    print(bare.versions(*(re.split(r"[=<>;]", b)[0] for b in wanted if ";" not in b)))
    tests = [str(next(ROOT.rglob(f"tests/**/test_{name}.py"))) for name in LOWEST_TESTS.split()]
    run(bare.bin / "python", "-m", "pytest", "-q", *(args.more or tests))


def trackers(args: argparse.Namespace) -> None:
    """The extras of the trackers beside the versions that the tests run on."""
    bare = Bare(args.work / "trackers")
    extras = f"{ROOT}[{','.join(TRACKERS)}]"
    bare.install("-c", str(ROOT / "constraints.txt"), "--editable", extras, *TESTING)
    print(bare.versions("tensorboard", *TRACKERS))
    run(
        bare.bin / "python",
        "-m",
        "pytest",
        "-q",
        *(args.more or ["tests/runtime/test_trackers.py", "tests/runtime/test_e2e_trackers.py"]),
    )


def browser(args: argparse.Namespace) -> None:
    """The studio's extra and playwright on top of this environment, and the tests in Chromium."""
    if not os.environ.get("CHROMIUM") and not any(map(shutil.which, CHROMIUM)):
        sys.exit(
            "tools.environments: no Chromium here: install it (apt install chromium), or name one: "
            "CHROMIUM=/path/to/it make browser"
        )
    bare = Bare(args.work / "browser")
    (site,) = (args.work / "browser").glob("lib/python*/site-packages")
    (site / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    studio = project()["optional-dependencies"]["studio"]
    bare.install("-c", str(ROOT / "constraints.txt"), *studio, "playwright")
    print(bare.versions("gradio", "playwright", "pillow"))
    shots = args.work / "pages"
    shots.mkdir(exist_ok=True)
    os.environ["WASSILY_SHOTS"] = str(shots)
    run(bare.bin / "python", "-m", "pytest", "-q", *(args.more or ["tests/browser"]))
    print(f"pictures of the pages are in {shots}")


def main() -> None:
    """One of the four."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("which", choices=("package", "lowest", "trackers", "browser"))
    parser.add_argument(
        "--work", type=lambda name: Path(name).resolve(), default=ROOT / "runs/environments"
    )
    parser.add_argument(
        "--instead", nargs="*", default=[], help="requirements in a lower bound's place"
    )
    args, args.more = parser.parse_known_args()
    args.work.mkdir(parents=True, exist_ok=True)
    tried = {"package": package, "lowest": lowest, "trackers": trackers, "browser": browser}
    tried[args.which](args)


if __name__ == "__main__":
    main()
