"""The shape of the code: imports go down only, one owner for each dependency, small files."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGE = ROOT / "wassily"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the top, by the dotted names below `wassily`. A module may import those of lower rows only
# (of its own row: none). `cli` calls the studio by name.
ROWS = [
    {"__main__"},
    {"studio"},
    {"studio.page"},
    {"studio.page.compare", "studio.page.data", "studio.page.train"},
    {"studio.page.generate"},
    {"studio.command_words"},
    {"api", "commands.demo"},
    {"training.run"},
    {"training.assemble"},
    {"commands.cache", "studio.page.shared", "training.step_log"},
    {
        "commands.sweep",
        "generation.command",
        "planning.plan",
        "studio.generation_queue",
        "training.checkpoints",
        "training.inputs",
        "training.validation",
    },
    {"evaluation.evaluate", "generation.generate", "training.setup", "training_data.extra_sources"},
    {
        "evaluation.validation_scores",
        "generation.conditions",
        "generation.load",
        "training_data.base_predictions",
        "training_data.class_images",
        "training_data.generated_embeddings",
    },
    {"commands.merge", "evaluation.variance_drift", "generation.sample", "studio.data_findings"},
    {
        "cli",
        "commands.data_check",
        "commands.doctor",
        "evaluation.heldout_loss",
        "generation.pipelines",
        "models.adapters",
        "planning.blank_batches",
        "reporting.model_card",
        "reporting.next_command",
        "studio.model_choices",
        "studio.run_status",
        "training.cuda_graphs",
        "training_data.streamed_set",
        "training_data.training_set",
    },
    {
        "config.parsing",
        "data.stream_order",
        "encodings.definitions",
        "encodings.lookup",
        "generation.metadata",
        "models.kinds",
        "models.names",
        "models.trainable",
        "reporting.report",
        "training_data.generic_prompts",
        "training_data.holdout",
    },
    {
        "config.commands",
        "config.evaluation",
        "config.generation",
        "config.launch_checks",
        "data.shards",
        "encodings.fill",
        "models.parts",
        "reporting.run_facts",
        "training.optimizers",
    },
    {"config.training", "data.datasets"},
    {
        "config.training_checks",
        "data.folders",
        "reporting.report_page",
        "training.best",
        "training.loop",
        "training.resume",
        "training.stopping",
        "training.weights",
    },
    {
        "config.generation_checks",
        "config.mistakes",
        "config.source_checks",
        "data.entries",
        "data.png",
        "encodings.cache",
        "mini.judge",
        "models.origins",
        "models.pipeline_folder",
        "reporting.run_log",
        "runtime.accelerator",
        "studio.process",
    },
    {
        "__init__",
        "commands.findings",
        "config.schema",
        "data.example_order",
        "data.images",
        "evaluation.scores",
        "files.atomic",
        "files.disk",
        "files.lock",
        "files.run_state",
        "generation.schedulers",
        "maths.losses",
        "mini.world",
        "models.hub",
        "models.missing",
        "runtime.compile",
        "runtime.launcher",
        "studio.allowed_folders",
        "training.optimizer_state",
    },
    {
        "commands",
        "commands.duplicates",
        "commands.extras",
        "config",
        "config.presets",
        "data",
        "data.aspect_buckets",
        "data.captions",
        "data.colours",
        "data.containers",
        "data.sheets",
        "encodings",
        "errors",
        "evaluation",
        "evaluation.metrics",
        "files",
        "files.checksums",
        "files.output_folder",
        "files.platforms",
        "generation",
        "maths",
        "maths.diffusion",
        "maths.ema",
        "maths.randomness",
        "maths.unpadded_prior",
        "mini",
        "mini.language",
        "mini.scene",
        "mini.untrained",
        "models",
        "models.encode",
        "planning",
        "planning.memory",
        "reporting",
        "reporting.charts",
        "reporting.report_style",
        "runtime",
        "runtime.failures",
        "runtime.fsdp",
        "runtime.loading",
        "runtime.progress",
        "runtime.trackers",
        "studio.texts",
        "training",
        "training_data",
        "version",
    },
]
# `__init__` fetches what it gives when asked for; the words describe a scene, and the scenes are
# told in words.
TYPES_ASIDE = {"__init__", "mini.language"}
RANK = {name: number for number, row in enumerate(ROWS) for name in row}

# Which file alone may import a package; quiet_libraries touches what it quiets.
OWNERS = {
    "accelerate": {"runtime.accelerator"},
    "bitsandbytes": {"config.launch_checks", "config.training", "training.optimizers"},
    "optimi": {"config.launch_checks", "config.training", "training.optimizers"},
    "datasets": {"data.shards", "data.datasets", "runtime.accelerator"},
    "dhash": {"commands.duplicates"},
    "huggingface_hub": {"models.hub"},
    "peft": {"models.adapters"},
    "filelock": {"files.lock"},
    "PIL": {
        "data.colours",
        "data.images",
        "data.png",
        "data.sheets",
        "mini.judge",
        "mini.scene",
        "mini.world",
    },
    "psutil": {"files.platforms"},
    "safetensors": {
        "training.checkpoints",
        "training.optimizer_state",
        "models.pipeline_folder",
        "files.atomic",
    },
    "tyro": {"cli", "config.parsing", "config.commands", "config.generation", "config.training"},
    "wandb": {"runtime.trackers"},
    "trackio": {"runtime.trackers"},
    "mlflow": {"runtime.trackers"},
    "xformers": {"models.trainable", "training.setup", "training_data.training_set"},
    "tqdm": {"runtime.progress"},
}
# diffusers' and transformers' classes have several users, each with a reason.
DIFFUSERS = {
    "models.names",
    "models.parts",
    "generation.pipelines",
    "generation.sample",
    "generation.schedulers",
    "maths.losses",
    "maths.unpadded_prior",
    "config.launch_checks",
    "config.training",
    "training.optimizers",
    "runtime.accelerator",
}
DIFFUSERS |= {"mini.untrained"}
TRANSFORMERS = {"models.names", "models.parts", "runtime.accelerator", "mini.untrained"}


def _name(path: Path) -> str:
    """A module's dotted name below `wassily`, that of a package by its folder: `studio.page`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _path(name: str) -> Path:
    return PACKAGE.joinpath(*name.split(".")).with_suffix(".py")


def _imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, `from a import b` as a.b."""
    tree = ast.parse(path.read_text("utf-8"))
    aside: set[ast.AST] = set()
    if path.is_relative_to(PACKAGE) and _name(path) in TYPES_ASIDE:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                aside |= set(ast.walk(node))
    found: set[str] = set()
    for node in set(ast.walk(tree)) - aside:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _module(name: str) -> str:
    """The module behind a name that is imported: the longest part of it that is one."""
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in RANK:
        parts.pop()
    return ".".join(parts) or "__init__"


def _ours(path: Path) -> set[str]:
    """Modules of wassily that a file imports."""
    return {_module(name) for name in _imports(path) if name.split(".")[0] == "wassily"}


def _packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in _imports(path)}


def _in(room: str, name: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def test_every_file_is_read_under_a_name_of_its_own() -> None:
    """As many names as there are files: none escapes the rules below for lying in a folder."""
    there = [name for _, _, names in os.walk(PACKAGE) for name in names if name.endswith(".py")]
    assert len({_name(path) for path in FILES}) == len(FILES) == len(there)


def test_every_module_has_a_row() -> None:
    """One row: a new file needs a place in the order, and a row does not name what is gone."""
    assert {_name(path) for path in FILES} == set(RANK)
    assert len(RANK) == sum(map(len, ROWS))


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_go_down_only(path: Path) -> None:
    """Imports inside of functions count as well."""
    for other in _ours(path):
        assert RANK[other] > RANK[_name(path)], f"{_name(path)} imports {other}"


def test_one_folder_knows_gradio() -> None:
    """And one module starts processes; nothing else of the studio has a dependency of its own."""
    studio = [path for path in FILES if _in("studio", _name(path))]
    for path in studio:
        used = _packages(path)
        assert not used & {"gradio", "starlette"} or _in("studio.page", _name(path)), path
        assert "subprocess" not in used or _name(path) == "studio.process"
        assert not used & {*OWNERS, "torch", "diffusers", "transformers"}, path
    assert any("gradio" in _packages(path) for path in studio)


def test_the_bundled_model_is_a_guest() -> None:
    """Only the demo knows its pictures; it knows nothing of training."""
    for path in FILES:
        mini = {other for other in _ours(path) if _in("mini", other)}
        if _in("mini", _name(path)):
            assert _ours(path) - mini <= {"errors", "__init__"}, path.name
        else:
            assert not mini or _name(path) == "commands.demo", path.name


@pytest.mark.parametrize("package", OWNERS)
def test_one_owner_for_each_dependency(package: str) -> None:
    """When upstream moves, one file moves."""
    users = {_name(path) for path in FILES if package in _packages(path)}
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
    assert {_name(p) for p in FILES if "diffusers" in _packages(p)} <= DIFFUSERS
    assert {_name(p) for p in FILES if "transformers" in _packages(p)} <= TRANSFORMERS


def test_the_loop_names_no_network() -> None:
    """If a line of train.py names the prior, it is in the wrong file."""
    text = _path("training.loop").read_text("utf-8").lower()
    for word in ("prior", "decoder", "unet", "movq", "clip_mean", "lora"):
        assert word not in text, word


def test_the_maths_imports_only_torch() -> None:
    """diffusion and ema are pure; draws and measures have numpy."""
    allowed = {"torch", "numpy", "__future__", "collections", "contextlib", "dataclasses", "math"}
    for name in ("maths.diffusion", "maths.randomness", "maths.ema", "evaluation.metrics"):
        assert _packages(_path(name)) <= allowed, name


def test_the_way_to_a_checked_config_is_light() -> None:
    """cli, the configs and what they rest on import nothing of ours or others' that is heavy, at
    the top or in their functions.
    """
    light = {
        "cli",
        "config.parsing",
        "config.commands",
        "config.generation",
        "config.evaluation",
        "config.training",
        "config.generation_checks",
        "config.training_checks",
        "config.presets",
        "config.schema",
        "config.mistakes",
    }
    light |= {"errors", "runtime.loading", "config.source_checks"}
    for name in light:
        heavy = {"torch", "numpy", "diffusers", "transformers", "accelerate", "datasets", "PIL"}
        assert not _packages(_path(name)) & heavy, name
        assert _ours(_path(name)) <= light - {"cli"} | {"__init__"}, name


@pytest.mark.parametrize("path", FILES, ids=_name)
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


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_what_is_public_says_what_it_is(path: Path) -> None:
    """A docstring each, and types all through."""
    for node in _public(ast.parse(path.read_text("utf-8"))):
        assert ast.get_docstring(node), f"{_name(path)}.{node.name}"
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, f"{_name(path)}.{node.name}"


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
