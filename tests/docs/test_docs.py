"""The documentation: its links lead somewhere, its flags exist, its code is that of the package."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from bad_pictures import png
from helpers import draw_picture, run_cli
from pages import DOCS, FENCE, arabic_pages, english_pages, links, slugs

from wassily.mini.untrained import Tiny

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*english_pages(), *arabic_pages()]
# Flags of the programs that stand in our commands beside ours.
FOREIGN = {
    "accelerate launch": {"--multi_gpu", "--num_processes", "--cpu", "--max_restarts"}
    | {"--use_fsdp", "--fsdp_version", "--fsdp_reshard_after_forward", "--fsdp_auto_wrap_policy"}
    | {"--num_machines", "--machine_rank", "--main_process_ip", "--main_process_port"},
    "diffusers' LoRA scripts": {"--num_validation_images"},
    "torchrun": {"--nproc_per_node", "--max-restarts"},
    "tensorboard": {"--logdir"},
    "docker": {"--tag", "--build_arg", "--rm", "--gpus", "--init", "--stop_timeout", "--volume"},
    "tools/flags.py": {"--check"},
    "tools/chaos.py": {"--kills", "--minutes"},
    "tools/architecture.py": {"--long"},
}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")


def _flags_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flags", ROOT / "tools" / "flags.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_pages_are_there() -> None:
    names = {page.name for page in PAGES}
    guides = {"guide.md", "data.md", "lora.md", "learning.md", "evaluating.md", "performance.md"}
    guides |= {"dreambooth.md"}
    assert guides | {"README.md", "checkpoints.md", "flags.md", "memory.md"} <= names


def test_the_page_of_flags_is_fresh() -> None:
    command = [sys.executable, str(ROOT / "tools" / "flags.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_stale_page_of_flags_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = _flags_tool()
    monkeypatch.setattr(tool, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(sys, "argv", ["flags.py", "--check"])
    assert tool.main() == 1
    assert "python tools/flags.py" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["flags.py"])
    assert tool.main() == 0
    monkeypatch.setattr(sys, "argv", ["flags.py", "--check"])
    assert tool.main() == 0
    for page in (tmp_path / "docs" / "flags.md", tmp_path / "docs" / "ar" / "flags.md"):
        fresh = page.read_text("utf-8")
        page.write_text(fresh + "more", "utf-8")
        assert tool.main() == 1
        page.write_text(fresh, "utf-8")


def test_each_flag_has_its_arabic_words_and_none_is_left_over() -> None:
    """By the English words, so that a changed help asks for its Arabic anew."""
    tool = _flags_tool()
    tool.page("", english := tool.Words())
    arabic = tool.arabic()
    there = {(kind, text) for kind, words in arabic.tables.items() for text in words}
    assert english.used - there == set()
    assert there - english.used == set()
    for words in arabic.tables.values():
        for text, told in words.items():
            assert re.search("[\u0600-\u06ff]", told), text
            assert set(re.findall(r"--\w+", text)) == set(re.findall(r"--\w+", told)), text


def test_the_page_of_flags_has_them_all() -> None:
    text = (ROOT / "docs" / "flags.md").read_text("utf-8")
    missing = sorted(flag for flag in _flags_tool().known() if f"`{flag}" not in text)
    assert not missing


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), f"{page.name}: no file {target}"
        assert not anchor or anchor in slugs(target), f"{page.name}: no heading {anchor}"


@pages
def test_flags_exist(page: Path) -> None:
    known = _flags_tool().known().union(*FOREIGN.values())
    # A flag may be written with hyphens; `--adam_...` stands for all that begin so.
    named = re.findall(r"(?<![\w-])(--[A-Za-z][\w-]*)(\.\.\.)?", page.read_text("utf-8"))
    for flag, dots in named:
        plain = "--" + flag[2:].replace("-", "_")
        found = any(k.startswith(plain) for k in known) if dots else plain in known
        assert found, f"{page.name}: no flag {flag}"


@pages
def test_python_is_python_and_ours_is_ours(page: Path) -> None:
    """A block that begins with `# wassily/FILE` is to be found in that file, line by line."""
    for language, code in FENCE.findall(page.read_text("utf-8")):
        if language not in ("py", "python"):
            continue
        first, _, rest = code.partition("\n")
        if not first.startswith("# wassily/"):
            compile(code, page.name, "exec")
            continue
        source = (ROOT / first[2:]).read_text("utf-8").splitlines()
        lines = rest.splitlines()
        stretches = (source[i : i + len(lines)] for i in range(len(source)))
        wanted = "\n".join(lines)
        assert any(textwrap.dedent("\n".join(s)) == wanted for s in stretches), (
            f"{page.name}: not (or no longer) in {first[2:]}:\n{wanted}"
        )


def test_the_tree_in_the_readme_is_the_real_one() -> None:
    """All pages and tools, and none that is gone; `tests/test_layers.py` has the package."""
    tree = (ROOT / "README.md").read_text("utf-8").partition("<!-- end of rooms -->")[2]
    tools = [path.name for path in (ROOT / "tools").glob("*.py")]
    listed = dict.fromkeys(re.findall(r"^ *([\w./-]+\.(?:py|md)) ", tree, re.M))
    for name in [*tools, *(p.relative_to(DOCS).as_posix() for p in english_pages()[1:])]:
        assert name in listed, f"README: {name}"
    for name in listed:
        tops = (ROOT, ROOT / "tools", DOCS)
        assert any((top / name).is_file() for top in tops), f"README: there is no {name}"


def test_promises_have_their_tests() -> None:
    """What docs/reliability.md names as a test is one, and no row of its tables is without."""
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / file).read_text("utf-8"), f"{file}: no {name}"
    rows = re.findall(r"^\| (?!promise|-)(.*) \|$", text, re.M)
    assert len(rows) > 15 and all("::test_" in row for row in rows)


# ---------------------------------------------------------------- the messages of docs/data.md

ONE, TWO = {"file_name": "fox_1.jpg", "text": "a"}, {"file_name": "fox_2.jpg", "text": "b"}


def _pictures(folder: Path, *metadata: object, **files: bytes | str) -> Path:
    """Two pictures, a metadata.jsonl with these lines if there are any, and more files by name."""
    folder.mkdir()
    for number in (1, 2):
        draw_picture(number, 300, 200).save(folder / f"fox_{number}.jpg")
    lines = [m if isinstance(m, str) else json.dumps(m) for m in metadata]
    if lines:
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def _bad_inputs(root: Path) -> dict[str, Path]:
    """What the rows of the table describe -> a folder that is so."""
    made = iter(range(100))

    def make(*metadata: object, **files: bytes | str) -> Path:
        (root / str(number := next(made))).mkdir()
        return _pictures(root / str(number) / "pics", *metadata, **files)

    empty = root / "empty" / "pics"
    empty.mkdir(parents=True)
    whole = (make() / "fox_2.jpg").read_bytes()
    (root / "fox_3.jpg").write_bytes(whole)
    outside = make({**ONE, "file_name": "../fox_3.jpg"})
    (outside.parent / "fox_3.jpg").write_bytes(whole)
    linked = make(ONE)
    (linked / "more").symlink_to(outside)
    return {
        "a folder without pictures": empty,
        "a broken picture": make(ONE, TWO, fox_2__jpg=whole[: len(whole) // 2]),
        "an image of more than 179 megapixels": make(ONE, TWO, fox_2__jpg=png(20_000, 10_000)),
        "a file that is no picture": make(ONE, TWO, fox_2__jpg="hello"),
        "an empty caption": make(ONE, {**TWO, "text": " "}),
        "an empty `.txt`": make(fox_1__txt="a", fox_2__txt=""),
        "a caption that is no text": make({**ONE, "text": 3}),
        "no caption column": make({"file_name": "fox_1.jpg", "texts": "a"}),
        "no `file_name`": make({"file": "fox_1.jpg", "text": "a"}),
        "a line without its file": make({**ONE, "file_name": "fox_3.jpg"}),
        "a name seen from elsewhere": make({**ONE, "file_name": "pics/fox_1.jpg"}),
        "a path out of the folder": outside,
        "a line that is not JSON": make('{"file_name": "backpack_00.jpg", "text": "a"'),
        "a comma outside quotes": make(metadata__csv="file_name,text\nfox_1.jpg,a, b\n"),
        "a CSV with `;`": make(metadata__csv="file_name;text\nfox_1.jpg;a, b\n"),
        "captions in `.caption` files": make(fox_1__caption="a", fox_2__caption="b"),
        "a linked folder": linked,
        "two metadata files in a folder": make(ONE, metadata__csv="file_name,text\nfox_1.jpg,a\n"),
        "a picture without its `.txt`": make(fox_1__txt="a"),
        "text that is not UTF-8": make(fox_1__txt="a", fox_2__txt="حقيبة".encode("cp1256")),
    }


def test_the_messages_on_bad_input_are_the_real_ones(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = (ROOT / "docs" / "data.md").read_text("utf-8").partition("| input |")[2]
    written = dict(re.findall(r"^\| (.+?) \| `(.*)` \|$", table, re.M))
    models = ["--pretrained_prior_model_name_or_path", tiny.prior]
    models += ["--pretrained_decoder_model_name_or_path", tiny.decoder, "--report_to", "none"]

    def said(*words: object) -> str:
        done = run_cli("train", "prior", *words, *models, "--output_dir", tmp_path / "out")
        assert done.code == 2, done.text
        return done.err

    def wanted(row: str) -> str:
        # Numbers of bytes are those of one picture, and the list of endings is cut short.
        text = re.escape(f"wassily: error: {written.pop(row)}\n")
        text = re.sub(r"\\\(\d+(\\ bytes)", r"\\(\\d+\1", text)
        return text.replace(re.escape("...)"), ".*\\)")

    assert re.fullmatch(wanted("no source"), said())
    both = said("--train_data_dir", "pics", "--dataset_name", "a/b")
    assert re.fullmatch(wanted("two sources"), both)
    monkeypatch.chdir(tmp_path)
    missing = said("--train_data_dir", "pics")
    assert re.fullmatch(wanted("a folder that is not there"), missing)
    for row, folder in _bad_inputs(tmp_path).items():
        monkeypatch.chdir(folder.parent)
        assert re.fullmatch(wanted(row), said("--train_data_dir", "pics")), row
    assert set(written) == {
        "a column that a data set lacks",
        "a data set that is not there",
    }
