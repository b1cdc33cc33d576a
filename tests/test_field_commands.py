"""Commands as people type them: names of folders, homes, checkpoints, machines that are full."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import shard_files
import torch
from helpers import with_checkpoints

from wassily import cli
from wassily.commands import merge
from wassily.config import parsing, schema
from wassily.config.commands import MergeConfig
from wassily.config.evaluation import EvaluateConfig
from wassily.config.training import DecoderConfig, PriorConfig
from wassily.data.datasets import read_dataset
from wassily.data.shards import read_shards
from wassily.errors import UserError
from wassily.evaluation import evaluate
from wassily.files import disk
from wassily.generation import pipelines
from wassily.mini.untrained import Tiny, make_decoder
from wassily.models import adapters, names, parts
from wassily.planning import plan
from wassily.reporting import next_command
from wassily.training import resume, setup

# ---------------------------------------------------------------- F6: names that look like patterns

NAMES = ["[D] pq", "x[!a-z]", "a*b", "w?x", "q{1,2}", "{00..01}", "c,d; e"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, where `axxb` and the like lie beside what looks like a pattern."""
    monkeypatch.chdir(tmp_path)
    for near in ("axxb", "wyx", "q1", "D pq"):
        shard_files.parquet(tmp_path / near, [1])
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_f06_a_folder_is_a_name(name: str, here: Path) -> None:
    """As parquet files, as a tar, and saved: three images each, those of that folder alone."""
    folder = shard_files.parquet(here / name, [2, 1])
    for given in (name, str(folder), f"./{name}/"):
        assert len(read_dataset(given, None, "image", "text", str(here / "kept"))) == 3
    shards = read_shards(name, None, "image", "text", str(here / "kept"))
    assert [len(list(shards.rows(n))) for n in range(len(shards))] == [2, 1]
    shard_files.tars(here / "tars" / name, [2, 1])
    shards = read_shards(f"tars/{name}", None, "jpg", "txt", str(here / "kept"))
    assert [len(list(shards.rows(n))) for n in range(len(shards))] == [2, 1]
    loaded = datasets.load_dataset("parquet", data_files={"train": "D pq/*"}, split="train")
    loaded.save_to_disk(here / "saved" / name)
    assert len(read_dataset(f"saved/{name}", None, "image", "text", None)) == 1


def test_f06_numbered_shards_in_such_a_folder(here: Path) -> None:
    """The braces of numbers are a pattern, the brackets before them a name."""
    shard_files.parquet(here / "[D] pq", [2, 1])
    name = "[D] pq/train-{00000..00001}.parquet"
    shards = read_shards(name, None, "image", "text", None)
    assert [len(list(shards.rows(n))) for n in range(len(shards))] == [2, 1]


def test_f06_a_file_with_braces_in_its_name(here: Path) -> None:
    """A file that is here is that file."""
    shard_files.parquet(here / "d", [2])
    (here / "d" / "train-00000.parquet").rename(here / "part-{00..03}.parquet")
    shards = read_shards("part-{00..03}.parquet", None, "image", "text", None)
    assert [len(list(shards.rows(n))) for n in range(len(shards))] == [2]


def test_f06_a_cache_with_brackets(here: Path) -> None:
    """--cache_dir is a name, too."""
    shard_files.parquet(here / "plain", [2])
    kept = here / "[cache] {a}"
    assert len(read_dataset("plain", None, "image", "text", str(kept))) == 2


def test_f06_colons_are_refused(here: Path) -> None:
    """The library takes :: for a chain of places."""
    shard_files.parquet(here / "a::b", [1])
    for read in (read_dataset, read_shards):
        with pytest.raises(UserError, match="rename the folder"):
            read("a::b", None, "image", "text", None)


# ---------------------------------------------------------------- F7: the home

# What is no path: texts, names on the hub, columns.
TEXTS = {
    "dataset_config_name", "instance_prompt", "class_prompt", "image_column", "caption_column",
    "lora_targets", "validation_prompts", "tracker_project_name", "hub_model_id", "hub_token",
    "hub_prior_id", "negative_prompt", "parts",
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and a folder to work in beside it."""
    (tmp_path / "home" / "pics").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def _classes() -> list[type]:
    return [parsing.config_class(name) for name in sorted({name for name, _ in cli.VERBS.values()})]


def test_f07_every_text_is_a_path_or_none() -> None:
    """A new flag that takes a path must say so in `schema.PATHS`."""
    for cls in _classes():
        for field in dataclasses.fields(cls):
            kind = str(field.type)
            if "str" not in kind:
                continue
            listed = field.name in schema.PATH_LISTS if "tuple" in kind else False
            path = listed or (field.name in schema.PATHS and "tuple" not in kind)
            prompts = field.name == "prompts" and "tuple" in kind
            assert path != (field.name in TEXTS or prompts), f"{cls.__name__}.{field.name}"


TRAINING = ["--train_data_dir=~/pics"]
EVERY_PATH = [
    ("PriorConfig", TRAINING, "train_data_dir", "~/pics"),
    ("PriorConfig", TRAINING, "output_dir", "~/runs/t"),
    ("PriorConfig", TRAINING, "cache_dir", "~/kept"),
    ("PriorConfig", TRAINING, "pretrained_prior_model_name_or_path", "~/runs/base"),
    ("DecoderConfig", TRAINING, "drawn_embeds", "~/runs/prior"),
    ("DecoderConfig", [], "dataset_name", "~/pics"),
    ("DecoderConfig", [], "instance_data_dir", "~/pics"),
    ("PriorPlan", [], "train_data_dir", "~/pics"),
    ("GenerateConfig", ["a cat"], "prior", "~/runs/prior"),
    ("GenerateConfig", ["a cat"], "decoder_lora", "~/runs/decoder"),
    ("GenerateConfig", ["a cat"], "out", "~/a.png"),
    ("GenerateConfig", [], "prompts_file", "~/words.txt"),
    ("GenerateConfig", [], "from_picture", "~/a.png"),
    ("MergeConfig", ["--base", "mini", "--alpha", "0.5"], "tuned", "~/runs/prior"),
    ("MergeConfig", [], "lora", "~/runs/prior"),
    ("EvaluateConfig", [], "prompts", "~/words.txt"),
    ("EvaluateConfig", [], "out", "~/scores.json"),
    ("StudioConfig", [], "runs", "~/runs"),
    ("DemoConfig", [], "write_data", "~/pics"),
    ("CacheConfig", [], "cache_dir", "~/kept"),
]


@pytest.mark.parametrize(("cls", "words", "field", "path"), EVERY_PATH)
def test_f07_the_home_behind_an_equals_sign(
    cls: str, words: list[str], field: str, path: str, home: Path
) -> None:
    """`--flag=~/x`, which a shell leaves alone, `--flag '~/x'`, and the same in a file."""
    whole = str(home) + path[1:]
    if field == "prompts_file":
        (home / "words.txt").write_text("a cat\n")
    for given in ([f"--{field}={path}"], [f"--{field}", path]):
        own = [] if words and words[0].startswith(f"--{field}") else words
        assert getattr(parsing.parse(cls, [*own, *given], "wassily"), field) == whole
    (home / "run.toml").write_text(f'{field} = "{path}"\n')
    own = [] if words and words[0].startswith(f"--{field}") else words
    assert getattr(parsing.parse(cls, [*own, "--config=~/run.toml"], "wassily"), field) == whole


def test_f07_lists_and_folders_without_a_flag(home: Path) -> None:
    """--base and --tuned of a sweep, --data of the studio, the folder of data check."""
    words = ["--base=~/a", "--tuned", "~/b", "--learned_prompts=~/words.txt"]
    swept = parsing.parse("SweepConfig", words, "wassily")
    assert (swept.base, swept.tuned) == ((f"{home}/a",), (f"{home}/b",))
    assert swept.learned_prompts == f"{home}/words.txt"
    assert parsing.parse("StudioConfig", ["--data", "~/pics"], "wassily").data == (f"{home}/pics",)
    checked = parsing.parse("DataCheckConfig", ["~/pics", "--json=~/report.json"], "wassily")
    assert (checked.folder, checked.json) == (f"{home}/pics", f"{home}/report.json")


def test_f07_texts_stay(home: Path) -> None:
    """A prompt may begin with ~, and so may a list of prompts."""
    words = ["~/a cat", "--negative_prompt=~/blurred"]
    config = parsing.parse("GenerateConfig", words, "wassily")
    assert config.prompts == ("~/a cat",) and config.negative_prompt == "~/blurred"


def test_f07_another_users_home(home: Path) -> None:
    """~user is that user's home, as in a shell; a folder `~x` that is here is that folder."""
    import pwd  # of POSIX alone

    user = pwd.getpwuid(os.getuid())
    config = parsing.parse("DemoConfig", [f"--output_dir=~{user.pw_name}/t"], "wassily")
    assert config.output_dir == f"{user.pw_dir}/t"
    Path("~kept").mkdir()
    assert parsing.parse("CacheConfig", ["--cache_dir=~kept"], "wassily").cache_dir == "~kept"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("~nosuch/t", "no user 'nosuch' here; write ./~nosuch/t"),
        ("$HOME/t", "only a shell fills in $HOME; write ~ for the home"),
        ("${HOME}/t", "only a shell fills in ${HOME}"),
        ("$RUNS", "only a shell fills in $RUNS"),
    ],
)
def test_f07_what_only_a_shell_knows(path: str, says: str, home: Path) -> None:
    """In quotes or in a file it would become a folder of that name."""
    (home / "run.toml").write_text(f'output_dir = "{path}"\n')
    for words in (["--output_dir", path], ["--config", "~/run.toml"]):
        with pytest.raises(UserError) as caught:
            parsing.parse("DemoConfig", words, "wassily")
        assert says in str(caught.value)


def test_f07_the_command_at_the_end_has_the_whole_path(home: Path) -> None:
    """What a training prints last names the folder that it wrote."""
    words = [*TRAINING, "--output_dir=~/runs/t", "--pretrained_prior_model_name_or_path=mini"]
    config = parsing.parse("PriorConfig", words, "wassily")
    repositories = {"prior": "mini", "decoder": "mini"}
    assert f"--prior {home}/runs/t " in next_command.next_line(config, repositories, "a cat")


# ---------------------------------------------------------------- F11: the checkpoint's name


def _resumed(asked: str, out: Path) -> Path | None:
    pics = out.parent / "pics"
    pics.mkdir(exist_ok=True)
    words = ["--train_data_dir", str(pics), "--output_dir", str(out)]
    config: Any = parsing.parse(
        "PriorConfig", [*words, "--resume_from_checkpoint", asked], "wassily"
    )
    return resume.chosen_checkpoint(config.resume_from_checkpoint, Path(config.output_dir))


NAMES_OF_IT = ["checkpoint-2", "checkpoint-2/", "latest", "latest/", "{}", "{}/"]


@pytest.mark.parametrize("asked", NAMES_OF_IT)
def test_f11_a_checkpoint_by_its_name(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the run's own folder, from anywhere; a whole path is one, a slash at its end or not."""
    (tmp_path / "out").mkdir()
    out = with_checkpoints(tmp_path / "out", 1, 2)
    monkeypatch.chdir(tmp_path)
    found = _resumed(asked.format(out / "checkpoint-2"), out)
    assert found is not None and found.resolve() == (out / "checkpoint-2").resolve()


def test_f11_a_path_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`out/checkpoint-2` is a path from here; a folder of that name here is second to the run's."""
    (tmp_path / "out").mkdir()
    out = with_checkpoints(tmp_path / "out", 2)
    monkeypatch.chdir(tmp_path)
    assert _resumed(f"{out.name}/checkpoint-2", out) == Path(out.name, "checkpoint-2")
    Path("checkpoint-2").mkdir()
    assert _resumed("checkpoint-2", out) == out / "checkpoint-2"
    with pytest.raises(UserError, match="no checkpoint of wassily"):
        _resumed("./checkpoint-2/../checkpoint-2", out)


@pytest.mark.parametrize("asked", ["checkpoint-9", "other/checkpoint-2", "checkpoint-2/2"])
def test_f11_a_checkpoint_of_another_run(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither here nor there: both places are named."""
    (tmp_path / "out").mkdir()
    out = with_checkpoints(tmp_path / "out", 2)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such folder, here or in --output_dir"):
        _resumed(asked, out)


# ---------------------------------------------------------------- F10: memory

GPU = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8.00 GiB"
CPU = "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: " \
      "you tried to allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)"  # fmt: skip
ERRORS = {
    "gpu": torch.OutOfMemoryError(GPU),
    "cpu": RuntimeError(CPU),
    "python": MemoryError(),
    "metal": RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "kernel": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously"),
    "map": RuntimeError("unable to mmap 9 bytes from file <a>: Cannot allocate memory (12)"),
    "system": OSError(errno.ENOMEM, "Cannot allocate memory"),
}
FULL = {
    "generate": (["a cat", "--prior=mini", "--decoder=mini"], "add --offload", "--batch_size 2"),
    "mix": (["a cat:0.5", "a dog:0.5"], "add --offload", "--batch_size 2"),
    "evaluate": ([], "add --batch_size 4", "add --batch_size 4"),
    "sweep": (
        ["--base", "mini", "--tuned", "x", "--learned_prompts", "p", "--batch_size", "1"],
        "take a smaller --resolution",
        "take a smaller --resolution",
    ),
    "merge": (["--lora", "x"], "end other programs that use the GPU", "end other programs"),
    "demo": ([], "end other programs that use the GPU", "end other programs"),
    "cache build prior": (["--dataset_name", "x"], "--mixed_precision bf16", "--resolution"),
    "plan decoder": ([], "add --mixed_precision bf16", "take a smaller --resolution"),
    "train prior": (["--dataset_name", "x"], "--mixed_precision bf16", "--resolution"),
    "data check": (["."], "end other programs", "take a smaller --resolution"),
}


def _refused(
    verb: str, words: list[str], error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> str:
    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(cli.VERBS[tuple(verb.split())][1].replace(":", "."), full)
    assert cli.main([*verb.split(), *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("wassily: error: out of memory: ") and said.count("\n") == 1, said
    return str(said)


@pytest.mark.parametrize("verb", FULL)
def test_f10_every_verb_says_what_to_change(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for a full GPU, and one for a full machine."""
    words, on_gpu, on_cpu = FULL[verb]
    said = _refused(verb, words, ERRORS["gpu"], monkeypatch, capsys)
    assert "the GPU is full (2.50 GiB more were needed)" in said
    assert verb == "data check" or on_gpu in said
    said = _refused(verb, words, ERRORS["cpu"], monkeypatch, capsys)
    assert "this machine is full (68719476736 bytes more were needed)" in said and on_cpu in said


@pytest.mark.parametrize("name", ERRORS)
def test_f10_every_word_for_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of CUDA, Metal, cuBLAS, the CPU's allocator, memory maps, Python and the system."""
    words = ["a cat", "--offload", "--batch_size", "1"]
    said = _refused("generate", words, ERRORS[name], monkeypatch, capsys)
    assert "take a smaller --height and --width" in said


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), OSError(2, "none")])
def test_f10_another_error_stays_one(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its stack trace: nothing is known of it."""

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("wassily.evaluation.evaluate.evaluate", fail)
    with pytest.raises(type(error), match=str(error)[-6:]):
        cli.main(["evaluate"])


def test_f10_while_a_part_is_loaded(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of the part's folder."""

    def full(*_: Any, **__: Any) -> None:
        # Fewer bytes than the weights have: more would be a configuration that lies.
        raise RuntimeError(f"{CPU.partition('you tried')[0]}you tried to allocate 64 bytes")

    for role, folder in (("unet", tiny.decoder), ("text_encoder", tiny.prior)):
        monkeypatch.setattr(parts.PARTS[role].kind, "from_pretrained", full)
        with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
            parts.load(role, str(folder))
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        parts.load_network(tiny.decoder / "unet", "unet")


def test_f10_memory_is_not_the_disk(tmp_path: Path) -> None:
    """Under a training an error of the system without a file's name is not told of its disk."""
    assert disk.refusal(OSError(errno.ENOMEM, "Cannot allocate memory"), tmp_path) is None
    assert disk.refusal(OSError(errno.ENOSPC, "No space left on device"), tmp_path) is not None


# ---------------------------------------------------------------- F9: the kind of a decoder


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A decoder for inpainting (9 input channels), and one that reads a hint (8)."""
    out = tmp_path_factory.mktemp("kinds")
    return {kind: make_decoder(out / kind, kind) for kind in ("inpainting", "hint")}


CHANNELS = {"inpainting": "9 input channels", "hint": "8 input channels"}
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "decoder": ("DecoderConfig", {}),
    "decoder lora": ("DecoderConfig", {"lora": True}),
    "decoder, streamed": ("DecoderConfig", {"streaming": True, "max_train_steps": 1}),
    "prior with samples": ("PriorConfig", {"validation_prompts": ("a cat",)}),
    "plan decoder": ("DecoderPlan", {}),
    "plan prior": ("PriorPlan", {"validation_prompts": ("a cat",)}),
}


@pytest.mark.parametrize("kind", CHANNELS)
@pytest.mark.parametrize("training", TRAININGS)
def test_f09_a_training_of_another_kind(
    training: str, kind: str, kinds: dict[str, Path], tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused in one line before a weight is loaded or an image read, by train and by plan."""

    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("something was loaded")

    monkeypatch.setattr(parts, "load", loaded)
    name, flags = TRAININGS[training]
    config = parsing.config_class(name)(
        dataset_name="me/data",
        report_to="none",
        pretrained_prior_model_name_or_path=str(tiny.prior),
        pretrained_decoder_model_name_or_path=str(kinds[kind]),
        **flags,
    )
    called: Any = plan.plan if training.startswith("plan") else setup.check_surroundings
    with pytest.raises(UserError) as caught:
        called(config)
    assert CHANNELS[kind] in str(caught.value) and str(kinds[kind]) in str(caught.value)
    assert "kandinsky-2-2-decoder" in str(caught.value)


def test_f09_a_prior_alone_does_not_look_at_it(kinds: dict[str, Path], tiny: Tiny) -> None:
    """Without samples a training of the prior has no use for its decoder."""
    config = parsing.config_class("PriorConfig")(
        dataset_name="me/data",
        report_to="none",
        pretrained_prior_model_name_or_path=str(tiny.prior),
        pretrained_decoder_model_name_or_path=str(kinds["inpainting"]),
    )
    assert setup.check_surroundings(config)["decoder"] == str(kinds["inpainting"])


@pytest.mark.parametrize("flag", ["decoder", "base_decoder"])
def test_f09_evaluate(flag: str, kinds: dict[str, Path], tiny: Tiny) -> None:
    """It generates from noise alone, too; told before anything is loaded."""
    names = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    config = EvaluateConfig(**(names | {flag: str(kinds["inpainting"])}))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"--{flag} .*--image PICTURE with --mask PICTURE only"):
        evaluate.located(config)


# ---------------------------------------------------------------- F8: files that travel


@pytest.mark.parametrize("role", ["prior", "decoder"])
@pytest.mark.parametrize("named", ["mini", "hub", "folder"])
def test_f08_the_header_of_an_adapter(named: str, role: str, tiny: Tiny) -> None:
    """The bundled model and hub names by their names, a folder by its last name."""
    folders = {
        "mini": {home: str(parts.MINI / home) for home in ("prior", "decoder")},
        "hub": {"prior": "me/prior", "decoder": "me/decoder"},
        "folder": {"prior": str(tiny.prior), "decoder": str(tiny.decoder)},
    }[named]
    config = parsing.config_class("PriorConfig" if role == "prior" else "DecoderConfig")(
        dataset_name="me/data", lora=True
    )
    notes = adapters.notes(config, folders, "0123")
    assert not any("/" in value and not value.startswith("me/") for value in notes.values())
    assert notes["prior"] == {"mini": "mini", "hub": "me/prior", "folder": "prior"}[named]
    assert notes["base"] == {"mini": "mini", "hub": f"me/{role}", "folder": role}[named]


def test_f08_no_file_of_an_export_names_a_folder(tiny: Tiny, tmp_path: Path) -> None:
    """Configurations and indices of both pipelines, and the network of a checkpoint."""
    make = {"prior": pipelines.prior_pipeline, "decoder": pipelines.decoder_pipeline}
    for home, folder in (("prior", tiny.prior), ("decoder", tiny.decoder)):
        role = parts.TRAINED[home]
        net = parts.load_network(folder / role, role)
        net.save_pretrained(tmp_path / home / "checkpoint" / role)
        given: dict[str, Any] = {role: net}
        for more in ({}, given):
            pipeline = make[home](str(folder), torch.float32, None, **more)
            pipeline.save_pretrained(tmp_path / home)
            for file in (p for p in (tmp_path / home).rglob("*") if p.is_file()):
                assert str(folder.parent).encode() not in file.read_bytes(), file


def _adapter(folder: Path, tiny: Tiny, role: str = "decoder", **notes: str) -> Path:
    """The file of an adapter of a tiny network, in a folder of its own."""
    folder.mkdir(parents=True)
    base = tiny.decoder if role == "decoder" else tiny.prior
    net = parts.load(parts.TRAINED[role], str(base))
    lora = adapters.Lora(parts.TRAINED[role], 1, 1, notes={"network": role} | notes)
    lora.attach(net, torch.float32, 0)
    lora.save(net, folder)
    return folder / names.ADAPTER


def _remember(folder: Path, file: str, tiny: Tiny) -> None:
    both = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    known = {"step": 3, "role": "decoder", "repositories": both}
    (folder / file).write_text(json.dumps(known))


@pytest.mark.parametrize("near", ["run.json", "state.json"])
def test_f08_on_its_own_machine_an_adapter_finds_its_base(
    near: str, tiny: Tiny, tmp_path: Path
) -> None:
    """By what lies around its file; and so does what merges it, with the prior for diffusers."""
    file = _adapter(tmp_path / "run", tiny, base="decoder", prior="prior")
    _remember(file.parent, near, tiny)
    assert names.locate(str(file.parent), "decoder").repository == str(tiny.decoder)
    merge.merge(MergeConfig(lora=str(file), out=str(tmp_path / "out")))
    assert f"prior:\n- {json.dumps(str(tiny.prior))}" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("how", ["file alone", "whole folder", "header of before"])
def test_f08_on_another_machine_it_says_what_is_not_here(
    how: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its base was a folder there; one of that name here is another one and is not taken."""
    base = "/no/such/decoder" if how == "header of before" else "decoder"
    file = _adapter(tmp_path / "run", tiny, base=base, prior="prior")
    if how == "whole folder":
        gone = {home: f"/no/such/{home}" for home in ("prior", "decoder")}
        (file.parent / "run.json").write_text(json.dumps({"repositories": gone}))
    monkeypatch.chdir(tiny.decoder.parent)
    words = r"'decoder' of the machine .* not here: name it with --"
    with pytest.raises(UserError, match=f"{words}decoder BASE"):
        names.locate(str(file.parent), "decoder")
    with pytest.raises(UserError, match=f"{words}base"):
        merge.merge(MergeConfig(lora=str(file), out=str(tmp_path / "out")))


@pytest.mark.parametrize("prior", ["prior", "/no/such/prior", "mini", "me/prior"])
def test_f08_a_merge_whose_prior_is_not_here(
    prior: str, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said in one line, and the card names none; `mini` is this machine's, a hub name stays."""
    file = _adapter(tmp_path / "run", tiny, prior=prior)
    base = str(tiny.decoder)
    merge.merge(MergeConfig(lora=str(file), base=base, out=str(tmp_path / "out")))
    said, card = capsys.readouterr().out, (tmp_path / "out" / "README.md").read_text()
    known = {"mini": str(parts.MINI / "prior"), "me/prior": "me/prior"}.get(prior)
    assert ("is not here" in said) == (known is None)
    assert f"its prior, {prior}, is not here" in said or known is not None
    assert (
        (f"prior:\n- {json.dumps(known, ensure_ascii=False)}" in card)
        if known
        else "\nprior:" not in card
    )


# ---------------------------------------------------------------- F22: the other network

LEARNED = {
    "the same folder": ({"train_data_dir": "pics"}, True),
    "the same by another way": ({"train_data_dir": "./other/../pics/"}, True),
    "a link to it": ({"train_data_dir": "link"}, True),
    "as a few of one thing": ({"instance_data_dir": "pics", "instance_prompt": "a zorb"}, True),
    "another folder": ({"train_data_dir": "other"}, False),
    "a folder within it": ({"train_data_dir": "pics/more"}, False),
    "a data set of the hub": ({"dataset_name": "me/pics"}, False),
}


@pytest.mark.parametrize("name", LEARNED)
def test_f22_pairs_learned_from_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest decoder beside is named only if it learned from the same data, else the base."""
    monkeypatch.chdir(tmp_path)
    for folder in ("pics/more", "other", "runs/dec/unet", "runs/newer/unet"):
        Path(folder).mkdir(parents=True)
    Path("link").symlink_to("pics")
    mini = {home: str(parts.MINI / home) for home in ("prior", "decoder")}
    theirs = DecoderConfig(train_data_dir="pics", output_dir="runs/dec")
    foreign = DecoderConfig(dataset_name="me/foreign", output_dir="runs/newer")
    for config in (theirs, foreign):
        facts = {"command": ["wassily", "train", "decoder"], "base": "mini"}
        out = Path(config.output_dir)
        (out / "run.json").write_text(json.dumps(facts | {"source": next_command.source(config)}))
        (out / "unet" / "config.json").write_text("{}")
    flags, same = LEARNED[name]
    line = next_command.next_line(PriorConfig(output_dir="runs/pri", **flags), mini, "a zorb")
    assert (f"--decoder {tmp_path}/runs/dec" in line) == same
    assert ("--decoder mini" in line) != same


def test_f22_configurations_of_one_data_set_are_apart(tmp_path: Path) -> None:
    """And a run of before, which did not note its data, is paired with none."""
    one = PriorConfig(dataset_name="me/pics", dataset_config_name="cats")
    assert next_command.source(one) != next_command.source(PriorConfig(dataset_name="me/pics"))
    assert next_command.source(one) == next_command.source(dataclasses.replace(one, seed=3))
