"""Field cases on which entries of a folder count: hidden files, spellings, other kinds, links.

Each `test_fNN_` is one case, with the whole kind that it stands for.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from e2e import train
from field import APART, COMPOSED, FORK, fault, fill, lines, read, size, told
from helpers import run_cli

from wassily.data import datasets, entries, images
from wassily.errors import UserError
from wassily.mini.untrained import Tiny
from wassily.training_data import class_images

# ---------------------------------------------------------------- F1, F2: which entries count

LEFT = {
    "fork": ("._a.png",),
    "fork of a text": ("._a.txt",),
    "notebook": (".ipynb_checkpoints/a-checkpoint.png", ".ipynb_checkpoints/a-checkpoint.txt"),
    "hidden deep": ("x/.thumbs/y/b.png",),
    "hidden folder as system file": (".DS_Store/b.png",),
    "zip of a mac": ("__MACOSX/._a.png", "__MACOSX/b.png"),
    "python": ("__pycache__/b.png",),
    "trash": (".Trash-1000/files/b.png",),
    "network storage": ("@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "#recycle/b.png"),
    "recycle bin": ("$RECYCLE.BIN/b.png", "System Volume Information/b.png"),
    "systems": ("Thumbs.db", "desktop.ini", ".DS_Store"),
    "hidden metadata": (".metadata.jsonl", ".old/metadata.jsonl", "__old/metadata.csv"),
    "hidden shards": (".cache/x.parquet", "__MACOSX/x.tar"),
}


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.parametrize("way", ["train", "instance", "class", "check"])
def test_f01_hidden_entries_do_not_count(name: str, way: str, tmp_path: Path) -> None:
    """The same images, captions and fingerprint with and without them, by each way of reading."""
    root = fill(tmp_path / "d", "a.png", "a.txt")

    def found() -> Any:
        if way == "class":
            return class_images.missing(root, 3, 1, "x")
        if way == "check":
            return datasets.is_data_set(root), datasets.read_folder(
                str(root), "image", None
            ).fingerprint()
        source = datasets.read_prompted(str(root), "x") if way == "instance" else None
        source = source or datasets.read_folder(str(root), "image", "text")
        return len(source), list(source.all_captions()), source.fingerprint(), source.remarks

    before = found()
    fill(root, *LEFT[name])
    for file in root.rglob("._*"):
        file.write_bytes(FORK)
    assert found() == before


def test_f01_the_check_does_not_see_them(tmp_path: Path, tiny: Tiny) -> None:
    """Nor does the check of the folder of held-out images; the root may be hidden itself."""
    root = fill(tmp_path / ".d", "a.png", "a.txt", "._b.png", ".x/c.png", "__x/metadata.csv")
    held = fill(tmp_path / "__held", "h.png", "._h.png")
    words = ["--holdout_dir", held, "--resolution", 32, "--json", tmp_path / "r.json"]
    done = run_cli("data", "check", root, *words, "--pretrained_prior_model_name_or_path", "mini")
    report = json.loads((tmp_path / "r.json").read_text())
    assert done.code == 0 and report["summary"]["pictures"] == 1
    assert not [f for f in report["findings"] if f["kind"] in ("broken", "metadata", "unread")]


def test_f01_metadata_may_name_what_is_hidden(tmp_path: Path) -> None:
    """And a file whose own name begins with `__` counts."""
    root = fill(tmp_path, ".store/a.png", "__b.png", "sub/c.png")
    lines(root / "metadata.jsonl", ".store/a.png", "__b.png", "sub/c.png")
    assert list(read(root)) == [".store/a.png", "__b.png", "sub/c.png"]


@pytest.mark.parametrize("way", ["data check", "training"])
def test_f02_a_checkpoint_of_a_notebook_is_no_second_image(way: str, tmp_path: Path) -> None:
    """`.ipynb_checkpoints` holds copies, by both kinds of folder: with texts and with metadata."""
    for number, metadata in enumerate((False, True)):
        root = fill(tmp_path / str(number), "a.png", "a.txt")
        if metadata:
            lines(root / "metadata.jsonl", "a.png")
        before = datasets.read_folder(str(root), "image", "text").fingerprint()
        hidden = root / ".ipynb_checkpoints"
        hidden.mkdir()
        (hidden / "a-checkpoint.png").write_bytes((root / "a.png").read_bytes())
        (hidden / "metadata.jsonl").write_text("{oops")
        assert size(root) == 1
        assert datasets.read_folder(str(root), "image", "text").fingerprint() == before


def test_f02_fingerprints_of_before_are_the_same(tmp_path: Path) -> None:
    """Of a folder without such entries, so its caches and checkpoints stay valid."""
    root = fill(tmp_path, "b.png", "b.txt", "a/z.JPG", "a/z.txt", "a.x/c.gif", "a.x/c.txt", "B.png")
    (root / "B.txt").write_text("x")
    paths = [str(p) for p in sorted(root.rglob("*")) if p.suffix.lower() in images.SUFFIXES]
    found = datasets.read_folder(str(root), "image", "text")
    assert [found[n].image for n in range(len(found))] == paths
    here = Path.cwd()
    os.chdir(root)
    try:
        near = datasets.read_folder(".", "image", "text")
        assert near[0].image == str(next(iter(sorted(Path().rglob("*.png")))))
        assert near.fingerprint() == found.fingerprint()
    finally:
        os.chdir(here)


# ---------------------------------------------------------------- F3: one rule of case

SPELLINGS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "upper case": (("A.JPG", "A.TXT"), "A.JPG", "A.TXT"),
    "mixed": (("a.png", "a.Txt"), "a.png", "a.Txt"),
    "the usual wins": (("A.png", "A.txt", "A.TXT"), "A.png", "A.txt"),
    "the usual ending wins": (("a.png", "A.txt", "a.TXT"), "a.png", "a.TXT"),
    "another stem": (("IMG_1.JPG", "img_1.txt"), "IMG_1.JPG", "img_1.txt"),
    "accents apart": ((f"{APART}.png", f"{COMPOSED}.txt"), f"{APART}.png", f"{COMPOSED}.txt"),
    "accents composed": ((f"{COMPOSED}.png", f"{APART}.TXT"), f"{COMPOSED}.png", f"{APART}.TXT"),
    "a space": (("a .png", "a.txt"), "a .png", "a.txt"),
    "a space at the end": (("a.png ", "a.txt "), "a.png ", "a.txt "),
    "jpeg": (("a.JPEG", "a.txt"), "a.JPEG", "a.txt"),
    "jpe and jfif": (("b.jpe", "a.jfif", "b.txt", "a.txt"), "a.jfif", "a.txt"),
    "two dots": (("a.v2.png", "a.v2.TXT", "a.txt"), "a.v2.png", "a.v2.TXT"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_f03_captions_are_found_in_any_case(name: str, tmp_path: Path) -> None:
    """The usual spelling first; the caption is that of the file, which holds its own name."""
    names, image, text = SPELLINGS[name]
    root = fill(tmp_path, *names)
    (root / text).write_text("the right one")
    assert read(root)[image] == ("the right one",)


def test_f03_no_image_takes_the_caption_of_another(tmp_path: Path) -> None:
    """`a.png` has no caption where `A.txt` is that of `A.png`, nor where two would do."""
    root = fill(tmp_path / "1", "A.png", "a.png", "A.txt")
    assert "no .txt beside" in fault(root) and "a.png" in fault(root)
    root = fill(tmp_path / "2", "aB.png", "AB.txt", "ab.txt")
    assert "no .txt beside" in fault(root)


@pytest.mark.parametrize(
    "name", ["Metadata.jsonl", "METADATA.JSONL", "metadata.JSONL", "Metadata.csv", "METADATA.CSV"]
)
def test_f03_metadata_in_any_case(name: str, tmp_path: Path) -> None:
    """Read as what they are; beside the usual spelling they are not read."""
    root = fill(tmp_path, "a.png", "b.png")
    rows = {"csv": "file_name,text\na.png,one\n", "jsonl": '{"file_name":"a.png","text":"one"}\n'}
    (root / name).write_text(rows[name.rpartition(".")[2].lower()])
    assert read(root) == {"a.png": ("one",)}
    if os.path.lexists(root / "metadata.jsonl"):
        return
    lines(root / "metadata.jsonl", "a.png", "b.png")
    assert read(root) == {"a.png": ("a.png",), "b.png": ("b.png",)}
    assert told(root) == [f"{name} is not read beside a file of the usual spelling"]


# ---------------------------------------------------------------- F13: kinds that are not read

UNREAD: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "phones": (
        ("1.heic", "2.heic", "3.HEIC", "1.jxl", "2.jxl", "3.jxl"),
        ["6 files of kinds that are not read: .heic 3, .jxl 3"],
    ),
    "cameras": (
        ("1.dng", "1.CR2", "1.nef"),
        ["3 files of kinds that are not read: .cr2 1, .dng 1, .nef 1"],
    ),
    "drawings": (
        ("1.psd", "1.svg", "1.kra"),
        ["3 files of kinds that are not read: .kra 1, .psd 1, .svg 1"],
    ),
    "films": (("1.mp4",), ["1 file of kinds that are not read: .mp4 1"]),
    "papers": (("README.md", "README", "LICENSE", "readme.txt", "a.json", "Thumbs.db"), []),
    "alone": (("b.txt", "c.TXT"), ["2 caption files belong to no image"]),
    "both": (
        ("b.heic", "b.txt"),
        ["1 file of kinds that are not read: .heic 1", "1 caption file belongs to no image"],
    ),
}


@pytest.mark.parametrize("name", UNREAD)
def test_f13_kinds_that_are_not_read_are_counted(name: str, tmp_path: Path) -> None:
    """By their endings; texts about the dataset are no captions."""
    names, expected = UNREAD[name]
    assert told(fill(tmp_path, "a.png", "a.txt", *names)) == expected


def test_f13_files_without_a_known_ending(tmp_path: Path) -> None:
    """Such as what a browser or a downloader saved."""
    root = fill(tmp_path, "a.png", "a.txt", "photo", "x.jpg_large", "captions.txt")
    assert told(root) == [
        "2 files of kinds that are not read: .jpg_large 1, no ending 1",
        "captions.txt is not read: only metadata.jsonl and metadata.csv are",
    ]


@pytest.mark.parametrize("column", ["text", None])
def test_f13_a_folder_of_nothing_else_says_so(column: str | None, tmp_path: Path) -> None:
    """Instead of "no pictures" alone; of a folder of shards, too."""
    root = fill(tmp_path / "1", "a.heic", "a.txt", "b.heic")
    assert "no pictures in it" in fault(root, column) and ".heic 2" in fault(root, column)
    root = fill(tmp_path / "2", "x/a.parquet")
    assert "1 parquet file: only --dataset_name reads them" in fault(root, column)
    with pytest.raises(UserError, match=r"\.heic 2"):
        datasets.read_prompted(str(tmp_path / "1"), "x")


def test_f13_to_f16_the_run_and_the_check_say_it(tmp_path: Path, tiny: Tiny) -> None:
    """The same sentences, once each; the training goes on."""
    root = fill(tmp_path / "d", "a.png", "b.png", "c.png", "x.heic", "images.zip")
    lines(root / "metadata.jsonl", "a.png", "b.png")
    out = train("prior", tmp_path / "run", tiny, root, max_train_steps=1).out
    words = ["--resolution", 32, "--pretrained_prior_model_name_or_path", tiny.prior]
    checked = run_cli("data", "check", root, *words)
    assert checked.code == 0, checked.text
    for message in (
        f"{root}: 1 file of kinds that are not read: .heic 1",
        f"{root}: images.zip: unpack it",
        f"{root}: 1 image is in no metadata file and is left out",
    ):
        assert out.count(f"warning: {message}\n") == 1
        assert checked.out.count(f"  {message}\n") == 1
    assert f"    {root}/c.png\n" in checked.out


# ---------------------------------------------------------------- F18: links and closed folders


@pytest.mark.parametrize("way", ["train", "no captions", "metadata", "instance"])
def test_f18_a_linked_folder_is_refused_as_a_linked_file(way: str, tmp_path: Path) -> None:
    """The same words; a link in a hidden folder does not count."""
    fill(tmp_path / "else", "b.png", "b.txt")
    root = fill(tmp_path / "d", "a.png", "a.txt", ".hidden/x.png")
    (root / ".hidden" / "link").symlink_to(tmp_path / "else")
    (root / ".link").symlink_to(tmp_path / "else")
    if way == "metadata":
        lines(root / "metadata.jsonl", "a.png")
    assert size(root) == 1
    (root / "sub").mkdir()
    (root / "sub" / "more").symlink_to(tmp_path / "else")
    says = f"{root}/sub/more: a link that leads out of {root}; copy the file there"
    if way == "instance":
        with pytest.raises(UserError) as caught:
            datasets.read_prompted(str(root), "x")
        assert str(caught.value) == says
    else:
        assert fault(root, None if way == "no captions" else "text") == says


@pytest.mark.parametrize("target", [".", "..", "sub", "loop"])
def test_f18_loops_end(target: str, tmp_path: Path) -> None:
    """A link to the folder itself or to one in it adds nothing; one to the parent is refused."""
    root = fill(tmp_path / "d", "a.png", "a.txt", "sub/b.png", "sub/b.txt")
    (root / "sub" / "loop").symlink_to((root / "sub" / "loop") if target == "loop" else ".")
    (root / "link").symlink_to(root / target, target_is_directory=True)
    if target == "..":
        assert "a link that leads out of" in fault(root)
    else:
        assert list(read(root)) == ["a.png", "sub/b.png"] and told(root) == []


def test_f18_a_link_to_a_hidden_folder_is_told(tmp_path: Path) -> None:
    """It stays inside, and what it leads to is not read."""
    root = fill(tmp_path / "d", "a.png", "a.txt", ".store/b.png")
    (root / "now").symlink_to(root / ".store")
    assert told(root) == ["now: a link to a folder that is not read"]


def test_f18_a_closed_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without permission to read it is not passed over."""
    root, open_folder = fill(tmp_path / "d", "a.png", "a.txt", "x/b.png"), os.scandir

    def scandir(path: Any) -> Any:
        if Path(path) == root / "x":
            raise PermissionError(13, "Permission denied", str(path))
        return open_folder(path)

    monkeypatch.setattr(os, "scandir", scandir)
    says = f"{root}/x: Permission denied. Make it readable, or remove it."
    assert fault(root) == fault(root, None) == says
    with pytest.raises(UserError, match="Permission denied"):
        datasets.read_prompted(str(root), "x")


def test_f18_empty_folders_are_nothing(tmp_path: Path) -> None:
    """Nor is a folder that is called as an image."""
    root = fill(tmp_path, "a.png", "a.txt", "empty/x/", "b.png/", "c.txt/", "metadata.csv/")
    assert list(read(root)) == ["a.png"] and told(root) == []


@pytest.mark.parametrize("column", ["text", None])
def test_f18_broken_links_are_counted(column: str | None, tmp_path: Path) -> None:
    """As a dataset under version control leaves them whose contents were not fetched."""
    root = fill(tmp_path, "a.png", "a.txt", "b.txt", ".git/")
    (root / "b.png").symlink_to(root / ".git" / "object")
    os.mkfifo(root / "c.png")
    message = "2 images are no file (a broken link, or a pipe) and left out"
    assert told(root, column) == [message] + ["1 caption file belongs to no image"] * bool(column)


# ---------------------------------------------------------------- the rule itself


@pytest.mark.parametrize("name", ["a.png", "__a.png", "a..png", "A b.PNG", "-a.png", "~a.png"])
def test_a_plain_file_counts(name: str, tmp_path: Path) -> None:
    """Only a dot at the beginning hides a file."""
    assert entries.counts(name, is_folder=False)
    assert size(fill(tmp_path, name), None) == 1
