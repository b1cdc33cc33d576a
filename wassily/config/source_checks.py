"""Which sources of images may be named together, and with which flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wassily.config.schema import at_least, require


def check(config: Any) -> None:
    """Raise UserError, in one line that names the flag, for what a training cannot read."""
    same = config.caption_column == config.image_column
    require(not same, f"--caption_column and --image_column are both {config.image_column!r}")
    _source(config)
    _streaming(config)
    _instance(config)
    _class(config)


def _source(config: Any) -> None:
    require(
        not (config.no_cache and config.verify_cache),
        "--no_cache and --verify_cache exclude one another: there is no cache to verify",
    )
    sources = ("dataset_name", "train_data_dir", "instance_data_dir")
    named = [name for name in sources if getattr(config, name)]
    require(
        bool(named) or not config.needs_pictures,
        "no pictures named: give --train_data_dir FOLDER or --dataset_name NAME",
    )
    require(
        len(named) < 2,
        f"--{' and --'.join(named[:2])} were both given: name one source of pictures",
    )
    require(
        not config.dataset_config_name or named in ([], ["dataset_name"]),
        f"--dataset_config_name belongs to --dataset_name, not to --{''.join(named)}",
    )
    for name in named:
        folder = getattr(config, name)
        if name != "dataset_name":
            require(Path(folder).exists(), f"--{name} {folder}: no such folder")
            packed = Path(folder).suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
            remedy = "; unpack it, and name the folder that it makes" if packed else ""
            require(Path(folder).is_dir(), f"--{name} {folder}: not a folder{remedy}")
    _apart(config.output_dir, getattr(config, named[0]) if named else None)
    resume = config.resume_from_checkpoint
    if resume and not is_latest(resume):
        found = resumed(resume, config.output_dir).is_dir()
        where = f", here or in --output_dir {config.output_dir}"
        require(found, f"--resume_from_checkpoint {resume}: no such folder{where}")


def is_latest(asked: str) -> bool:
    """Whether --resume_from_checkpoint asks for the newest; a slash at the end changes nothing."""
    return asked.rstrip("/") == "latest"


def resumed(asked: str, output_dir: str) -> Path:
    """The folder that --resume_from_checkpoint means: a name alone is of the run's own folder where
    one is there, as in diffusers' scripts; else it is a path.
    """
    own = Path(output_dir) / asked
    return own if Path(asked).name == asked.rstrip("/") and own.is_dir() else Path(asked)


def check_drawn(config: Any) -> None:
    """Raise UserError for flags that do not go with --drawn_embeds, or do nothing without it."""
    share = config.drawn_share
    require(0 < share <= 1, f"--drawn_share: {share:g} is not in (0, 1]")
    if config.drawn_embeds is None:
        require(
            share == 0.5, "--drawn_share does nothing without --drawn_embeds: add it, with a prior"
        )
        return
    require(
        not config.live,
        f"--drawn_embeds and --{'streaming' if config.streaming else 'no_cache'}: what a prior "
        "draws is kept in the cache; leave one out",
    )
    require(
        not config.instance_data_dir or config.instance_prompt is not None,
        "--drawn_embeds draws from captions: add --instance_prompt",
    )


def _streaming(config: Any) -> None:
    at_least(config, 1, "shuffle_buffer")
    if not config.streaming:
        require(
            config.shuffle_buffer == 1000,
            "--shuffle_buffer does nothing without --streaming: add it",
        )
        return
    require(
        bool(config.dataset_name) or not config.needs_pictures,
        "--streaming reads a data set in shards: name it with --dataset_name",
    )
    require(
        config.max_train_steps is not None,
        "--streaming: how long an epoch is is not known before; add --max_train_steps",
    )
    reasons = {
        "holdout": "which pictures are held out is known after all were read",
        "max_train_samples": "a part is drawn from all; name fewer shards",
        "bucket": "the shapes of all pictures are not known before; leave one out",
        "verify_cache": "a stream is not kept in the cache",
        "with_prior_preservation": "class pictures go with a folder of a few; leave one out",
    }
    for flag, reason in reasons.items():
        given = getattr(config, flag, None)
        require(not given, f"--streaming and --{flag}: {reason}")


def _instance(config: Any) -> None:
    prompt, folder = config.instance_prompt, config.instance_data_dir
    require(
        prompt is None or bool(folder) or not config.needs_pictures,
        "--instance_prompt does nothing without --instance_data_dir: add it",
    )
    require(prompt is None or bool(prompt.strip()), "--instance_prompt is empty")
    require(
        not folder or prompt is not None or config.role != "prior",
        "--instance_data_dir: the prior reads a caption; add --instance_prompt "
        '"a photo of sks dog"',
    )
    for name, usual in (("image_column", "image"), ("caption_column", "text")):
        require(
            not folder or getattr(config, name, usual) == usual,
            f"--{name} does nothing with --instance_data_dir: its pictures have no columns",
        )


def _class(config: Any) -> None:
    at_least(config, 1, "num_class_images", "sample_batch_size")
    at_least(config, 0, "prior_loss_weight")
    folder, prompt = config.class_data_dir, config.class_prompt
    if not config.with_prior_preservation:
        unset = {
            "class_data_dir": None,
            "class_prompt": None,
            "num_class_images": 100,
            "prior_loss_weight": 1.0,
            "sample_batch_size": 4,
        }
        for name, value in unset.items():
            require(
                getattr(config, name) == value,
                f"--{name} does nothing without --with_prior_preservation: add it",
            )
        return
    require(
        bool(folder) or not config.needs_pictures,
        "--with_prior_preservation needs --class_data_dir FOLDER, which is filled if need be",
    )
    require(
        (prompt is not None and bool(prompt.strip())) or not config.needs_pictures,
        '--with_prior_preservation needs --class_prompt, such as "a photo of a dog"',
    )
    if folder:
        _class_folder(folder, config)


def _class_folder(folder: str, config: Any) -> None:
    place = Path(folder)
    require(place.is_dir() or not place.exists(), f"--class_data_dir {folder}: not a folder")
    for name in ("instance_data_dir", "train_data_dir"):
        other = getattr(config, name)
        if other:
            one, two = place.resolve(), Path(other).resolve()
            require(
                not (one.is_relative_to(two) or two.is_relative_to(one)),
                f"--class_data_dir {folder} and --{name} {other}: one holds the other; name two "
                "folders apart",
            )


def _apart(output: str, source: str | None) -> None:
    """What a run draws must not become a picture to learn from."""
    inside = source and Path(output).resolve().is_relative_to(Path(source).resolve())
    require(
        not inside,
        f"--output_dir {output}: it lies in {source}, where its samples would be learnt as "
        "pictures; name a folder outside",
    )
