"""The benchmarks at their least: they run, and what they write has the numbers in it.

What they launch as processes is forked here from a server that has imported torch once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import e2e
import pytest
import torch
from helpers import ROOT

from benchmarks import (
    busy,
    cache_scale,
    draw_steps,
    experiments,
    flops,
    generate_speed,
    gpu,
    loss_curves,
    memory,
    models,
    runs,
    soak,
    startup,
    step_speed,
)
from benchmarks import train_speed as speed
from benchmarks.runs import Held, Timed, Usage
from wassily.config import parsing
from wassily.mini import judge, untrained


def _child(words: list[str]) -> None:
    torch.set_num_threads(1)
    memory.child(words)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of Python are forked instead of started; the scripts at the root are the guide's."""

    def launch(words: Sequence[Any], work: Path, enough: Any = None) -> Usage:
        began, line = time.time(), [str(word) for word in words]
        if line[0] == "-c":
            process = multiprocessing.get_context("forkserver").Process(
                target=_child, args=(line[2:],)
            )
            process.start()
        else:
            own = line[2:] if line[0] == "-m" else ["train", line[0][:-3].split("_")[-1], *line[1:]]
            process = e2e.start(own, work / "last.log")
        with runs.watching(process.pid) as seen:
            assert e2e.finish(process) == 0, (work / "last.log").read_text("utf-8")
        ended = time.time()
        return Usage(ended - began, 10**8, [(began, 0.0), (ended, ended - began)], seen.held)

    monkeypatch.setattr(runs, "launch", launch)


def _rows(page: Path) -> list[list[str]]:
    """The cells of a page's tables."""
    lines = re.findall(r"^\| (.*) \|$", page.read_text("utf-8"), re.M)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def _number(cell: str) -> float:
    return float(cell.split()[0].replace(",", ""))


@pytest.mark.usefixtures("forked")
def test_train_speed_beside_a_reference(tmp_path: Path, photos: Path) -> None:
    """The scripts at the root take the guide's place: both are then the same program."""
    words = "--size tiny --networks prior --resolution 32 --steps 11 --warmup 10 --repeats 1"
    words += f" --pictures {photos} --work {tmp_path} --results {tmp_path}"
    page = speed.main([*words.split(), "--reference", str(ROOT)])  # whose path may have a space
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-train-speed-\S+\.md", page.name)
    head, row, starts, start = _rows(page)
    assert head == [cell.strip() for cell in speed.HEAD] and len(starts) == len(start)
    ours, theirs, ratio = map(_number, row[1:4])
    assert ours > 0 and theirs > 0 and ratio == pytest.approx(ours / theirs, abs=0.02)
    text = page.read_text("utf-8")
    assert "torch " + torch.__version__ in text and "% used" in text
    assert str(tmp_path) not in text


@pytest.mark.usefixtures("forked")
def test_commands_in_terms_of_the_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command here and in the other checkout, by turns; every run with its own output."""
    asked = []

    def launch(words: Sequence[Any], work: Path) -> Usage:
        asked.append([str(word) for word in words])
        took = 2.0 if "import torch" in str(words) else 3.0 if words[0] == "-m" else 6.0
        return Usage(took, 0, [(0.0, took)])

    monkeypatch.setattr(runs, "launch", launch)
    words = ["--commands", "--before", tmp_path, "--repeats", "3", "--results", tmp_path]
    rows = _rows(startup.main([str(word) for word in words]))
    same = "3.00 (3.00 to 3.00)"
    assert [row[1:3] for row in rows[-2:]] == [[same, "1.50"], [same, "1.50"]]
    assert [row[5] for row in rows[-2:]] == ["0.50", "0.50"]
    assert sum(words[0] == "-c" and str(tmp_path) in words for words in asked) == 6
    outputs = [word for words in asked for word in words if word.startswith("--output_dir")]
    assert len(set(outputs)) == len(outputs) == 7


def test_ways_of_waiting_are_compared_within_a_turn() -> None:
    """A machine that is twice as fast in one turn is so for both."""
    found = {
        ("a", 0): [busy.Window(10, 1.0, 2.0), busy.Window(20, 1.0, 4.0)],
        ("b", 0): [busy.Window(5, 1.0, 1.0), busy.Window(10, 1.0, 2.0)],
        ("b", 1): [busy.Window(1, 1.0, 1.0), busy.Window(2, 1.0, 2.0)],
    }
    rows = busy.rows(found, "a")
    assert [row[:2] + row[3:5] for row in rows] == [
        ["a", "0", "1.00", "1.00"],
        ["b", "0", "0.50", "1.00"],
        ["b", "1", "0.10", "0.20"],
    ]
    assert rows[2][5] == "1.000 (1.000 to 1.000)"


def test_a_trainer_and_its_competitors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The steps of each window are told; the competitors compute, and are gone afterwards."""
    monkeypatch.setattr("sys.argv", ["busy", "2"])
    monkeypatch.setattr("sys.stdin", ["0.01\n", "0.01\n"])
    busy.train()
    windows = [busy.Window(*json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert len(windows) == 2 and all(w.steps >= 1 and w.processor > 0 for w in windows)
    before = os.times()
    with busy.competitors(1):
        time.sleep(0.5)
    after = os.times()
    assert after.children_user > before.children_user


def test_startup_and_memory(tmp_path: Path) -> None:
    words = f"--networks prior --work {tmp_path} --results {tmp_path}".split()
    row = _rows(startup.main([*words, "--repeats", "1"]))[-1]
    assert row[0] == "prior" and _number(row[1]) > 0
    words[1] = "decoder"
    rows = _rows(memory.main([*words, "--size", "tiny", "--resolution", "32"]))[1:]
    assert [row[0] for row in rows] == ["decoder", "decoder, gradient checkpointing"]
    assert all(_number(row[1]) > 0 for row in rows)


@pytest.mark.usefixtures("forked")
def test_cache_scale(tmp_path: Path) -> None:
    """All entries are found again: the run that starts on them has nothing to encode."""
    words = f"--entries 20 40 --work {tmp_path} --results {tmp_path}"
    rows = _rows(cache_scale.main(words.split()))
    assert [row[0] for row in rows[1:]] == ["20", "40"]
    assert "encoding" not in (tmp_path / "40" / "last.log").read_text("utf-8")


def test_generate_speed(tmp_path: Path) -> None:
    words = "--size tiny --resolution 32 --steps 2 --prior_steps 2 --pictures 2 --repeats 1"
    page = generate_speed.main(f"{words} --work {tmp_path} --results {tmp_path}".split())
    rows = _rows(page)
    assert len(rows) == 4
    assert rows[1][2].startswith("1.00")
    assert all(_number(row[1]) > 0 for row in rows[1:])


def test_the_real_sizes_are_real() -> None:
    """Millions of parameters as the released networks have them."""
    found = models.parameters("full")
    wanted = {"text encoder": 694.7, "image encoder": 1844.9, "prior": 1026.2, "MoVQ": 67.8}
    assert {k: round(found[k], 1) for k in wanted} == wanted
    assert found["decoder"] == pytest.approx(1253.1, abs=0.1)


def test_flops_by_hand() -> None:
    """Of the prior: a product of (tokens, in) and (in, out) is 2 x tokens x in x out, thrice with
    the backward pass; attention's two products are 2 x tokens^2 x width each.
    """
    size = models.SIZES["tiny"]
    heads, head, layers = size.prior
    width, tokens = heads * head, 10 + 4
    block = tokens * 2 * (4 + 8) * width**2 + 2 * 2 * tokens**2 * width
    outside = 2 * width * (10 * size.text[0] + 2 * width + 2 * size.embedding)
    outside += 2 * width * size.embedding
    assert flops.prior(size, 10) == pytest.approx(3 * (layers * block + outside), rel=0.02)
    assert flops.decoder(size, 64, 2) == 2 * flops.decoder(size, 64)


def test_a_rate_is_that_of_the_counted_steps() -> None:
    """Warm-up and start are left out, by the clock and by processor time."""
    usage = Usage(20.0, 1, [(100.0, 0.0), (110.0, 5.0), (120.0, 10.0)])
    run = Timed(10.0, {1: 110.0, 2: 114.0, 4: 118.0, 6: 119.0}, usage)
    assert run.steps_per_second(2) == pytest.approx(4 / 5)
    assert run.processor_seconds(2) == pytest.approx(2.5 / 4)
    assert run.start_processor == pytest.approx(5.0)


def test_a_program_is_watched(tmp_path: Path) -> None:
    """Its time and memory are its own; one that fails ends the benchmark with its last lines."""
    program = "import time\nx = b'1' * 10**8\nwhile time.process_time() < 0.5: pass"
    usage = runs.launch(["-c", program], tmp_path)
    assert usage.seconds > 0.4 and 10**8 < usage.peak < 2 * 10**8
    assert 0.4 < usage.processor_at(time.time()) < 5
    with pytest.raises(SystemExit, match="no such luck"):
        runs.launch(["-c", "raise ValueError('no such luck')"], tmp_path)


def _soaked(growth: float) -> list[soak.Measure]:
    """A run of 100 steps, one in each second; memory grows by so much of itself from 20 to 100."""
    times = {step: 1000.0 + step for step in range(0, 101, 2)}
    held = [
        Held(1000 + second, int(1e8 * (1 + growth * (second - 25) / 70)), 7)
        for second in range(100)
    ]
    usage = Usage(100.0, 1, [(1000.0, 0.0), (1100.0, 25.0)], held)
    return soak.measures(Timed(0.0, times, usage), window=10, warmup=20)


def test_growth_is_seen() -> None:
    """By hand: a leak of 3 % is told, one of 1 % allowed; a second has a quarter of processor."""
    memory, files, work, clock = _soaked(0.03)
    assert memory.change == pytest.approx(0.03, rel=0.02)
    assert files.ends == pytest.approx((7.0, 7.0)) and len(files.values) == 8
    assert work.values == pytest.approx(250.0) and clock.values == pytest.approx(1000.0)
    assert soak.verdict(_soaked(0.03)) == "**Not flat: resident memory.**"
    assert "flat" in soak.verdict(_soaked(0.01)) and "Not" not in soak.verdict(_soaked(0.01))
    drawn = ElementTree.fromstring(soak.plot(_soaked(0.03), 10, 20))
    words = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"resident memory", "open files", "processor time of a step"} <= set(words)


@pytest.mark.usefixtures("forked")
def test_soak(tmp_path: Path) -> None:
    """A run of some steps, watched: what is shown is there, and from the run."""
    words = "--steps 6 --window 2 --warmup 2".split()
    where = ["--work", tmp_path, "--results", tmp_path, "--plot", tmp_path / "soak.svg"]
    page = soak.main([*words, *map(str, where)])
    memory, files, work, clock = _rows(page)[1:]
    assert 50 < _number(memory[1]) < 5000 and 1 < _number(files[1]) < 500
    assert _number(work[1]) > 0 and _number(clock[1]) > 0
    assert "flat" in page.read_text("utf-8").lower()
    assert (tmp_path / "soak.svg").read_text("utf-8").startswith("<svg ")


@pytest.mark.usefixtures("forked")
def test_loss_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain run is no different from itself; a run that is has its difference told."""
    ways = {name: loss_curves.WAYS[name] for name in ("plain", "bf16 weights")}
    monkeypatch.setattr(loss_curves, "ways", lambda role: ways)
    words = f"--networks prior --steps 4 --last 3 --work {tmp_path} --results {tmp_path}"
    _, plain, half = _rows(loss_curves.main(words.split()))
    assert plain[3:] == ["+0.0000", "0"]
    assert half[1] == "`--mixed_precision bf16 --weights_dtype bf16`"
    assert _number(half[2]) > 0 and half[4] != "0"


def test_the_ways_of_fine_tuning(tmp_path: Path) -> None:
    """By hand, of 4 old prompts: the base has 3 wholly right. One run keeps 2 of these 3 and gains
    none, another keeps 1: lost are (25 + 50) / 2 points, and learnt is what new prompts show.
    """

    def row(way: str, seed: int, style: list[int], shape: list[int]) -> dict[str, Any]:
        seen = {name: [1] * 4 for name in judge.JUDGED}
        return {
            "way": way,
            "thing": "inked",
            "seed": seed,
            "seen": {"new": seen | {"style": style}, "old": seen | {"shape": shape}},
        }

    rows = [
        row("base", -1, [0] * 4, [1, 1, 1, 0]),
        row("guide", 0, [1, 1, 1, 1], [1, 1, 0, 0]),
        row("guide", 1, [1, 1, 0, 0], [1, 0, 0, 0]),
    ]
    base, guide = experiments.lines(rows, "inked")
    assert [cell.split(" ")[0] for cell in base] == ["base", "1", "0.0", "75.0", "", "4"]
    assert [cell.split(" ")[0] for cell in guide] == ["guide", "2", "75.0", "37.5", "37.5", "8"]


@pytest.mark.parametrize("name", [n for n, way in experiments.WAYS.items() if way.of is None])
@pytest.mark.parametrize("role", ["prior", "decoder"])
def test_a_way_is_a_command(name: str, role: str, tmp_path: Path) -> None:
    """Its words make a config of that network."""
    (tmp_path / "inked-0").mkdir()
    words = experiments.words_of(experiments.WAYS[name], role, "inked", 0, tmp_path, name, 70)
    config = parsing.parse(f"{role.capitalize()}Config", words[2:], "wassily")
    assert config.role == role and config.max_train_steps == 70


def test_steps_at_their_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock way is there unasked; what is done is not done again."""
    words = ["--work", tmp_path / "work", "--results", tmp_path]
    words += "--prompts 2 --schedulers dpm++ --steps 2 --prior_steps 2".split()
    page = draw_steps.main([str(word) for word in words]).read_text("utf-8")
    rows = [
        line.split(" | ")
        for line in page.splitlines()
        if line.startswith(("| stock", "| dpm", "| uni"))
    ]
    assert [row[0][2:] for row in rows] == ["stock", "dpm++", "unipc"]
    assert rows[0][4] == "+0.0 [+0.0, +0.0]" and rows[0][-1] == "1.00 |"
    assert float(rows[1][-1][:-2]) < 0.5
    monkeypatch.setattr(draw_steps, "drawn", None)
    assert draw_steps.main([str(word) for word in words]).read_text("utf-8") == page


def test_step_speed(tmp_path: Path) -> None:
    """The loop of a training on random encodings: rates, and the loss that it logs at its end."""
    words = "--size tiny --resolution 32 --steps 4 --networks prior decoder --ways".split()
    page = step_speed.main([*words, "the guide's, no graphs", "--results", str(tmp_path)])
    rows = _rows(page)[1:]
    assert [row[0] for row in rows] == [
        f"{role}, the guide's, no graphs" for role in ("prior", "decoder")
    ]
    assert all(_number(row[3]) > 0 and 0.1 < _number(row[7]) < 10 for row in rows)


def test_a_gpu_is_looked_into(tmp_path: Path) -> None:
    """Four steps after eight are profiled; there the training ends, though more batches follow."""
    seen: list[int] = []
    file = tmp_path / "profile"
    with pytest.raises(memory.Measured):
        seen.extend(gpu.looked_at(iter(range(99)), 2, file))
    assert seen == list(range(24)) and "ms a step" in file.read_text("utf-8")


@pytest.mark.parametrize(("names", "count"), [(None, 10), (["prior"], 4), (["decoder x"], 2)])
def test_rows_of_a_gpu(names: list[str] | None, count: int, tmp_path: Path) -> None:
    """By the beginnings of their names; each that is compared names a row before it."""
    args = gpu.options(["--work", str(tmp_path), *(["--rows", *names] if names else [])])
    folders = untrained.Tiny(tmp_path, tmp_path)
    found = gpu.rows(args, runs.Job("prior", folders, tmp_path))
    assert len(found) == count
    before = [row.name for row in found]
    assert names or all(row.beside in before[:3] for row in found if row.beside)
