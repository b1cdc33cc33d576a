"""state.json: which network the weights in a folder are of, and where a training resumes from.

Imports nothing heavy: whoever looks for a network to generate with reads it, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from wassily.errors import UserError
from wassily.files import reading
from wassily.files.output_folder import NAME, STATE
from wassily.files.reading import BadFile

FORMAT = 1
S = TypeVar("S", bound="Saved")


# ---------------------------------------------------------------- the values of the fields


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _text(value: Any) -> bool:
    return type(value) is str


def _flag(value: Any) -> bool:
    return type(value) is bool


def _object(value: Any) -> bool:
    return type(value) is dict


def _object_or_none(value: Any) -> bool:
    return value is None or type(value) is dict


def _texts(value: Any) -> bool:
    return type(value) is dict and all(type(text) is str for text in value.values())


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and -math.inf < value < math.inf


def _numbers(value: Any) -> bool:
    return value is None or (type(value) is dict and all(map(_finite, value.values())))


def _signed(value: Any) -> bool:
    return type(value) is dict and type(value.get("seed")) is int


def _pending(value: Any) -> bool:
    total, steps = value
    return type(total) is float and _finite(total) and _count(steps)


# ---------------------------------------------------------------- the states


@dataclass(frozen=True)
class Saved:
    """The optimizer steps of some weights, the network they are of ("prior" or "decoder"), and the
    repositories of both networks' other parts, by home.
    """

    step: Annotated[int, _count]
    role: Annotated[str, _text]
    repositories: Annotated[dict[str, str], _texts]

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_json(cls: type[S], values: Any) -> S:
        """From plain values. Raises KeyError, TypeError or ValueError if they are not of it."""
        hints = get_type_hints(cls, include_extras=True)
        given: dict[str, Any] = {}
        for one in fields(cls):
            absent = one.default is not MISSING and one.name not in values
            given[one.name] = one.default if absent else values[one.name]
            checks = getattr(hints[one.name], "__metadata__", ())
            if not all(fits(given[one.name]) for fits in checks):
                raise TypeError(f"{one.name} is {given[one.name]!r:.40}")
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class RunState(Saved):
    """What a checkpoint knows besides weights and averages and the state of the optimizer.

    `signature` holds what must be the same for a resume, `config` the flags, without secrets.
    `fused`: the micro-batches of a step ran as one. `pending_loss` is the sum of the losses that
    are not logged yet, and their number. `best`, `scaler` and `stream` belong to the parts of the
    run that are called so, and are checked there.
    """

    signature: Annotated[dict[str, Any], _signed]
    config: Annotated[dict[str, Any], _object]
    fused: Annotated[bool, _flag]
    best: Annotated[dict[str, Any] | None, _object_or_none] = None
    pending_loss: Annotated[tuple[float, int], _pending]
    skipped_steps: Annotated[int, _count]
    scaler: Annotated[dict[str, Any] | None, _numbers]
    stream: Annotated[dict[str, Any] | None, _object_or_none] = None

    def to_json(self) -> dict[str, Any]:
        """Plain values by name, with the number of the format."""
        return {"format": FORMAT, **super().to_json()}

    @classmethod
    def from_json(cls: type[S], values: Any) -> S:
        """As `Saved.from_json`; of this format only."""
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r}; this wassily reads {FORMAT}")
        found: Any = super().from_json(values)
        return replace(found, pending_loss=tuple(found.pending_loss))

    def differs(self, now: Mapping[str, Any]) -> str | None:
        """The first field of a signature that is not this state's: its name and both values."""
        for name, value in now.items():
            if self.signature.get(name) != value:
                return f"{name} was {self.signature.get(name)!r} and is {value!r} now"
        return None


# ---------------------------------------------------------------- files


def write(folder: Path, state: Saved) -> None:
    """As JSON, into a folder that is being filled."""
    text = json.dumps(state.to_json(), indent=2, ensure_ascii=False)
    (folder / STATE).write_text(text, encoding="utf-8")


def read(folder: Path, kind: type[S]) -> S:
    """What `write` wrote. Raises UserError if it is not that."""
    try:
        return kind.from_json(reading.read_table(folder / STATE, root=folder))
    except (BadFile, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{folder / STATE}: not the state of a checkpoint ({error!r})") from None


def to_resume(start_from: Path | None) -> RunState | None:
    """The state of the checkpoint to resume from; None without one. Raises UserError."""
    if start_from is None:
        return None
    state = read(start_from, RunState)
    named = NAME.fullmatch(start_from.name)
    if named and int(named[1]) != state.step:
        raise UserError(
            f"{start_from / STATE}: says step {state.step}, in a folder of another step"
        )
    return state


def check_same(saved: RunState, now: Mapping[str, Any], folder: Path) -> None:
    """Raise UserError naming the first field in which a run differs from its checkpoint's."""
    if difference := saved.differs(now):
        raise UserError(
            f"{folder.name} is of another run: {difference}; repeat the command that made it, or "
            "name another --output_dir"
        )


def changed(saved: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """A line for each of these flags that is not what it was."""
    return [
        f"changed since the checkpoint: {name} {saved.get(name)} -> {now.get(name)}"
        for name in names
        if saved.get(name) != now.get(name)
    ]
