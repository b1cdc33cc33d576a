"""The documentation: its links lead somewhere, its flags exist, its code is that of the package."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import shard_files
from e2e import wassily
from helpers import draw_picture, run_cli
from PIL import Image

import wassily as package
from wassily.mini.untrained import Tiny, make_decoder

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
# Flags of the programs that stand in our commands beside ours.
FOREIGN = {
    "accelerate launch": {"--multi_gpu", "--num_processes", "--cpu", "--max_restarts"}
    | {"--use_fsdp", "--fsdp_version", "--fsdp_reshard_after_forward", "--fsdp_auto_wrap_policy"}
    | {"--num_machines", "--machine_rank", "--main_process_ip", "--main_process_port"},
    "torchrun": {"--nproc_per_node", "--max-restarts"},
    "tensorboard": {"--logdir"},
    "tools/flags.py": {"--check"},
    "tools/chaos.py": {"--kills", "--minutes"},
}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def _flags_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flags", ROOT / "tools" / "flags.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


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
    links = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text("utf-8")))
    for link in links:
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: no file {link}"
        if anchor:
            assert anchor in _slugs(target), f"{page.name}: no heading {link}"


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
    tree = (ROOT / "README.md").read_text("utf-8").partition("## Files")[2]
    for folder, pattern in (("wassily", "*.py"), ("wassily/mini", "*.py"), ("docs", "*.md")):
        for path in (ROOT / folder).glob(pattern):
            if not path.name.startswith("__"):
                assert re.search(rf"^ *{re.escape(path.name)}\s", tree, re.M), f"README: {path}"
    for name in re.findall(r"^ *([\w.]+\.(?:py|md)) ", tree, re.M):
        assert list(ROOT.glob(name)) or any(
            list((ROOT / top).rglob(name)) for top in ("wassily", "tools", "docs")
        ), f"README: there is no {name}"


def test_promises_have_their_tests() -> None:
    """What docs/reliability.md names as a test is one, and no row of its tables is without."""
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", text)
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
    return {
        "a folder without pictures": empty,
        "a broken picture": make(ONE, TWO, fox_2__jpg=whole[: len(whole) // 2]),
        "a file that is no picture": make(ONE, TWO, fox_2__jpg="hello"),
        "an empty caption": make(ONE, {**TWO, "text": " "}),
        "an empty `.txt`": make(fox_1__txt="a", fox_2__txt=""),
        "a caption that is no text": make({**ONE, "text": 3}),
        "no caption column": make({"file_name": "fox_1.jpg", "texts": "a"}),
        "no `file_name`": make({"file": "fox_1.jpg", "text": "a"}),
        "a line without its file": make({**ONE, "file_name": "fox_3.jpg"}),
        "a path out of the folder": outside,
        "a line that is not JSON": make('{"file_name": "backpack_00.jpg", "text": "a"'),
        "a comma outside quotes": make(metadata__csv="file_name,text\nfox_1.jpg,a, b\n"),
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


# ---------------------------------------------------------------- the commands of two pages

HUB = "kandinsky-community/kandinsky-2-2-"
SMALL = {
    "train": "--max_train_steps 1 --resolution 32 --report_to none",
    "generate": "--steps 2 --prior_steps 2 --height 32 --width 32 --out drawn",
}


def _on_tiny_models(words: list[str], tiny: Tiny) -> list[str]:
    """A command of the page with small models in place of the hub's, and few steps."""
    models = {"prior": tiny.prior, "decoder": tiny.decoder}
    words = [str(models[w.removeprefix(HUB)]) if w.startswith(HUB) else w for w in words]
    for home, folder in models.items():
        flag = {"train": f"--pretrained_{home}_model_name_or_path", "generate": f"--{home}"}
        if words[0] in flag and flag[words[0]] not in words:
            words += [flag[words[0]], str(folder)]
    return words + SMALL.get(words[0], "").split()


def _commands_work(
    page: str, tiny: Tiny, instead: tuple[str, str] = ("", "")
) -> list[tuple[str, str]]:
    """Run a page's commands one after the other, an address of theirs replaced; all blocks of the
    page, language and code.
    """
    blocks = FENCE.findall((ROOT / "docs" / page).read_text("utf-8").replace(*instead))
    lines = [code.replace("\\\n", " ") for language, code in blocks if language == "bash"]
    commands = [shlex.split(line) for code in lines for line in code.splitlines()]
    for program, *words in commands:
        assert program == "wassily"
        done = wassily(*_on_tiny_models(words, tiny))
        assert done.code == 0, f"{words}: {done.text}"
    return blocks


def test_the_page_on_dreambooth_works(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands, in a folder with pictures of one thing."""
    _pictures(tmp_path / "sks")
    monkeypatch.chdir(tmp_path)
    _commands_work("dreambooth.md", tiny)
    made = {path.name for path in Path("runs").iterdir()}
    assert made == {"sks-prior", "sks-decoder", "sks-prior-lora"}
    assert len(list(Path("dogs").iterdir())) == 8


def test_the_page_on_streaming_works(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands on shards here and on a web server; the error that it shows is a real one."""
    shard_files.parquet(tmp_path / "shards", (2, 2), {3: {"text": [" "]}})
    monkeypatch.chdir(tmp_path)
    models = [f"--pretrained_{home}_model_name_or_path" for home in ("prior", "decoder")]
    words = ["--output_dir", "bad", models[0], tiny.prior, models[1], tiny.decoder]
    done = wassily(
        *("train", "prior", "--dataset_name", "shards", "--streaming", "--max_train_steps", 9),
        *words,
    )
    assert done.err in (ROOT / "docs" / "streaming.md").read_text("utf-8")
    shard_files.parquet(tmp_path / "shards", (2, 2))
    for number, file in enumerate(sorted(shard_files.tars(Path("tars"), (2, 2)).iterdir())):
        file.rename(Path("tars") / f"pics-{number:04d}.tar")
    with shard_files.served(Path("tars").resolve()) as address:
        there = ("https://example.org/pics-{0000..0127}", address + "/pics-{0000..0001}")
        _commands_work("streaming.md", tiny, there)
    assert {path.name for path in Path("runs").iterdir()} == {"prior", "decoder", "far"}


def test_the_page_on_lora_works(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands one after the other, then its Python, in a folder with pictures."""
    (tmp_path / "pics").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    blocks = _commands_work("lora.md", tiny)
    made = {path.name for path in Path("runs").iterdir()}
    assert made == {"prior-lora", "decoder-lora", "decoder-merged", "decoder", "decoder-mixed"}
    (code,) = (code for language, code in blocks if language == "python")
    code = code.replace(f"{HUB}decoder", str(tiny.decoder)).replace("float16", "float32")
    small = "height=32, width=32, num_inference_steps=2, prior_num_inference_steps=2"
    exec(code.replace('prompt="a red circle"', f'prompt="a red circle", {small}'), {})
    assert (tmp_path / "picture.png").is_file()


# ---------------------------------------------------------------- drawing, and from Python


def _pixels_of(name: str) -> bytes:
    with Image.open(name) as picture:
        return picture.tobytes()


def test_the_page_on_drawing_works(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands one after the other, in few steps; small decoders stand in for the two released
    ones.
    """
    monkeypatch.chdir(tmp_path)
    for name in ("photo", "depth"):
        draw_picture(1, 64, 64).save(f"{name}.png")
    draw_picture(2, 64, 64).convert("L").save("mask.png")
    released = {
        f"{HUB}decoder-inpaint": make_decoder(tmp_path / "inpaint", "inpainting"),
        f"{HUB}controlnet-depth": make_decoder(tmp_path / "depth", "hint"),
    }
    blocks = FENCE.findall((ROOT / "docs" / "drawing.md").read_text("utf-8"))
    commands = [shlex.split(code.replace("\\\n", " ")) for language, code in blocks if language]
    for program, *words in commands:
        assert program == "wassily"
        given = [str(released.get(word, word)) for word in words]
        if "--from" not in given:
            given += ["--steps", "2", "--prior_steps", "2"]
            given += [] if "mini" in given else ["--prior", str(tiny.prior)]
        done = wassily(*given)
        assert done.code == 0, f"{words}: {done.text}"
    made = {path.name for path in tmp_path.glob("*.png")} | {p.name for p in Path("like").iterdir()}
    assert {
        "hat.png",
        "robot.png",
        "slow.png",
        "again.png",
        "000-variations-of-circle-png.png",
    } <= made
    assert len(commands) == 8
    assert _pixels_of("mix.png") == _pixels_of("again.png")


def test_the_page_on_python_works(
    tmp_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its code from the first line to the last, in few steps."""
    (tmp_path / "pics").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    blocks = FENCE.findall((ROOT / "docs" / "python.md").read_text("utf-8"))
    code = "\n".join(code for language, code in blocks if language == "python")
    for long, short in {
        "steps=50": "steps=2, prior_steps=2",
        "max_train_steps=200": "max_train_steps=1",
        "max_prompts=4": "max_prompts=4, steps=2, prior_steps=2",
    }.items():
        assert long in code
        code = code.replace(long, short)
    names: dict[str, Any] = {}
    exec(code, names)
    said = capsys.readouterr().out
    assert "--resolution: 30 is not a multiple of 8 from 8 on\n" in said
    assert re.search(r"^english .* [-\d.e]+ [-\d.e]+$", said, re.M)
    drawn = [names[name].tobytes() for name in ("circle", "other", "star", "like", "mixed")]
    assert len(set(drawn)) == len(drawn)
    assert (tmp_path / "runs" / "prior" / "prior" / "config.json").is_file()
    table = (ROOT / "docs" / "python.md").read_text("utf-8").partition("| name |")[2]
    told = set(re.findall(r"`(\w+)(?:\([\w, .]*\))?`", table.partition("## ")[0]))
    assert set(package.__all__) <= told
