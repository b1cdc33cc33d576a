"""What docs/security.md promises besides what other files test: no code of a stranger's is run, and
what nobody was meant to see goes nowhere.
"""

from __future__ import annotations

import ast
import json
import pickle
import re
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import shard_files
from e2e import ROLES, command, losses, refused, train, wassily
from helpers import ROOT, draw_picture
from PIL import Image

from wassily.cli import again
from wassily.data.datasets import opened, read_dataset, read_folder
from wassily.errors import UserError, masked, without_secrets
from wassily.generation import pipelines
from wassily.mini.untrained import Tiny
from wassily.models import names

PAGE = ROOT / "docs" / "security.md"
SOURCES = sorted((ROOT / "wassily").rglob("*.py"))

# ---------------------------------------------------------------- in the sources

RUNS_CODE = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "subprocess", "runpy"}
CALLS = {
    "torch.load",
    "torch.hub.load",
    "os.system",
    "os.popen",
    "yaml.load",
    "numpy.load",
    "np.load",
    "shutil.unpack_archive",
}
STARTS_TRAININGS = ROOT / "wassily" / "studio" / "process.py"
WORDS = {"trust_remote_code", "custom_pipeline", "shell", "allow_pickle"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_in_the_sources_runs_what_it_reads(path: Path) -> None:
    """No unpickling, no evaluating, no shell, no other program, no code of a repository.

    The studio alone starts one: wassily itself.
    """
    modules = MODULES - ({"subprocess"} if path == STARTS_TRAININGS else set())
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            assert not {name.name.split(".")[0] for name in node.names} & modules
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in modules
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in RUNS_CODE | CALLS, called
            assert not {word.arg for word in node.keywords} & WORDS, called


# ---------------------------------------------------------------- in a run

_heard: list[tuple[str, str]] | None = None


def _listen(event: str, values: tuple[Any, ...]) -> None:
    """An audit hook, which cannot be taken off again: it hears only while there is a list."""
    if _heard is not None and event in ("pickle.find_class", "os.system", "os.exec", "os.spawn"):
        _heard.append((event, str(values)))
    if _heard is not None and event == "subprocess.Popen":
        _heard.append((event, str(values[:2])))


@pytest.mark.parametrize("role", ROLES)
def test_a_run_loads_no_pickle_and_starts_no_program(
    role: str, tmp_path: Path, tiny: Tiny, photos: Path
) -> None:
    """Pictures to samples, the resume, the drawing: the interpreter itself tells."""
    global _heard
    sys.addaudithook(_listen)
    _heard = []
    pickle.loads(pickle.dumps(tmp_path))
    assert _heard  # so it would be heard
    _heard = []
    flags = {"validation_prompts": "a cat", "report_to": "tensorboard", "use_ema": True}
    try:
        train(role, tmp_path / "run", tiny, photos, max_train_steps=1, **flags)
        flags |= {"resume_from_checkpoint": "latest"}
        train(role, tmp_path / "run", tiny, photos, max_train_steps=2, **flags)
        pair = {"prior": tiny.prior, "decoder": tiny.decoder, role: tmp_path / "run"}
        words = [w for home, folder in pair.items() for w in (f"--{home}", folder)]
        few = ["--steps", 1, "--prior_steps", 2, "--out", tmp_path / "a.png"]
        assert wassily("generate", "a", *words, *few).code == 0
        assert _heard == []
    finally:
        _heard = None


def test_code_in_a_models_folder_is_not_run(tmp_path: Path, tiny: Tiny) -> None:
    """However the index, the configs and the tokenizer name it."""
    folder = tmp_path / "prior"
    shutil.copytree(tiny.prior, folder)
    code = f"import pathlib; pathlib.Path({str(tmp_path / 'was run')!r}).touch()\n"
    for place in [folder, *(p for p in folder.iterdir() if p.is_dir())]:
        for name in ("evil.py", "pipeline.py", "modeling_evil.py"):
            (place / name).write_text(code)
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    index |= {"_class_name": ["pipeline", "Evil"], "prior": ["evil", "Evil"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    import torch

    assert names.resolve(str(folder), "prior") == str(folder)
    pipelines.prior_pipeline(str(folder), torch.float32, None)
    maps = {"auto_map": dict.fromkeys(["AutoModel", "AutoTokenizer", "AutoConfig"], "evil.Evil")}
    for file in folder.rglob("*config.json"):
        whole = file.read_text("utf-8")
        for code in (maps, {"custom_pipeline": "evil"}):
            file.write_text(json.dumps(json.loads(whole) | code), "utf-8")
            with pytest.raises(UserError, match="takes weights or code from elsewhere"):
                pipelines.prior_pipeline(str(folder), torch.float32, None)
        file.write_text(whole, "utf-8")
    assert not (tmp_path / "was run").exists()


def test_code_in_a_data_set_is_not_run(tmp_path: Path, tiny: Tiny) -> None:
    """A loading script beside the data, or named itself."""
    folder = tmp_path / "pics"
    folder.mkdir()
    code = f"import pathlib; pathlib.Path({str(tmp_path / 'was run')!r}).touch()\n"
    (folder / "pics.py").write_text(code)
    for name in (folder, folder / "pics.py"):
        words = ["--dataset_name", name, "--output_dir", tmp_path / "out"]
        words += ["--pretrained_prior_model_name_or_path", tiny.prior]
        words += ["--pretrained_decoder_model_name_or_path", tiny.decoder]
        done = wassily("train", "prior", *words)
        assert done.code == 2
        assert "cannot be loaded" in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "was run").exists()


# ---------------------------------------------------------------- what is not read


def test_a_link_out_of_the_folder_leads_out(tmp_path: Path) -> None:
    """Also through a symbolic link."""
    draw_picture(0).save(tmp_path / "secret.png")
    folder = tmp_path / "pics"
    folder.mkdir()
    (folder / "metadata.jsonl").write_text('{"file_name": "link.png", "text": "x"}')
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match="leads out of"):
        read_folder(str(folder), "image", "text")


@pytest.mark.parametrize("form", ["parquet", "saved, said to be of a folder"])
def test_a_table_can_name_no_file(form: str, tmp_path: Path) -> None:
    """A stranger's rows with a path for bytes, with neither, or with nothing: each has a reason."""
    draw_picture(1).save(tmp_path / "private.png")
    own = (tmp_path / "private.png").read_bytes()
    cells = [
        {"bytes": None, "path": str(tmp_path / "private.png")},
        {"bytes": None, "path": None},
        None,
        {"bytes": own, "path": "a.png"},
    ]
    kind = {"image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}
    features = datasets.Features({**kind, "text": datasets.Value("string")})
    table = datasets.Dataset.from_dict({"image": cells, "text": list("abcd")}, features)
    folder = tmp_path / "set"
    folder.mkdir()
    if form == "parquet":
        table.to_parquet(folder / "train.parquet")
    else:
        table.info.builder_name = "imagefolder"
        table.save_to_disk(folder)
    found = read_dataset(str(folder), None, "image", "text", None)
    assert [found[i].image for i in range(4)] == [b"", b"", b"", own]
    assert all(isinstance(place, tuple) for place in found.places())
    assert all(isinstance(place, tuple) for place in found.select([0, 1]).places())
    looked = opened(found, range(4), lambda: None)
    assert all("a path in one is not followed" in str(looked[i]) for i in range(3))
    assert looked[3] == draw_picture(1).size


# ---------------------------------------------------------------- what goes nowhere

PLACE, TOKEN = "ZzPlaceOfThePictureZz", "hf_" + "Kx9" * 11


@pytest.mark.parametrize("role", ROLES)
def test_neither_place_nor_token_is_in_anything_written(
    role: str, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures with GPS data, a comment and a maker's note; a token in the environment: neither is
    in a checkpoint, sample, sheet, card, log, cache or line.
    """
    pics = tmp_path / "pics"
    pics.mkdir()
    for number in range(3):
        exif = Image.Exif()
        exif[0x010E], exif[0x0110] = PLACE, PLACE  # description, camera
        exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.0), 29: PLACE})
        file = pics / f"{number}.jpg"
        draw_picture(number).save(file, exif=exif, comment=PLACE.encode())
        file.with_suffix(".txt").write_text("a pattern")
        assert file.read_bytes().count(PLACE.encode()) >= 3
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    written = tmp_path / "written"
    flags: dict[str, Any] = {"cache_dir": written / "cache", "validation_prompts": "a cat"}
    flags |= {"report_to": "tensorboard", "holdout": 0.3}
    done = train(role, written / "run", tiny, pics, max_train_steps=2, **flags)
    pair = {"prior": tiny.prior, "decoder": tiny.decoder, role: written / "run"}
    words = [w for home, folder in pair.items() for w in (f"--{home}", folder)]
    few = ["--steps", 1, "--prior_steps", 2, "--out", written / "drawn", "--grid"]
    drawn = wassily("generate", "a", *words, *few)
    assert drawn.code == 0
    files = [p for p in written.rglob("*") if p.is_file()]
    assert {".png", ".md", ".toml", ".json", ".jsonl", ".safetensors"} <= {p.suffix for p in files}
    for secret in (PLACE, TOKEN):
        assert secret not in done.text + drawn.text
        assert [p for p in files if secret.encode() in p.read_bytes()] == []


SIGNATURE, PASSWORD = "Zz0Signature0zZ", "Zz0Password0zZ"


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[str]:
    """The address of a tar on a web server of this machine, with a password and a signature."""
    shard_files.tars(tmp_path / "shards", (3,))
    with shard_files.served(tmp_path / "shards") as address:
        host = address.removeprefix("http://")
        yield f"http://me:{PASSWORD}@{host}/00000.tar?X-Amz-Signature={SIGNATURE}&x=1#{SIGNATURE}"


def test_finding_04_a_signed_address_is_in_nothing_written(
    signed: str, tmp_path: Path, tiny: Tiny
) -> None:
    """Trained, resumed and refused: no file and no line has the password or the signature, and the
    run says in one line, and in its run.toml, which flag is incomplete.
    """
    out = tmp_path / "run"
    flags: dict[str, Any] = {"streaming": True, "dataset_name": signed, "image_column": "jpg"}
    flags |= {"report_to": "tensorboard", "checkpointing_steps": 1, "validation_prompts": "a cat"}
    said = train("decoder", out, tiny, None, max_train_steps=1, **flags).text
    # A newer signature is the same data: the run resumes.
    flags["dataset_name"] = signed.replace("x=1", "x=2")
    flags |= {"max_train_steps": 2, "resume_from_checkpoint": "latest"}
    said += train("decoder", out, tiny, None, **flags).text
    assert losses(out)[-1][0] == 2
    for absent in (signed.replace("00000", "absent"), signed.replace("tar?", "zip?")):
        flags["dataset_name"] = absent
        said += refused(*command("decoder", tmp_path / "no", tiny, None, **flags))
    files = [p for p in out.rglob("*") if p.is_file()]
    names = {p.name for p in files}
    assert {"run.toml", "run.json", "report.html", "README.md", "state.json", "log.jsonl"} <= names
    assert [p for p in files if "tfevents" in p.name]
    for secret in (SIGNATURE, PASSWORD, "X-Amz"):
        assert secret not in said
        assert [p for p in files if secret.encode() in p.read_bytes()] == []
    line = "run.toml: the secrets in --dataset_name are left out. To run again, add the flag with"
    assert said.count(line) == 2
    assert f"# {line}" in (out / "run.toml").read_text("utf-8")
    assert "127.0.0.1" not in (out / "README.md").read_text("utf-8")  # no owner/name


def test_finding_04_the_command_to_resume_hides_an_address(signed: str) -> None:
    """A note says so, and the command keeps its quotes."""
    note, line = again(["train", "prior", "--dataset_name", signed]).split("\n")
    assert "leaves out secrets" in note
    assert SIGNATURE not in line and PASSWORD not in line
    assert shlex.split(line.partition("wassily ")[2])[3].endswith("/00000.tar")
    assert "\n" not in again(["train", "prior", "--hub_token", TOKEN])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://me:pw@host:80/a.tar?sig=1: no", "at http://host:80/a.tar: no"),
        ("['s3://b/k?sig=1', 'x']", "['s3://b/k', 'x']"),
        ("http://me:p/w@host/a", "http://host/a"),
        ("http://me:p?w#@host/a#frag", "http://host/a"),
        ("a,http://b,http://u:pw@h?sig=1", "a,http://b,http://h"),
        ("hf://datasets/o/n@main/x.parquet", "hf://datasets/o/n@main/x.parquet"),
        ("https://h/x-{00..12}.tar (why?)", "https://h/x-{00..12}.tar (why?)"),
    ],
)
def test_finding_04_parts_of_an_address(text: str, shown: str) -> None:
    """The user part, the query and the fragment go; the rest and the text around it stay."""
    assert masked(text) == shown
    assert masked(shown) == shown
    assert without_secrets({"a": [text], "b": (1, None)}) == {"a": [shown], "b": (1, None)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_finding_04_configs_are_written_by_one_function(path: Path) -> None:
    """`schema.public` alone makes plain values of a config, and the notes of a PNG, which draw it
    again and hold no data set.
    """
    allowed = {"wassily/config/schema.py", "wassily/generation/metadata.py"}
    if path.relative_to(ROOT).as_posix() not in allowed:
        assert "asdict(config)" not in path.read_text("utf-8")


def test_finding_04_hiding_takes_no_time() -> None:
    """Texts that are made to be slow, a megabyte each."""
    for text in ("://a:b", "://", "://x?'", "@", "://a:/", "a" * 50 + "://@?"):
        begun = time.monotonic()
        masked(text * (2**20 // len(text)))
        assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    "words",
    [
        [TOKEN],
        ["train", TOKEN],
        ["train", "prior", TOKEN],
        ["train", "prior", f"--{TOKEN}"],
        ["train", "prior", "--seed", TOKEN],
        ["train", "prior", "--hub_token", TOKEN, TOKEN],
        ["train", "prior", "--config", TOKEN],
        ["data", "check", "--" + TOKEN],
    ],
    ids=lambda words: " ".join(words).replace(TOKEN, "X"),
)
def test_a_token_in_a_wrong_place_is_not_repeated(words: list[str]) -> None:
    """One line as always, with the token masked; --debug does not show it either."""
    done = wassily(*words)
    assert done.code == 2
    assert done.err.startswith("wassily: error: ") and done.err.count("\n") == 1
    assert "hf_***" in done.err and TOKEN not in done.err
    with pytest.raises(UserError) as caught:
        wassily(*words, "--debug")
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"])
def test_a_secret_of_the_environment_is_not_repeated(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it looks like; a value of a few letters would be found in other words."""
    words = ["train", "prior", "0ddSecret/77x"]
    assert "0ddSecret/77x" in wassily(*words).err
    monkeypatch.setenv(name, "0ddSecret/77x")
    assert "'***' belongs to no flag" in wassily(*words).err
    monkeypatch.setenv(name, "no")
    assert "belongs to no flag" in wassily(*words).err


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_does_not_show_a_files_token(word: str, tmp_path: Path) -> None:
    """Help shows the other values of the file."""
    file = tmp_path / "run.toml"
    file.write_text(f'hub_token = "{TOKEN}"\nmax_train_steps = 777\n')
    done = wassily("train", "prior", "--config", file, word)
    assert done.code == 0
    assert "777" in done.out and TOKEN not in done.text


# ---------------------------------------------------------------- the page

CITED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text("utf-8"))


def test_the_page_cites_tests_that_are_there() -> None:
    """Each promise has its test, by file and name."""
    rows = re.findall(r"^\| (.+) \| (.+) \|$", PAGE.read_text("utf-8"), re.M)
    promises = [row for row in rows if row[0] not in ("promise", "---")]
    assert len(promises) >= 12
    assert [promise for promise, held in promises if "::" not in held] == []
    for file, name in CITED:
        assert f"def {name}(" in (ROOT / file).read_text("utf-8"), f"{file}::{name}"
