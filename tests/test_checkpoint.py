"""Whole or not there; named, unpickled state; and an export whose index comes last."""

from __future__ import annotations

import copy
import json
import os
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from torch import nn

from wassily import checkpoint, manifest, outputs, start
from wassily.errors import UserError

# ---------------------------------------------------------------- whole folders


def _writer(text: str) -> object:
    def write(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text(text)
        (folder / outputs.STATE).write_text("{}")

    return write


def _tree(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_write_whole_makes_and_replaces(tmp_path: Path) -> None:
    """Nothing of the old one is left in the new, and nothing aside."""
    target = tmp_path / "checkpoint-5"
    checkpoint.write_whole(target, _writer("one"))
    (target / "more").write_text("old")
    checkpoint.write_whole(target, _writer("two"))
    tree = _tree(target)
    assert set(json.loads(tree.pop(manifest.NAME))["files"]) == {"sub/a", "state.json"}
    assert tree == {"sub/a": b"two", "state.json": b"{}"}
    assert [p.name for p in target.parent.iterdir()] == ["checkpoint-5"]


@pytest.mark.parametrize("error", [RuntimeError("full"), KeyboardInterrupt(), OSError(28, "full")])
def test_an_interrupted_write_leaves_the_old_one(error: BaseException, tmp_path: Path) -> None:
    """Half of the new one does not count as a checkpoint; after an error it is gone, so that a full
    disk has its room back, and after a kill it is swept away.
    """
    target = tmp_path / "checkpoint-5"
    checkpoint.write_whole(target, _writer("one"))
    before = _tree(target)

    def fail(folder: Path) -> None:
        _writer("two")(folder)  # type: ignore[operator]
        raise error

    for name in ("checkpoint-5", "checkpoint-6"):
        with pytest.raises(type(error)):
            checkpoint.write_whole(tmp_path / name, fail)
    assert _tree(target) == before
    assert [step for step, _ in outputs.found(tmp_path)] == [5]
    assert len(list(tmp_path.iterdir())) == (1 if isinstance(error, Exception) else 3)
    checkpoint.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-5"]
    # And a new attempt over the rest of an old one succeeds.
    checkpoint.write_whole(target, _writer("three"))
    assert _tree(target)["sub/a"] == b"three"


@pytest.mark.parametrize("number", range(1, 12))
def test_killed_at_any_rename_there_is_a_whole_one(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill just before the n-th rename, removal or sync while checkpoint-6 is written beside
    checkpoint-5: after the sweep all that is found is whole, and 5 is still there.
    """
    checkpoint.write_whole(tmp_path / "checkpoint-5", _writer("five"))
    calls = 0

    class Killed(BaseException):
        pass

    def count(original: object) -> object:
        def call(*args: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == number:
                raise Killed
            return original(*args, **options)  # type: ignore[operator]

        return call

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_sync", count(checkpoint._sync))
        patch.setattr(Path, "rename", count(Path.rename))
        patch.setattr(checkpoint.shutil, "rmtree", count(checkpoint.shutil.rmtree))
        try:
            checkpoint.write_whole(tmp_path / "checkpoint-6", _writer("six"))
            checkpoint.rotate(tmp_path, 1)
            finished = True
        except Killed:
            finished = False
    checkpoint.sweep(tmp_path)
    found = dict(outputs.found(tmp_path))
    assert found
    for step, folder in found.items():
        assert _tree(folder)["sub/a"] == {5: b"five", 6: b"six"}[step]
    assert 6 in found or 5 in found
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"checkpoint-{s}" for s in sorted(found)]
    if finished:
        assert sorted(found) == [6]


def test_everything_is_flushed_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the rename must find the data: each file and folder is synced before."""
    order: list[str] = []
    sync, rename = checkpoint._sync, Path.rename

    def noted(path: Path) -> None:
        order.append(path.name)
        sync(path)

    def renamed(self: Path, target: Path) -> Path:
        order.append("rename")
        return rename(self, target)

    monkeypatch.setattr(checkpoint, "_sync", noted)
    monkeypatch.setattr(Path, "rename", renamed)
    checkpoint.write_whole(tmp_path / "checkpoint-1", _writer("x"))
    at = order.index("rename")
    assert {"a", "sub", "state.json", ".writing-checkpoint-1"} <= set(order[:at])
    assert manifest.NAME in order[:at]
    assert order[at + 1 :] == [tmp_path.name]


def test_write_text_is_whole_or_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arabic in UTF-8; an interrupted write keeps the old text."""
    path = tmp_path / "deep" / "run.toml"
    checkpoint.write_text(path, "قطة")
    assert path.read_text("utf-8") == "قطة"

    def fail(folder: Path) -> None:
        raise OSError(28, "full")

    monkeypatch.setattr(checkpoint, "_sync", fail)
    with pytest.raises(OSError, match="full"):
        checkpoint.write_text(path, "new")
    assert path.read_text("utf-8") == "قطة"


def test_sweep_removes_only_what_is_half_written(tmp_path: Path) -> None:
    """Files and folders aside; nothing of the user's; a missing folder is no error."""
    (tmp_path / ".writing-run.toml").write_text("x")
    (tmp_path / ".writing-checkpoint-9").mkdir()
    for name in ("checkpoint-1", "logs", ".hidden"):
        (tmp_path / name).mkdir()
    checkpoint.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "checkpoint-1", "logs"]
    checkpoint.sweep(tmp_path / "none")


# ---------------------------------------------------------------- which one


def _with(tmp_path: Path, *steps: int) -> Path:
    for step in steps:
        checkpoint.write_whole(tmp_path / f"checkpoint-{step}", _writer(str(step)))
    return tmp_path


def test_found_sorts_by_number(tmp_path: Path) -> None:
    """Not by name (10 is after 9), and only what is whole and named so."""
    _with(tmp_path, 10, 9, 100)
    (tmp_path / "checkpoint-200").mkdir()  # no state
    for name in ("checkpoint-x", "checkpoint-5-old", "my-checkpoint-7"):
        (tmp_path / name).mkdir()
        (tmp_path / name / outputs.STATE).write_text("{}")
    assert [step for step, _ in outputs.found(tmp_path)] == [9, 10, 100]
    assert outputs.found(tmp_path / "none") == []


def test_latest_is_the_newest_or_a_new_start(tmp_path: Path) -> None:
    """The same command serves the first start and every restart."""
    assert start.chosen("latest", tmp_path / "none") is None
    assert start.chosen("latest", tmp_path) is None
    assert start.chosen("latest", _with(tmp_path, 9, 10)) == tmp_path / "checkpoint-10"


def test_a_named_checkpoint(tmp_path: Path) -> None:
    """By its path; a folder that is none is refused."""
    _with(tmp_path, 9, 10)
    nine = tmp_path / "checkpoint-9"
    assert start.chosen(str(nine), tmp_path / "other") == nine
    with pytest.raises(UserError, match="no checkpoint of wassily"):
        start.chosen(str(tmp_path), tmp_path)


def test_a_run_is_not_trained_over(tmp_path: Path) -> None:
    """Without a wish: refused where there are checkpoints, with both remedies."""
    assert start.chosen(None, tmp_path) is None
    with pytest.raises(UserError, match=r"newest: checkpoint-3.*latest.*--output_dir"):
        start.chosen(None, _with(tmp_path, 3))


def _damage(folder: Path, way: str) -> str:
    """Do it; the words that tell it."""
    file = folder / "sub" / "a"
    if way == "missing":
        file.unlink()
        return "sub/a is missing"
    if way == "cut":
        file.write_text("")
        return f"sub/a has 0 bytes instead of {len(folder.name.split('-')[1])}"
    if way == "one bit":
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
        return "sub/a is not what was written"
    if way == "no manifest":
        (folder / manifest.NAME).unlink()
        return "manifest.json is missing"
    (folder / manifest.NAME).write_text('{"files": {"sub/a": 3}}')
    return "manifest.json: TypeError"


@pytest.mark.parametrize("way", ["missing", "cut", "one bit", "no manifest", "nonsense"])
def test_latest_is_the_newest_that_is_whole(way: str, tmp_path: Path) -> None:
    """A damaged one is named and steps aside, undeleted; the one before it is taken."""
    _with(tmp_path, 8, 9, 10)
    told = _damage(tmp_path / "checkpoint-10", way)
    before = _tree(tmp_path / "checkpoint-10")
    said: list[str] = []
    assert start.chosen("latest", tmp_path, said.append) == tmp_path / "checkpoint-9"
    (line,) = said
    assert f"checkpoint-10 is damaged: {told}" in line and "going on from checkpoint-9" in line
    assert _tree(tmp_path / "damaged-checkpoint-10") == before
    assert [step for step, _ in outputs.found(tmp_path)] == [8, 9]


def test_damage_without_a_way_back_is_refused(tmp_path: Path) -> None:
    """An explicit path, though there are others; and `latest` where all are damaged: no new start
    over what a run had, and nothing is moved.
    """
    _with(tmp_path, 8, 9)
    told = _damage(tmp_path / "checkpoint-9", "one bit")
    with pytest.raises(UserError, match=f"checkpoint-9 is damaged: {told}"):
        start.chosen(str(tmp_path / "checkpoint-9"), tmp_path)
    _damage(tmp_path / "checkpoint-8", "cut")
    with pytest.raises(UserError, match=f"checkpoint-9 is damaged: {told}; there is no whole one"):
        start.chosen("latest", tmp_path)
    assert [step for step, _ in outputs.found(tmp_path)] == [8, 9]


def test_without_its_state_a_checkpoint_is_damaged(tmp_path: Path) -> None:
    """It is named and steps aside, or stands in the way of a new start."""
    _with(tmp_path, 8, 9)
    (tmp_path / "checkpoint-9" / "state.json").unlink()
    said: list[str] = []
    assert start.chosen("latest", tmp_path, said.append) == tmp_path / "checkpoint-8"
    assert "checkpoint-9 is damaged: state.json is missing" in said[0]
    (tmp_path / "checkpoint-8" / "state.json").unlink()
    with pytest.raises(UserError, match=r"checkpoint-8 is damaged: state\.json is missing"):
        start.chosen("latest", tmp_path)
    with pytest.raises(UserError, match="holds a run already"):
        start.chosen(None, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"files": {}}',
        '{"files": {"/etc/passwd": {"bytes": 1, "blake2b": ""}}}',
        '{"files": {"../checkpoint-8/state.json": {"bytes": 1, "blake2b": ""}}}',
        '{"files": {"state.json": {"bytes": 1e999, "blake2b": ""}}}',
        '{"files": {"' + 5000 * "a" + '": {"bytes": 1, "blake2b": ""}}}',
        100_000 * "[",
    ],
    ids=["nothing", "absolute", "outside", "infinite", "long", "nested"],
)
def test_a_manifest_of_nonsense(text: str, tmp_path: Path) -> None:
    """It is damage like any other; nothing outside of the folder is read for it."""
    _with(tmp_path, 8, 9)
    (tmp_path / "checkpoint-9" / "manifest.json").write_text(text, "utf-8")
    said: list[str] = []
    assert start.chosen("latest", tmp_path, said.append) == tmp_path / "checkpoint-8"
    assert "checkpoint-9 is damaged: manifest.json" in said[0]


def test_rotate_keeps_the_newest(tmp_path: Path) -> None:
    """Oldest first, by number; no limit keeps all."""
    _with(tmp_path, 1, 2, 9, 10)
    assert checkpoint.rotate(tmp_path, None) == []
    assert checkpoint.rotate(tmp_path, 4) == []
    assert [p.name for p in checkpoint.rotate(tmp_path, 2)] == ["checkpoint-1", "checkpoint-2"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]


def test_a_kill_while_rotating_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed files go one by one: what is still found has all of its own."""
    _with(tmp_path, 1, 2, 3)
    whole = _tree(tmp_path / "checkpoint-2")

    def torn(folder: Path) -> None:
        next(p for p in sorted(folder.rglob("*")) if p.name == "a").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", torn)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.rotate(tmp_path, 1)
    found = outputs.found(tmp_path)
    assert [step for step, _ in found] == [2, 3]
    assert set(_tree(found[0][1])) == set(whole)
    checkpoint.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-3"]


# ---------------------------------------------------------------- state


def _trained(seed: int) -> tuple[nn.Module, dict[str, nn.Parameter], torch.optim.Optimizer]:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    names = {name: p for name, p in net.named_parameters() if name != "1.bias"}
    optimizer = torch.optim.AdamW(names.values(), lr=0.1, weight_decay=0.1)
    return net, names, optimizer


def _steps(net: nn.Module, optimizer: torch.optim.Optimizer, count: int, seed: int) -> None:
    torch.manual_seed(seed)
    for _ in range(count):
        net(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_adamw_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Three steps, saved, loaded into a new optimizer, four more: as seven in one go."""
    net, names, optimizer = _trained(0)
    _steps(net, optimizer, 3, 1)
    checkpoint.save_optimizer(tmp_path, optimizer, names)
    weights = {key: value.clone() for key, value in net.state_dict().items()}
    _steps(net, optimizer, 4, 2)
    other, other_names, other_optimizer = _trained(5)
    other.load_state_dict(weights)
    checkpoint.load_optimizer(tmp_path, other_optimizer, other_names)
    _steps(other, other_optimizer, 4, 2)
    for key, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    mine, theirs = optimizer.state, other_optimizer.state
    for name in names:
        for field, value in mine[names[name]].items():
            assert torch.equal(value, theirs[other_names[name]][field]), (name, field)


def test_moments_come_back_in_the_order_of_the_weights(tmp_path: Path) -> None:
    """A fused step after a reload is that of the run that went on: channels_last weights lie in
    another order than a file's tensors, and fused AdamW pairs weight and moment as they lie.
    """

    def trained(steps: range, start: nn.Conv2d) -> tuple[nn.Conv2d, torch.optim.AdamW]:
        optimizer = torch.optim.AdamW(start.parameters(), lr=0.1, fused=True)
        if steps.start:
            checkpoint.load_optimizer(tmp_path, optimizer, dict(start.named_parameters()))
        for step in steps:
            for p in start.parameters():
                noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
                p.grad = torch.empty_like(p).copy_(noise)
            optimizer.step()
        return start, optimizer

    torch.manual_seed(0)
    net = nn.Conv2d(6, 8, 3).to(memory_format=torch.channels_last)
    whole, _ = trained(range(4), copy.deepcopy(net))
    half, optimizer = trained(range(2), net)
    checkpoint.save_optimizer(tmp_path, optimizer, dict(half.named_parameters()))
    resumed, _ = trained(range(2, 4), half)
    assert torch.equal(whole.weight, resumed.weight)


def test_the_file_is_named_and_not_pickled(tmp_path: Path) -> None:
    """safetensors: 8 bytes of header length, then JSON; one entry for each parameter and moment."""
    net, names, optimizer = _trained(0)
    _steps(net, optimizer, 1, 1)
    checkpoint.save_optimizer(tmp_path, optimizer, names)
    raw = (tmp_path / checkpoint.OPTIMIZER).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    wanted = {f"{n}::{f}" for n in names for f in ("step", "exp_avg", "exp_avg_sq")}
    assert set(header) - {"__metadata__"} == wanted
    assert os.listdir(tmp_path) == [checkpoint.OPTIMIZER]


class _Recorder:
    """Stands for an optimizer on a device: only what `load_optimizer` touches."""

    def __init__(self, *parameters: nn.Parameter, fused: bool = False):
        self.param_groups = [{"params": list(parameters), "fused": fused}]
        self.state: dict = defaultdict(dict)


@pytest.mark.parametrize("fused", [False, True])
def test_state_goes_to_the_parameters_device(fused: bool, tmp_path: Path) -> None:
    """Moments always; the step count stays on the CPU but for a fused optimizer, which reads it on
    the parameter's device (as torch's own load_state_dict does).
    """
    net, names, optimizer = _trained(0)
    _steps(net, optimizer, 1, 1)
    checkpoint.save_optimizer(tmp_path, optimizer, names)
    away = {name: nn.Parameter(torch.empty_like(p, device="meta")) for name, p in names.items()}
    other = _Recorder(*away.values(), fused=fused)
    checkpoint.load_optimizer(tmp_path, other, away)
    for parameter in away.values():
        assert other.state[parameter]["exp_avg"].device.type == "meta"
        assert other.state[parameter]["step"].device.type == ("meta" if fused else "cpu")


def test_plain_values_come_back(tmp_path: Path) -> None:
    """8-bit Adam counts its steps in an int."""
    p = nn.Parameter(torch.zeros(2))
    saved = _Recorder(p)
    saved.state[p] = {"step": 7, "state1": torch.tensor([1, 2], dtype=torch.uint8)}
    checkpoint.save_optimizer(tmp_path, saved, {"net.p": p})
    other = _Recorder(p)
    checkpoint.load_optimizer(tmp_path, other, {"net.p": p})
    assert other.state[p]["step"] == 7
    assert other.state[p]["state1"].dtype == torch.uint8
    assert other.state[p]["state1"].tolist() == [1, 2]


def test_fields_may_differ_and_tables_be_shared(tmp_path: Path) -> None:
    """As in 8-bit Adam: small tensors have other fields, and large ones one table between them."""
    names = {name: nn.Parameter(torch.zeros(2)) for name in ("a", "b", "small")}
    saved, table = _Recorder(*names.values()), torch.arange(4.0)
    for name in ("a", "b"):
        saved.state[names[name]] = {"state1": torch.ones(2, dtype=torch.uint8), "qmap1": table}
    saved.state[names["small"]] = {"state1": torch.ones(2)}
    checkpoint.save_optimizer(tmp_path, saved, names)
    other = _Recorder(*names.values())
    checkpoint.load_optimizer(tmp_path, other, names)
    for name in ("a", "b"):
        assert torch.equal(other.state[names[name]]["qmap1"], table)
    assert set(other.state[names["small"]]) == {"state1"}


def test_a_step_count_of_the_whole_group_comes_back(tmp_path: Path) -> None:
    """As torch-optimi counts."""
    p = nn.Parameter(torch.zeros(2))
    saved, other = _Recorder(p), _Recorder(p)
    saved.state[p] = {"exp_avg": torch.ones(2), "kahan_comp": None}
    saved.param_groups[0]["step"] = torch.tensor(7, dtype=torch.int32)
    checkpoint.save_optimizer(tmp_path, saved, {"p": p})
    checkpoint.load_optimizer(tmp_path, other, {"p": p})
    assert int(other.param_groups[0]["step"]) == 7
    assert other.state[p]["kahan_comp"] is None


def test_a_wrong_or_torn_optimizer_file_is_one_line(tmp_path: Path) -> None:
    """An unknown parameter, a cut file, none at all."""
    net, names, optimizer = _trained(0)
    _steps(net, optimizer, 1, 1)
    checkpoint.save_optimizer(tmp_path, optimizer, names)
    fewer = {key: value for key, value in names.items() if key != "0.weight"}
    with pytest.raises(UserError, match=r"'0\.weight', which is not trained here"):
        checkpoint.load_optimizer(tmp_path, optimizer, fewer)
    file = tmp_path / checkpoint.OPTIMIZER
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"optimizer\.safetensors"):
        checkpoint.load_optimizer(tmp_path, optimizer, names)
    file.unlink()
    with pytest.raises(UserError, match=r"optimizer\.safetensors"):
        checkpoint.load_optimizer(tmp_path, optimizer, names)


@pytest.mark.parametrize("value", ["5", "[5]", "[[]]", "null", "{", 100_000 * "["])
@pytest.mark.parametrize("note", ["layout", "plain"])
def test_notes_of_nonsense_are_one_line(note: str, value: str, tmp_path: Path) -> None:
    """What a stranger's optimizer file says of itself is not trusted."""
    net, names, optimizer = _trained(0)
    _steps(net, optimizer, 1, 1)
    checkpoint.save_optimizer(tmp_path, optimizer, names)
    file = tmp_path / checkpoint.OPTIMIZER
    tensors, notes = checkpoint.read_tensors(file)
    checkpoint.write_tensors(file, tensors, {**notes, note: value})
    with pytest.raises(UserError, match=r"optimizer\.safetensors"):
        checkpoint.load_optimizer(tmp_path, optimizer, names)


def test_a_step_count_that_is_none_is_one_line(tmp_path: Path) -> None:
    """A whole table in its place."""
    net, names, optimizer = _trained(0)
    _steps(net, optimizer, 1, 1)
    checkpoint.save_optimizer(tmp_path, optimizer, names)
    file = tmp_path / checkpoint.OPTIMIZER
    tensors, notes = checkpoint.read_tensors(file)
    checkpoint.write_tensors(file, tensors | {"0.weight::step": torch.zeros(3)}, notes)
    with pytest.raises(UserError, match="is no count of steps"):
        checkpoint.load_optimizer(tmp_path, optimizer, names)


def test_state_round_trip(tmp_path: Path) -> None:
    """JSON with floats to the bit, Arabic, None."""
    state = {"step": 3, "role": "prior", "loss": [0.1 + 0.2, 2], "text": "قطة", "scaler": None}
    checkpoint.save_state(tmp_path, state)
    assert checkpoint.load_state(tmp_path) == state


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": "x", "role": "prior"}', '{"step": 1}'])
def test_a_torn_state_is_one_line(text: str, tmp_path: Path) -> None:
    """It names the file."""
    (tmp_path / outputs.STATE).write_text(text)
    with pytest.raises(UserError, match=r"state\.json: not the state of a checkpoint"):
        checkpoint.load_state(tmp_path)


@pytest.mark.parametrize("field", ["network", "base model", "data set", "global batch", "use_ema"])
def test_another_run_is_refused_by_field(field: str, tmp_path: Path) -> None:
    """Both values and the checkpoint are named; the same run passes, after JSON too."""
    saved = {
        "network": "prior",
        "base model": "ab12",
        "data set": "cd34",
        "global batch": 4,
        "use_ema": False,
    }
    folder = tmp_path / "checkpoint-7"
    checkpoint.check_signature(json.loads(json.dumps(saved)), saved, folder)
    with pytest.raises(UserError, match=rf"checkpoint-7 .*{field} was .* and is 'other' now"):
        checkpoint.check_signature(saved, saved | {field: "other"}, folder)
    with pytest.raises(UserError, match=f"{field} was None"):
        checkpoint.check_signature({k: v for k, v in saved.items() if k != field}, saved, folder)


# ---------------------------------------------------------------- export


def _pipeline(text: str) -> object:
    def save(folder: Path) -> None:
        for part in ("unet", "movq"):
            (folder / part).mkdir(parents=True)
            (folder / part / "w").write_text(text)
        (folder / "image_processor").mkdir()
        processor = {"image_processor_type": "CLIPImageProcessorPil"}
        (folder / "image_processor" / "preprocessor_config.json").write_text(json.dumps(processor))
        index = {"image_processor": ["transformers", "CLIPImageProcessorPil"]}
        (folder / "model_index.json").write_text(json.dumps(index))

    return save


def test_export_stands_beside_the_checkpoints(tmp_path: Path) -> None:
    """A second export replaces the first; what else is there stays; the processor is portable."""
    _with(tmp_path, 3)
    checkpoint.export(tmp_path, _pipeline("one"), "card one")
    (tmp_path / "unet" / "stale").write_text("x")
    checkpoint.export(tmp_path, _pipeline("two"), "بطاقة")
    assert _tree(tmp_path / "unet") == {"w": b"two"}
    assert (tmp_path / "README.md").read_text("utf-8") == "بطاقة"
    assert (tmp_path / "checkpoint-3" / outputs.STATE).exists()
    for file in ("model_index.json", "image_processor/preprocessor_config.json"):
        assert '"CLIPImageProcessor"' in (tmp_path / file).read_text()
    assert not list(tmp_path.glob(".writing*"))


def test_the_index_goes_first_and_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that loads is whole: at any rename but the last there is no index, or nothing has
    been touched; a failing save leaves the old export loadable.
    """
    checkpoint.export(tmp_path, _pipeline("one"), "card")
    before = _tree(tmp_path)

    def fail(folder: Path) -> None:
        _pipeline("two")(folder)  # type: ignore[operator]
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        checkpoint.export(tmp_path, fail, "new card")
    checkpoint.sweep(tmp_path)
    assert _tree(tmp_path) == before

    seen: list[bool] = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        seen.append((tmp_path / "model_index.json").exists())
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    checkpoint.export(tmp_path, _pipeline("two"), "new card")
    assert len(seen) >= 4
    assert not any(seen)
    assert (tmp_path / "model_index.json").exists()


# ---------------------------------------------------------------- what must not be lost or mixed


def test_an_early_checkpoint_is_not_gone_on_with_beside_later_ones(tmp_path: Path) -> None:
    """Rotation would keep the old run's later ones, and `latest` would take them."""
    _with(tmp_path, 2, 4, 6)
    with pytest.raises(UserError, match="checkpoint-6 stands after it"):
        start.chosen(str(tmp_path / "checkpoint-2"), tmp_path)
    assert start.chosen(str(tmp_path / "checkpoint-6"), tmp_path).name == "checkpoint-6"


def test_an_export_does_not_replace_what_is_the_users(tmp_path: Path) -> None:
    """A folder with files of those names is refused, unless a run of ours made it."""
    parts = {"unet", "movq"}
    checkpoint.check_free(tmp_path / "none", parts)
    (tmp_path / "notes.txt").write_text("mine")
    checkpoint.check_free(tmp_path, parts)
    (tmp_path / "unet").mkdir()
    with pytest.raises(UserError, match="would replace unet"):
        checkpoint.check_free(tmp_path, parts)
    (tmp_path / "run.toml").write_text("")
    checkpoint.check_free(tmp_path, parts)


@pytest.mark.parametrize("damage", ["empty", "one missing", "shape"])
def test_an_optimizer_that_is_not_whole_is_refused(damage: str, tmp_path: Path) -> None:
    """Going on with fresh moments would be a silent change of the run."""
    from safetensors.torch import load_file, save_file

    net = torch.nn.Linear(3, 2)
    names = dict(net.named_parameters())
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint.save_optimizer(tmp_path, optimizer, names)
    file = tmp_path / checkpoint.OPTIMIZER
    tensors = load_file(file)
    if damage == "empty":
        tensors = {}
    elif damage == "one missing":
        del tensors["weight::exp_avg"]
    else:
        tensors["weight::exp_avg"] = torch.zeros(2, 2)
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"optimizer\.safetensors"):
        checkpoint.load_optimizer(tmp_path, torch.optim.AdamW(net.parameters()), names)
