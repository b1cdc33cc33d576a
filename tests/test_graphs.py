"""Micro-batches as CUDA graphs: the bookkeeping with a stand-in, the real thing on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import e2e
import pytest
import torch
from torch import Tensor, nn

from wassily import cli, graphs
from wassily.errors import UserError
from wassily.mini.untrained import Tiny
from wassily.runtime import Runtime


class Stand:
    """Keeps the rules of a graph on a CPU: nothing is computed when it is recorded, it reads and
    writes the places of its recording, and gradients that were none then are written, not added to.
    """

    made = 0
    most = 99

    def __init__(self, work: Any, given: dict[str, Tensor], anew: list[Tensor], pool: Any):
        if Stand.made == Stand.most:
            raise RuntimeError("operation not permitted when stream is capturing\nand so on")
        Stand.made += 1
        self.work, self.pool, self.anew = work, pool or object(), anew
        self.given = {name: value.clone() for name, value in given.items()}
        self.trained = TRAINED
        self.fresh = self.trained[0].grad is None
        before = [None if p.grad is None else p.grad.clone() for p in self.trained]
        work(self.given)
        self.places = [p.grad for p in self.trained]
        for place, value in zip(self.places, before, strict=True):
            assert place is not None
            if value is None:
                place.fill_(float("nan"))
            else:
                place.copy_(value)

    def replay(self, given: dict[str, Tensor]) -> Tensor:
        """As recorded, on other numbers."""
        for name, place in self.given.items():
            place.copy_(given[name])
        zeros = self.places if self.fresh else self.anew
        for place in zeros:
            assert place is not None
            place.zero_()
        for parameter, place in zip(self.trained, self.places, strict=True):
            parameter.grad = place
        loss = self.work(self.given)
        assert [p.grad for p in self.trained] == self.places  # the same tensors
        for parameter in self.trained:  # a graph knows nothing of a parameter's `grad`
            parameter.grad = None
        return loss.clone()


TRAINED: list[nn.Parameter] = []


class Objective(nn.Module):
    """A loss with two weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.b = nn.Parameter(torch.tensor(0.25))

    def forward(self, batch: dict[str, Tensor], noise: Tensor, t: Tensor) -> Tensor:
        """Loss per example."""
        return ((batch["x"] + noise) @ self.a - self.b * t).square()


def _batches(sizes: list[int]) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
    for number, size in enumerate(sizes):
        draw = torch.Generator().manual_seed(number)
        x, noise = (torch.randn(size, 3, generator=draw) for _ in range(2))
        yield {"x": x}, noise, torch.randint(1, 5, (size,), generator=draw)


def _steps(passes: Any, objective: Objective, sizes: list[int], each: int) -> list[list[float]]:
    """Losses and gradients of steps of so many micro-batches."""
    found, batches = [], _batches(sizes)
    parameters = list(objective.parameters())
    for _ in range(len(sizes) // each):
        losses = [float(passes(*next(batches))) for _ in range(each)]
        gradients = [p.grad.flatten() for p in parameters if p.grad is not None]
        found.append(losses + torch.cat(gradients).tolist())
        for parameter in parameters:
            parameter.grad = None
    return found


def _both(
    sizes: list[int], each: int, monkeypatch: pytest.MonkeyPatch, most: int = 99, room: bool = True
) -> graphs.Recorded:
    """Recorded passes that gave what ordinary ones give."""
    monkeypatch.setattr(graphs, "Graph", Stand)
    monkeypatch.setattr(graphs, "room", lambda device: room)
    monkeypatch.setattr(Stand, "made", 0)
    monkeypatch.setattr(Stand, "most", most)
    objective = Objective()
    TRAINED[:] = list(objective.parameters())
    ordinary = graphs.Ordinary(objective, Runtime(None, each, ".", "logs", "none"))
    recorded = graphs.Recorded(ordinary, TRAINED, dict)
    expected = _steps(ordinary, objective, sizes, each)
    found = _steps(recorded, objective, sizes, each)
    assert found == expected
    return recorded


@pytest.mark.parametrize(
    ("sizes", "each", "made"),
    {
        "one shape": ([4] * 7, 1, 1),
        "too few to record": ([4] * 3, 1, 0),
        "two shapes": ([4, 2] * 6, 1, 2),
        "accumulated": ([4] * 18, 3, 2),  # the first of a step, and those that add to it
        "accumulated, two shapes": ([4, 2, 2, 4] * 6, 2, 4),
        "a rare shape in between": ([4] * 8 + [3] + [4] * 3, 2, 2),
    }.values(),
)
def test_as_ordinary_passes(
    sizes: list[int], each: int, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses and gradients to the bit, with so many graphs."""
    recorded = _both(sizes, each, monkeypatch)
    assert Stand.made == len(recorded.graphs) == made


def test_no_more_graphs_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes in a further shape is computed in the ordinary way."""
    _both(sorted(list(range(1, 13)) * 5), 1, monkeypatch)
    assert Stand.made == graphs.MOST


@pytest.mark.parametrize("most", [0, 1])
def test_what_cannot_be_recorded(
    most: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told once, and the training goes on: with the same numbers, and the graphs it has."""
    recorded = _both([4, 2] * 7, 1, monkeypatch, most)
    assert len(recorded.graphs) == most
    text = "".join(capsys.readouterr())
    assert text.count("without another CUDA graph: operation not permitted when stream is") == 1
    assert "and so on" not in text


def test_where_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No graph is recorded, and that is told once."""
    assert not _both([4, 2] * 7, 1, monkeypatch, room=False).graphs
    assert "".join(capsys.readouterr()).count("it would leave too little memory") == 1


@pytest.mark.parametrize(("free", "fits"), [(5, True), (4, False)])
def test_room(free: int, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 10 are held, a pass took 4 more, 3 are cached: it fits twice if 5 are free."""
    numbers = {"memory_allocated": 10, "max_memory_allocated": 14, "memory_reserved": 13}
    for name, number in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, number=number: number)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80))
    assert graphs.room(torch.device("cuda")) == fits


def test_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is held; the next time they are recorded at once."""
    recorded = _both([4] * 6, 1, monkeypatch)
    recorded.let_go()
    assert not recorded.graphs and not recorded.gradients
    batch, noise, t = next(_batches([4]))
    loss = recorded(batch, noise, t)
    assert Stand.made == 2 and torch.isfinite(loss)
    assert torch.isfinite(TRAINED[0].grad).all()  # type: ignore[arg-type]


def _config(*words: str) -> Any:
    line = ["--dataset_name", "a/b", "--output_dir", "out", *words]
    return cli.parse("PriorConfig", line, "wassily")


GPU = SimpleNamespace(device=torch.device("cuda"), world=1, sharded=False, say=print)


@pytest.mark.parametrize(
    ("words", "size", "recorded"),
    [
        ("", 64, True),
        ("", 65, False),  # a large prior needs no help, and no padding
        ("--cuda_graphs on", 65, True),
        ("--cuda_graphs off", 1, False),
        ("--compile", 1, False),
        ("--gradient_release --max_grad_norm 0", 1, False),
        ("--lora --lora_dropout 0.1", 1, True),
        ("--lora --lora_dropout 0.1 --gradient_checkpointing", 1, False),
    ],
)
def test_where_it_is_done(
    words: str, size: int, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself on one GPU with small batches; never where a graph would be wrong."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    config = _config(*words.split())
    passes = graphs.passes(config, Objective(), [], dict, GPU, size)  # type: ignore[arg-type]
    assert isinstance(passes, graphs.Recorded) == recorded


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was asked for by name; the line says why."""
    runtime = Runtime(None, 1, ".", "logs", "none")
    graphs.check(_config(), runtime)
    with pytest.raises(UserError, match="--cuda_graphs on on device cpu: an NVIDIA GPU has them"):
        graphs.check(_config("--cuda_graphs", "on"), runtime)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    two = SimpleNamespace(**vars(GPU) | {"world": 2})
    with pytest.raises(UserError, match="on 2 processes"):
        graphs.check(_config("--cuda_graphs", "on"), two)  # type: ignore[arg-type]


FLAGS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fp16": {"mixed_precision": "fp16", "gradient_accumulation_steps": 4},
    "apart": {
        "mixed_precision": "fp16",
        "gradient_accumulation_steps": 4,
        "fuse_accumulation": "off",
    },
    "bf16": {"mixed_precision": "bf16", "use_ema": True, "gradient_checkpointing": True},
    "bf16 weights": {"mixed_precision": "bf16", "weights_dtype": "bf16"},
    "LoRA": {"mixed_precision": "bf16", "lora": True},
}


@pytest.mark.gpu
@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize("role", e2e.ROLES)
def test_graphs_change_nothing(
    role: str,
    flags: dict[str, Any],
    tmp_path: Path,
    tiny: Tiny,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The losses of twelve steps to the bit, on the GPU; a validation lets go of the graphs."""
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    if role == "prior":  # padded alike: other lengths of captions round otherwise
        evened = graphs.Ordinary.__call__
        monkeypatch.setattr(
            graphs.Ordinary,
            "__call__",
            lambda self, batch, noise, t: evened(self, _evened(batch), noise, t),
        )
    curves = []
    for way in ("on", "off"):
        out = tmp_path / way
        more = {"cuda_graphs": way, "max_train_steps": 12, "logging_steps": 1}
        more |= {"validation_prompts": "a cat", "validation_steps": 8}
        outcome = e2e.train(role, out, tiny, photos, **flags | more)
        assert "device cuda" in outcome.text and "without another" not in outcome.text
        curves.append([loss for _, loss, _ in e2e.losses(out)])
    assert curves[0] == curves[1] and len(curves[0]) == 12


def _evened(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    from wassily import unpadded
    from wassily.mini import untrained

    return unpadded.evened(batch, untrained.TOKENS)
