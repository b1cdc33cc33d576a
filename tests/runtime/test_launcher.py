"""The engine that a launcher's variables ask for."""

from __future__ import annotations

import os

import pytest

from wassily.errors import UserError
from wassily.runtime.launcher import reshards, sharded


def launcher(*flags: str) -> dict[str, str]:
    """What `accelerate launch FLAGS` puts into the environment of each process."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    words = ["--num_processes", "2", *flags, "-m", "wassily"]
    args = _validate_launch_command(launch_command_parser().parse_args(words))[0]
    made = prepare_multi_gpu_env(args)
    return {name: value for name, value in made.items() if os.environ.get(name) != value}


FSDP = launcher("--use_fsdp", "--fsdp_version", "2")


def test_the_launcher_is_understood() -> None:
    """Its flags, by its own function; and nothing where it did not ask."""
    assert sharded(FSDP)
    assert reshards(FSDP)
    assert not sharded(launcher("--multi_gpu"))
    kept = launcher("--use_fsdp", "--fsdp_version", "2", "--fsdp_reshard_after_forward", "false")
    assert sharded(kept)
    assert not reshards(kept)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--use_fsdp",), "FSDP 1 was asked for"),
        (("--use_fsdp", "--fsdp_version", "2", "--fsdp_offload_params", "true"), "offload_params"),
        (
            ("--use_fsdp", "--fsdp_version", "2", "--fsdp_activation_checkpointing", "true"),
            "--gradient_checkpointing",
        ),
    ],
)
def test_what_fsdp_is_not_asked_for(flags: tuple[str, ...], named: str) -> None:
    """Each in one line with what to do instead."""
    with pytest.raises(UserError, match=named):
        sharded(launcher(*flags))
