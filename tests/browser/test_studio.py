"""The studio in a real Chromium: what a person does with it, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from browser_parts import Open, Studio, choose, running_studio, settle, shot, tab, wait_for
from helpers import draw_picture, run_command
from PIL import Image

PROMPT = "a large red circle on a blue background"
TABS = ("draw", "compare", "train", "data")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def drawn(studio: Studio) -> set[Path]:
    return set((studio.runs / "studio" / "pictures").glob("*.png"))


def notice(page: Any) -> str:
    """The lines that are to be seen."""
    found = page.locator(".notice [role=alert]:visible, .notice [role=status]:visible")
    return " ".join(found.all_inner_texts())


# ---------------------------------------------------------------- draw


def test_draw_and_draw_again(studio: Studio, open_page: Open, tmp_path: Path) -> None:
    """The pixels are those of `wassily generate`; the history draws a picture again, bit by bit."""
    page = open_page()
    page.fill("#prompts textarea", PROMPT)
    choose(page, "draw-prior", "mini")  # not a prior that another test trained
    choose(page, "draw-decoder", "mini")
    page.fill("#draw-seed input", "3")
    page.fill("#draw-count input", "2")
    before = drawn(studio)
    page.click("#draw-go")
    page.wait_for_selector("#drawn img")
    new = sorted(wait_for(lambda: len(drawn(studio) - before) == 2 and drawn(studio) - before))
    words = ["--prior", "mini", "--decoder", "mini", "--seed", 3, "--num_images", 2]
    words += ["--guidance_scale", 2.5, "--prior_guidance_scale", 2]
    captions = page.locator("#drawn .caption-label").all_inner_texts()
    assert captions == [f"{PROMPT} · seed {seed}" for seed in (3, 4)]
    run_command("wassily", "generate", PROMPT, *words, "--out", tmp_path)
    same = sorted(tmp_path.glob("*.png"))
    assert len(same) == 2
    for mine, theirs in zip(new, same, strict=True):
        assert (pixels(mine) == pixels(theirs)).all()
    assert "2 drawn" in notice(page)
    shot(page, "draw")

    page.locator("#history-place button").first.click()
    page.locator("#history .thumbnail-item").nth(0).click()
    page.wait_for_selector("#history-notes dd")
    assert PROMPT in page.inner_text("#history-notes")
    before = drawn(studio)
    page.click("#draw-again")
    (again,) = wait_for(lambda: drawn(studio) - before)
    assert (pixels(again) == pixels(new[1])).all()
    shot(page, "history")


def test_cancel(studio: Studio, open_page: Open) -> None:
    """A long drawing ends after the step it is at, and leaves nothing."""
    page = open_page()
    choose(page, "draw-decoder", "mini")
    page.fill("#draw-count input", "48")
    before = drawn(studio)
    page.click("#draw-go")
    page.locator("#drawn .progress-text, #drawn .progress-level-inner").first.wait_for()
    page.click("#draw-cancel")
    wait_for(lambda: "Cancelled" in notice(page))
    assert drawn(studio) == before


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("#prompts textarea", "  ", "nothing to draw"),
        ("#draw-seed input", "soon", "--seed: 'soon' is not a whole number"),
        ("#draw-seed input", "-1", "--seed: -1 is less than 0"),
        ("#draw-count input", "65", "65 pictures at once; the studio draws 64 at most"),
    ],
)
def test_bad_input_is_one_line(
    studio: Studio, open_page: Open, name: str, value: str, line: str
) -> None:
    """On the page, and no stack trace anywhere."""
    page = open_page()
    page.fill(name, value)
    page.click("#draw-go")
    page.wait_for_selector(".notice [role=alert]:visible")
    assert line in notice(page) and "Traceback" not in page.inner_text("body")
    shot(page, "bad-input")


# ---------------------------------------------------------------- compare


def test_compare(studio: Studio, open_page: Open) -> None:
    """Base and tuned at one seed: the base's as it is drawn alone, the other's another picture;
    both lie under the line.
    """
    page = open_page()
    tab(page, 1)
    page.fill("#compare-prompts textarea", f"{PROMPT}\na small green star")
    choose(page, "compare-choices", "tuned (decoder, finished)")
    page.click("#compare-go")
    page.wait_for_selector("#compared img")
    assert page.locator("#compared img").count() == 4
    found = sorted((studio.runs / "studio" / "compared").glob("*.png"))
    base, tuned = pixels(found[0]), pixels(found[2])
    assert base.shape == tuned.shape and (base != tuned).any()
    assert page.locator("#slider img").count() == 2
    first = page.locator("#slider img").first.get_attribute("src")
    page.locator("#compared .thumbnail-item").nth(3).click()
    wait_for(lambda: page.locator("#slider img").first.get_attribute("src") != first)
    shot(page, "compare")


def test_nothing_to_compare(studio: Studio, open_page: Open) -> None:
    """Is said."""
    page = open_page()
    tab(page, 1)
    page.click("#compare-go")
    page.wait_for_selector(".notice [role=alert]:visible")
    assert "at least one" in notice(page)


# ---------------------------------------------------------------- train


def state(page: Any) -> str | None:
    """That of the chosen training."""
    found = page.locator("#state [data-state]")
    return found.get_attribute("data-state") if found.count() else None


def command_of(studio: Studio, name: str) -> list[str]:
    """The words that its process was started with."""
    record = studio.runs / "studio" / "trainings" / f"{name}.json"
    return json.loads(record.read_text("utf-8"))["words"]


@pytest.mark.timeout(600)  # two studios and two trainings begin in it
def test_train_stop_and_go_on(studio: Studio, open_page: Open) -> None:
    """The command that is shown is the one that runs. It outlives its page, another studio finds
    it and stops it, a checkpoint is there, and it goes on from that.
    """
    page = open_page()
    tab(page, 2)
    page.fill("#train-name input", "first")
    choose(page, "train-data", str(studio.data / "good"))
    page.fill("#train-steps input", "100000")
    page.fill("#train-batch input", "4")
    page.fill("#train-every input", "1000")
    page.fill("#train-validation input", "1000")
    page.fill("#train-prompts textarea", PROMPT)
    wait_for(lambda: PROMPT in page.inner_text("#command"))
    shown = page.inner_text("#command").replace("\\\n", " ").split()
    page.click("#train-start")
    wait_for(lambda: "has started" in notice(page))
    assert shown[:3] == ["wassily", "train", "prior"]
    assert " ".join(shown[1:]).replace("'", "") == " ".join(command_of(studio, "first"))
    page.context.close()

    log = studio.runs / "first" / "log.jsonl"
    wait_for(lambda: log.is_file() and len(log.read_text("utf-8").splitlines()) > 3)
    with running_studio(studio.runs, studio.data) as other:
        page = open_page(at=other)
        tab(page, 2)
        wait_for(lambda: state(page) == "running")
        wait_for(lambda: page.locator("#losses svg polyline").count() == 1)
        assert "of 100000" in page.inner_text("#state") and "left" in page.inner_text("#state")
        page.wait_for_selector("#samples img")
        shot(page, "train")
        page.click("#train-stop")
        wait_for(lambda: state(page) == "stopped")
        kept = max(_checkpoints(studio.runs / "first"))
        assert kept > 0 and "SIGTERM" in page.inner_text("#state")
        wait_for(lambda: "--resume_from_checkpoint latest" in shown_command(page))
        asked = shown_command(page).split()
        page.click("#train-resume")
        wait_for(lambda: state(page) == "running" and max(_steps(log)) > kept)
        assert " ".join(asked[1:]).replace("'", "") == " ".join(command_of(studio, "first"))
        page.click("#train-stop")
        wait_for(lambda: state(page) == "stopped")
        assert max(_checkpoints(studio.runs / "first")) > kept
        page.context.close()


def shown_command(page: Any) -> str:
    """The command that resumes the chosen training."""
    return page.inner_text("#resume-command").replace("\\\n", " ")


def _checkpoints(run: Path) -> list[int]:
    found = run.glob("checkpoint-*/state.json")
    return [int(path.parent.name.removeprefix("checkpoint-")) for path in found]


def _steps(log: Path) -> list[int]:
    found = re.findall(r'^\{"step": (\d+),', log.read_text("utf-8"), re.M)
    return [int(step) for step in found]


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("train-name", "../outside", "no name for a training"),
        ("train-name", "tuned", ""),
        ("train-resolution", "33", "--resolution: 33 is not a multiple of 8"),
        ("train-batch", "0", "--train_batch_size: 0 is less than 1"),
    ],
)
def test_a_bad_training_is_one_line(
    studio: Studio, open_page: Open, name: str, value: str, line: str
) -> None:
    """In the place of the command, and nothing is started."""
    page = open_page()
    tab(page, 2)
    page.fill(f"#{name} input", value)
    if line:
        wait_for(lambda: line in page.inner_text("#command"))
    page.click("#train-start")
    if line:
        page.wait_for_selector(".notice [role=alert]:visible")
        assert line in notice(page)
    else:  # a folder that holds a model: the training itself refuses it
        wait_for(lambda: state(page) == "stopped")
        wait_for(lambda: "tuned" in page.inner_text("#state"))
    assert not (studio.runs.parent / "outside").exists()


def chosen(page: Any, name: str) -> str:
    """What a dropdown shows."""
    return page.locator(f"#{name} input").input_value()


@pytest.mark.parametrize("path", ["", "ar"])
def test_a_page_that_is_loaded_shows_what_is_newest(
    studio: Studio, open_page: Open, path: str
) -> None:
    """Of the models and of the trainings that came after the studio began."""
    name = f"newer-{path or 'en'}"
    page = open_page(path)
    shutil.copytree(studio.runs / "tuned", studio.runs / name)
    (studio.runs / name / "unet" / "config.json").touch()
    (studio.runs / name / "run.toml").write_text("# DecoderConfig\n", "utf-8")
    page.reload()
    page.wait_for_selector("#draw-go")
    settle(page)
    wait_for(lambda: chosen(page, "draw-decoder").startswith(f"{name} ("))
    tab(page, 2)
    wait_for(lambda: chosen(page, "run") == name)
    assert chosen(page, "train-decoder") == "mini"


# ---------------------------------------------------------------- data


def test_data(studio: Studio, open_page: Open) -> None:
    """The same file twice is found, with both pictures."""
    page = open_page()
    tab(page, 3)
    choose(page, "data-folder", str(studio.data / "spoilt"))
    page.click("#data-go")
    page.wait_for_selector("#findings [data-kind=duplicates]")
    assert "2.png" in page.inner_text("#findings [data-kind=broken]")
    assert "00.png = " in page.inner_text("#findings [data-kind=duplicates]")
    page.wait_for_selector("#thumbnails img")
    captions = page.locator("#thumbnails .caption-label").all_inner_texts()
    assert {"00.png: The same file", "01.png: The same file"} <= set(captions)
    shot(page, "data")


# ---------------------------------------------------------------- languages, widths, colours


def test_arabic(studio: Studio, open_page: Open) -> None:
    """From right to left, by the link of the English page; an Arabic prompt is drawn."""
    page = open_page()
    page.click("#language")
    page.wait_for_selector("html[dir=rtl] #draw-go")
    settle(page)
    assert page.get_attribute("html", "lang") == "ar"
    direction = "e => getComputedStyle(e).direction"
    assert page.locator("#prompts span").first.evaluate(direction) == "rtl"
    left = [page.locator("#tabs [role=tab]:visible").nth(n).bounding_box()["x"] for n in (0, 1)]
    assert left[0] > left[1]
    assert page.inner_text("#draw-go") == "ارسم"
    choose(page, "draw-decoder", "mini")
    page.fill("#prompts textarea", "نجمة خضراء صغيرة على خلفية وردية")
    before = drawn(studio)
    page.click("#draw-go")
    page.wait_for_selector("#drawn img")
    assert wait_for(lambda: drawn(studio) - before)
    for number, name in enumerate(TABS):
        tab(page, number)
        shot(page, f"arabic-{name}")
    page.click("#language")
    page.wait_for_selector("html[dir=ltr] #draw-go")


@pytest.mark.parametrize("path", ["", "ar"])
def test_a_phone_is_wide_enough(studio: Studio, open_page: Open, path: str) -> None:
    """Nothing goes beyond 360 pixels, in any tab."""
    page = open_page(path, width=360)
    for number, name in enumerate(TABS):
        tab(page, number)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        beyond = page.evaluate(
            "[...document.querySelectorAll('button, input, textarea, label, p, pre, img, svg')]"
            ".map(e => e.getBoundingClientRect()).filter(r => r.width && r.height)"
            ".filter(r => r.right > 361 || r.left < -1).length"
        )
        assert not beyond, name
        shot(page, f"phone-{path or 'en'}-{name}")


def brightness(page: Any) -> float:
    """Of the page's ground, from 0 to 255."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = map(float, re.findall(r"[\d.]+", colour)[:3])
    return (red + green + blue) / 3


@pytest.mark.parametrize("path", ["", "ar"])
def test_light_and_dark(studio: Studio, open_page: Open, path: str) -> None:
    """As the machine has it; the button changes it, and the page remembers."""
    assert brightness(open_page(path)) > 200
    page = open_page(path, dark=True)
    wait_for(lambda: brightness(page) < 60)
    shot(page, f"dark-{path or 'en'}")
    page.click("#theme")
    wait_for(lambda: brightness(page) > 200)
    page.reload()
    page.wait_for_selector("#draw-go")
    settle(page)
    assert brightness(page) > 200


# ---------------------------------------------------------------- what it may see


def answer(
    studio: Studio, path: str, host: str = "", data: bytes | None = None, **headers: str
) -> int:
    """The status of an answer to one who is no browser and has the cookie."""
    named = {"Host": host or f"127.0.0.1:{studio.port}", "Cookie": studio.cookie} | headers
    request = urllib.request.Request(studio.address + quote(path), data, named)
    try:
        with urllib.request.urlopen(request, timeout=20) as got:
            return got.status
    except urllib.error.HTTPError as error:
        return error.code


def test_finding_18_it_serves_what_it_generated_and_no_other_file(studio: Studio) -> None:
    """Neither the machine's files, nor those of the data or the trainings, nor its own records."""
    own = studio.runs / "studio"
    for folder, name in (("pictures", "own.png"), ("pictures", "own.html"), ("trainings", "a.png")):
        draw_picture(1).save(own / folder / name, "PNG")
    assert answer(studio, f"gradio_api/file={own}/pictures/own.png") == 200
    for other in (
        "/etc/passwd",
        own / "pictures/own.html",
        own / "trainings/a.png",
        own / ".." / "tuned" / "unet" / "config.json",
        studio.data / "good/00.png",
        studio.runs / "tuned/unet/config.json",
    ):
        assert answer(studio, f"gradio_api/file={other}") == 404, other


def test_finding_11_no_page_can_upload(studio: Studio) -> None:
    """Nor its own, which have no field for a file: nothing comes to the disk."""
    origin = {"Origin": studio.address.rstrip("/"), "Content-Type": "multipart/form-data"}
    elsewhere = origin | {"Origin": "http://evil.example"}
    assert answer(studio, "gradio_api/upload", data=b"a" * 1000, **origin) == 404
    assert answer(studio, "gradio_api/upload", data=b"a" * 1000, **elsewhere) == 403
    for path in ("openapi.json", "gradio_api/openapi.json", "gradio_api/info", "config"):
        assert answer(studio, path) == 404


def test_finding_19_other_ports_and_other_users_are_refused(studio: Studio) -> None:
    """Without the token 401; from another name or port 403, with the cookie as well."""
    assert answer(studio, "") == 200
    assert answer(studio, "", Cookie="") == 401
    assert answer(studio, "", host="example.org") == 403
    body = {"data": b"{}", "Content-Type": "application/json"}
    join = "gradio_api/queue/join"
    assert answer(studio, join, Origin="http://localhost:18080", **body) == 403  # type: ignore[arg-type]
    assert answer(studio, join, **body) == 403  # type: ignore[arg-type]
    assert answer(studio, "theme.css", **{"Sec-Fetch-Site": "same-site"}) == 403


def test_finding_28_sigterm_removes_what_is_temporary(studio: Studio, tmp_path: Path) -> None:
    """With the end by SIGTERM, as by Ctrl-C."""
    there = set(Path(tempfile.gettempdir()).glob("wassily-studio-*"))
    (tmp_path / "runs").mkdir()
    with running_studio(tmp_path / "runs", studio.data) as other:
        (folder,) = set(Path(tempfile.gettempdir()).glob("wassily-studio-*")) - there
        other.process.terminate()
        assert other.process.wait(60) == 143
        assert not folder.exists()


def test_only_this_machine_reaches_it(studio: Studio) -> None:
    """It listens at 127.0.0.1 and nowhere else."""
    mine = {os.readlink(path) for path in _handles(studio.process.pid)}
    listening = [
        local
        for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
        for _, local, _, status, *_, inode in [line.split()[:10]]
        if status == "0A" and f"socket:[{inode}]" in mine
    ]
    assert listening == [f"0100007F:{studio.port:04X}"]
    assert not [
        line
        for line in Path("/proc/net/tcp6").read_text("ascii").splitlines()[1:]
        if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in mine
    ]


def _handles(process: int) -> list[Path]:
    return [path for path in Path(f"/proc/{process}/fd").iterdir() if path.is_symlink()]
