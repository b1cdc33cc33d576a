"""Datasets written by `save_to_disk`: whether what they name is in them, before they are loaded."""

from __future__ import annotations

from pathlib import Path

from wassily.errors import UserError, printable
from wassily.files import reading


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any((folder / name).exists() for name in ("dataset_dict.json", "state.json"))


def check(folder: Path) -> None:
    """Raise UserError where a saved dataset names a file or a split outside of itself."""
    if (folder / "dataset_dict.json").exists():
        splits = reading.read_table(folder / "dataset_dict.json", root=folder).get("splits")
        for split in splits if isinstance(splits, list) else []:
            _check_plain(folder, "dataset_dict.json", split)
            _check_state(folder / split, folder)
    if (folder / "state.json").exists():
        _check_state(folder, folder)


def _check_state(part: Path, folder: Path) -> None:
    reading.read_table(part / "dataset_info.json", root=folder)
    files = reading.read_table(part / "state.json", root=folder).get("_data_files")
    for file in files if isinstance(files, list) else []:
        name = file.get("filename") if isinstance(file, dict) else None
        _check_plain(part, "state.json", name)
        with reading.opened(part / str(name), root=folder):
            pass  # regular, and no link that leads out


def _check_plain(folder: Path, where: str, name: object) -> None:
    plain = isinstance(name, str) and name not in ("", ".", "..")
    if not plain or set(str(name)) & {"/", "\\", ":", "\0"}:
        raise UserError(
            f"{folder / where}: {printable(str(name)):.200} is no plain name of a file in the "
            "folder, and is not read. Write the dataset anew with save_to_disk."
        )
