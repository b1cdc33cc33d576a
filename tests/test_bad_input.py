"""Hundreds of bad inputs: each is one line and exit code 2, or taken as documented; none is a stack
trace, and none writes where nothing of a run belongs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import bad_folders
import bad_networks
import bad_pictures
import bad_words
import pytest
from bad_folders import Case
from e2e import command, ended, refused, train, wassily
from helpers import draw_picture, write_folder

from wassily.data import captions, datasets, images
from wassily.errors import UserError, printable
from wassily.files import run_state
from wassily.mini.untrained import Tiny
from wassily.models import parts

Snapshot = dict[str, tuple[int, int]]


def snapshot(folder: Path) -> Snapshot:
    """Each file and link below a folder with its size and time of change."""
    found = {str(p): p.lstat() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder; after the test nothing beside its `pics`, `out` and `made` is there."""
    folder = tmp_path / "pad"
    (folder / "pics").mkdir(parents=True)
    monkeypatch.chdir(folder)
    yield folder
    kept = {"pics", "out", "made", "outside.png", "outside.txt", "outside.jsonl"}
    assert {p.name for p in folder.iterdir()} <= kept
    assert {p.name for p in tmp_path.iterdir()} == {"pad"}


def cases(found: list[Case]) -> pytest.MarkDecorator:
    """A test for each."""
    return pytest.mark.parametrize("case", found, ids=[printable(case.name) for case in found])


# ---------------------------------------------------------------- pictures

BAD_PICTURES = [*bad_pictures.damaged(), *bad_pictures.strange()]


@pytest.mark.parametrize(
    ("content", "says"), [p[1:] for p in BAD_PICTURES], ids=[p[0] for p in BAD_PICTURES]
)
def test_a_bad_picture_has_a_reason(content: bytes, says: str) -> None:
    """One line of it, whatever the decoder raised."""
    with pytest.raises(images.BadPicture, match=says) as caught:
        images.open_rgb(content)
    assert str(caught.value) == printable(str(caught.value))


ODD_PICTURES = list(bad_pictures.odd())


@pytest.mark.parametrize("content", [p[1] for p in ODD_PICTURES], ids=[p[0] for p in ODD_PICTURES])
def test_an_odd_picture_is_a_picture(content: bytes) -> None:
    """In colour, and it can be cropped to what the networks read."""
    picture = images.open_rgb(content)
    assert picture.mode == "RGB"
    assert images.centre_pixels(picture, 16, 16).isfinite().all()


def test_all_bad_pictures_in_one_folder(here: Path, tiny: Tiny) -> None:
    """The training counts them and names ten; the check names all, and looks at the odd ones."""
    for name, content, *_ in [*BAD_PICTURES, *ODD_PICTURES]:
        (here / "pics" / name).write_bytes(content)
    (here / "pics" / "x.jpg").mkdir()
    before = snapshot(here / "pics")
    count, every = len(BAD_PICTURES), len(BAD_PICTURES) + len(ODD_PICTURES)
    line = refused(*command("decoder", Path("out"), tiny, Path("pics"), max_train_steps=1))
    assert f"{count} of {every} pictures cannot be read" in line
    assert f"and {count - 10} more" in line
    assert "--skip_bad_images" in line
    words = ["--no_captions", "--verbose", "--resolution", 32]
    words += ["--pretrained_prior_model_name_or_path", tiny.prior]
    done = wassily("data", "check", "pics", *words)
    assert (done.code, "Traceback" in done.text) == (1, False)
    assert all(f"pics/{name}: " in done.out for name, *_ in BAD_PICTURES)
    assert snapshot(here / "pics") == before


# ---------------------------------------------------------------- folders

METADATA = list(bad_folders.metadata())


@cases([case for case in METADATA if case.says])
def test_a_bad_folder_is_one_line(case: Case, here: Path, tiny: Tiny) -> None:
    """Of a training it names the file; the check of the data goes on after it, and ends."""
    case.make(here / "pics")
    before = snapshot(here)
    line = refused(*command("prior", Path("out"), tiny, Path("pics"), max_train_steps=1))
    assert re.search(case.says, line), line
    assert re.search(r"pics|metadata", line), line
    assert len(line) < 800, line
    after = {
        name: what for name, what in snapshot(here).items() if f"/{here.name}/out/" not in name
    }
    assert after == before
    assert not list((here / "out").rglob("*.safetensors"))
    words = ["--pretrained_prior_model_name_or_path", tiny.prior, "--resolution", 32]
    done = wassily("data", "check", "pics", *words)
    assert (done.code, "Traceback" in done.text) == (1, False), done.text


@cases([case for case in METADATA if not case.says])
def test_an_odd_folder_is_read(case: Case, here: Path, tiny: Tiny) -> None:
    """Its captions come as they were written, and the tokenizer takes them."""
    case.make(here / "pics")
    before = snapshot(here)
    found = datasets.read_folder("pics", "image", "text")
    assert len(found) >= 1
    assert all(caption.strip() for caption in found.all_captions())
    tokenizer = parts.load("tokenizer", str(tiny.prior))
    cut, total = captions.count_cut(found.all_captions(), tokenizer)
    assert 0 <= cut <= total
    assert snapshot(here) == before


@pytest.mark.parametrize("way", ["inside", "the folder", "by a link"])
def test_results_do_not_become_pictures_to_learn_from(way: str, here: Path, tiny: Tiny) -> None:
    """An output folder in the data folder is refused, however it is named."""
    (here / "made").symlink_to(here / "pics")
    out = {"inside": "pics/run", "the folder": "pics/../pics", "by a link": "made/run"}[way]
    line = refused(*command("prior", Path(out), tiny, Path("pics"), max_train_steps=1))
    assert f"--output_dir {out}: it lies in pics" in line
    assert not list((here / "pics").iterdir())


# ---------------------------------------------------------------- TOML and flags


@pytest.mark.parametrize("name", bad_words.TOML)
def test_a_bad_config_file(name: str, here: Path) -> None:
    """The file or the flag is named."""
    text, says = bad_words.TOML[name]
    (here / "made").write_text(text, "utf-8", "surrogateescape")
    line = refused("train", "prior", "--train_data_dir", "pics", "--config", "made")
    assert says in line or "--config made" in line
    assert "--" in line


FLAGS = [(name, value) for name, values in bad_words.FLAGS.items() for value in values]


@pytest.mark.parametrize(("name", "value"), FLAGS)
def test_a_bad_value(name: str, value: str, here: Path, tiny: Tiny) -> None:
    """Its flag is named."""
    words = [] if name == "output_dir" else ["--output_dir", "out"]
    models_ = ["--pretrained_prior_model_name_or_path", tiny.prior]
    models_ += ["--pretrained_decoder_model_name_or_path", tiny.decoder]
    words += [] if name.startswith("pretrained") else models_
    line = refused("train", "prior", "--train_data_dir", "pics", *words, f"--{name}={value}")
    what = value if name.startswith("pretrained") else f"--{name}"
    assert printable(what) in line
    assert len(line) < 500


@pytest.mark.parametrize("name", bad_words.TOGETHER)
def test_bad_flags_together(name: str, here: Path) -> None:
    """Contradictions and slips."""
    refused("train", "prior", "--train_data_dir", "pics", *bad_words.TOGETHER[name])


@pytest.mark.parametrize("name", bad_words.GENERATE)
def test_bad_wishes(name: str, here: Path, tiny: Tiny) -> None:
    """Of `wassily generate`; nothing is drawn."""
    refused("generate", *bad_words.GENERATE[name], "--prior", tiny.prior, "--decoder", tiny.decoder)
    assert [p.name for p in here.iterdir()] == ["pics"]


# ---------------------------------------------------------------- networks

NETWORKS = list(bad_networks.networks())
PARTS = [("prior", "prior"), ("decoder", "unet"), ("prior", "image_encoder")]


@cases(NETWORKS)
@pytest.mark.parametrize(("home", "role"), PARTS)
def test_a_spoilt_network(home: str, role: str, case: Case, here: Path, tiny: Tiny) -> None:
    """As a part of a model, and as one of a checkpoint; nothing of it is run."""
    part = here / "made" / role
    shutil.copytree(getattr(tiny, home) / role, part)
    case.make(part)
    before = snapshot(here)
    tries = [lambda: parts.load(role, str(here / "made"))]
    if role in parts.TRAINED.values():
        tries.append(lambda: parts.load_network(part, role))
    for attempt in tries:
        if not case.says:
            assert all(value.isfinite().all() for value in attempt().parameters())
            continue
        with pytest.raises(UserError, match=case.says) as caught:
            attempt()
        assert "made" in str(caught.value)
        assert len(printable(str(caught.value))) < 800
    assert snapshot(here) == before
    assert not (here / "made" / "was run").exists()


@pytest.mark.parametrize("name", ["x.bin", "x.pt", "x.ckpt", "x.pth"])
def test_a_file_that_is_a_pickle(name: str, here: Path, tiny: Tiny) -> None:
    """As a model and as an adapter, the reason is told."""
    (here / "pics" / name).write_bytes(b"\x80\x04N.")
    file = f"pics/{name}"
    for flag in ("--prior", "--decoder_lora"):
        given = ["--prior", tiny.prior, "--decoder", tiny.decoder, "--out", "out", flag, file]
        assert "is a pickle, which can run code" in refused("generate", "a", *given)


# ---------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    """A checkpoint of the prior after one step."""
    folder = tmp_path_factory.mktemp("saved")
    pics = write_folder(folder / "pics", ["a", "b"])
    train("prior", folder / "out", tiny, pics, max_train_steps=1)
    return folder / "out" / "checkpoint-1"


@cases(list(bad_networks.states()))
def test_a_spoilt_state(case: Case, saved: Path, here: Path) -> None:
    """It is named, before anything is loaded."""
    folder = here / "made" / "checkpoint-1"
    shutil.copytree(saved, folder)
    case.make(folder)
    with pytest.raises(UserError, match=case.says) as caught:
        state = run_state.to_resume(folder)
        # A role that is a word is looked at where it is compared.
        raise UserError(f"network was {state and state.role!r}")
    assert printable(str(caught.value)) == str(caught.value)


def test_a_checkpoint_of_the_other_network(saved: Path, here: Path, tiny: Tiny) -> None:
    """A prior's is not gone on with, nor drawn with, as a decoder's."""
    draw_picture(1).save(here / "pics" / "a.png")
    flags = {"max_train_steps": 2, "resume_from_checkpoint": saved}
    words = command("decoder", Path("out"), tiny, Path("pics"), **flags)
    assert "network was 'prior' and is 'decoder' now" in refused(*words)
    line = refused("generate", "a", "--prior", tiny.prior, "--decoder", saved, "--out", "out")
    assert "a checkpoint of a prior, not of a decoder" in line


# ---------------------------------------------------------------- as commands


@pytest.mark.parametrize("name", ["pipe: metadata", "line: deep"])
def test_as_a_command(name: str, here: Path, tiny: Tiny) -> None:
    """The one line is all that a process writes; --debug shows where it came from."""
    (case,) = (case for case in METADATA if case.name == name)
    case.make(here / "pics")
    words = command("prior", here / "out", tiny, here / "pics", max_train_steps=1)
    (here / "made").mkdir(exist_ok=True)
    done = ended(words, here / "made")
    assert done.code == 2
    assert done.err.startswith("wassily: error: ") and done.err.count("\n") == 1
    with pytest.raises(UserError):
        wassily(*words, "--debug")


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "a", "--prior", "~nosuch/x", "--decoder", "mini"),
        ("generate", "a", "--prior", "mini", "--decoder", "mini", "--image", "~nosuch/x.png"),
        ("train", "prior", "--train_data_dir", "pics", "--preserve", "~nosuch/x"),
        (
            "train",
            "prior",
            "--train_data_dir",
            "pics",
            "--pretrained_prior_model_name_or_path",
            "~nosuch/x",
        ),
        ("merge", "--lora", "~nosuch/x", "--out", "out"),
    ],
    ids=lambda words: words[-2] if words[0] != "generate" else " ".join(words[2:4:2] + words[-2:]),
)
def test_the_home_of_nobody_is_one_line(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that begins with ~ and a name that no user has is a path like any other."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pics").mkdir()
    done = wassily(*words)
    assert done.code == 2 and "nosuch" in done.err and done.err.count("\n") == 1, done.err
