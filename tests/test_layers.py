"""The shape of the code: imports go down only, one owner for each dependency, small files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGE = ROOT / "wassily"
FILES = sorted(PACKAGE.glob("*.py"))

# From the top. A module may import those of lower rows only (of its own row: none).
ROWS = [
    {"__main__"},
    {"cli"},
    {"demo", "sweep"},
    {"api"},
    {"evaluation", "drawing"},
    {"run", "prefill", "generate", "merge", "doctor"},
    {"assemble"},
    {"plan", "skipped", "validations"},
    {"saving"},
    {"sizes"},
    {"load", "results", "tasks", "notes"},
    {"material", "start"},
    {"drift", "sides", "gauge", "pairs", "report"},
    {"summary", "streaming"},
    {"heldout", "preserve", "drawn"},
    {"recipes"},
    {"encoders"},
    {"dreambooth", "weights"},
    {"graphs", "turns"},
    {"adapt", "card", "encodings", "lanes", "lists", "page", "sample", "train"},
    {"about", "kinds"},
    {"archives", "best", "cache", "faults", "logbook", "models", "stopping"},
    {"origins"},
    {
        "checkpoint",
        "commands",
        "compiled",
        "data",
        "ema",
        "encode",
        "findings",
        "hub",
        "measuring",
        "memory",
        "objectives",
        "optim",
        "runtime",
        "schedulers",
        "stream",
    },
    {
        "shards",
        "engine",
        "unpadded",
        "manifest",
        "lock",
        "diffusion",
        "draws",
        "buckets",
        "folders",
        "config",
        "captions",
        "scores",
    },
    {"entries"},
    {"lookalikes", "pictures", "progress", "sheets", "trackers"},
    {"checks", "colours", "containers", "curves", "measures", "run_state", "style", "words"},
    {"presets", "sourcing", "outputs", "extras"},
    {"schema", "platforms"},
    {"errors", "__init__"},
    {"loading"},
]
# Those of wassily/studio, likewise; all of them are above every row but the first. `cli` calls them
# by name.
STUDIO = PACKAGE / "studio"
STUDIO_FILES = sorted(STUDIO.rglob("*.py"))
STUDIO_ROWS = [
    {"studio"},
    {"page"},
    {"compare", "train", "data"},
    {"draw"},
    {"parts"},
    {"watch"},
    {"easel", "looks", "process", "shelf"},
    {"fence", "form", "words"},
]
RANK = {name: number for number, row in enumerate(ROWS) for name in row}

# Which file alone may import a package; quiet_libraries touches what it quiets.
OWNERS = {
    "accelerate": {"runtime"},
    "bitsandbytes": {"optim"},
    "optimi": {"optim"},
    "datasets": {"archives", "data", "runtime"},
    "dhash": {"lookalikes"},
    "huggingface_hub": {"hub"},
    "peft": {"adapt"},
    "filelock": {"lock"},
    "PIL": {"colours", "pictures", "sheets"},
    "psutil": {"platforms"},
    "safetensors": {"checkpoint"},
    "tyro": {"cli", "commands", "config"},
    "wandb": {"trackers"},
    "trackio": {"trackers"},
    "mlflow": {"trackers"},
    "xformers": {"recipes"},
    "tqdm": {"progress"},
}
# diffusers' and transformers' classes have several users, each with a reason.
DIFFUSERS = {"models", "sample", "schedulers", "objectives", "unpadded", "optim", "runtime"}
TRANSFORMERS = {"models", "runtime"}


def _imports(path: Path, everywhere: bool = True) -> set[str]:
    """Dotted names that a file imports, `from a import b` as a.b; with or without those inside of
    functions.
    """
    tree = ast.parse(path.read_text("utf-8"))
    if (
        path == PACKAGE / "__init__.py"
    ):  # what it tells type checkers alone is fetched when asked for
        tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and _for_types(n))]
    found: set[str] = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _for_types(node: ast.If) -> bool:
    return ast.unparse(node.test) == "TYPE_CHECKING"


def _ours(path: Path, everywhere: bool = True) -> set[str]:
    """Modules of wassily that a file imports; sub-packages by their first name."""
    found = set()
    for name in _imports(path, everywhere):
        first, *rest = name.split(".")
        if first == "wassily":
            found.add(rest[0] if rest and (rest[0] in RANK or rest[0] == "mini") else "__init__")
    return found


def _packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in _imports(path)}


def test_every_module_has_a_row() -> None:
    """A new file needs a place in the order, and a row does not name what is gone."""
    assert {path.stem for path in FILES} == set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_go_down_only(path: Path) -> None:
    """Imports inside of functions count as well."""
    for other in _ours(path) - {"mini"}:
        assert RANK[other] > RANK[path.stem], f"{path.stem} imports {other}"


def _of_studio(path: Path) -> str:
    """A module's name in STUDIO_ROWS."""
    return path.parent.name if path.stem == "__init__" else path.stem


def _studio_imports(path: Path) -> set[str]:
    """Modules of the studio that a file imports."""
    names = [name.split(".") for name in _imports(path) if name.startswith("wassily.studio")]
    known = set().union(*STUDIO_ROWS) - {"studio"}
    return {part for name in names for part in name[2:] if part in known}


def test_the_studio_is_on_top() -> None:
    """Each of its modules has a row and imports lower ones; nothing else imports any of them."""
    rank = {name: number for number, row in enumerate(STUDIO_ROWS) for name in row}
    assert {_of_studio(path) for path in STUDIO_FILES} == set(rank)
    for path in STUDIO_FILES:
        for other in _studio_imports(path) - {_of_studio(path)}:
            if path.stem == "__init__" or other != "page":  # a page is in the package `page`
                assert rank[other] > rank[_of_studio(path)], f"{path} imports {other}"
        assert "__main__" not in _ours(path)
    for path in FILES:
        assert not any(name.startswith("wassily.studio") for name in _imports(path)), path.stem


def test_one_folder_knows_gradio() -> None:
    """And one module starts processes; nothing else of the studio has a dependency of its own."""
    for path in STUDIO_FILES:
        used = _packages(path)
        assert not used & {"gradio", "starlette"} or path.parent == STUDIO / "page", path
        assert "subprocess" not in used or path == STUDIO / "process.py"
        assert not used & {*OWNERS, "torch", "diffusers", "transformers"}, path
    assert any("gradio" in _packages(path) for path in STUDIO_FILES)


def test_the_bundled_model_is_a_guest() -> None:
    """Only the demo knows its pictures; it knows nothing of training."""
    assert {path.stem for path in FILES if "mini" in _ours(path)} <= {"demo"}
    for path in (PACKAGE / "mini").rglob("*.py"):
        assert _ours(path) <= {"mini", "errors", "__init__"}, path.name


@pytest.mark.parametrize("package", OWNERS)
def test_one_owner_for_each_dependency(package: str) -> None:
    """When upstream moves, one file moves."""
    users = {path.stem for path in FILES if package in _packages(path)}
    assert users <= OWNERS[package]


def test_owners_own() -> None:
    """The table is not of yesterday: what must be there is there."""
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


def test_model_libraries_stay_with_those_who_name_classes() -> None:
    """The loop, the data and the checkpoints would serve another model."""
    assert {p.stem for p in FILES if "diffusers" in _packages(p)} <= DIFFUSERS
    assert {p.stem for p in FILES if "transformers" in _packages(p)} <= TRANSFORMERS


def test_the_loop_names_no_network() -> None:
    """If a line of train.py names the prior, it is in the wrong file."""
    text = (PACKAGE / "train.py").read_text("utf-8").lower()
    for word in ("prior", "decoder", "unet", "movq", "clip_mean", "lora"):
        assert word not in text, word


def test_the_maths_imports_only_torch() -> None:
    """diffusion and ema are pure; draws and measures have numpy."""
    allowed = {"torch", "numpy", "__future__", "collections", "contextlib", "dataclasses", "math"}
    for name in ("diffusion", "draws", "ema", "measures"):
        assert _packages(PACKAGE / f"{name}.py") <= allowed, name


def test_the_way_to_a_checked_config_is_light() -> None:
    """cli, the configs and what they rest on import nothing of ours or others' that is heavy, at
    the top or in their functions.
    """
    light = {"cli", "commands", "measuring", "config", "checks", "presets", "schema", "words"}
    light |= {"errors", "loading", "sourcing"}
    for name in light:
        heavy = {"torch", "numpy", "diffusers", "transformers", "accelerate", "datasets", "PIL"}
        assert not _packages(PACKAGE / f"{name}.py") & heavy, name
        assert _ours(PACKAGE / f"{name}.py") <= light - {"cli"} | {"__init__"}, name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_file_is_long(path: Path) -> None:
    """400 lines at most; each begins with what it is for."""
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)) or not text.strip(), "no docstring"


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


@pytest.mark.parametrize("path", FILES + STUDIO_FILES, ids=lambda path: path.stem)
def test_what_is_public_says_what_it_is(path: Path) -> None:
    """A docstring each, and types all through."""
    for node in _public(ast.parse(path.read_text("utf-8"))):
        assert ast.get_docstring(node), f"{path.stem}.{node.name}"
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, f"{path.stem}.{node.name}"


def test_nothing_is_pickled_or_switched_off() -> None:
    """No pickle, no torch.save or torch.load, no eval, no shell, no trust in remote code."""
    # The word alone stands in the message that refuses one.
    forbidden = ("import pickle", "pickle.", "torch.save", "torch.load", "eval(", "exec(")
    forbidden += ("os.system", "shell=True", "trust_remote_code")
    for path in FILES:
        code = "\n".join(
            line for line in ast.unparse(_without_docstrings(path)).splitlines()
        ).replace(".eval(", "")
        for word in forbidden:
            assert word not in code, f"{path.stem}: {word}"


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
