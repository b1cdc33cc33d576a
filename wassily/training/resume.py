"""Which checkpoint to resume, whether it belongs to this run, and whether it can be loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wassily.config import source_checks
from wassily.errors import UserError
from wassily.files import checksums, output_folder, run_state
from wassily.files.run_state import Saved

Fault = Callable[[Path], str | None]  # why a checkpoint cannot be resumed, None if it can


def _no_fault(folder: Path) -> None:
    return None


def chosen_checkpoint(
    asked: str | None,
    output_dir: Path,
    say: Callable[[str], None] = print,
    fault: Fault = _no_fault,
) -> Path | None:
    """The checkpoint to resume; None to start anew. Raises UserError.

    `latest` takes the newest of `output_dir` that is as it was written and has no `fault`, or none
    if there is none yet. Without a wish, a folder that holds checkpoints is not trained over.
    """
    here = output_folder.named(output_dir)
    if asked and source_checks.is_latest(asked):
        return _newest_whole([folder for _, folder in here], say, fault, {})
    if asked:
        path = source_checks.resumed(asked, str(output_dir))
        if not (path / output_folder.STATE).is_file():
            raise UserError(
                f"--resume_from_checkpoint {asked}: no checkpoint of wassily "
                f"(no {output_folder.STATE})"
            )
        if reason := checksums.damage(path):
            raise UserError(f"--resume_from_checkpoint {path} is damaged: {reason}; name another")
        _check_nothing_later(path, here)
        return path
    if here:
        raise UserError(
            f"{output_dir} holds a run already (newest: {here[-1][1].name}): add "
            "--resume_from_checkpoint latest to go on with it, or name another --output_dir"
        )
    return None


def loadable(
    folder: Path, asked: str | None, output_dir: Path, fault: Fault, say: Callable[[str], None]
) -> Path:
    """The chosen checkpoint if it has no `fault`; with `latest` the newest one before it that has
    none. Raises UserError.
    """
    reason = fault(folder)
    if reason is None:
        return folder
    if not (asked and source_checks.is_latest(asked)):
        raise UserError(f"--resume_from_checkpoint {folder}: {reason}. Name another checkpoint.")
    before = [one for _, one in output_folder.named(output_dir)]
    before = before[: before.index(folder)]
    found = _newest_whole(before, say, fault, {folder: f"cannot be loaded: {reason}"})
    assert found is not None  # else it raised
    return found


def _newest_whole(
    folders: list[Path], say: Callable[[str], None], fault: Fault, reasons: dict[Path, str]
) -> Path | None:
    """The last of them that is not damaged and has no `fault`; those after it step aside. None of
    none. `reasons` are those of checkpoints that were refused before.

    Raises UserError if all are refused: nothing is trained over then, either.
    """
    for folder in reversed(folders):
        if damage := checksums.damage(folder):
            reasons[folder] = f"is damaged: {damage}"
        elif reason := fault(folder):
            reasons[folder] = f"cannot be loaded: {reason}"
        else:
            for damaged, why in reasons.items():
                # Not removed, but not counted any more among those that the newest are kept of.
                damaged.rename(_unused(damaged.with_name(f"damaged-{damaged.name}")))
                say(f"{damaged} {why}; going on from {folder.name}")
            return folder
    if reasons:
        newest, why = next(iter(reasons.items()))
        raise UserError(
            f"{newest} {why}; there is no whole one before it: move it away to start anew"
        )
    return None


def _unused(path: Path) -> Path:
    return next(p for n in range(1000) if not (p := path.with_suffix(f".{n}" * bool(n))).exists())


def _check_nothing_later(path: Path, here: list[tuple[int, Path]]) -> None:
    """A run that goes on from an early checkpoint must not mix its own with those after it."""
    named = output_folder.NAME.fullmatch(path.name)
    step = int(named[1]) if named else run_state.read(path, Saved).step
    later = [folder.name for number, folder in here if number > step]
    if later:
        raise UserError(
            f"{path.name} is not the newest: {later[-1]} stands after it; move that away, or name "
            "another --output_dir"
        )
