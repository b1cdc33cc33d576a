"""A model of a stranger's: its weights are its own, its sizes are those of its weights, and nothing
outside of its folder is looked at.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e import refused
from heard import NETWORK, PROGRAMS, heard
from helpers import run_cli
from safetensors.torch import load_file, save_file

from wassily.config.generation import GenerateConfig
from wassily.errors import UserError
from wassily.generation import conditions, load
from wassily.mini.untrained import Tiny
from wassily.models import encode, names, part_files, parts

NETWORKS = [role for role in parts.PARTS if role in ("prior", "unet", "movq")]
ENCODERS = ["text_encoder", "image_encoder"]
ALL = list(parts.PARTS)


@pytest.fixture
def model(tmp_path: Path, tiny: Tiny) -> Path:
    """A copy of both homes, to be changed."""
    for home in ("prior", "decoder"):
        shutil.copytree(getattr(tiny, home), tmp_path / "model" / home)
    return tmp_path / "model"


def _home(model: Path, role: str) -> str:
    return str(model / parts.PARTS[role].home)


def _folder(model: Path, role: str) -> Path:
    return model / parts.PARTS[role].home / parts.PARTS[role].folder


def _configure(folder: Path, **values: Any) -> None:
    """Other values in the configuration of a part."""
    names = ("config.json", "scheduler_config.json", "preprocessor_config.json")
    files = [folder / name for name in (*names, "tokenizer_config.json")]
    file = next(file for file in files if file.exists())
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), "utf-8")


def _refused(role: str, model: Path) -> str:
    """The one line of a part that is refused, soon, with no connection and no program."""
    begun = time.monotonic()
    with (
        heard(*NETWORK, *PROGRAMS) as asked,
        pytest.raises(UserError, match=f"cannot load its {parts.PARTS[role].folder}: ") as caught,
    ):
        parts.load(role, _home(model, role))
    assert asked == []
    assert time.monotonic() - begun < 20
    assert len(str(caught.value).splitlines()) == 1
    assert "huggingface.co" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- 7: whose weights


def _adapter(folder: Path, base: str) -> None:
    """What makes transformers take the base of an adapter for the folder's own weights."""
    values = {"peft_type": "LORA", "target_modules": ["q_proj"], "r": 2, "lora_alpha": 2}
    named = {"base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(values | named), "utf-8")
    save_file({}, folder / "adapter_model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("base", ["other", "evil/base", ""])
@pytest.mark.parametrize("role", ENCODERS)
def test_finding_07_an_adapter_in_an_encoders_folder_is_refused(
    role: str, base: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another folder or a repository for its base."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    other = tmp_path / "other"
    shutil.copytree(_folder(model, role), other)
    _adapter(_folder(model, role), str(other) if base == "other" else base)
    line = _refused(role, model)
    assert "adapter_config.json: takes the weights from elsewhere" in line


def test_finding_07_so_it_is_on_the_hub_and_in_a_checkpoint(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was downloaded is a folder like any other; a network's folder of its own, too."""
    from wassily.models import hub

    monkeypatch.setattr(hub, "download", lambda *_: model / "prior")
    assert isinstance(parts.load("text_encoder", "owner/name"), torch.nn.Module)
    _adapter(model / "prior" / "text_encoder", "evil/base")
    with pytest.raises(UserError, match=r"owner/name: cannot load its text_encoder.*adapter_conf"):
        parts.load("text_encoder", "owner/name")
    _adapter(model / "decoder" / "unet", "evil/base")
    with pytest.raises(UserError, match=r"cannot load the unet.*adapter_config"):
        parts.load_network(model / "decoder" / "unet", "unet")


ELSEWHERE: list[tuple[str, dict[str, Any]]] = [
    ("auto_map", {"auto_map": {"AutoModel": "evil/base--evil.Net"}}),
    ("quantization_config", {"quantization_config": {"quant_method": "bitsandbytes"}}),
    ("base_model_name_or_path", {"base_model_name_or_path": "evil/base"}),
    ("custom_pipeline", {"custom_pipeline": "evil/pipeline"}),
    ("auto_map", {"text_config": {"deep": [{"auto_map": {"AutoConfig": "evil.C"}}]}}),
    ("_attn_implementation", {"_attn_implementation": "evil/kernels"}),
    ("attn_implementation", {"attn_implementation": "evil/kernels:flash"}),
    ("vocab_file", {"vocab_file": "/etc/passwd"}),
    ("tokenizer_file", {"tokenizer_file": "../../x.json"}),
    ("special_tokens_map_file", {"special_tokens_map_file": "..\\x.json"}),
    ("merges", {"merges": "/etc/passwd"}),
]


@pytest.mark.parametrize(("key", "values"), ELSEWHERE, ids=[f"{k}" for k, _ in ELSEWHERE])
@pytest.mark.parametrize("role", ["text_encoder", "unet", "tokenizer", "image_processor"])
def test_finding_07_a_configuration_that_names_anything_elsewhere(
    role: str, key: str, values: dict[str, Any], model: Path
) -> None:
    """Weights, code or files; of every kind of part."""
    _configure(_folder(model, role), **values)
    assert key in _refused(role, model)


@pytest.mark.parametrize("name", ["../other.safetensors", "/x.safetensors", "a\\b.safetensors", 5])
@pytest.mark.parametrize("role", ["prior", "text_encoder"])
def test_finding_07_shards_lie_beside_their_index(role: str, name: object, model: Path) -> None:
    """Of one network in several files."""
    folder = _folder(model, role)
    (weights,) = folder.glob("*.safetensors")
    weights.rename(folder.parent / "other.safetensors")
    index = {"metadata": {}, "weight_map": {"x": name}}
    (folder / f"{weights.name}.index.json").write_text(json.dumps(index))
    assert "index.json" in _refused(role, model)


@pytest.mark.parametrize("role", ["prior", "text_encoder"])
def test_a_network_in_several_files_is_read(role: str, model: Path) -> None:
    """As its index says, to the bit."""
    folder = _folder(model, role)
    whole = parts.fingerprint(parts.load(role, _home(model, role)))
    (weights,) = folder.glob("*.safetensors")
    tensors = load_file(weights)
    weights.unlink()
    half, names = len(tensors) // 2, sorted(tensors)
    places = {}
    for number, group in enumerate((names[:half], names[half:]), 1):
        file = f"{weights.stem}-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in group}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(group, file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / f"{weights.name}.index.json").write_text(json.dumps(index))
    assert parts.fingerprint(parts.load(role, _home(model, role))) == whole


@pytest.mark.parametrize("content", ["[]", "{", "5", "", '{"_class_name": "Evil"'])
@pytest.mark.parametrize("role", [*NETWORKS, *ENCODERS, "scheduler", "prior_scheduler"])
def test_finding_07_a_broken_configuration_asks_nobody(
    role: str, content: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a folder on this disk; the line is about the file."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    folder = _folder(model, role)
    (folder / parts.PARTS[role].config).write_text(content)
    line = _refused(role, model)
    assert "not JSON" in line or "not a JSON object" in line
    with heard(*NETWORK) as asked, pytest.raises(UserError, match="cannot load its"):
        parts.load_config(role, _home(model, role))
    assert asked == []


@pytest.mark.parametrize("role", ALL)
def test_finding_07_nothing_outside_of_the_folder_is_opened(role: str, model: Path) -> None:
    """Though its configuration names a folder that it came from, as the released ones do."""
    other = model.parent / "other"
    shutil.copytree(_folder(model, role), other)
    if role != "tokenizer":
        _configure(_folder(model, role), _name_or_path=str(other), name_or_path=str(other))
    parts.load(role, _home(model, role))  # the libraries import what they need
    with heard("open", *NETWORK, *PROGRAMS) as seen:
        parts.load(role, _home(model, role))
    assert {event for event, _ in seen} <= {"open"}
    root = str(model.parent)
    opened = {name for _, name in seen if name.startswith(root)}
    assert opened, seen
    assert all(name.startswith(str(_folder(model, role)) + os.sep) for name in opened), opened


# ---------------------------------------------------------------- 8: whose base


def _checkpoint(folder: Path, model: Path, named: str) -> Path:
    """A checkpoint of a prior whose state names that for the prior's other parts."""
    shutil.copytree(model / "prior" / "prior", folder / "prior")
    repositories = {"prior": named, "decoder": "mini"}
    state = {"role": "prior", "step": 3, "repositories": repositories}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def _adapter_run(folder: Path, named: str) -> Path:
    """An output folder with an adapter of a prior whose header names that for its base."""
    folder.mkdir(parents=True)
    notes = {"network": "prior", "base": named}
    save_file({"x": torch.zeros(1)}, folder / names.ADAPTER, notes)
    return folder


def _run(kind: str, folder: Path, model: Path, named: str) -> Path:
    made = folder / "run"
    return _checkpoint(made, model, named) if kind == "checkpoint" else _adapter_run(made, named)


@pytest.mark.parametrize("named", ["other", "a/other", "./other", "../x", "~/other", "x/../other"])
@pytest.mark.parametrize("kind", ["checkpoint", "adapter"])
def test_finding_08_a_file_names_no_folder_by_a_relative_name(
    kind: str, named: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though there is one below the working folder, or at home: of owner/name the hub is meant."""
    for place in ("other", "a/other"):
        shutil.copytree(model / "prior", tmp_path / place)
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    run = _run(kind, tmp_path, model, named)
    if named == "a/other":
        assert names.locate(str(run), "prior").repository == named
        return
    with pytest.raises(UserError) as caught:
        names.locate(str(run), "prior")
    assert len(str(caught.value).splitlines()) == 1
    assert str(run) in str(caught.value)


@pytest.mark.parametrize(
    "named", ["http://127.0.0.1/x", "file:///etc", "hf://a/b", "a/b/c", "", "/nowhere/at/all", "/"]
)
def test_finding_08_nor_an_address_or_a_folder_of_no_model(
    named: str, model: Path, tmp_path: Path
) -> None:
    """One line, and nobody is asked."""
    run = _checkpoint(tmp_path / "run", model, named)
    with heard(*NETWORK) as asked, pytest.raises(UserError):
        names.locate(str(run), "prior")
    assert asked == []


@pytest.mark.parametrize("kind", ["checkpoint", "adapter"])
def test_finding_08_the_base_that_a_file_names_is_said(
    kind: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any of it is loaded: a folder of this machine, a repository of the hub."""
    for number, named in enumerate((str(model / "prior"), "owner/name")):
        run = _run(kind, tmp_path / str(number), model, named)
        load.find(GenerateConfig(prompts=("a",), prior=str(run), decoder=str(model / "decoder")))
        out = capsys.readouterr().out
        file = run / ("state.json" if kind == "checkpoint" else names.ADAPTER)
        place = "the hub repository" if named == "owner/name" else "the folder"
        assert out == f"{file}: its base model is {place} {named}\n"
    run = _run(kind, tmp_path / "2", model, "mini")
    load.find(GenerateConfig(prompts=("a",), prior=str(run), decoder=str(model / "decoder")))
    assert capsys.readouterr().out == ""


# ---------------------------------------------------------------- 13: sizes

SIZES: list[tuple[str, dict[str, Any]]] = [
    ("text_encoder", {"vocab_size": 30_000_000}),
    ("text_encoder", {"vocab_size": 1_000_000}),
    ("text_encoder", {"max_position_embeddings": 50_000_000}),
    ("text_encoder", {"num_hidden_layers": 1_000_000}),
    ("text_encoder", {"num_hidden_layers": 200}),
    ("text_encoder", {"hidden_size": 100_000, "num_attention_heads": 1}),
    ("text_encoder", {"intermediate_size": 1_000_000}),
    ("image_encoder", {"image_size": 1_000_000}),
    ("image_encoder", {"image_size": 4096, "patch_size": 1, "hidden_size": 4096}),
    ("image_encoder", {"num_hidden_layers": 1_000_000}),
    ("prior", {"num_embeddings": 1_000_000_000}),
    ("prior", {"num_embeddings": 4096, "embedding_dim": 1_000_000}),
    ("prior", {"num_layers": 1_000_000}),
    ("prior", {"num_layers": 250}),
    ("prior", {"num_attention_heads": 1_000, "attention_head_dim": 1_000}),
    ("unet", {"layers_per_block": 1_000_000}),
    ("unet", {"layers_per_block": 200}),
    ("unet", {"layers_per_block": [200, 200]}),
    ("unet", {"block_out_channels": [96, 1_000_000]}),
    ("unet", {"block_out_channels": [96] * 1000}),
    ("unet", {"cross_attention_dim": 10**400}),
    ("movq", {"layers_per_block": 200}),
    ("movq", {"num_vq_embeddings": 1_000_000, "vq_embed_dim": 1_000_000}),
    ("movq", {"num_vq_embeddings": 1e300}),
    ("scheduler", {"num_train_timesteps": 1_000_000_000}),
    ("scheduler", {"num_train_timesteps": 10_001}),
    ("scheduler", {"trained_betas": [0.1] * 10_001}),
    ("prior_scheduler", {"num_train_timesteps": 1_000_000_000}),
    ("tokenizer", {"model_max_length": 1_000_000_000}),
    ("tokenizer", {"model_max_length": 4097}),
    ("image_processor", {"size": {"shortest_edge": 100_000}}),
    ("image_processor", {"crop_size": {"height": 100_000, "width": 4}}),
]


@pytest.mark.parametrize(("role", "values"), SIZES, ids=lambda value: str(value)[:60])
def test_finding_13_a_size_that_is_not_the_weights(
    role: str, values: dict[str, Any], model: Path
) -> None:
    """Refused before a network of it is built: no part takes more than a few times its weights."""
    _configure(_folder(model, role), **values)
    line = _refused(role, model)
    assert any(
        words in line
        for words in ("is too large", "is too long", "a larger network than its weights")
    ), line


@pytest.mark.parametrize(
    ("role", "values"),
    [("prior", {"num_layers": 250}), ("unet", {"layers_per_block": [200, 200]})],
)
def test_finding_13_so_it_is_in_a_checkpoint(
    role: str, values: dict[str, Any], model: Path
) -> None:
    """Whose network has a folder of its own."""
    _configure(_folder(model, role), **values)
    with pytest.raises(UserError, match="a larger network than its weights are of"):
        parts.load_network(_folder(model, role), role)


def test_finding_13_a_tokenizer_fills_up_to_few_tokens(model: Path) -> None:
    """Also where its other file says so."""
    file = model / "prior" / "tokenizer" / "tokenizer.json"
    values = json.loads(file.read_text("utf-8"))
    padding = {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_id": 0}
    padding |= {"pad_to_multiple_of": None, "pad_type_id": 0, "pad_token": "x"}
    file.write_text(json.dumps(values | {"padding": padding}), "utf-8")
    assert "Fixed is too large" in _refused("tokenizer", model)


@pytest.mark.parametrize("role", ["prior", "unet", "text_encoder", "image_encoder", "movq"])
def test_finding_13_a_plan_builds_no_more_than_a_bound(role: str, model: Path) -> None:
    """From the configuration alone, where no weights are looked at."""
    many = {"num_layers": 10**6, "num_hidden_layers": 10**6, "layers_per_block": 10**6}
    folder = _folder(model, role)
    known = json.loads((folder / "config.json").read_text("utf-8"))
    _configure(folder, **{key: value for key, value in many.items() if key in known})
    with pytest.raises(UserError, match="is too large"):
        parts.skeleton(role, _home(model, role))


@pytest.mark.parametrize("role", ["prior", "unet", "movq", "text_encoder", "image_encoder"])
def test_the_released_sizes_are_within_the_bounds(role: str) -> None:
    """Built on no memory, under bounds of exactly as many tensors and values as it has."""
    config = json.loads(parts.RELEASED.read_text("utf-8"))[role]
    part_files.check_config(config, "config.json")
    with torch.device("meta"):
        net = parts.skeleton(role, parts.training.PRIOR, dtype=torch.float16)
        sizes = [value.numel() for value in net.state_dict().values()]
        with part_files.bounded(part_files.Weights(len(sizes), sum(sizes))):
            parts.skeleton(role, parts.training.PRIOR, dtype=torch.float16)


def test_bounds_are_given_back_and_of_one_thread() -> None:
    """Whatever happens within; other networks are built as ever."""
    import threading

    def build() -> torch.nn.Module:
        return torch.nn.Sequential(*(torch.nn.Linear(1000, 1000) for _ in range(50)))

    with pytest.raises(part_files.TooMuch), part_files.bounded(part_files.Weights(1, 1)):
        build()
    build()
    found: list[torch.nn.Module] = []
    with part_files.bounded(part_files.Weights(1, 1)):
        thread = threading.Thread(target=lambda: found.append(build()))
        thread.start()
        thread.join()
    assert found


# ---------------------------------------------------------------- 29: no numbers, no text


@pytest.mark.parametrize("value", ["1e308", "inf", "1001", "nan"])
@pytest.mark.parametrize("flag", ["--guidance_scale", "--prior_guidance_scale"])
def test_finding_29_guidance_has_a_bound(flag: str, value: str, tmp_path: Path) -> None:
    """Beyond it there are no numbers left; the flag is named."""
    assert flag in refused("generate", "a", flag, value, "--out", tmp_path / "a.png")


def test_finding_29_half_a_character_is_one_line(tmp_path: Path) -> None:
    """On the command line, in a mix, from Python and the studio; nothing is generated."""
    for words in (("generate", "a \udcff cat"), ("mix", "a cat:0.5", "\ud800:0.5")):
        line = refused(*words, "--prior", "mini", "--decoder", "mini", "--out", tmp_path / "a.png")
        assert "not UTF-8 text" in line
    assert list(tmp_path.iterdir()) == []
    tokenizer = parts.load("tokenizer", str(parts.MINI / "prior"))
    with pytest.raises(UserError, match="not UTF-8 text"):
        encode.tokens("a \ud800", tokenizer=tokenizer)
    with pytest.raises(UserError, match="not Unicode text"):
        conditions.prompts(GenerateConfig(prompts=("a cat", "a \ud800")))


def test_finding_29_an_image_of_no_numbers_is_no_image(model: Path, tmp_path: Path) -> None:
    """From weights with a NaN: an error, not a black image and a warning of numpy's."""
    file = model / "decoder" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_out.bias"].fill_(torch.nan)
    save_file(tensors, file, {"format": "pt"})
    pair = ["--prior", model / "prior", "--decoder", model / "decoder"]
    few = ["--steps", 1, "--prior_steps", 2, "--out", tmp_path / "a.png"]
    done = run_cli("generate", "a", *pair, *few)
    assert done.code == 2 and "values that are no numbers (NaN)" in done.err
    assert not (tmp_path / "a.png").exists()
