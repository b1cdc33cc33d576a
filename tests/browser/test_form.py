"""The studio's pages in a real Chromium: what follows what, and what goes in time."""

from __future__ import annotations

from typing import Any

import pytest
from browser_parts import Open, Studio, choose, settle, shot, tab, wait_for


def value(page: Any, name: str) -> str:
    """Of a field."""
    return page.locator(f"#{name} input").first.input_value()


@pytest.mark.timeout(900)
def test_the_form_of_a_training(studio: Studio, open_page: Open) -> None:
    """Name and steps follow the network until they are changed; a used name is refused at once;
    and the line of what has started goes when it is not running any more.
    """
    page = open_page("ar")
    tab(page, 2)
    assert (value(page, "train-name"), value(page, "train-steps")) == ("my-prior", "200")
    page.locator("#train-network input").nth(1).check()
    wait_for(lambda: value(page, "train-name") == "my-decoder")
    assert value(page, "train-steps") == "300"
    page.fill("#train-steps input", "20")
    page.locator("#train-network input").nth(0).check()
    wait_for(lambda: value(page, "train-name") == "my-prior")
    settle(page)
    assert value(page, "train-steps") == "20"

    used = studio.runs / "used"
    used.mkdir()
    (used / "run.toml").write_text("# PriorConfig\n", "utf-8")
    page.fill("#train-name input", "used")
    wait_for(lambda: "there is a training already" in page.inner_text("#command"))
    page.fill("#train-name input", "short")

    choose(page, "train-data", str(studio.data / "good"))
    page.fill("#train-batch input", "4")
    wait_for(lambda: "runs/short" in page.inner_text("#command"))
    page.click("#train-start")
    wait_for(lambda: page.locator("#state [data-state=finished]").count())
    wait_for(lambda: not page.locator(".notice [role=status]:visible").count())
    said = page.locator("#state .said")
    assert said.evaluate("e => getComputedStyle(e).direction") == "ltr"
    shot(page, "arabic-finished")


def test_the_guidance_that_suits_is_shown(studio: Studio, open_page: Open) -> None:
    """And is the model's, as soon as one is chosen."""
    page = open_page()
    page.get_by_role("button", name="How it is drawn").click()
    shown = page.locator("#draw-guidance input")
    shown.wait_for()
    choose(page, "draw-decoder", "kandinsky-community/kandinsky-2-2-decoder")
    wait_for(lambda: shown.get_attribute("placeholder") == "4")
    choose(page, "draw-decoder", "mini")
    wait_for(lambda: shown.get_attribute("placeholder") == "2.5")
    assert page.locator("#draw-prior-guidance input").get_attribute("placeholder") == "2"


def test_captions_stand_below_their_pictures(studio: Studio, open_page: Open) -> None:
    """With the prompt and the seed."""
    page = open_page()
    page.fill("#prompts textarea", "a large red circle\na small green star on a pink background")
    choose(page, "draw-decoder", "mini")
    page.fill("#draw-seed input", "3")
    page.click("#draw-go")
    captions = page.locator("#drawn .caption-label")
    captions.nth(1).wait_for()
    assert captions.all_inner_texts() == [
        "a large red circle · seed 3",
        "a small green star on a pink background · seed 3",
    ]
    for picture, caption in zip(
        page.locator("#drawn .thumbnail-item img").all(), captions.all(), strict=True
    ):
        above, below = picture.bounding_box(), caption.bounding_box()
        assert above["y"] + above["height"] <= below["y"] + 1 and above["height"] > 50
    shot(page, "captions")
