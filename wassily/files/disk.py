"""What the machine may refuse a run, disk and memory, each as one line with its remedy."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from wassily.errors import UserError, out_of_memory
from wassily.files import output_folder

GB = 1e9
FULL = {errno.ENOSPC, errno.EDQUOT}
BROKEN = {errno.EROFS, errno.EIO, errno.ESTALE}


@contextlib.contextmanager
def disk(output_dir: Path) -> Iterator[None]:
    """Within, what the disk refuses is a UserError; what has nothing to do with it stays."""
    try:
        yield
    except OSError as error:
        line = refusal(error, output_dir)
        if line is None:
            raise
        raise UserError(line) from error


def refusal(error: OSError, output_dir: Path) -> str | None:
    """The line for an error of the disk under a run; None for another kind of error."""
    if out_of_memory(error):  # which names no file, and is none of the disk
        return None
    if isinstance(error, BrokenPipeError):
        return (
            "nobody reads any more what is printed, for the pipe is closed; "
            f"{checkpoint_remark(output_dir)}: repeat the command with its output in a file"
        )
    where = Path(os.fsdecode(error.filename)) if error.filename else output_dir
    inside = output_dir == where or output_dir in where.parents
    reason = error.strerror or str(error)
    if inside and not output_dir.is_dir():
        return f"--output_dir {output_dir} is gone: it was removed or unmounted under the run"
    if error.errno in FULL:
        remedy = "make room"
    elif error.errno == errno.EFBIG:
        remedy = "raise the limit on the size of files (ulimit -f), or name another --output_dir"
    elif error.errno in BROKEN or (inside and error.errno is not None):
        remedy = "see that it can be written, or name another --output_dir"
    else:
        return None
    return f"{where}: {reason}; {checkpoint_remark(output_dir)}: {remedy}, then repeat the command"


def checkpoint_remark(output_dir: Path) -> str:
    """Which checkpoint a run can be resumed from, for the end of an error."""
    here = output_folder.checkpoints_in(output_dir)
    if not here:
        return "there is no checkpoint yet"
    return f"{here[-1][1].name} is whole (--resume_from_checkpoint latest)"


def check_room(output_dir: Path, needs: int, what: str) -> None:
    """Raise UserError if so many bytes do not fit the disk of a folder."""
    has = shutil.disk_usage(output_dir).free
    if needs > has:
        raise UserError(
            f"--output_dir {output_dir}: no room for {what}: it needs {_size(needs)}, the disk has "
            f"{_size(has)}; {checkpoint_remark(output_dir)}: make room, then repeat the command"
        )


def warning(output_dir: Path, needs: int, step: int) -> str | None:
    """A line if the checkpoint after this one will not fit as things stand."""
    has = shutil.disk_usage(output_dir).free
    if needs <= has:
        return None
    return (
        f"step {step}: the disk of {output_dir} has {_size(has)} left, the next checkpoint needs "
        f"{_size(needs)}: make room before it comes"
    )


def _size(count: int) -> str:
    return f"{count / GB:.2f} GB" if count >= 0.01 * GB else f"{count / 1e6:.2f} MB"


def full(config: object, error: BaseException) -> str:
    """The line for a command whose memory ran out: how much more was asked for, and what to change.

    A training tells more itself, by its estimate.
    """
    asked = re.search(r"ried to allocate ([\d.]+ ?\w+)", str(error))
    more = f" ({asked[1]} more were needed)" if asked else ""
    device = not isinstance(error, (MemoryError, OSError)) and not any(
        words in str(error) for words in ("CPUAllocator", "annot allocate")
    )
    where = "of the GPU" if device else "of this machine"
    return f"out of memory: that {where} is full{more}: {_less(config, device)}"


def _less(config: object, device: bool) -> str:
    """The first change of a config that makes a command take less."""
    value = functools.partial(getattr, config)
    if device and value("offload", None) is False:
        return "add --offload"
    batch = value("batch_size", None)
    if batch is not None and batch > 1:
        return f"add --batch_size {batch // 2}"
    if device and value("mixed_precision", "fp16") in (None, "no"):
        return "add --mixed_precision bf16"
    if device and value("dtype", None) == "fp32":
        return "add --dtype fp16"
    if hasattr(config, "height"):
        return "take a smaller --height and --width"
    if hasattr(config, "resolution"):
        return "take a smaller --resolution"
    what = "GPU" if device else "memory"
    return f"end other programs that use the {what}, or take a machine with more"
