"""The shape of the code: rooms whose imports go down only, one owner of each dependency, sizes."""

from __future__ import annotations

import ast
import importlib
import os
import re
from pathlib import Path

import pytest
from helpers import ROOT

import wassily
from tools import architecture
from tools.architecture import FILES, NAMES, PACKAGE
from wassily import cli

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


def _packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in architecture.imports(path)}


def test_every_file_is_read_under_a_name_of_its_own() -> None:
    """As many names as there are files: none escapes the rules below for lying in a folder."""
    there = [name for _, _, names in os.walk(PACKAGE) for name in names if name.endswith(".py")]
    assert len(NAMES) == len(FILES) == len(there)


def test_every_file_is_in_a_room() -> None:
    """A new room needs a line in the table; each has an `__init__.py`, a docstring and no code."""
    assert {architecture.room_of(name) for name in NAMES} == set(ROOMS) | set(TOPS)
    for room in ROOMS:
        body = architecture.tree(PACKAGE / room / "__init__.py").body
        assert ast.get_docstring(architecture.tree(PACKAGE / room / "__init__.py")), room
        assert len(body) == 1, f"{room}/__init__.py holds code"


@pytest.mark.parametrize("room", [*ROOMS, *TOPS])
def test_the_arrows_are_those_of_the_table(room: str) -> None:
    """None too many and none of yesterday."""
    assert architecture.arrows()[room] == set((ROOMS | TOPS)[room].split())


def test_imports_go_down_only() -> None:
    """In the order of the table, so there is no circle of rooms; nothing imports the pages."""
    before: set[str] = set()
    for room, others in ROOMS.items():
        assert set(others.split()) <= before, room
        before.add(room)
    assert not any("pages" in others.split() for others in [*ROOMS.values(), *TOPS.values()])


def test_files_import_one_another_in_one_direction() -> None:
    """No circle of files, inside of a room either; what types alone need makes none."""
    open_ = {
        architecture.name_of(path): architecture.ours(path, types=False)
        - {architecture.name_of(path)}
        for path in FILES
    }
    # A module in a package that imports a sibling does not import what imports it: the package.
    for name, others in open_.items():
        others -= {other for other in others if name.startswith(f"{other}.")}
    while free := {name for name, others in open_.items() if not others & open_.keys()}:
        open_ = {name: others for name, others in open_.items() if name not in free}
    assert not open_, {name: sorted(others & open_.keys()) for name, others in open_.items()}


def test_one_folder_knows_gradio() -> None:
    """And one module starts processes; nothing else of the studio has a dependency of its own."""
    studio = [
        path
        for path in FILES
        if architecture.room_of(architecture.name_of(path)) in ("studio", "pages")
    ]
    for path in studio:
        used = _packages(path)
        room = architecture.room_of(architecture.name_of(path))
        assert not used & {"gradio", "starlette"} or room == "pages", path
        assert "subprocess" not in used or architecture.name_of(path) == "studio.process"
        assert not used & {*OWNERS, "torch", "diffusers", "transformers"}, path
    assert any("gradio" in _packages(path) for path in studio)


def test_the_bundled_model_is_a_guest() -> None:
    """Only the demo knows its images."""
    users = {
        architecture.name_of(path)
        for path in FILES
        if any(architecture.room_of(o) == "mini" for o in architecture.ours(path))
    }
    assert {name for name in users if architecture.room_of(name) != "mini"} == {"commands.demo"}


@pytest.mark.parametrize("package", OWNERS)
def test_one_owner_for_each_dependency(package: str) -> None:
    """When upstream moves, one file moves."""
    assert {architecture.name_of(path) for path in FILES if package in _packages(path)} <= OWNERS[
        package
    ]


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
    assert {architecture.name_of(p) for p in FILES if "diffusers" in _packages(p)} <= DIFFUSERS
    assert {
        architecture.name_of(p) for p in FILES if "transformers" in _packages(p)
    } <= TRANSFORMERS


def test_the_config_of_a_training_stops_above_the_plain_rooms() -> None:
    """They take values, and so serve every command."""
    for path in FILES:
        if architecture.room_of(architecture.name_of(path)) in PLAIN:
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
    pure = [path for path in FILES if architecture.room_of(architecture.name_of(path)) == "maths"]
    for path in [*pure, PACKAGE / "evaluation" / "metrics.py"]:
        classes = {"diffusers"} if architecture.name_of(path) in DIFFUSERS else set()
        assert _packages(path) <= allowed | classes, path


def test_the_way_to_a_checked_config_is_light() -> None:
    """The command line and the configs import nothing that is heavy, at the top or in functions."""
    heavy = {"torch", "numpy", "diffusers", "transformers", "accelerate", "datasets", "PIL"}
    light = [
        path
        for path in FILES
        if architecture.room_of(architecture.name_of(path))
        in ("cli", "config", "errors", "loading", "version")
    ]
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


@pytest.mark.parametrize("page", architecture.READMES, ids=lambda page: page.name)
def test_the_readme_lists_the_rooms(page: Path) -> None:
    """With the first lines of their docstrings, and with as many of its own in Arabic."""
    text, arabic = page.read_text("utf-8"), page.name == "README.ar.md"
    assert text == architecture.with_list(text, arabic), "run python -m tools.architecture"
    listed = text.partition(architecture.BEGIN)[2].partition(architecture.END)[0].splitlines()[3:-1]
    assert len(listed) == len(ROOMS | TOPS)
    if arabic:
        assert [line for line in listed if not re.search("[؀-ۿ]", line)] == []


def test_a_list_of_yesterday_is_noticed() -> None:
    """An old line, a room that is gone and a missing one; the Arabic words of a room stay."""
    now = architecture.with_list(f"a{architecture.BEGIN}{architecture.END}z")
    old = re.sub("  maths/.*\n", "  gone/  x\n", now).replace("  data/ ", "  data/  بيانات ")
    assert architecture.with_list(old) == now != old
    assert "  data/           بيانات" in architecture.with_list(old, arabic=True)


def test_the_drawing_is_fresh() -> None:
    """What the tool makes of the imports is what is there."""
    fresh = architecture.DRAWING.read_text("utf-8") == architecture.svg(architecture.shown())
    assert fresh, "run python -m tools.architecture"


def test_the_drawing_is_readable() -> None:
    """No box or passing arrow lies in another, and none outside of a page's width."""
    at = architecture.places(architecture.shown())
    edges = {place: (x - _half(place), x + _half(place)) for place, x in at.items()}
    for place, (left, right) in edges.items():
        assert 0 < left <= right < 1200
        for other, (begin, end) in edges.items():
            assert place == other or place[1] != other[1] or right < begin or end < left


def _half(place: tuple[str, int]) -> float:
    """Half of the width that a label of 13 px takes, 7.9 px a letter; a passing arrow has none."""
    return 0 if " " in place[0] else (len(place[0]) + 3) * 7.9 / 2


def test_what_the_drawing_leaves_out_is_implied() -> None:
    """Going along the arrows that are drawn reaches the same rooms as going along all."""
    graph, drawn = architecture.arrows(), architecture.reduced(architecture.arrows())

    def reached(name: str, by: architecture.Graph) -> set[str]:
        return set(by[name]).union(*(reached(other, by) for other in by[name]))

    assert {name: reached(name, graph) for name in graph} == {n: reached(n, drawn) for n in graph}
    assert sum(map(len, drawn.values())) < sum(map(len, graph.values()))


@pytest.mark.parametrize("path", FILES, ids=architecture.name_of)
def test_no_file_is_long(path: Path) -> None:
    """400 lines at most; each begins with what it is for."""
    assert len(path.read_text("utf-8").splitlines()) <= 400
    assert ast.get_docstring(architecture.tree(path)), "no docstring"


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


@pytest.mark.parametrize("path", FILES, ids=architecture.name_of)
def test_what_is_public_says_what_it_is(path: Path) -> None:
    """A docstring each, and types all through."""
    for node in _public(architecture.tree(path)):
        assert ast.get_docstring(node), f"{architecture.name_of(path)}.{node.name}"
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, f"{architecture.name_of(path)}.{node.name}"


def test_nothing_is_pickled_or_switched_off() -> None:
    """No pickle, no torch.save or torch.load, no eval, no shell, no trust in remote code."""
    # The word alone stands in the message that refuses one.
    forbidden = ("import pickle", "pickle.", "torch.save", "torch.load", "eval(", "exec(")
    forbidden += ("os.system", "shell=True", "trust_remote_code")
    for path in FILES:
        code = ast.unparse(_without_docstrings(path)).replace(".eval(", "")
        for word in forbidden:
            assert word not in code, f"{architecture.name_of(path)}: {word}"


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
        assert architecture.ours(path) == {"cli"}
