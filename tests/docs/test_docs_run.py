"""The commands and snippets of the documentation, run from the first of a page to its last, in both
languages, on small models and with few steps: `make docs-test`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pages
import pytest
import torch
from e2e import wassily
from helpers import ROOT, run_command, write_photos
from shell_lines import (
    HUB,
    SCRIPTS,
    Command,
    Small,
    both_languages,
    launched,
    made_small,
    make_room,
)

from wassily.mini.untrained import Tiny

pytestmark = [pytest.mark.docs, pytest.mark.timeout(600)]

# What is not run here, and why; test_docs_commands.py takes it as far as it goes without.
NOT_RUN = {
    "pip install": "changes the environment; `make package` installs into an empty one",
    "make": "each target is what it runs: tests, the demo, the benchmarks",
    "hf auth login": "asks for a token",
    "wandb login": "asks for a token",
    "tensorboard": "serves until it is stopped",
    "wassily studio": "serves until it is stopped; tests/browser has it",
    "ssh": "wants another machine",
    "accelerate config default": "run by test_the_settings_of_accelerate",
    "accelerate config": "asks questions",
    "accelerate launch --multi_gpu": "wants GPUs; tests/test_processes.py has two processes",
    "accelerate launch --use_fsdp": "wants eight GPUs; tests/test_processes.py has two processes",
    "torchrun --nproc_per_node 8": "wants eight GPUs; tests/test_processes.py has two processes",
    "accelerate launch train_text_to_image_prior.py": "shows one flag and names no pictures",
    "python -m benchmarks.experiments": "takes hours; tests/test_benchmarks.py has small ones",
    "python -m tools.mini.prompts": "judges pictures of real trainings; tests/mini/test_judge.py",
}
RUN_ON_TWO = "accelerate launch --multi_gpu --num_processes 2"
# Pages whose commands are run elsewhere, on what only that test makes.
ELSEWHERE = {"drawing.md", "dreambooth.md", "streaming.md", "lora.md"}
PAGES = [p for p in pages.english_pages() if p.name not in ELSEWHERE and both_languages(p)]
# What the commands of a page go on from.
PRIOR = ("wassily", "train", "prior", "--train_data_dir", "pics", "--output_dir", "runs/prior")
BEFORE = {"guide.md": [PRIOR]}
MINI = {"evaluating.md"}  # compares with mini, so it trains mini


def not_run(command: Command) -> bool:
    """Whether there is a reason not to run it here."""
    text = " ".join(command.words)
    return not text.startswith(RUN_ON_TWO) and any(text.startswith(start) for start in NOT_RUN)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with pictures, data sets and the other files that the pages name."""
    import datasets

    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "pics", range(7))
    write_photos(tmp_path / "kept", range(7, 9))
    write_photos(tmp_path / "elsewhere", range(7))  # data sets name their pictures by path
    table = datasets.load_dataset("imagefolder", data_dir="elsewhere", split="train", cache_dir="c")
    Path("foxes-parquet").mkdir()
    table.to_parquet("foxes-parquet/train-00000.parquet")
    table.save_to_disk("foxes")
    for name in ("prompts.txt", "my_prompts.txt"):
        Path(name).write_text("a fox\na cat\n", "utf-8")
    for script in SCRIPTS:
        Path(script).symlink_to(ROOT / script)
    (toml,) = (code for kind, code in pages.blocks(pages.DOCS / "guide.md") if kind == "toml")
    Path("fox.toml").write_text(toml, "utf-8")
    return tmp_path


def _small(page: Path, tiny: Tiny) -> Small:
    stand_ins = {"lambdalabs/naruto-blip-captions": "foxes", "your-name/foxes": "foxes"}
    named = {
        f"--dataset_name={name}": f"--dataset_name={folder}" for name, folder in stand_ins.items()
    }
    if page.name in MINI:
        return Small("mini", "mini", stand_ins | named)
    return Small(str(tiny.prior), str(tiny.decoder), stand_ins | named)


def _run(command: Command, small: Small) -> None:
    """One command, made small; what a launcher starts is run by the launcher."""
    inner = launched(command.words)
    words = made_small(inner or command.words[1:], small)
    make_room(words)
    if inner is None:
        assert command.words[0] == "wassily", command.text
        done = wassily(*words)
        assert done.code == 0, f"{command.text}\n{words}\n{done.text}"
        return
    start = command.words[: len(command.words) - len(inner)]
    if command.words[-len(inner) - 1] not in SCRIPTS and "-m" not in start:
        start = command.words[
            : command.words.index(next(w for w in command.words if w in SCRIPTS)) + 1
        ]
    own = words[2:] if start[-1] in SCRIPTS else words
    ran = run_command(*start, *own, cwd=Path.cwd(), env={**command.variables}, timeout=500)
    assert ran.returncode == 0, f"{command.text}\n{ran.stdout}\n{ran.stderr}"


def _fewer_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """--preserve asks thousands of questions of a real base."""
    from wassily.training_data import base_predictions

    monkeypatch.setattr(base_predictions, "DRAWINGS", 8)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_work(
    page: Path, place: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other; a prompt that is in Arabic on the Arabic page is drawn, too. Then its
    Python.
    """
    _fewer_answers(monkeypatch)
    small = _small(page, tiny)
    for words in BEFORE.get(page.name, []):
        _run(Command(page.name, words), small)
    for command in both_languages(page):
        if not not_run(command):
            _run(command, small)
    if page.name in SNIPPETS:
        SNIPPETS[page.name](page, small)


def test_the_settings_of_accelerate(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By its command and by the guide's three lines of Python."""
    home = {"HF_HOME": str(tmp_path / "hf")}
    done = run_command("accelerate", "config", "default", cwd=place, env=home)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hf" / "accelerate" / "default_config.yaml").is_file()
    code = next(c for _, c in pages.blocks(pages.DOCS / "guide.md") if "write_basic_config" in c)
    home = {"HF_HOME": str(tmp_path / "hf2")}
    done = run_command("python", "-c", code, cwd=place, env=home)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "hf2" / "accelerate").iterdir())


# ---------------------------------------------------------------- snippets


def _python(page: Path) -> list[str]:
    """The blocks of Python that are not quoted from the sources."""
    found = [code for kind, code in pages.blocks(page) if kind in ("py", "python")]
    return [code for code in found if not code.startswith("# wassily/")]


def _with_small_models(code: str, small: Small) -> str:
    code = code.replace(f"{HUB}decoder", small.decoder).replace(f"{HUB}prior", small.prior)
    code = re.sub(r"checkpoint-\d+", "checkpoint-2", code).replace("torch.float16", "torch.float32")
    few = "height=32, width=32, num_inference_steps=2, prior_num_inference_steps=2"
    return re.sub(r"pipeline\((prompt=[^)]*)\)\.images", rf"pipeline(\1, {few}).images", code)


def _guide(page: Path, small: Small) -> None:
    """The four ways to draw with what was trained."""
    drawn = [code for code in _python(page) if ".images" in code]
    assert len(drawn) == 4
    for code in drawn:
        Path("robot.png").unlink(missing_ok=True)
        exec(compile(_with_small_models(code, small), page.name, "exec"), {})
        assert Path("robot.png").is_file()


def _checkpoints(page: Path, small: Small) -> None:
    """A checkpoint's networks load; the decoder's is trained here."""
    words = ("train", "decoder", "--train_data_dir", "pics", "--output_dir", "runs/decoder")
    assert wassily(*made_small(words, small)).code == 0
    (code,) = _python(page)
    names: dict[str, Any] = {}
    exec(_with_small_models(code, small), names)
    assert isinstance(names["unet"], torch.nn.Module) and isinstance(
        names["prior"], torch.nn.Module
    )


def _data(page: Path, small: Small) -> None:
    """The data sets are made and saved; what would be uploaded is held."""
    import datasets

    sent: list[str] = []
    keep: Callable[..., Any] = lambda self, name, **more: sent.append(name)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.Dataset, "push_to_hub", keep)
        for number in (1, 2):
            first = next(Path("pics").glob("*.[jp]*g"))
            Path(f"pics/fox_{number}.jpg").write_bytes(first.read_bytes())
        names: dict[str, Any] = {}
        for code in _python(page):
            code = code.replace('data_dir="pics"', 'data_dir="kept", cache_dir="cache"')
            exec(code.replace('"foxes', '"made'), names)
    assert sent == ["your-name/foxes"] * 2
    assert Path("made", "dataset_info.json").is_file()


SNIPPETS: dict[str, Callable[[Path, Small], None]] = {
    "guide.md": _guide,
    "checkpoints.md": _checkpoints,
    "data.md": _data,
}


def test_every_snippet_is_run_somewhere() -> None:
    """Here, or by the page's own test in test_docs.py, or quoted from the sources."""
    run = set(SNIPPETS) | {"lora.md", "python.md"}
    assert {page.name for page in pages.english_pages() if _python(page)} <= run


def test_each_reason_is_needed() -> None:
    """No line of the list of what is not run is left over."""
    lines = [" ".join(c.words) for p in pages.english_pages() for c in both_languages(p)]
    for start in NOT_RUN:
        assert any(line.startswith(start) for line in lines), start
