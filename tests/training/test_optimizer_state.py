"""An optimizer's state in a checkpoint: named, never pickled, whole, and the same bits again."""

from __future__ import annotations

import copy
import json
import os
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from torch import nn

from wassily.errors import UserError
from wassily.files import atomic
from wassily.training import optimizer_state


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
    optimizer_state.save_optimizer(tmp_path, optimizer, names)
    weights = {key: value.clone() for key, value in net.state_dict().items()}
    _steps(net, optimizer, 4, 2)
    other, other_names, other_optimizer = _trained(5)
    other.load_state_dict(weights)
    optimizer_state.load_optimizer(tmp_path, other_optimizer, other_names)
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
            optimizer_state.load_optimizer(tmp_path, optimizer, dict(start.named_parameters()))
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
    optimizer_state.save_optimizer(tmp_path, optimizer, dict(half.named_parameters()))
    resumed, _ = trained(range(2, 4), half)
    assert torch.equal(whole.weight, resumed.weight)


def test_the_file_is_named_and_not_pickled(tmp_path: Path) -> None:
    """safetensors: 8 bytes of header length, then JSON; one entry for each parameter and moment."""
    net, names, optimizer = _trained(0)
    _steps(net, optimizer, 1, 1)
    optimizer_state.save_optimizer(tmp_path, optimizer, names)
    raw = (tmp_path / optimizer_state.OPTIMIZER).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    wanted = {f"{n}::{f}" for n in names for f in ("step", "exp_avg", "exp_avg_sq")}
    assert set(header) - {"__metadata__"} == wanted
    assert os.listdir(tmp_path) == [optimizer_state.OPTIMIZER]


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
    optimizer_state.save_optimizer(tmp_path, optimizer, names)
    away = {name: nn.Parameter(torch.empty_like(p, device="meta")) for name, p in names.items()}
    other = _Recorder(*away.values(), fused=fused)
    optimizer_state.load_optimizer(tmp_path, other, away)
    for parameter in away.values():
        assert other.state[parameter]["exp_avg"].device.type == "meta"
        assert other.state[parameter]["step"].device.type == ("meta" if fused else "cpu")


def test_plain_values_come_back(tmp_path: Path) -> None:
    """8-bit Adam counts its steps in an int."""
    p = nn.Parameter(torch.zeros(2))
    saved = _Recorder(p)
    saved.state[p] = {"step": 7, "state1": torch.tensor([1, 2], dtype=torch.uint8)}
    optimizer_state.save_optimizer(tmp_path, saved, {"net.p": p})
    other = _Recorder(p)
    optimizer_state.load_optimizer(tmp_path, other, {"net.p": p})
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
    optimizer_state.save_optimizer(tmp_path, saved, names)
    other = _Recorder(*names.values())
    optimizer_state.load_optimizer(tmp_path, other, names)
    for name in ("a", "b"):
        assert torch.equal(other.state[names[name]]["qmap1"], table)
    assert set(other.state[names["small"]]) == {"state1"}


def test_a_step_count_of_the_whole_group_comes_back(tmp_path: Path) -> None:
    """As torch-optimi counts."""
    p = nn.Parameter(torch.zeros(2))
    saved, other = _Recorder(p), _Recorder(p)
    saved.state[p] = {"exp_avg": torch.ones(2), "kahan_comp": None}
    saved.param_groups[0]["step"] = torch.tensor(7, dtype=torch.int32)
    optimizer_state.save_optimizer(tmp_path, saved, {"p": p})
    optimizer_state.load_optimizer(tmp_path, other, {"p": p})
    assert int(other.param_groups[0]["step"]) == 7
    assert other.state[p]["kahan_comp"] is None


def test_a_wrong_or_torn_optimizer_file_is_one_line(tmp_path: Path) -> None:
    """An unknown parameter, a cut file, none at all."""
    net, names, optimizer = _trained(0)
    _steps(net, optimizer, 1, 1)
    optimizer_state.save_optimizer(tmp_path, optimizer, names)
    fewer = {key: value for key, value in names.items() if key != "0.weight"}
    with pytest.raises(UserError, match=r"'0\.weight', which is not trained here"):
        optimizer_state.load_optimizer(tmp_path, optimizer, fewer)
    file = tmp_path / optimizer_state.OPTIMIZER
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"optimizer\.safetensors"):
        optimizer_state.load_optimizer(tmp_path, optimizer, names)
    file.unlink()
    with pytest.raises(UserError, match=r"optimizer\.safetensors"):
        optimizer_state.load_optimizer(tmp_path, optimizer, names)


@pytest.mark.parametrize("value", ["5", "[5]", "[[]]", "null", "{", 100_000 * "["])
@pytest.mark.parametrize("note", ["layout", "plain"])
def test_notes_of_nonsense_are_one_line(note: str, value: str, tmp_path: Path) -> None:
    """What a stranger's optimizer file says of itself is not trusted."""
    net, names, optimizer = _trained(0)
    _steps(net, optimizer, 1, 1)
    optimizer_state.save_optimizer(tmp_path, optimizer, names)
    file = tmp_path / optimizer_state.OPTIMIZER
    tensors, notes = atomic.read_tensors(file)
    atomic.write_tensors(file, tensors, {**notes, note: value})
    with pytest.raises(UserError, match=r"optimizer\.safetensors"):
        optimizer_state.load_optimizer(tmp_path, optimizer, names)


def test_a_step_count_that_is_none_is_one_line(tmp_path: Path) -> None:
    """A whole table in its place."""
    net, names, optimizer = _trained(0)
    _steps(net, optimizer, 1, 1)
    optimizer_state.save_optimizer(tmp_path, optimizer, names)
    file = tmp_path / optimizer_state.OPTIMIZER
    tensors, notes = atomic.read_tensors(file)
    atomic.write_tensors(file, tensors | {"0.weight::step": torch.zeros(3)}, notes)
    with pytest.raises(UserError, match="is no count of steps"):
        optimizer_state.load_optimizer(tmp_path, optimizer, names)


@pytest.mark.parametrize("damage", ["empty", "one missing", "shape"])
def test_an_optimizer_that_is_not_whole_is_refused(damage: str, tmp_path: Path) -> None:
    """Going on with fresh moments would be a silent change of the run."""
    from safetensors.torch import load_file, save_file

    net = torch.nn.Linear(3, 2)
    names = dict(net.named_parameters())
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    optimizer_state.save_optimizer(tmp_path, optimizer, names)
    file = tmp_path / optimizer_state.OPTIMIZER
    tensors = load_file(file)
    if damage == "empty":
        tensors = {}
    elif damage == "one missing":
        del tensors["weight::exp_avg"]
    else:
        tensors["weight::exp_avg"] = torch.zeros(2, 2)
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"optimizer\.safetensors"):
        optimizer_state.load_optimizer(tmp_path, torch.optim.AdamW(net.parameters()), names)
