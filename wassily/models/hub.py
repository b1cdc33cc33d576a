"""Creating a repository and uploading a pipeline. The only file that knows huggingface_hub.

Tokens pass through here and nowhere else; none is printed or kept.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub

from wassily.errors import UserError, masked

UPLOADED = [
    "model_index.json",
    "README.md",
    "samples.png",
    "pytorch_lora_weights.safetensors",
    *(f"{part}/*" for part in ("prior", "image_encoder", "text_encoder", "tokenizer")),
    *(f"{part}/*" for part in ("image_processor", "scheduler", "unet", "movq")),
]


def _reason(error: Exception, token: str) -> str:
    return masked(" ".join(str(error).split()), token)[:300]


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """Within, diffusers' own call of the hub, with an argument that is gone, does not warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The `local_dir_use_symlinks` argument")
        yield


def create(name: str, token: str | None) -> str:
    """Make sure the repository is there; its full name. Raises UserError in one line.

    Called before the first step, so that a run of days does not end with "not logged in".
    """
    usable = token or huggingface_hub.get_token()
    if not usable:
        raise UserError(
            "--push_to_hub: not logged in to the hub; run `hf auth login` or set HF_TOKEN"
        )
    try:
        return huggingface_hub.create_repo(name, exist_ok=True, token=usable).repo_id
    except Exception as error:  # of HTTP, the network, the name: each release has other kinds
        raise UserError(f"--push_to_hub: cannot create {name}: {_reason(error, usable)}") from None


def upload(folder: Path, repository: str, token: str | None) -> None:
    """Upload the pipeline or adapter, its card and its samples. Raises UserError."""
    usable = token or huggingface_hub.get_token() or ""
    try:
        huggingface_hub.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="End of training",
            allow_patterns=UPLOADED,
            token=usable,
        )
    except Exception as error:  # of HTTP, the network, the name: each release has other kinds
        raise UserError(
            f"--push_to_hub: the upload to {repository} failed, everything is in {folder}: "
            f"{_reason(error, usable)}"
        ) from None


def download(repository: str, folder: str, cache_dir: str | None) -> Path:
    """One sub-folder of a repository on this disk, safetensors only. Raises UserError."""
    patterns = [f"{folder}/*{suffix}" for suffix in (".json", ".txt", ".safetensors", ".model")]
    try:
        found = huggingface_hub.snapshot_download(
            repository, allow_patterns=patterns, ignore_patterns=["*.fp16.*"], cache_dir=cache_dir
        )
    except Exception as error:  # as above
        reason = _reason(error, huggingface_hub.get_token() or "")
        raise UserError(f"{repository}: cannot download its {folder}: {reason}") from None
    return Path(found)


def download_file(repository: str, file: str, cache_dir: str | None) -> Path:
    """One file of a repository on this disk. Raises UserError."""
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file, cache_dir=cache_dir))
    except Exception as error:  # as above
        reason = _reason(error, huggingface_hub.get_token() or "")
        raise UserError(f"{repository}: cannot download its {file}: {reason}") from None


def logged_in() -> bool:
    """Whether there is a token, in the environment or by `hf auth login`; it is not looked at."""
    return bool(huggingface_hub.get_token())


def is_offline() -> bool:
    """Whether the hub is not to be asked."""
    return bool(huggingface_hub.constants.HF_HUB_OFFLINE)


def cache_folder(cache_dir: str | None) -> Path:
    """Where downloaded models are kept."""
    return Path(cache_dir or huggingface_hub.constants.HF_HUB_CACHE)


def is_cached(repository: str, file: str, cache_dir: str | None) -> bool:
    """Whether a file of a repository is on this disk."""
    found = huggingface_hub.try_to_load_from_cache(repository, file, cache_dir=cache_dir)
    return isinstance(found, str)
