"""The model card: README.md of an exported folder, with the tag that finds the prior."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wassily.config import schema
from wassily.config.training import DECODER, TrainConfig
from wassily.errors import masked
from wassily.files import reading
from wassily.files.reading import BadFile
from wassily.models import names
from wassily.models import parts as model_parts
from wassily.version import __version__

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)  # owner/name
# Letters that JSON leaves bare, and that PyYAML refuses or reads as a line break or a space.
UNREADABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
COUNTED = {
    "duplicates": "of them copies of others",
    "captions": "captions",
    "different_captions": "of them different",
    "cut_captions": "cut at the text encoder's length",
    "held_out": "more pictures held out to measure on",
}
MEASURED = {
    "loss": "loss on held-out pictures (lower is better)",
    "learned": "drawn to held-out pictures, cosine (higher is better)",
    "kept": "generic prompts to what is drawn of them, cosine (higher is better)",
}


@dataclass(frozen=True)
class Facts:
    """What a card tells besides the config; `name` is the folder's or the repository's.

    `counts` are those of the data (`inputs.data_facts`); `measured` and `before`, what the last
    validation found and what that of the base did, by the names of --keep_best.
    """

    name: str
    role: str
    base: str
    prior: str
    decoder: str
    data: str
    data_is_public: bool
    steps: int
    pictures: int | None  # None: a stream, which nobody counts
    seed: int
    has_samples: bool
    trained: str = ""
    best: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)


def facts_of(
    *,
    config: TrainConfig,
    repositories: dict[str, str],
    hub_repository: str | None,
    steps: int,
    pictures: int | None,
    seed: int,
    trained: str,
    best: str,
) -> Facts:
    """The facts of a run; `repositories` are resolved, by home."""

    def public(home: str, instead: str) -> str:
        # A folder of this machine is no name that others can use.
        repository = repositories[home]
        if model_parts.public_name(repository, home) == "mini" and hub_repository:
            return "mini" if home == config.role else instead
        return instead if Path(repository).is_absolute() and hub_repository else repository

    named = config.dataset_name or ""
    return Facts(
        name=hub_repository or str(Path(config.output_dir).resolve()),
        role=config.role,
        base=public(config.role, Path(repositories[config.role]).name),
        prior=masked(config.hub_prior_id or repositories["prior"]),
        decoder=public("decoder", DECODER),
        data=named,
        # An address is nobody else's business: it may be private, and hold a password.
        data_is_public=bool(HUB_NAME.fullmatch(named)) and not Path(named).exists(),
        steps=steps,
        pictures=pictures,
        seed=seed,
        has_samples=bool(config.validation_prompts),
        trained=trained,
        best=best,
    )


def quoted(text: str) -> str:
    """A text as a double-quoted literal: valid in YAML and in Python, on one line."""
    literal = json.dumps(text, ensure_ascii=False)
    return UNREADABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", literal)


def escaped(text: str) -> str:
    """A text on one line, with nothing in it that means something to Markdown or HTML, also where
    it begins an item of a list.
    """
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    marked = "".join(f"\\{c}" if c in "\\`*_[]{}()#!|~$" else c for c in line)
    return re.sub(r"^(\d*)([-+=:.])", r"\1\\\2", marked)  # `- x`, `1. x`, `---`, `===`


def front_matter(facts: Facts) -> str:
    """The YAML header. diffusers finds a decoder's prior through its `prior` list."""
    lines = ["---", "license: apache-2.0"]
    if not facts.base.startswith("/"):  # the hub refuses a card whose base model is not a hub name
        lines += [f"base_model: {quoted(facts.base)}"]
        lines += ["base_model_relation: adapter"] if facts.trained else []
    if facts.data_is_public:
        lines += ["datasets:", f"- {quoted(facts.data)}"]
    if facts.role == "decoder" and facts.prior:
        lines += ["prior:", f"- {quoted(facts.prior)}"]
    tags = ("kandinsky", "text-to-image", "diffusers", "diffusers-training", "wassily")
    return "\n".join([*lines, "library_name: diffusers", "tags:", *(f"- {t}" for t in tags), "---"])


def prior_of(folder: Path) -> str | None:
    """The prior that the card in a decoder's folder names, if there is one."""
    try:
        card = reading.read_bytes(folder / "README.md").decode("utf-8", "replace")
    except BadFile:
        return None
    found = re.search(r"^prior:\n- *(.+)$", card, re.M)
    if not found:
        return None
    try:
        named = json.loads(found[1])  # as `quoted` writes it
    except (ValueError, RecursionError):
        named = None
    return named if isinstance(named, str) else found[1].strip().strip("\"'")


def merged_card(name: str, role: str, base: str, prior: str, origin: str) -> str:
    """The card of a folder that `wassily merge` wrote; `origin` ends its one sentence."""
    facts = Facts(name, role, base, prior, DECODER, "", False, 0, 0, 0, False)
    title = escaped(name.rstrip("/").rsplit("/", 1)[-1])
    what = f"The {role} of Kandinsky 2.2, **{escaped(base)}** {escaped(origin)}."
    parts = [front_matter(facts), f"# {title}", what, "## Use"]
    parts += [_usage(facts, names.example_prompt(base, role))]
    return "\n\n".join([*parts, f"Made with wassily {__version__}."]) + "\n"


def _adapter_usage(facts: Facts, prompt: str) -> str:
    """The base by diffusers, and the adapter loaded into its network."""
    file = quoted("pytorch_lora_weights.safetensors")
    part = "unet"
    load = f"""from diffusers import AutoPipelineForText2Image
import torch

pipeline = AutoPipelineForText2Image.from_pretrained(
    {quoted(facts.base)}, torch_dtype={_dtype(facts)}
)"""
    if facts.role == "prior":
        part = "prior_prior"
        load = f"""from diffusers import AutoPipelineForText2Image, DiffusionPipeline
import torch

prior = DiffusionPipeline.from_pretrained({quoted(facts.base)}, torch_dtype={_dtype(facts)})
components = {{"prior_" + k: v for k, v in prior.components.items()}}
pipeline = AutoPipelineForText2Image.from_pretrained(
    {quoted(facts.decoder)}, **components, torch_dtype={_dtype(facts)}
)"""
    return _snippet(
        facts,
        f"""{load}
pipeline.{part}.load_lora_adapter(
    {quoted(facts.name)}, weight_name={file}, prefix=None
)""",
        prompt,
    )


def _usage(facts: Facts, prompt: str) -> str:
    if facts.role == "prior":
        load = f"""from diffusers import AutoPipelineForText2Image, DiffusionPipeline
import torch

prior = DiffusionPipeline.from_pretrained({quoted(facts.name)}, torch_dtype={_dtype(facts)})
components = {{"prior_" + k: v for k, v in prior.components.items()}}
pipeline = AutoPipelineForText2Image.from_pretrained(
    {quoted(facts.decoder)}, **components, torch_dtype={_dtype(facts)}
)"""
    else:
        load = f"""from diffusers import AutoPipelineForText2Image
import torch

pipeline = AutoPipelineForText2Image.from_pretrained(
    {quoted(facts.name)}, torch_dtype={_dtype(facts)}
)"""
    return _snippet(facts, load, prompt)


def _dtype(facts: Facts) -> str:
    """What the example computes in: the small bundled model needs no accelerator."""
    return f"torch.float{32 if _is_mini(facts) else 16}"


def _is_mini(facts: Facts) -> bool:
    return model_parts.public_name(facts.base, facts.role) == "mini"


def _snippet(facts: Facts, load: str, prompt: str) -> str:
    hint = "" if _is_mini(facts) else "\n\nOn a CPU write `torch.float32`."
    return f"""```python
{load}
if torch.cuda.is_available():
    pipeline.enable_model_cpu_offload()
image = pipeline(prompt={quoted(prompt)}).images[0]
image.save("picture.png")
```{hint}"""


def model_card(config: TrainConfig, facts: Facts, precision: str) -> str:
    """The whole card as Markdown."""
    prompts = list(schema.public(config)["validation_prompts"])
    known = names.example_prompt(facts.base, facts.role)
    example = (*prompts, masked(config.instance_prompt or known))[0]
    data = facts.data if facts.data_is_public else "a folder of the author's own"
    base = model_parts.public_name(facts.base, facts.role)
    what = "An adapter (LoRA) of the" if config.lora else "The"
    counted = f"{facts.pictures} pictures" if facts.pictures else "read as a stream"
    origin = (
        f"{what} {facts.role} of Kandinsky 2.2, fine-tuned from **{escaped(base)}** on "
        f"**{escaped(data)}** ({counted})."
    )
    title = escaped(facts.name.rstrip("/").rsplit("/", 1)[-1])
    parts = [front_matter(facts), f"# {title}", origin]
    if facts.has_samples:
        parts += ["## Samples", "![samples](./samples.png)"]
        parts += ["\n".join(f"- {escaped(prompt)}" for prompt in prompts)]
    usage = _adapter_usage if config.lora else _usage
    parts += ["## Use", usage(facts, example)]
    parts += ["## Data", _data(facts), *_measures(facts), "## Training"]
    rows: dict[str, object] = {
        "optimizer steps": facts.steps,
        **{row: _cell(value) for row, value in schema.card_rows(config).items()},
        "precision": precision,
        "seed": facts.seed,
    }
    if facts.best:
        rows = {"best weights": facts.best} | rows
    if config.with_prior_preservation:
        rows["class pictures beside them"] = (
            f"{config.num_class_images}, {escaped(masked(str(config.class_prompt)))}, "
            f"weight {config.prior_loss_weight:g}"
        )
    if config.lora:
        rows = {"adapter": escaped(facts.trained)} | rows
    parts += [
        "| | |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    ]
    parts += ["## بالعربية", _arabic(facts, base, bool(config.lora))]
    parts += [f"Made with wassily {__version__}."]
    return "\n\n".join(parts) + "\n"


def _data(facts: Facts) -> str:
    """What it was trained on, in numbers; no name of a file or folder."""
    counts, told = facts.counts, [f"{facts.pictures} pictures"]
    told += [f"{counts[name]} {words}" for name, words in COUNTED.items() if counts.get(name)]
    return "; ".join(told) + "."


def _measures(facts: Facts) -> list[str]:
    """The table of what was measured, beside the base where that was, too; nothing without one."""
    rows = [
        f"| {words} | {_number(facts.before.get(name))} | {_number(facts.measured[name])} |"
        for name, words in MEASURED.items()
        if name in facts.measured
    ]
    return (
        ["## Measured", "\n".join(["| | before | after |", "|---|---|---|", *rows])] if rows else []
    )


def _cell(value: object) -> str:
    """A flag's value in the table of the training."""
    return f"{value:g}" if isinstance(value, float) else escaped(str(value))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _arabic(facts: Facts, base: str, adapter: bool) -> str:
    """What it is and how it is used, in three sentences, from right to left."""
    what = {"prior": "النموذج الأولي (prior)", "decoder": "نموذج فك التشفير (decoder)"}[facts.role]
    kind = "مُحوِّل صغير (LoRA) يُضاف إلى" if adapter else "نسخة مدرَّبة من"
    return f"""<div dir="rtl">

{kind} {what} في Kandinsky 2.2؛ بدأ التدريب من **{escaped(base)}**.
عدد صور التدريب {facts.pictures}، وعدد الخطوات {facts.steps}.
التحميل بمكتبة diffusers كما في المثال أعلاه، والرخصة Apache-2.0؛ ولصور التدريب رخصتها.

</div>"""
