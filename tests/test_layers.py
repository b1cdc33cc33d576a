"""The shape of the code: rooms whose imports go down only, one owner of each dependency, sizes."""

from __future__ import annotations

import ast
import importlib
import os
import re
from functools import cache
from pathlib import Path

import pytest
from helpers import ROOT

import wassily
from wassily import cli

PACKAGE = ROOT / "wassily"
FILES = sorted(PACKAGE.rglob("*.py"))

# Room -> the rooms that it imports, from the ground up. A room imports rooms above it in this table
# only. The table is exact both ways: an import too many fails, and so does an entry without one.
ROOMS = {
    "maths": "",
    "files": "",
    "config": "files",
    "runtime": "",
    "mini": "",
    "sources": "files",
    "data": "files maths sources",
    "models": "config files maths",
    "encodings": "config data files maths models runtime",
    "generation": "config data files maths models runtime",
    "reporting": "config data files models",
    "training_data": "config data encodings files generation maths models runtime",
    "planning": "config maths models runtime training_data",
    "evaluation": "config data encodings files generation maths models runtime training_data",
    "training": (
        "config data encodings evaluation files generation maths models planning"
        " reporting runtime training_data"
    ),
    "commands": (
        "config data encodings evaluation files generation mini models planning"
        " reporting runtime training training_data"
    ),
    "studio": "commands config data files generation models reporting runtime",
    "pages": "commands config data files generation studio",
}
# The modules without a room; `cli` and `__init__` name what they call by strings.
TOPS = {
    "__init__": "",
    "__main__": "cli",
    "api": "config data evaluation generation runtime training",
    "cli": "config",
    "errors": "",
    "loading": "",
    "version": "",
}
OPEN = {"errors", "loading", "version"}  # to everybody

# Which file alone may import a package; the accelerator also touches what it quiets.
OWNERS = {
    "accelerate": {"runtime.accelerator"},
    "bitsandbytes": {"training.optimizers"},
    "aiohttp": {"sources.connections"},
    "datasets": {
        "data.datasets",
        "data.shards",
        "sources.connections",
        "sources.own_files",
        "sources.tars",
    },
    "dhash": {"commands.duplicates"},
    "filelock": {"files.lock"},
    "huggingface_hub": {"models.hub"},
    "mlflow": {"runtime.trackers"},
    "optimi": {"training.optimizers"},
    "peft": {"models.adapters"},
    "PIL": {
        *("data.colours", "data.decoding", "data.images", "data.png", "data.sheets"),
        *("mini.judge", "mini.world"),
    },
    "psutil": {"files.platforms"},
    "safetensors": {"files.atomic", "training.optimizer_state"},
    "tqdm": {"runtime.progress"},
    "trackio": {"runtime.trackers"},
    "tyro": {"config.commands", "config.generation", "config.parsing", "config.training"},
    "wandb": {"runtime.trackers"},
    "xformers": {"training.setup"},
    "yaml": {"files.reading", "sources.own_files"},
}
# The classes of diffusers and transformers have several users, each with a reason.
DIFFUSERS = {
    "generation.pipelines",
    "generation.sample",
    "generation.schedulers",
    "maths.losses",
    "maths.unpadded_prior",
    "mini.untrained",
    "models.parts",
    "runtime.accelerator",
    "training.optimizers",
}
TRANSFORMERS = {"mini.untrained", "runtime.accelerator"}

# Rooms that take values, not the config of a training.
PLAIN = {"maths", "files", "runtime", "data", "generation"}


def _name(path: Path) -> str:
    """A module's dotted name below `wassily`, that of a package by its folder: `studio.page`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


NAMES = {_name(path) for path in FILES}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _imports(path: Path, types: bool = True) -> set[str]:
    """Dotted names that a file imports anywhere, `from a import b` as a.b; with or without those
    for type checkers alone.
    """
    aside: set[ast.AST] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
            aside |= {inner for child in node.body for inner in ast.walk(child)}
    found: set[str] = set()
    for node in set(ast.walk(_tree(path))) - aside:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _module(name: str) -> str:
    """The module behind a name that is imported: the longest part of it that is one."""
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in NAMES:
        parts.pop()
    return ".".join(parts) or "__init__"


def _ours(path: Path, types: bool = True) -> set[str]:
    """Modules of wassily that a file imports."""
    names = {name for name in _imports(path, types) if name.split(".")[0] == "wassily"}
    return {_module(name) for name in names}


def _packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in _imports(path)}


def _room(name: str) -> str:
    return name.split(".")[0]


def _arrows() -> dict[str, set[str]]:
    """Room or top module -> those that it imports, in functions and for types as well."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        room = _room(_name(path))
        # What `import wassily` gives is fetched when asked for: those of its types are no imports.
        others = {_room(other) for other in _ours(path, types=room != "__init__")}
        found.setdefault(room, set()).update(others - {room} - OPEN)
    return found


def test_every_file_is_read_under_a_name_of_its_own() -> None:
    """As many names as there are files: none escapes the rules below for lying in a folder."""
    there = [name for _, _, names in os.walk(PACKAGE) for name in names if name.endswith(".py")]
    assert len(NAMES) == len(FILES) == len(there)


def test_every_file_is_in_a_room() -> None:
    """A new room needs a line in the table; each has an `__init__.py`, a docstring and no code."""
    assert {_room(name) for name in NAMES} == set(ROOMS) | set(TOPS)
    for room in ROOMS:
        body = _tree(PACKAGE / room / "__init__.py").body
        assert ast.get_docstring(_tree(PACKAGE / room / "__init__.py")), room
        assert len(body) == 1, f"{room}/__init__.py holds code"


@pytest.mark.parametrize("room", [*ROOMS, *TOPS])
def test_the_arrows_are_those_of_the_table(room: str) -> None:
    """None too many and none of yesterday."""
    assert _arrows()[room] == set((ROOMS | TOPS)[room].split())


def test_imports_go_down_only() -> None:
    """In the order of the table, so there is no circle of rooms; nothing imports the pages."""
    before: set[str] = set()
    for room, others in ROOMS.items():
        assert set(others.split()) <= before, room
        before.add(room)
    assert not any("pages" in others.split() for others in [*ROOMS.values(), *TOPS.values()])


def test_files_import_one_another_in_one_direction() -> None:
    """No circle of files, inside of a room either; what types alone need makes none."""
    open_ = {_name(path): _ours(path, types=False) - {_name(path)} for path in FILES}
    # A module in a package that imports a sibling does not import what imports it: the package.
    for name, others in open_.items():
        others -= {other for other in others if name.startswith(f"{other}.")}
    while free := {name for name, others in open_.items() if not others & open_.keys()}:
        open_ = {name: others for name, others in open_.items() if name not in free}
    assert not open_, {name: sorted(others & open_.keys()) for name, others in open_.items()}


def test_one_folder_knows_gradio() -> None:
    """And one module starts processes; nothing else of the studio has a dependency of its own."""
    studio = [path for path in FILES if _room(_name(path)) in ("studio", "pages")]
    for path in studio:
        used = _packages(path)
        assert not used & {"gradio", "starlette"} or _room(_name(path)) == "pages", path
        assert "subprocess" not in used or _name(path) == "studio.process"
        assert not used & {*OWNERS, "torch", "diffusers", "transformers"}, path
    assert any("gradio" in _packages(path) for path in studio)


def test_the_bundled_model_is_a_guest() -> None:
    """Only the demo knows its images."""
    users = {_name(path) for path in FILES if any(_room(o) == "mini" for o in _ours(path))}
    assert {name for name in users if _room(name) != "mini"} == {"commands.demo"}


@pytest.mark.parametrize("package", OWNERS)
def test_one_owner_for_each_dependency(package: str) -> None:
    """When upstream moves, one file moves."""
    assert {_name(path) for path in FILES if package in _packages(path)} <= OWNERS[package]


def test_owners_own() -> None:
    """The table is not of yesterday: what must be there is there, and owners exist."""
    for package in (
        "accelerate",
        "datasets",
        "filelock",
        "huggingface_hub",
        "PIL",
        "safetensors",
        "tyro",
    ):
        assert any(package in _packages(path) for path in FILES), package
    assert set().union(*OWNERS.values(), DIFFUSERS, TRANSFORMERS) <= NAMES


def test_model_libraries_stay_with_those_who_name_classes() -> None:
    """The loop, the data and the checkpoints would serve another model."""
    assert {_name(p) for p in FILES if "diffusers" in _packages(p)} <= DIFFUSERS
    assert {_name(p) for p in FILES if "transformers" in _packages(p)} <= TRANSFORMERS


def test_the_config_of_a_training_stops_above_the_plain_rooms() -> None:
    """They take values, and so serve every command."""
    for path in FILES:
        if _room(_name(path)) in PLAIN:
            assert not re.search(r"\bTrainConfig\b", ast.unparse(_without_docstrings(path))), path


def test_the_loop_names_no_network() -> None:
    """If a line of the loop names the prior, it is in the wrong file."""
    text = (PACKAGE / "training" / "loop.py").read_text("utf-8").lower()
    for word in ("prior", "decoder", "unet", "movq", "clip_mean", "lora"):
        assert word not in text, word


def test_the_maths_imports_only_torch() -> None:
    """Pure: torch and numpy; the two files that hold a network name its class."""
    allowed = {"torch", "numpy", "__future__", "collections", "contextlib", "dataclasses", "math"}
    allowed |= {"typing", "functools", "wassily"}
    pure = [path for path in FILES if _room(_name(path)) == "maths"]
    for path in [*pure, PACKAGE / "evaluation" / "metrics.py"]:
        classes = {"diffusers"} if _name(path) in DIFFUSERS else set()
        assert _packages(path) <= allowed | classes, path


def test_the_way_to_a_checked_config_is_light() -> None:
    """The command line and the configs import nothing that is heavy, at the top or in functions."""
    heavy = {"torch", "numpy", "diffusers", "transformers", "accelerate", "datasets", "PIL"}
    light_rooms = ("cli", "config", "errors", "loading", "version")
    light = [path for path in FILES if _room(_name(path)) in light_rooms]
    for path in [*light, PACKAGE / "models" / "missing.py"]:
        assert not _packages(path) & heavy, path


def test_verbs_and_homes_are_there() -> None:
    """What is named by a string is found: the function of each command, the home of each name."""
    for _, target in cli.VERBS.values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function)), target
    for name in wassily.__all__:
        home = importlib.import_module(f"wassily.{wassily._HOMES.get(name, 'api')}")  # type: ignore[attr-defined]
        assert hasattr(home, name), name


@pytest.mark.parametrize("page", ["README.md", "README.ar.md"])
def test_the_readme_lists_the_rooms(page: str) -> None:
    """Each room with a line of its own, in both languages, and none that is gone; the English one
    says what the docstring of the room says.
    """
    text = (ROOT / page).read_text("utf-8")
    tree = re.search(r"^wassily/\n((?: {2}.*\n)+)", text, re.M)
    assert tree, page
    listed = dict(re.findall(r"^ {2}(\w+)/ +(.+?)$", tree[1], re.M))
    assert set(listed) == set(ROOMS)
    if page == "README.md":
        for room, said in listed.items():
            first = (ast.get_docstring(_tree(PACKAGE / room / "__init__.py")) or "").splitlines()[0]
            assert first.rstrip(".") == said.rstrip("."), room


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_no_file_is_long(path: Path) -> None:
    """400 lines at most; each begins with what it is for."""
    assert len(path.read_text("utf-8").splitlines()) <= 400
    assert ast.get_docstring(_tree(path)), "no docstring"


def test_no_room_is_large() -> None:
    """2,800 lines at most, the texts of the studio in both languages included."""
    for room in ROOMS:
        lines = sum(len(p.read_text("utf-8").splitlines()) for p in (PACKAGE / room).rglob("*.py"))
        assert lines <= 2800, f"{room}: {lines}"


def _public(tree: ast.Module) -> list[ast.FunctionDef | ast.ClassDef]:
    found: list[ast.FunctionDef | ast.ClassDef] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            found.append(node)
            if isinstance(node, ast.ClassDef):
                found += [
                    n
                    for n in node.body
                    if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")
                ]
    return found


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_what_is_public_says_what_it_is(path: Path) -> None:
    """A docstring each, and types all through."""
    for node in _public(_tree(path)):
        assert ast.get_docstring(node), f"{_name(path)}.{node.name}"
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, f"{_name(path)}.{node.name}"


def test_nothing_is_pickled_or_switched_off() -> None:
    """No pickle, no torch.save or torch.load, no eval, no shell, no trust in remote code."""
    # The word alone stands in the message that refuses one.
    forbidden = ("import pickle", "pickle.", "torch.save", "torch.load", "eval(", "exec(")
    forbidden += ("os.system", "shell=True", "trust_remote_code")
    for path in FILES:
        code = ast.unparse(_without_docstrings(path)).replace(".eval(", "")
        for word in forbidden:
            assert word not in code, f"{_name(path)}: {word}"


def _without_docstrings(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def test_scripts_of_the_guide_are_a_few_lines() -> None:
    """They name the verb and nothing else."""
    for verb in ("prior", "decoder"):
        path = ROOT / f"train_text_to_image_{verb}.py"
        assert len(path.read_text("utf-8").splitlines()) <= 10
        assert _ours(path) == {"cli"}
