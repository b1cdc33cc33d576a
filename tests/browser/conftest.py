"""A studio and a browser for the tests of this folder, which `make browser` runs.

Where playwright is not installed there is no test here.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helpers
import pytest
import torch
from browser_parts import PATIENCE, Open, Studio, listen, running_studio, settle
from safetensors.torch import load_file, save_file

collect_ignore_glob = [] if importlib.util.find_spec("playwright") else ["test_*.py"]
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Given seven good pictures; three of which two are the same file and one is none; and a
    decoder that is not `mini`.
    """
    top = tmp_path_factory.mktemp("studio")
    data = top / "pics"
    helpers.write_folder(data / "good", [f"a picture of pattern {n}" for n in range(7)])
    spoilt = helpers.write_folder(data / "spoilt", ["one", "the same", "none"])
    shutil.copyfile(spoilt / "00.png", spoilt / "01.png")
    (spoilt / "02.png").write_bytes(b"no picture")
    _tuned(top / "runs" / "tuned")
    with running_studio(top / "runs", data) as found:
        yield found
        _end_trainings(found)
    assert not found.elsewhere, "fetched from other addresses"


def _end_trainings(studio: Studio) -> None:
    """Those that a failed test left behind: they outlive the studio."""
    from wassily.studio import process

    for record in (studio.runs / "studio" / "trainings").glob("*.json"):
        own = process.TrainingProcess(studio.runs / record.stem, record.with_suffix(""))
        if process.runs(own):
            process.stop(own)


def _tuned(folder: Path) -> None:
    """The decoder of `mini` with its last layer changed a little."""
    from wassily.models import parts

    shutil.copytree(parts.MINI / "decoder", folder)
    (file,) = (folder / "unet").glob("*.safetensors")
    weights = load_file(file)
    generator = torch.Generator().manual_seed(0)
    for name, value in weights.items():
        if name.startswith("conv_out"):
            noise = torch.randn(value.shape, generator=generator) * value.float().std()
            weights[name] = (value.float() + 0.3 * noise).to(value.dtype)
    save_file(weights, file, {"format": "pt"})


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.fail("no Chromium: install it (apt install chromium), or name it by CHROMIUM=/path")
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any, studio: Studio) -> Iterator[Open]:
    """A page of the studio: `open_page("ar", width=390, dark=True)`. Its errors fail the test."""
    contexts, errors = [], []

    def opened(
        path: str = "", width: int = 1280, dark: bool = False, at: Studio | None = None
    ) -> Any:
        scheme = "dark" if dark else "light"
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        listen(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: _heard(studio, request.url))
        there = at or studio
        page.goto(f"{there.address}{path}?token={there.token}")
        page.wait_for_selector("#draw-go")
        settle(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not errors


def _heard(studio: Studio, url: str) -> None:
    if not url.startswith(("http://127.0.0.1", "data:", "blob:")):
        studio.elsewhere.append(url)
