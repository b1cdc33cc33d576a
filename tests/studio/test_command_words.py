"""The words of a command from the fields of a form."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from wassily.config import parsing, schema
from wassily.errors import UserError
from wassily.studio import command_words


def test_what_the_form_proposed() -> None:
    """Gives way to what it proposes for the other network; what somebody typed does not."""
    assert command_words.untouched("my-prior", "200") == (True, True)
    assert command_words.untouched("my-decoder-2", " 300") == (True, True)
    assert command_words.untouched("my-priority", "") == (False, False)


def test_the_command_of_a_form(photos: Path) -> None:
    """What is unset stays away; the command line reads back what the form said."""
    values = {
        "train_data_dir": str(photos),
        "output_dir": "runs/a b",
        "learning_rate": 0.00001,
        "max_train_steps": 20,
        "seed": 0,
        "rank": None,
        "lora": True,
        "use_ema": False,
        "mixed_precision": "",
        "validation_prompts": ("a red circle", "دائرة حمراء"),
    }
    command = command_words.train("prior", values)
    config = parsing.parse("PriorConfig", command[2:], "wassily train prior")
    plain = schema.public(config)
    for name, value in values.items():
        if value is not None and value is not False and value != "":
            assert plain[name] == value, name
    assert "--rank" not in command and "--use_ema" not in command
    text = command_words.shown(command)
    assert text.startswith("wassily train prior \\\n  --train_data_dir ")

    assert shlex.split(text.replace("\\\n", " ")) == ["wassily", *command]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "pictures"),
        ({"train_data_dir": "/no/where"}, "/no/where"),
        ({"resolution": 33}, "--resolution: 33"),
        ({"validation_prompts": ("--help",)}, "begins with a hyphen"),
        ({"learning_rate": -1.0}, "begins with a hyphen"),
        ({"preset": "9gb"}, "9gb"),
    ],
)
def test_a_bad_form_is_one_line(photos: Path, values: dict[str, Any], message: str) -> None:
    """In the words of the command line."""
    given = {"train_data_dir": str(photos), **values} if values else {}
    with pytest.raises(UserError, match=message) as caught:
        command_words.train("decoder", given)
    assert "\n" not in str(caught.value)


def test_prompts_are_lines() -> None:
    """Without the empty ones."""
    assert command_words.prompts(" a\n\n b \n") == ("a", "b")
    assert command_words.prompts(None) == ()
