"""The commands of the documentation: read out of its blocks, made small, and run."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pages

HUB = "kandinsky-community/kandinsky-2-2-"
SCRIPTS = {
    "train_text_to_image_prior.py": ["train", "prior"],
    "train_text_to_image_decoder.py": ["train", "decoder"],
}


@dataclass(frozen=True)
class Command:
    """One line of a block: the program, its words, and the variables set for it."""

    page: str
    words: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict, hash=False, compare=False)

    @property
    def text(self) -> str:
        """As it is typed."""
        return shlex.join(self.words)


def commands_of(page: Path) -> list[Command]:
    """All commands of a page's bash blocks, in order; `export` sets a variable for the later ones
    of its block.
    """
    found = []
    for language, code in pages.blocks(page):
        if language != "bash":
            continue
        exported: dict[str, str] = {}
        for line in code.replace("\\\n", " ").splitlines():
            for name, value in exported.items():
                line = line.replace(f"${name}", value)
            words = shlex.split(line, comments=True)
            variables = {}
            while words and re.match(r"[A-Z_]+=", words[0]):
                name, _, variables[name] = words.pop(0).partition("=")
            if words[:1] == ["export"]:
                name, _, exported[name] = words[1].partition("=")
            elif words:
                found.append(Command(page.name, tuple(words), variables))
    return found


def launched(words: tuple[str, ...]) -> tuple[str, ...] | None:
    """What a launcher is asked to start, as the words of `wassily`; None if it is no launcher.

    Raises SystemExit for a flag that the launcher does not know.
    """
    if words[:2] == ("accelerate", "launch"):
        from accelerate.commands.launch import launch_command_parser

        given = launch_command_parser().parse_args(words[2:])
    elif words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        given = get_args_parser().parse_args(words[1:])
    else:
        return None
    rest = tuple(given.training_script_args)
    if given.module:
        assert given.training_script == "wassily", given.training_script
        return rest
    return (*SCRIPTS[given.training_script], *rest)


# ---------------------------------------------------------------- made small


@dataclass(frozen=True)
class Small:
    """How the commands of a page are made small: which models stand for the hub's, and what else
    is put in the place of what.
    """

    prior: str
    decoder: str
    instead: dict[str, str] = field(default_factory=dict)


STEPS = ("max_train_steps", "checkpointing_steps", "validation_steps", "steps", "prior_steps")
FEW = {
    "train_batch_size": "2",
    "validation_scores": "2",
    "max_pictures": "2",
    "max_prompts": "2",
    "num_images": "2",
    "pictures": "6",
    "gradient_accumulation_steps": "2",
}
AWAY = {"push_to_hub": 0, "hub_prior_id": 1, "report_to": 1}  # flags that need a network, or slow
MODELS = {
    "train": "--pretrained_{home}_model_name_or_path",
    "cache": "--pretrained_{home}_model_name_or_path",
    "plan": "--pretrained_{home}_model_name_or_path",
    "generate": "--{home}",
    "mix": "--{home}",
    "evaluate": "--{home}",
}


def few(name: str, value: str) -> str:
    """A number in the place of a larger one: 2 for anything up to 2000, then 3."""
    if name in STEPS:
        return "2" if int(value) <= 2000 else "3"
    return FEW.get(name, value)


def pairs(words: list[str]) -> list[list[str]]:
    """Flags with what belongs to them; the words before the first flag come first."""
    found: list[list[str]] = [[]]
    for word in words:
        flag, same, value = word.partition("=")
        if word.startswith("--"):
            found.append([flag.replace("-", "_").replace("__", "--", 1), *([value] * bool(same))])
        else:
            found[-1].append(word)
    return found


def made_small(words: tuple[str, ...], small: Small) -> list[str]:
    """A command of `wassily` with few steps, small pictures and models that are here."""
    verb = words[0]
    first, *flags = pairs([small.instead.get(word, word) for word in words])
    given = {flag[0][2:]: flag[1:] for flag in flags}
    if verb in ("doctor", "report", "data") or "help" in given or {"info", "prune"} & set(first):
        return list(words)
    kept = {
        name: [few(name, v) if v.isdigit() else v for v in values]
        for name, values in given.items()
        if name not in AWAY
    }
    kept |= _sizes(verb, kept)
    for home, model in (("prior", small.prior), ("decoder", small.decoder)):
        name = MODELS.get(verb, "").format(home=home)[2:]
        if name and not {name, f"{home}_lora", "from"} & kept.keys():
            kept[name] = [model]
    models = {f"{HUB}prior": small.prior, f"{HUB}decoder": small.decoder}
    line = [*first]
    for name, values in kept.items():
        line += [f"--{name}", *(models.get(v, v) for v in values)]
    return [re.sub(r"checkpoint-\d+", "checkpoint-2", word) for word in line]


def _sizes(verb: str, kept: dict[str, list[str]]) -> dict[str, list[str]]:
    """Steps and sizes that a verb gets, asked for or not."""
    few_steps = {"steps": ["2"], "prior_steps": ["2"]}
    side = {"resolution": ["64" if "bucket" in kept else "32"]}
    if verb == "train":
        return {
            "max_train_steps": kept.get("max_train_steps", ["2"]),
            "report_to": ["none"],
            **side,
        }
    if verb in ("generate", "mix"):
        return {} if "from" in kept else few_steps | {"steps": ["4"]}
    if verb in ("evaluate", "sweep"):
        return few_steps | {"max_prompts": ["2"], **side}
    return {"cache": side, "demo": {"pictures": kept.get("pictures", ["6"])}}.get(verb, {})


def make_room(words: list[str]) -> None:
    """Remove what an earlier command of the page left where this one writes something new."""
    for flag, value in itertools.pairwise(words):
        new = flag in ("--out", "--write_data") and Path(value).suffix != ".json"
        if new or (flag == "--output_dir" and "--resume_from_checkpoint" not in words):
            if Path(value).is_dir() and not Path(value).is_symlink():
                shutil.rmtree(value)
            elif Path(value).is_symlink():
                os.unlink(value)


def both_languages(page: Path) -> list[Command]:
    """A page's commands, and behind each its Arabic twin where that is another."""
    english, arabic = commands_of(page), commands_of(pages.arabic_of(page))
    assert len(english) == len(arabic), page.name
    found = []
    for one, two in zip(english, arabic, strict=True):
        found += [one] if one.words == two.words else [one, replace(two, page=f"ar/{two.page}")]
    return found
