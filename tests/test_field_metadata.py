"""Field cases on metadata, captions and config files in other spellings and forms.

Each `test_fNN_` is one case, with the whole kind that it stands for.
"""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest
from e2e import command, refused
from field import APART, COMPOSED, fault, fill, lines, read, told
from helpers import draw_picture

from wassily.config import parsing
from wassily.data import datasets
from wassily.errors import UserError
from wassily.mini.untrained import Tiny

# ---------------------------------------------------------------- F14: names in metadata

MEANT: dict[str, tuple[str, str]] = {  # written in train/metadata.jsonl: which file it is
    "backslash": ("deep\\b.png", "train/deep/b.png"),
    "backslash and case": ("Deep\\B.PNG", "train/deep/b.png"),
    "case": ("A.PNG", "train/a.png"),
    "dot and slash": ("./a.png", "train/a.png"),
    "dot and backslash": (".\\a.png", "train/a.png"),
    "up and down": ("../train/A.png", "train/a.png"),
    "space after": ("a.png ", "train/a.png"),
    "space before": (" a.png", "train/a.png"),
    "accents": (f"{COMPOSED}.png", f"train/{APART}.png"),
    "two slashes": ("deep//b.png", "train/deep/b.png"),
}
HINTS = {
    "from the root": ("train/a.png", "did you mean 'a.png'?"),
    "from above the root": ("d/train/a.png", "did you mean 'a.png'?"),
    "of another machine": ("/home/me/d/train/deep/b.png", "did you mean 'deep/b.png'?"),
    "of another system": ("C:\\data\\deep\\b.png", "did you mean 'deep/b.png'?"),
    "escaped": ("caf%C3%A9.png", f"did you mean {APART + '.png'!r}?"),
    "address": ("https://x.org/img/a.png", "did you mean 'a.png'?"),
    "no ending": ("a", "did you mean 'a.png'?"),
    "another ending": ("a.jpg", "did you mean 'a.png'?"),
    "quotes": ("'a.png'", "did you mean 'a.png'?"),
    "out of the folder": ("../../elsewhere/a.png", "did you mean 'a.png'?"),
    "seen from the root": ("other/c.png", "did you mean '../other/c.png'?"),
}


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """`train` with metadata, images there, below it and beside it."""
    names = ("train/a.png", "train/deep/b.png", f"train/{APART}.png", "other/c.png")
    draw_picture(9).save(tmp_path / "secret.png")
    return fill(tmp_path / "d", *names)


@pytest.mark.parametrize("name", MEANT)
def test_f14_a_name_in_another_spelling_is_found(name: str, nested: Path) -> None:
    """If there is one such file: slashes, case, spaces, accents."""
    written, meant = MEANT[name]
    lines(nested / "train" / "metadata.jsonl", written)
    found = datasets.read_folder(str(nested), "image", "text")[0]
    assert os.path.samefile(str(found.image), nested / meant)


@pytest.mark.parametrize("name", HINTS)
def test_f14_a_wrong_name_gets_a_hint(name: str, nested: Path) -> None:
    """Of the file that is there, as the metadata file has to call it."""
    written, hint = HINTS[name]
    lines(nested / "train" / "metadata.jsonl", written)
    line = fault(nested)
    assert "metadata.jsonl line 1: file_name" in line
    assert line.endswith(f"{hint} Names are relative to the metadata file")


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("..\\..\\secret.png", "no such file; add it"),
        ("../../SECRET.png", "leads out of"),
        ("../../secret.png", "leads out of"),
        ("LINK.png", "leads out of"),
        ("B.png", "no such file"),
    ],
)
def test_f14_no_spelling_leads_out(written: str, says: str, nested: Path) -> None:
    """Not through a link, either; and of two files neither is guessed."""
    (nested / "train" / "link.png").symlink_to(nested.parent / "secret.png")
    fill(nested, "train/b.PNG", "train/b.png")
    lines(nested / "train" / "metadata.jsonl", written)
    if (nested / "train" / "b.PNG").samefile(nested / "train" / "b.png") and written == "B.png":
        return  # a file system without case
    line = fault(nested)
    assert says in line and "secret.png'?" not in line


# ---------------------------------------------------------------- F15: CSV as programs write it

CSVS: dict[str, tuple[str, str]] = {
    "semicolons": ("file_name;text\na.png;red, blue\n", "the separator is ';'"),
    "quoted semicolons": ('"file_name";"text"\n"a.png";"red"\n', "the separator is ';'"),
    "tabs": ("file_name\ttext\na.png\tred, blue\n", "the separator is a tab"),
    "bars": ("file_name | text\na.png | red\n", "the separator is '|'"),
    "a line of Excel's": ("sep=;\nfile_name;text\na.png;red\n", "Remove this line ('sep=;')"),
    "no header": ('a.png,"red, blue"\nb.png,x\n', "Write file_name,text as the first line"),
    "a space before quotes": ('file_name, text\na.png, "red, blue"\n', "remove the space before"),
    "a comma too many": ("file_name,text\na.png,red, blue\n", "put a text with commas in quotes"),
}


@pytest.mark.parametrize("name", CSVS)
def test_f15_a_csv_of_another_form_is_named(name: str, tmp_path: Path) -> None:
    """What to change, in one line and once, however many rows there are."""
    content, says = CSVS[name]
    root = fill(tmp_path, "a.png", "b.png")
    (root / "metadata.csv").write_text(content, "utf-8")
    line = 2 if "comma" in name or "quotes" in name else 1
    assert says in fault(root) and f"metadata.csv line {line}: " in fault(root)
    faults: list[str] = []
    with pytest.raises(UserError):
        datasets.read_folder(str(root), "image", "text", lambda error: faults.append(str(error)))
    assert len(faults) == 1


HEADERS = ["file_name, text", " file_name ,text ", '"file_name", "text"', "\ufefffile_name,text"]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_f15_spaces_in_a_header_do_not_matter(header: str, end: str, tmp_path: Path) -> None:
    """The cells stay as they are; a name in them is found nevertheless."""
    root = fill(tmp_path, "a.png", "b.png")
    content = end.join([header, "a.png, red", ' b.png ,"red, blue"', ""])
    (root / "metadata.csv").write_bytes(content.encode("utf-8"))
    assert list(read(root).values()) == [(" red",), ("red, blue",)]


OTHER_TEXTS: dict[str, tuple[str, bytes, str]] = {
    "utf-16": ("metadata.csv", "file_name,text\na.png,x\n".encode("utf-16"), "it is UTF-16"),
    "utf-16 lines": ("metadata.jsonl", '{"file_name":"a.png"}\n'.encode("utf-16"), "it is UTF-16"),
    "utf-16 text": ("a.txt", "red".encode("utf-16"), "it is UTF-16"),
    "lines of an old Mac": ("metadata.jsonl", b'{"file_name":"a.png"}\r{"x":1}\r', "(LF)"),
    "an array": ("metadata.jsonl", b'[\n{"file_name": "a.png", "text": "x"},\n]', "one object a"),
    "commas": ("metadata.jsonl", b'{"file_name": "a.png", "text": "x"},\n', "one object a line"),
}


@pytest.mark.parametrize("name", OTHER_TEXTS)
def test_f15_texts_of_another_form_are_named(name: str, tmp_path: Path) -> None:
    """As UTF-16 of a spreadsheet, and a JSON array for JSON lines."""
    file, content, says = OTHER_TEXTS[name]
    (fill(tmp_path, "a.png") / file).write_bytes(content)
    assert says in fault(tmp_path) and file in fault(tmp_path)


@pytest.mark.parametrize("name", ["filename", "File_Name", "file name", "FILE-NAME"])
def test_f15_a_column_of_another_spelling_is_named(name: str, tmp_path: Path) -> None:
    """Of both kinds of metadata; blank lines above a header are none."""
    root = fill(tmp_path, "a.png")
    (root / "metadata.csv").write_text(f"\n\r\n{name},text\na.png,x\n")
    assert fault(root).endswith(f"line 4: no 'file_name' (it has: {name}, text){rename(name)}")
    (root / "metadata.csv").write_text("\n\r\nfile_name,text\na.png,x\n")
    assert read(root) == {"a.png": ("x",)}
    (root / "metadata.csv").unlink()
    (root / "metadata.jsonl").write_text(json.dumps({name: "a.png", "text": "x"}))
    assert fault(root).endswith(f"line 1: no 'file_name' (it has: {name}, text){rename(name)}")


def rename(name: str) -> str:
    """The end of the line."""
    return f"; rename {name!r} to 'file_name'"


def test_f15_what_the_csv_module_writes_is_read(tmp_path: Path) -> None:
    """Whatever the captions hold, a separator of others among it."""
    captions = ["a;b", "a\tb", "a|b", 'a "b", c', "sep=;", "file_name;text", " a "]
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["file_name", "text"], *(["a.png", c] for c in captions)])
    (fill(tmp_path, "a.png") / "metadata.csv").write_text(buffer.getvalue(), newline="")
    found = datasets.read_folder(str(tmp_path), "image", "text")
    assert list(found.all_captions()) == captions


# ---------------------------------------------------------------- F16: what metadata leaves out


def test_f16_an_archive_is_no_folder(tmp_path: Path) -> None:
    """As the name of the dataset itself."""
    fill(tmp_path, "images.ZIP")
    line = refused("train", "prior", "--train_data_dir", tmp_path / "images.ZIP")
    assert line.endswith("images.ZIP: not a folder; unpack it, and name the folder that it makes")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("images.zip",), "images.zip: unpack it"),
        (("x/y/images.ZIP",), "x/y/images.ZIP: unpack it"),
        (("a.7z", "b.rar"), "a.7z, b.rar: unpack them"),
        (("all.tar.gz",), "all.tar.gz: unpack it"),
        (("all.tar",), "all.tar: unpack it, or name this folder with --dataset_name"),
        (tuple(f"{n:02d}.zip" for n in range(12)), "08.zip, 09.zip and 2 more: unpack them"),
    ],
)
def test_f16_archives_are_named(names: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """Also where they stand deep, and in the refusal of a folder that has nothing else."""
    root = fill(tmp_path, *names)
    assert says in fault(root)
    lines(fill(root, "p.png") / "metadata.jsonl", "p.png")
    (message,) = told(root)
    assert message.endswith(says)
    assert not datasets.is_data_set(root)


def test_f16_images_without_a_line_are_counted(tmp_path: Path) -> None:
    """Eight images of which the metadata names four, however it writes their names."""
    names = [f"{n}.png" for n in range(6)] + ["x/6.png", "x/7.png"]
    root = fill(tmp_path, *names, "y/")
    (root / "link").symlink_to(root / "x")
    written = ["0.png", "./1.png", str(root / "2.png"), "y/../3.png", "link/6.png", "X\\7.png"]
    lines(root / "metadata.jsonl", *written, "0.png")
    assert told(root) == ["2 images are in no metadata file and are left out"]
    found = datasets.read_folder(str(root), "image", None).remarks[0]
    assert found.items == (f"{root}/4.png", f"{root}/5.png")
    lines(root / "metadata.jsonl", *names)
    assert told(root) == []


@pytest.mark.parametrize(
    "other", ["metadata.json", "metadata.tsv", "captions.csv", "metadata.txt", "metadata.jsonl.txt"]
)
def test_f16_what_may_be_meant_as_metadata_is_named(other: str, tmp_path: Path) -> None:
    """In the refusal for the missing captions, and as a warning where captions are not read."""
    root = fill(tmp_path, "a.png", other)
    says = f"{other} is not read: only metadata.jsonl and metadata.csv are"
    assert fault(root).endswith(says)
    assert says in told(root, None)


# ---------------------------------------------------------------- F20, F21


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_f20_a_config_file_with_a_mark(end: str, tmp_path: Path) -> None:
    """A byte order mark, and the line ends of Windows; comments first or not."""
    for text in ("max_train_steps = 7", "# run again\nmax_train_steps = 7\n"):
        file = tmp_path / "run.toml"
        file.write_bytes(("\ufeff" + text.replace("\n", end)).encode("utf-8"))
        words = ["--train_data_dir", str(fill(tmp_path, "d/a.png") / "d"), "--config", str(file)]
        assert parsing.parse("PriorConfig", words, "x").max_train_steps == 7


def test_f20_a_config_file_in_utf_16_is_named(tmp_path: Path) -> None:
    """In one line, as any file that is not UTF-8."""
    (tmp_path / "run.toml").write_bytes("seed = 7\n".encode("utf-16"))
    line = refused("train", "prior", "--config", tmp_path / "run.toml")
    assert line.endswith(
        "run.toml: not UTF-8 text (invalid start byte at byte 0). Save it as UTF-8."
    )


@pytest.mark.parametrize(
    "name", ["p0.caption", "p0.CAPTION", "p0.cap", "p0.png.txt", "p0.json", "P0.caption"]
)
def test_f21_captions_of_another_ending_are_told(name: str, tmp_path: Path, tiny: Tiny) -> None:
    """As kohya, gallery-dl and img2dataset leave them."""
    root = fill(tmp_path / "d", "p0.png", name)
    line = fault(root)
    assert f"no .txt beside {root}/p0.png" in line
    assert line.endswith(f"; {root}/{name} is there and is not read: write its caption to p0.txt")


def test_f21_as_a_command(tmp_path: Path, tiny: Tiny) -> None:
    """The one line of a training."""
    root = fill(tmp_path / "d", "p0.png", "p0.caption")
    assert "p0.caption is there" in refused(*command("prior", tmp_path / "out", tiny, root))
