"""Micro-batches as CUDA graphs: the bookkeeping with a stand-in, the real thing on a GPU."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import e2e
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wassily.config import parsing, training
from wassily.errors import UserError
from wassily.maths import losses, unpadded_prior
from wassily.mini import untrained
from wassily.mini.untrained import Tiny
from wassily.models.trainable import _recompute
from wassily.runtime.accelerator import Runtime
from wassily.training import cuda_graphs, loop, run, validation


class Stand:
    """Keeps the rules of a graph on a CPU: nothing is computed when it is recorded, it reads and
    writes the places of its recording, and gradients that were none then are written, not added to.
    """

    made, replayed = 0, 0
    most, factor = 99, 1.0

    def __init__(self, work: Any, given: dict[str, Tensor], anew: list[Tensor], pool: Any, at: Any):
        if Stand.made == Stand.most:
            raise RuntimeError("operation not permitted when stream is capturing\nand so on")
        Stand.made += 1
        self.work, self.pool, self.anew = work, pool or object(), anew
        self.given = {name: value.clone() for name, value in given.items()}
        self.trained = work.__self__.trained
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
        torch.manual_seed(torch.initial_seed())

    def replay(self, given: dict[str, Tensor]) -> Tensor:
        """As recorded, on other numbers."""
        Stand.replayed += 1
        for name, place in self.given.items():
            place.copy_(given[name])
        zeros = self.places if self.fresh else self.anew
        for place in zeros:
            assert place is not None
            place.zero_()
        for parameter, place in zip(self.trained, self.places, strict=True):
            parameter.grad = place
        loss = self.work(self.given)
        assert all(p.grad is place for p, place in zip(self.trained, self.places, strict=True))
        for parameter in self.trained:  # a graph knows nothing of a parameter's `grad`
            parameter.grad = None
        return Stand.factor * loss.clone()


class Room:
    """Stands for the memory of a GPU."""

    enough = True

    def __init__(self, device: torch.device):
        pass

    def watched(self) -> Any:
        """Nothing is watched."""
        return contextlib.nullcontext()

    def room(self) -> bool:
        """Whether there is."""
        return Room.enough


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No GPU is needed."""
    monkeypatch.setattr(cuda_graphs, "Graph", Stand)
    monkeypatch.setattr(cuda_graphs, "Memory", Room)
    Stand.made, Stand.replayed, Stand.most, Stand.factor, Room.enough = 0, 0, 99, 1.0, True
    yield


class Objective(nn.Module):
    """A loss with two weights; it has no memory for a batch of `large`."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.b = nn.Parameter(torch.tensor(0.25))
        self.dropout, self.large = nn.Dropout(0.5), 0

    def forward(self, batch: dict[str, Tensor], noise: Tensor, t: Tensor) -> Tensor:
        """Loss per example."""
        if len(t) == self.large:
            self.large = 0
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (self.dropout(batch["x"] + noise) @ self.a - self.b * t).square()


def _batches(sizes: list[int]) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
    for number, size in enumerate(sizes):
        draw = torch.Generator().manual_seed(number)
        x, noise = (torch.randn(size, 3, generator=draw) for _ in range(2))
        torch.manual_seed(number)
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


def _both(sizes: list[int], each: int, large: int = 0) -> cuda_graphs.Recorded:
    """Recorded passes that gave what ordinary ones give."""
    objective = Objective()
    trained = list(objective.parameters())
    runtime = Runtime(None, each, ".", "logs", "none")
    plain = cuda_graphs.forward_backward(objective, runtime)
    recorded = cuda_graphs.Recorded(plain, objective, trained, dict, runtime)
    expected = _steps(plain, objective, sizes, each)
    objective.large = large
    assert _steps(recorded, objective, sizes, each) == expected
    return recorded


@pytest.mark.usefixtures("stand")
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
def test_as_ordinary_passes(sizes: list[int], each: int, made: int) -> None:
    """Losses and gradients to the bit, dropout and all, with so many graphs."""
    recorded = _both(sizes, each)
    assert Stand.made == len(recorded.graphs) == made
    assert (Stand.replayed > 0) == (made > 0)


@pytest.mark.usefixtures("stand")
def test_no_more_graphs_than_that() -> None:
    """What comes in a further shape is computed in the ordinary way."""
    _both(sorted(list(range(1, 13)) * 5), 1)
    assert Stand.made == cuda_graphs.MOST


@pytest.mark.usefixtures("stand")
@pytest.mark.parametrize("most", [0, 1])
def test_what_cannot_be_recorded(most: int, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told once, and the training goes on with the same numbers, without any graph."""
    Stand.most = most
    assert not _both([4, 2] * 7, 1).graphs
    text = "".join(capsys.readouterr())
    assert text.count("without CUDA graphs: operation not permitted when stream is capturing") == 1
    assert "and so on" not in text


@pytest.mark.usefixtures("stand")
def test_a_graph_that_gives_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    """It is found out before it is used."""
    Stand.factor = 1.1
    assert not _both([4] * 9, 1).graphs
    assert "without CUDA graphs: the loss of one is" in "".join(capsys.readouterr())


@pytest.mark.usefixtures("stand")
def test_where_memory_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    """No graph is recorded, and that is told once."""
    Room.enough = False
    assert not _both([4, 2] * 7, 1).graphs
    assert "".join(capsys.readouterr()).count("they would leave too little memory") == 1


@pytest.mark.usefixtures("stand")
def test_memory_that_runs_out_beside_a_graph(capsys: pytest.CaptureFixture[str]) -> None:
    """The graphs are let go, and the pass is run again; without a graph the error stands."""
    assert not _both([4] * 8 + [9] + [4] * 6, 1, large=9).graphs
    assert Stand.made == 1
    assert "without CUDA graphs: there is too little memory" in "".join(capsys.readouterr())
    with pytest.raises(torch.OutOfMemoryError):
        _both([4] * 2 + [9], 1, large=9)


def test_the_memory_of_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 10 are held, a pass takes up to 4 more, 3 are cached: 8 are needed, so 5 free."""
    numbers = {"memory_allocated": 10, "max_memory_allocated": 14, "memory_reserved": 13}
    for name, number in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, number=number: number)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    memory = cuda_graphs.Memory(torch.device("cuda"))
    with memory.watched():
        pass
    for free, fits in ((5, True), (4, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 80))
        assert memory.room() == fits


@pytest.mark.usefixtures("stand")
def test_let_go() -> None:
    """Nothing is held; the next time they are recorded at once."""
    recorded = _both([4] * 6, 1)
    recorded.let_go()
    assert not recorded.graphs and not recorded.gradients
    batch, noise, t = next(_batches([4]))
    loss = recorded(batch, noise, t)
    assert Stand.made == 2 and torch.isfinite(loss)
    gradient = recorded.trained[0].grad
    assert gradient is not None and torch.isfinite(gradient).all()


# ---------------------------------------------------------------- where


def _config(*words: str) -> Any:
    line = ["--dataset_name", "a/b", "--output_dir", "out", *words]
    return parsing.parse("PriorConfig", line, "wassily")


GPU = SimpleNamespace(
    device=torch.device("cuda"), world=1, sharded=False, compiles=False, say=print
)


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
        ("--gradient_checkpointing", 1, False),  # the objective has dropout
    ],
)
def test_where_it_is_done(
    words: str, size: int, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself on one GPU with small batches; never where a graph would be wrong."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    chosen = _config(*words.split())
    assert cuda_graphs.wanted(chosen, Objective(), GPU, size) == recorded  # type: ignore[arg-type]


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was asked for by name; the line says why."""
    runtime = Runtime(None, 1, ".", "logs", "none")
    cuda_graphs.check(_config(), runtime)
    with pytest.raises(UserError, match="does not go on device cpu: an NVIDIA GPU has them"):
        cuda_graphs.check(_config("--cuda_graphs", "on"), runtime)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for change, why in (({"world": 2}, "on 2 processes"), ({"compiles": True}, "with a compiler")):
        other = SimpleNamespace(**vars(GPU) | change)
        with pytest.raises(UserError, match=why):
            cuda_graphs.check(_config("--cuda_graphs", "on"), other)  # type: ignore[arg-type]


def test_dropout_is_recomputed() -> None:
    """A base with dropout of its own has the same gradients with gradient checkpointing."""
    torch.manual_seed(0)
    net = untrained.prior()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.3
    wish = training.PriorConfig(dataset_name="a/b", output_dir="out", gradient_checkpointing=True)
    recompute = _recompute(wish, net)
    assert isinstance(recompute, functools.partial) and recompute.func is checkpoint
    gradients = []
    for way in (None, recompute):
        torch.manual_seed(1)
        draw = torch.Generator().manual_seed(2)
        noisy, text = (torch.randn(2, untrained.EMBEDDING, generator=draw) for _ in range(2))
        states = torch.randn(2, 5, untrained.EMBEDDING, generator=draw)
        mask, t = torch.ones(2, 5, dtype=torch.bool), torch.tensor([3, 900])
        out = unpadded_prior.predict(net, noisy, t, text, states, mask, recompute=way)
        weight = net.transformer_blocks[0].ff.net[0].proj.weight
        gradients.append(torch.autograd.grad(out.square().sum(), weight)[0])
    assert torch.equal(*gradients) and gradients[0].abs().max() > 0


# ---------------------------------------------------------------- whole trainings

FOUR = {"gradient_accumulation_steps": 4}
HALF = {"mixed_precision": "bf16"}
FLAGS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fused": FOUR,
    "apart": FOUR | {"fuse_accumulation": "off"},
    "average": HALF | {"use_ema": True, "gradient_checkpointing": True},
    "bf16 weights": HALF | {"weights_dtype": "bf16"},
    "LoRA": HALF | {"lora": True, "lora_dropout": 0.1},
    "weighted": {"snr_gamma": 5.0, "condition_dropout": 0.3},
}
DECODERS: dict[str, dict[str, Any]] = {
    "hybrid": {"variance_loss": 0.001},
    "buckets": {"bucket": True, "train_batch_size": 2},
}
ON_GPU = {"fp16": FOUR | {"mixed_precision": "fp16"}}
CASES = [(role, name, flags) for role in e2e.ROLES for name, flags in FLAGS.items()]
CASES += [("decoder", name, flags) for name, flags in DECODERS.items()]


def _alike(
    role: str, flags: dict[str, Any], out: Path, tiny: Tiny, photos: Path, patch: pytest.MonkeyPatch
) -> None:
    """The losses of twelve steps to the bit, with and without."""
    usual = run._learner
    patch.setattr(unpadded_prior, "EVEN", 4)  # captions of several shapes
    patch.setattr(validation, "VALIDATION_STEPS", 2)  # it is there to let go of the graphs
    if role == "prior":  # padded alike: other lengths of captions round otherwise
        even = functools.partial(unpadded_prior.evened, most=untrained.TOKENS)

        def padded(parts: run.Run) -> loop.Learner:
            learner = usual(parts)
            if learner.recorded:
                return learner
            plain = cuda_graphs.forward_backward(learner.objective, parts.setup.runtime)
            return dataclasses.replace(
                learner, recorded=lambda batch, noise, t: plain(even(batch), noise, t)
            )

        patch.setattr(run, "_learner", padded)
    curves = []
    for way in ("on", "off"):
        more = {"cuda_graphs": way, "max_train_steps": 12, "logging_steps": 1}
        more |= {"validation_prompts": "a cat", "validation_steps": 8}
        outcome = e2e.train(role, out / way, tiny, photos, **flags | more)
        assert "going on without" not in outcome.text
        assert ("as a CUDA graph" in outcome.text) == (way == "on")
        curves.append([loss for _, loss, _ in e2e.losses(out / way)])
    assert curves[0] == curves[1] and len(curves[0]) == 12


@pytest.mark.usefixtures("stand")
@pytest.mark.parametrize(("role", "name", "flags"), CASES, ids=[f"{r}-{n}" for r, n, _ in CASES])
def test_trainings_with_the_stand_in(
    role: str,
    name: str,
    flags: dict[str, Any],
    tmp_path: Path,
    tiny: Tiny,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a training reads and adds up, with each kind of batch."""
    monkeypatch.setattr(cuda_graphs, "_against", lambda config, runtime: None)
    _alike(role, flags, tmp_path, tiny, photos, monkeypatch)
    assert Stand.replayed > 1


@pytest.mark.usefixtures("stand")
def test_graphs_are_let_go_before_a_validation(
    tmp_path: Path, tiny: Tiny, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generating needs their memory; saving does not. Afterwards the objective is in training."""
    happened: list[object] = []
    let_go, forward = cuda_graphs.Recorded.let_go, losses.Prior.forward

    def noted(self: cuda_graphs.Recorded) -> None:
        happened.append("let go")
        let_go(self)

    def watched(self: losses.Prior, *given: Any) -> Tensor:
        assert self.training
        return forward(self, *given)

    def validate(self: validation.Validator, step: int) -> None:
        happened.append(step)
        self.weights.objective.eval()

    monkeypatch.setattr(cuda_graphs, "_against", lambda config, runtime: None)
    monkeypatch.setattr(cuda_graphs.Recorded, "let_go", noted)
    monkeypatch.setattr(losses.Prior, "forward", watched)
    monkeypatch.setattr(validation.Validator, "validate", validate)
    flags = {"cuda_graphs": "on", "validation_steps": 2, "checkpointing_steps": 3}
    e2e.train("prior", tmp_path / "run", tiny, photos, **flags, max_train_steps=5)
    assert happened == [0, "let go", 2, "let go", 4, 5]


@pytest.mark.gpu
@pytest.mark.parametrize("flags", (FLAGS | ON_GPU).values(), ids=FLAGS | ON_GPU)
@pytest.mark.parametrize("role", e2e.ROLES)
def test_trainings_on_a_gpu(
    role: str,
    flags: dict[str, Any],
    tmp_path: Path,
    tiny: Tiny,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With real graphs; a validation on the way lets go of them."""
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    replays, replay = [], cuda_graphs.Graph.replay

    def counted(self: cuda_graphs.Graph, given: dict[str, Tensor]) -> Tensor:
        replays.append(self)
        return replay(self, given)

    monkeypatch.setattr(cuda_graphs.Graph, "replay", counted)
    _alike(role, flags, tmp_path, tiny, photos, monkeypatch)
    assert len(replays) > 1
