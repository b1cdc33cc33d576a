"""Bad input, from the command line to the exit: code 2, one line that names the file and a remedy,
and nothing trained. Good but odd input: it trains.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e import (
    NETWORK,
    ROLES,
    assert_same_bits,
    checkpoints,
    command,
    losses,
    refused,
    rows_of,
    train,
    write_rows,
)
from helpers import draw_picture, image_files, run_command, write_folder
from PIL import Image

from wassily.mini.untrained import Tiny


@pytest.fixture
def pics(photos: Path, tmp_path: Path) -> Path:
    """A copy of the photographs, to be spoilt."""
    shutil.copytree(photos, tmp_path / "pics")
    return tmp_path / "pics"


@pytest.fixture(params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    """Both networks."""
    return request.param


def spoil(file: Path, way: str) -> None:
    """Make an image unreadable."""
    if way == "cut":
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
    elif way == "empty":
        file.write_bytes(b"")
    else:
        file.write_text("<html>404 Not Found</html>")


def first(pics: Path) -> Path:
    """The picture of the first line."""
    return pics / rows_of(pics)[0]["file_name"]


def assert_untrained(out: Path) -> None:
    """No checkpoint, no weights, no pipeline."""
    assert checkpoints(out) == []
    assert not list(out.rglob("*.safetensors"))
    assert not (out / "model_index.json").exists()


# ---------------------------------------------------------------- pictures


def test_broken_pictures_are_all_named(role: str, pics: Path, tmp_path: Path, tiny: Tiny) -> None:
    """Each unreadable picture, whatever is wrong with it, and the flag that goes on without."""
    broken = [pics / row["file_name"] for row in rows_of(pics)[1:4]]
    for file, way in zip(broken, ("cut", "empty", "web page"), strict=True):
        spoil(file, way)
    line = refused(*command(role, tmp_path / "run", tiny, pics, max_train_steps=1))
    assert "3 of 7 pictures" in line and "--skip_bad_images" in line
    assert all(str(file) in line for file in broken)
    assert_untrained(tmp_path / "run")


def test_skipping_them(role: str, pics: Path, tmp_path: Path, tiny: Tiny) -> None:
    """--skip_bad_images says how many are left out, and is the run without them, to the bit."""
    rows = rows_of(pics)
    spoil(pics / rows[2]["file_name"], "cut")
    spoil(pics / rows[4]["file_name"], "web page")
    flags = {"max_train_steps": 3, "logging_steps": 1}
    outcome = train(role, tmp_path / "a", tiny, pics, **flags, skip_bad_images=True)
    assert "left out 2 of 7 pictures" in outcome.out
    assert "5 pictures, global batch 1" in outcome.out
    write_rows(pics, [row for n, row in enumerate(rows) if n not in (2, 4)])
    train(role, tmp_path / "b", tiny, pics, **flags)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert_same_bits(tmp_path / "a" / "checkpoint-3", tmp_path / "b" / "checkpoint-3")


def test_nothing_but_broken_pictures(role: str, pics: Path, tmp_path: Path, tiny: Tiny) -> None:
    """Skipping cannot skip everything."""
    for row in rows_of(pics):
        spoil(pics / row["file_name"], "empty")
    words = command(role, tmp_path / "run", tiny, pics, max_train_steps=1, skip_bad_images=True)
    assert "no picture can be read" in refused(*words)
    assert_untrained(tmp_path / "run")


def test_a_real_process_says_it_in_one_line(pics: Path, tmp_path: Path, tiny: Tiny) -> None:
    """`python -m wassily`: nothing of the libraries around the one line, exit code 2."""
    spoil(first(pics), "cut")
    words = command("prior", tmp_path / "run", tiny, pics, max_train_steps=1)
    result = run_command("wassily", *words, cwd=tmp_path)
    assert result.returncode == 2
    lines = result.stderr.splitlines()
    # A sign of life comes first, because PyTorch takes seconds to load.
    assert len(lines) == 2 and "loading PyTorch" in lines[0], result.stderr
    assert lines[1].startswith("wassily: error: ")
    assert str(first(pics)) in lines[1] and "--skip_bad_images" in lines[1]


# ---------------------------------------------------------------- captions and metadata


def no_file(pics: Path) -> list[str]:
    """A line whose picture is not there."""
    first(pics).unlink()
    return ["metadata.jsonl line 1", "no such file", "remove the line"]


def no_caption(pics: Path) -> list[str]:
    """A line without the column of captions."""
    rows = rows_of(pics)
    rows[3]["caption"] = rows[3].pop("text")
    write_rows(pics, rows)
    return ["metadata.jsonl line 4", "no column 'text'", "--caption_column", "caption"]


def blank_caption(pics: Path) -> list[str]:
    """A caption of spaces."""
    rows = rows_of(pics)
    rows[6]["text"] = "   "
    write_rows(pics, rows)
    return ["metadata.jsonl line 7", "'text'", "the caption is empty; write one"]


def number_for_a_caption(pics: Path) -> list[str]:
    """A caption that is no text."""
    rows = rows_of(pics)
    rows[1]["text"] = 5
    write_rows(pics, rows)
    return ["metadata.jsonl line 2", "a text or a list of texts"]


def broken_line(pics: Path) -> list[str]:
    """A line that is no JSON."""
    file = pics / "metadata.jsonl"
    file.write_text(file.read_text("utf-8")[:-10] + "\n", "utf-8")
    return ["metadata.jsonl line 7", "not JSON"]


def no_name(pics: Path) -> list[str]:
    """A line that names no picture."""
    rows = rows_of(pics)
    rows[2]["image"] = rows[2].pop("file_name")
    write_rows(pics, rows)
    return ["metadata.jsonl line 3", "file_name"]


def out_of_the_folder(pics: Path) -> list[str]:
    """A line that leads elsewhere on the disk."""
    rows = rows_of(pics)
    rows[0]["file_name"] = "../../etc/passwd"
    write_rows(pics, rows)
    return ["metadata.jsonl line 1", "leads out of"]


def no_metadata(pics: Path) -> list[str]:
    """No captions at all."""
    (pics / "metadata.jsonl").unlink()
    return ["captions are missing", "metadata.jsonl", ".txt"]


def one_text_missing(pics: Path) -> list[str]:
    """Captions in text files, but for one picture."""
    rows = rows_of(pics)
    (pics / "metadata.jsonl").unlink()
    for row in rows[1:]:
        (pics / row["file_name"]).with_suffix(".txt").write_text(row["text"], "utf-8")
    return ["captions are missing", rows[0]["file_name"]]


def one_text_empty(pics: Path) -> list[str]:
    """Captions in text files, one of them empty."""
    one_text_missing(pics)
    for file in image_files(pics):
        file.with_suffix(".txt").write_text("", "utf-8")
    return [".txt", "the caption is empty"]


def not_utf8(pics: Path) -> list[str]:
    """A metadata file of another encoding."""
    file = pics / "metadata.jsonl"
    file.write_bytes(file.read_bytes() + b'{"file_name": "x", "text": "caf\xe9"}\n')
    return ["metadata.jsonl", "UTF-8"]


def empty(pics: Path) -> list[str]:
    """A folder with nothing in it."""
    shutil.rmtree(pics)
    pics.mkdir()
    return [str(pics), "no pictures in it", ".jpg"]


def gone(pics: Path) -> list[str]:
    """No folder."""
    shutil.rmtree(pics)
    return ["--train_data_dir", str(pics), "no such folder"]


EVERY = [no_file, broken_line, no_name, out_of_the_folder, not_utf8, empty, gone]
CAPTIONS = [
    no_caption,
    blank_caption,
    number_for_a_caption,
    no_metadata,
    one_text_missing,
    one_text_empty,
]


@pytest.mark.parametrize("make", [*EVERY, *CAPTIONS], ids=lambda make: make.__name__)
def test_bad_folders_of_the_prior(
    make: Callable[[Path], list[str]], pics: Path, tmp_path: Path, tiny: Tiny
) -> None:
    """The file, the line or the column is named, and what to do."""
    wanted = make(pics)
    line = refused(*command("prior", tmp_path / "run", tiny, pics, max_train_steps=1))
    assert [word for word in wanted if word not in line] == [], line
    assert_untrained(tmp_path / "run")


@pytest.mark.parametrize("make", EVERY, ids=lambda make: make.__name__)
def test_bad_folders_of_the_decoder(
    make: Callable[[Path], list[str]], pics: Path, tmp_path: Path, tiny: Tiny
) -> None:
    """The same for the decoder, as far as it looks at a folder."""
    wanted = make(pics)
    line = refused(*command("decoder", tmp_path / "run", tiny, pics, max_train_steps=1))
    assert [word for word in wanted if word not in line] == [], line
    assert_untrained(tmp_path / "run")


@pytest.mark.parametrize("make", CAPTIONS, ids=lambda make: make.__name__)
def test_captions_do_not_matter_to_the_decoder(
    make: Callable[[Path], list[str]], pics: Path, tmp_path: Path, tiny: Tiny
) -> None:
    """A folder that is bad only for its captions trains the decoder."""
    make(pics)
    train("decoder", tmp_path / "run", tiny, pics, max_train_steps=1)


# ---------------------------------------------------------------- data sets


def a_dataset(folder: Path, image: Any, captions: list[Any]) -> Path:
    """A parquet folder with the same cell in each row."""
    import datasets

    table = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": image, "path": None}] * len(captions),
            "text": captions,
            "number": list(range(len(captions))),
        }
    )
    folder.mkdir()
    table.cast_column("image", datasets.Image()).to_parquet(str(folder / "train.parquet"))
    return folder


def png(tmp_path: Path) -> bytes:
    """A small picture as a file's bytes."""
    draw_picture(0).save(tmp_path / "one.png")
    return (tmp_path / "one.png").read_bytes()


def test_bad_datasets(tmp_path: Path, tiny: Tiny) -> None:
    """A missing column with the nearest name, an empty caption and a broken picture by their row,
    a name that cannot be loaded.
    """
    data = a_dataset(tmp_path / "data", png(tmp_path), ["a", "b"])
    words = command("prior", tmp_path / "run", tiny, None, max_train_steps=1, dataset_name=data)
    line = refused(*words, "--caption_column", "txt")
    assert "no such column" in line and "'text'" in line and "--caption_column" in line
    line = refused(*words, "--image_column", "img")
    assert "--image_column img" in line and "image" in line
    line = refused(*words, "--image_column", "number")
    assert "not pictures" in line
    words[-1] = str(a_dataset(tmp_path / "empty", png(tmp_path), ["a", ""]))
    assert "row 1" in refused(*words)
    words[-1] = str(a_dataset(tmp_path / "broken", b"no picture", ["a", "b"]))
    line = refused(*words)
    assert "row 0" in line and "row 1" in line and "--skip_bad_images" in line
    (tmp_path / "nothing").mkdir()
    words[-1] = str(tmp_path / "nothing")
    assert "cannot be loaded" in refused(*words)
    words[-1] = "nobody/nothing"
    assert "nobody/nothing" in refused(*words)
    assert_untrained(tmp_path / "run")


# ---------------------------------------------------------------- models


@pytest.mark.parametrize("home", ROLES)
def test_the_other_networks_folder(
    role: str, home: str, photos: Path, tmp_path: Path, tiny: Tiny
) -> None:
    """A decoder's folder given as prior, or the other way round: said before anything is loaded."""
    other = {"prior": tiny.decoder, "decoder": tiny.prior}[home]
    flag = f"pretrained_{home}_model_name_or_path"
    flags: dict[str, Any] = {"max_train_steps": 1, flag: other}
    line = refused(*command(role, tmp_path / "run", tiny, photos, **flags))
    is_a = {"prior": "decoder", "decoder": "prior"}[home]
    assert str(other) in line and f"it is a {is_a}'s" in line
    assert not (tmp_path / "run").exists()


def test_a_prior_and_a_decoder_of_other_widths(
    role: str, photos: Path, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, before any weight is loaded; a prior that draws nothing needs no decoder."""
    flags: dict[str, Any] = {"max_train_steps": 1, "pretrained_prior_model_name_or_path": "mini"}
    if role == "prior":
        flags["validation_prompts"] = "a cat"
    with monkeypatch.context() as context:
        context.setattr("wassily.models.parts.load", None)
        line = refused(*command(role, tmp_path / "run", tiny, photos, **flags))
    assert "--pretrained_prior_model_name_or_path mini makes embeddings of" in line
    assert not (tmp_path / "run").exists()
    if role == "prior":
        train(role, tmp_path / "run", tiny, photos, **flags | {"validation_prompts": None})


@pytest.mark.parametrize(
    ("part", "way"),
    [("trained", "cut"), ("image_encoder", "cut"), ("image_encoder", "gone"), ("trained", "json")],
)
def test_broken_models(
    role: str, part: str, way: str, photos: Path, tmp_path: Path, tiny: Tiny
) -> None:
    """A part that is cut off, missing or of no sense is named with its folder."""
    model = tmp_path / "models"
    for home in ROLES:
        shutil.copytree(getattr(tiny, home), model / home)
    home = role if part == "trained" else "prior"
    folder = model / home / (NETWORK[role] if part == "trained" else part)
    if way == "gone":
        shutil.rmtree(folder)
    elif way == "json":
        (folder / "config.json").write_text("{ not json")
    else:
        weights = next(folder.glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:1000])
    spoilt = Tiny(model / "prior", model / "decoder")
    line = refused(*command(role, tmp_path / "run", spoilt, photos, max_train_steps=1))
    assert str(model / home) in line and f"cannot load its {folder.name}" in line
    assert_untrained(tmp_path / "run")


@pytest.mark.parametrize("file", ["state.json", "optimizer.safetensors", "weights"])
def test_a_broken_checkpoint(
    role: str, file: str, photos: Path, tmp_path: Path, tiny: Tiny
) -> None:
    """A checkpoint that a disk spoilt is named; it is not trained on, and not written over."""
    out = tmp_path / "run"
    train(role, out, tiny, photos, max_train_steps=1)
    network = f"{NETWORK[role]}/diffusion_pytorch_model.safetensors"
    spoilt = out / "checkpoint-1" / (network if file == "weights" else file)
    spoilt.write_bytes(spoilt.read_bytes()[:200])
    flags = {"max_train_steps": 2, "resume_from_checkpoint": "latest"}
    line = refused(*command(role, out, tiny, photos, **flags))
    assert str(out / "checkpoint-1") in line
    assert checkpoints(out) == ["checkpoint-1"]


def test_an_output_that_is_a_file(photos: Path, tmp_path: Path, tiny: Tiny) -> None:
    """Named before anything is loaded."""
    (tmp_path / "run").write_text("in the way")
    line = refused(*command("prior", tmp_path / "run", tiny, photos, max_train_steps=1))
    assert f"--output_dir {tmp_path / 'run'}" in line


# ---------------------------------------------------------------- odd, and good


def test_odd_pictures_and_captions_train(role: str, tmp_path: Path, tiny: Tiny) -> None:
    """Every mode, a turned camera, tiny and long shapes, names and captions in many scripts."""
    folder = tmp_path / "صور و رسوم"
    folder.mkdir()
    base = draw_picture(3)
    turned = Image.Exif()
    turned[0x0112] = 6
    files: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "grey.png": (base.convert("L"), {}),
        "palette.gif": (base.convert("P"), {}),
        "alpha.png": (base.convert("RGBA"), {}),
        "print.jpg": (base.convert("CMYK"), {}),
        "turned.jpg": (base, {"exif": turned}),
        "deep.png": (Image.fromarray(np.full((20, 30), 40000, np.uint16)), {}),
        "bits.bmp": (base.convert("1"), {}),
        "dot.png": (base.resize((1, 1)), {}),
        "line.webp": (base.resize((300, 2)), {}),
        "робот №1.JPG": (base, {"format": "JPEG"}),
    }
    captions: list[Any] = ["قطة حمراء على العشب", "赤い猫", "🐈 " * 60, ["one", "two, three"]]
    rows = []
    for number, (name, (picture, options)) in enumerate(files.items()):
        picture.save(folder / name, **options)
        rows.append({"file_name": name, "text": captions[number % len(captions)]})
    write_rows(folder, rows)
    outcome = train(
        role, tmp_path / "خرج", tiny, folder, max_train_steps=5, train_batch_size=2, logging_steps=1
    )
    assert all(np.isfinite(loss) for _, loss, _ in losses(tmp_path / "خرج"))
    if role == "prior":
        assert "captions are longer than 77 tokens" in outcome.out


def test_other_forms_of_a_folder(photos: Path, tmp_path: Path, tiny: Tiny) -> None:
    """.csv, .txt beside the pictures and another caption column are the run of the .jsonl."""
    rows = rows_of(photos)
    flags = {"max_train_steps": 3, "logging_steps": 1}
    train("prior", tmp_path / "jsonl", tiny, photos, **flags)
    rows.sort(key=lambda row: row["file_name"])
    for form in ("csv", "txt", "column"):
        folder = tmp_path / f"pics-{form}"
        shutil.copytree(photos, folder)
        (folder / "metadata.jsonl").unlink()
        more: dict[str, Any] = {}
        if form == "csv":
            lines = ["file_name,text", *(f"{r['file_name']},{json.dumps(r['text'])}" for r in rows)]
            (folder / "metadata.csv").write_text("\n".join(lines) + "\n", "utf-8")
        elif form == "txt":
            for row in rows:
                (folder / row["file_name"]).with_suffix(".txt").write_text(row["text"], "utf-8")
        else:
            names = [{"file_name": r["file_name"], "says": r["text"]} for r in rows]
            write_rows(folder, names)
            more["caption_column"] = "says"
        train("prior", tmp_path / form, tiny, folder, **flags, **more)
        assert losses(tmp_path / form) == losses(tmp_path / "csv")
    assert rows == rows_of(photos)
    assert losses(tmp_path / "jsonl") == losses(tmp_path / "csv")


def test_a_bare_folder_trains_the_decoder(photos: Path, tmp_path: Path, tiny: Tiny) -> None:
    """Pictures alone are enough, in sub-folders too; other files are left alone."""
    folder = tmp_path / "bare"
    (folder / "more").mkdir(parents=True)
    for number, file in enumerate(image_files(photos)):
        shutil.copyfile(file, (folder / "more" if number % 2 else folder) / file.name)
    (folder / "notes.md").write_text("not a picture")
    outcome = train("decoder", tmp_path / "run", tiny, folder, max_train_steps=1)
    assert f"{len(image_files(photos))} pictures" in outcome.out


def test_one_picture(role: str, tmp_path: Path, tiny: Tiny) -> None:
    """A batch larger than the data set is filled from the epochs after."""
    folder = write_folder(tmp_path / "one", ["a cat"])
    flags = {"max_train_steps": 2, "train_batch_size": 3, "validation_prompts": "a cat"}
    train(role, tmp_path / "run", tiny, folder, **flags)
    assert checkpoints(tmp_path / "run") == ["checkpoint-2"]
