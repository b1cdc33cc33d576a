"""Types, names and TOML of configs."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated, Literal

import pytest

from wassily.config import schema
from wassily.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclasses.dataclass(frozen=True)
class Example:
    """One field of each kind that configs use."""

    count: int = 1
    rate: float = 0.5
    name: str = "x"
    on: bool = False
    maybe: int | None = None
    kind: Literal["no", "fp16"] = "no"
    validation_prompts: tuple[str, ...] = ()
    noted: Annotated[float | None, "a note"] = None
    hub_token: str | None = None


GOOD = {
    "count": [0, -3, 10**12],
    "rate": [0.5, 1, -2, 1e-300],
    "name": ["", "قطة", "a\nb"],
    "on": [True, False],
    "maybe": [None, 3],
    "kind": ["no", "fp16"],
    "validation_prompts": [(), ("a", "b")],
    "noted": [None, 1, 2.5],
}
BAD = {
    "count": [1.0, "1", True, None],
    "rate": ["1", True, None, float("nan"), float("inf"), float("-inf")],
    "name": [1, None, b"x"],
    "on": [1, "true", None],
    "maybe": [1.5, "1", False],
    "kind": ["bf16", None, 0],
    "validation_prompts": ["a", ["a"], (1,), None],
    "noted": ["x", True],
}


@pytest.mark.parametrize("field", GOOD)
def test_good_values_pass(field: str) -> None:
    """An int passes for a float."""
    for value in GOOD[field]:
        schema.check_types(dataclasses.replace(Example(), **{field: value}))


@pytest.mark.parametrize("field", BAD)
def test_bad_values_are_named(field: str) -> None:
    """The flag, the value, and what is wanted in words; a bool is no number, nan no rate."""
    for value in BAD[field]:
        with pytest.raises(UserError) as caught:
            schema.check_types(dataclasses.replace(Example(), **{field: value}))
        assert str(caught.value).startswith(f"--{field}: {value!r} is not ")
        assert "typing" not in str(caught.value)
        assert "<class" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "a whole number"),
        (float, "a finite number"),
        (str | None, "a text"),
        (bool, "true or false"),
        (Literal["a", "b"], "one of a, b"),
        (tuple[str, ...], "a list of texts"),
        (Annotated[int | None, "x"], "a whole number"),
    ],
)
def test_types_in_words(kind: object, words: str) -> None:
    """As a person would say it."""
    assert schema.describe_type(kind) == words


@pytest.mark.parametrize(
    "value",
    [
        'quotes " and \\ backslashes',
        "tab\tnewline\nreturn\r",
        "قطة حمراء 🧸",
        "\u2028\u0085\x7f\x00\x1f",
        "'''\"\"\"",
        "# no comment",
        "",
    ],
)
def test_toml_round_trip_of_texts(value: str) -> None:
    """A parser of another house reads what we wrote."""
    config = Example(name=value, validation_prompts=(value, "b"))
    values = tomllib.loads(schema.to_toml(config))
    assert values["name"] == value
    assert Example(**schema.from_mapping(Example, values, "x")) == config


@pytest.mark.parametrize("number", [0.1 + 0.2, 1e-5, 1e-8, 1e22, 5e-324, -0.0, 1.0, 123456789.0])
def test_toml_round_trip_of_numbers(number: float) -> None:
    """To the last bit; ints and bools keep their type."""
    config = Example(rate=number, count=-7, on=True, maybe=10**15, noted=3)
    back = Example(**schema.from_mapping(Example, tomllib.loads(schema.to_toml(config)), "x"))
    assert back == config
    assert repr(back.rate) == repr(number)
    assert [type(v) for v in dataclasses.astuple(back)] == [
        type(v) for v in dataclasses.astuple(config)
    ]


def test_secrets_are_not_shown_or_saved() -> None:
    """A token is in neither form; unset values are left out of TOML."""
    config = Example(hub_token="hf_secret")
    assert "hub_token" not in schema.public(config)
    assert "hf_secret" not in schema.to_toml(config)
    assert "maybe" not in schema.to_toml(config)
    assert schema.public(config)["maybe"] is None


def test_what_is_not_usual_is_shown() -> None:
    """Only that, as TOML, and no secret."""
    assert schema.changed_lines(Example()) == []
    config = Example(name="a\nb", maybe=3, hub_token="hf_secret", validation_prompts=("x",))
    lines = ['name = "a\\nb"', "maybe = 3", 'validation_prompts = ["x"]']
    assert schema.changed_lines(config) == lines


def test_a_nul_is_in_no_name() -> None:
    """The system would end it there."""
    with pytest.raises(UserError, match=r"--name: .* has a NUL"):
        schema.check_types(Example(name="a\0b"))


def test_names_of_a_mapping() -> None:
    """Unknown: where, the key, the nearest; lists become tuples; the alias of the guide's tip."""
    with pytest.raises(UserError, match=r"run\.toml: unknown name 'nmae'; perhaps .*'name'"):
        schema.from_mapping(Example, {"nmae": 1}, "run.toml")
    with pytest.raises(UserError, match=r"unknown name 'zzzzzz'$"):
        schema.from_mapping(Example, {"zzzzzz": 1}, "run.toml")
    for given in ({"validation_prompt": "a"}, {"validation_prompts": ["a"]}):
        assert schema.from_mapping(Example, given, "x") == {"validation_prompts": ("a",)}
