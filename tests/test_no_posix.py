"""Without the modules that POSIX systems alone have: everything is imported, trains and generates.

The libraries below decide by `sys.platform` and keep those modules here. Only this package and the
package of the lock do without, so the file system seems to have no locks.
"""

from __future__ import annotations

import ast
from pathlib import Path

from e2e import checkpoints, command
from helpers import ROOT, run_command

from wassily.mini.untrained import Tiny

SCRIPT = """
import builtins, importlib.util, pkgutil, sys
POSIX = set(sys.argv.pop(1).split())
real = builtins.__import__
def guarded(name, globals=None, *more, **options):
    asking = (globals or {}).get("__name__", "").partition(".")[0]
    if name in POSIX and asking in ("wassily", "filelock"):
        asked.add(asking)
        raise ModuleNotFoundError(name)
    return real(name, globals, *more, **options)
asked = set()
builtins.__import__ = guarded
import wassily
for found in pkgutil.walk_packages(wassily.__path__, "wassily."):
    known = importlib.util.find_spec("gradio") or not found.name.startswith("wassily.pages")
    if known and found.name != "wassily.__main__":
        importlib.import_module(found.name)
assert asked == {"filelock"}, asked
from wassily import cli
words = sys.argv[1:]
between = words.index("THEN")
sys.exit(cli.main(words[:between]) or cli.main(words[between + 1:]))
"""

POSIX = set("fcntl grp posix pty pwd resource syslog termios tty".split())


def test_no_module_asks_for_them() -> None:
    """Not even in a function."""
    for path in sorted((ROOT / "wassily").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not POSIX & {name.partition(".")[0] for name in names}, path


def test_without_the_modules_of_posix(tmp_path: Path, tiny: Tiny, photos: Path) -> None:
    """One process: every module, a training of the prior, an image of the result."""
    out, image = tmp_path / "run", tmp_path / "a.png"
    words = command("prior", out, tiny, photos, max_train_steps=2)
    words += ["THEN", "generate", "a red circle", "--prior", str(out), "--decoder"]
    words += [str(tiny.decoder), "--steps", "2", "--prior_steps", "2", "--out", str(image)]
    done = run_command("python", "-c", SCRIPT, " ".join(POSIX), *words)
    assert done.returncode == 0, done.stderr
    assert checkpoints(out) and image.read_bytes().startswith(b"\x89PNG")
    assert not (out / ".lock").exists()
