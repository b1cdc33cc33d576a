"""Fixtures of all tests: tiny models, photographs, and an environment that nothing leaks into."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import helpers
import pytest

if TYPE_CHECKING:
    from wassily.mini.untrained import Tiny

PHOTOS = 7  # odd, so that no batch size divides it
_home = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Before any library reads its settings: offline, no tokens, an empty home, one thread."""
    config.stash[_home] = tempfile.mkdtemp(prefix="wassily-tests-")
    home = config.stash[_home]
    clean = helpers.clean_environment(HOME=home, HF_HOME=home, XDG_CACHE_HOME=home)
    os.environ.clear()
    os.environ.update(clean)
    time.tzset()
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        gc.disable()  # until all is imported and collected
        import torch  # not where the tests are only handed out: it takes 3 s

        torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """From here on garbage is searched for again."""
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the home."""
    shutil.rmtree(config.stash[_home], ignore_errors=True)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """`.prior` and `.decoder`: stock pipeline folders of tiny random models. Not to be changed."""
    from wassily.mini.untrained import make

    return make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 7 drawn photographs of several formats with metadata.jsonl. Not to be changed."""
    return helpers.write_photos(tmp_path_factory.mktemp("photos") / "pics", range(PHOTOS))


@pytest.fixture(autouse=True, scope="module")
def _only_what_is_new_is_searched() -> None:
    """Each run ends with a search for garbage: half of its time, if it is among all that pytest and
    the libraries hold.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Each test leaves the environment, the working folder and torch's settings as they were."""
    import torch

    variables, here = dict(os.environ), Path.cwd()
    state = torch.random.get_rng_state()
    yield
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(here)
    torch.random.set_rng_state(state)
    if "accelerate" in sys.modules:  # it keeps a run's device and precision for the process's life
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
