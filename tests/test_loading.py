"""What is settled before torch is loaded, what each verb loads, and what reaches the user."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest
from helpers import ROOT, run_command

from wassily import loading
from wassily.mini.untrained import Tiny

# Each costs tenths of a second or more, and is of use to some verbs only. Not among them is what
# transformers or diffusers import by themselves: peft, torch._dynamo, torch.distributed.fsdp.
HEAVY = {
    "bitsandbytes",
    "datasets",
    "gradio",
    "optimi",
    "pandas",
    "pyarrow",
    "tensorboard",
    "torchao",
}
LIBRARIES = {
    "diffusers.models",
    "diffusers.pipelines.pipeline_utils",
    "peft",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "transformers.models.clip.modeling_clip",
}
READ = {"datasets", "pandas", "pyarrow"}  # what reads a folder of captioned images
SHOW = "\nIMPORTED "
RUN = (
    "import sys; from wassily import cli; code = cli.main(sys.argv[1:]); "
    f"print({SHOW!r}, *sorted(set(sys.modules) & set({sorted(HEAVY | LIBRARIES)!r}))); "
    "sys.exit(code)"
)


def _loaded(*words: object) -> set[str]:
    """The heavy modules that a command loads as a process; on stderr are its own lines alone."""
    done = run_command("python", "-c", RUN, *words)
    assert done.returncode == 0, done.stderr
    strange = [line for line in done.stderr.splitlines() if not line.startswith("wassily: ")]
    assert not strange
    return set(done.stdout.rpartition(SHOW)[2].split())


def test_threads_wait_asleep_unless_told_otherwise() -> None:
    """On a machine without a GPU, and where the user has hidden it."""
    here = str(Path(__file__))  # stands for the file of a device
    for given, gpus, policy in (
        ({}, (), "passive"),
        ({}, ("/nowhere",), "passive"),
        ({}, (here,), None),
        ({"CUDA_VISIBLE_DEVICES": ""}, (here,), "passive"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, (here,), None),
        ({"ACCELERATE_USE_CPU": "true"}, (here,), "passive"),
        ({"OMP_WAIT_POLICY": "active"}, (), "active"),
        ({"GOMP_SPINCOUNT": "7"}, (), None),
        ({"KMP_BLOCKTIME": "1"}, (), None),
    ):
        variables = dict(given)
        loading.wait_asleep(variables, gpus)
        assert variables.pop("OMP_WAIT_POLICY", None) == policy, given
        assert variables == {k: v for k, v in given.items() if k != "OMP_WAIT_POLICY"}


def test_the_package_sets_it_before_torch() -> None:
    """The process that imports it, and the ones that this starts; a setting of the user stays."""
    code = "import os, sys, wassily; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules); "
    code += "os.system('echo $OMP_WAIT_POLICY')"
    for given, policy in ((None, "passive"), ("active", "active")):
        more = {"OMP_WAIT_POLICY": given, "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
        done = run_command("python", "-c", code, env={**more, "GOMP_SPINCOUNT": None})
        assert done.stdout.split() == [policy, "False", policy], done.stderr


@pytest.mark.parametrize("folder", ["benchmarks", "tools/mini"])
def test_programs_beside_the_package_import_it_first(folder: str) -> None:
    """Their files import torch by name, and an `__init__` runs before them."""
    lines = (ROOT / folder / "__init__.py").read_text("utf-8").splitlines()
    assert any(re.match(r"import wassily\b", line) for line in lines)


def test_nothing_is_collected_while_modules_load() -> None:
    """As it was afterwards, after an error and inside of another one, too."""
    assert gc.isenabled()
    with loading.uncollected():
        with pytest.raises(ZeroDivisionError), loading.uncollected():
            raise ZeroDivisionError
        assert not gc.isenabled()
    assert gc.isenabled()


def test_generating_loads_no_reader_of_data(tiny: Tiny, tmp_path: Path) -> None:
    """Neither data sets nor trackers."""
    words = ["a cat", "--prior", tiny.prior, "--decoder", tiny.decoder, "--out", tmp_path]
    assert not _loaded("generate", *words, "--steps", 2, "--prior_steps", 2) & HEAVY


def test_training_loads_no_tracker(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """With --report_to none; what reads a folder is wanted there."""
    words = ["--pretrained_prior_model_name_or_path", tiny.prior, "--train_data_dir", photos]
    words += ["--pretrained_decoder_model_name_or_path", tiny.decoder, "--output_dir", tmp_path]
    words += ["--max_train_steps", 1, "--report_to", "none", "--train_batch_size", 1]
    assert _loaded("train", "prior", *words) & HEAVY == READ


def test_looking_at_the_cache_loads_no_model(tmp_path: Path) -> None:
    """Nor a library of them."""
    assert _loaded("cache", "info", "--cache_dir", tmp_path) == set()
