"""`wassily data check`: what in a folder of pictures would harm a training, before it does.

Reads through the same functions as a training, and changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wassily.commands import duplicates
from wassily.commands.findings import Finding, Gravity, as_json, as_text, counted
from wassily.config.commands import DataCheckConfig
from wassily.data import aspect_buckets, captions, datasets, images
from wassily.data.folders import Fault
from wassily.errors import SHOWN, UserError
from wassily.files import atomic
from wassily.models import names
from wassily.models.parts import files, load, public_name
from wassily.runtime.accelerator import quiet_libraries
from wassily.runtime.progress import progress
from wassily.version import __version__

READERS = 4  # threads
CHUNK = 256  # pictures handed to them at once: what waits in memory does not grow with the folder
# Sharpness below which a picture shows no more than one of half its size. Of 103 photographs of 512
# pixels the least has 0.29, and 97 % have over 0.5; enlarged to twice their size all have less than
# 0.28, to three times less than 0.25, and blurred with a sigma of 2 pixels less than 0.14.
BLURRED = 0.28
BUCKET_STEP = 64  # pixels: what the real MoVQ and decoder halve together
REPEATED = 3  # pictures with one caption from which on it is told
SPLITS = frozenset({"train", "training", "test", "val", "valid", "validation", "dev", "eval"})
HOLDOUT = "holdout"

# What is kept of a picture: 245 bytes, so 25 MB for 100,000 of them.
LOOK = np.dtype(
    [
        ("whole", np.bool_),
        ("content", np.uint64, (2,)),
        ("hash", np.uint64, (2,)),
        ("thumb", np.uint8, (duplicates.THUMB_SIDE, duplicates.THUMB_SIDE, 3)),
        ("size", np.uint32, (2,)),
        ("sharpness", np.float32),
    ]
)


@dataclass
class Part:
    """A source that is looked through: a split, or the folder kept for judging."""

    split: str
    source: datasets.Pictures
    trained: bool
    looks: np.ndarray = field(default_factory=lambda: np.zeros(0, LOOK))
    broken: list[str] = field(default_factory=list)


def check(config: DataCheckConfig) -> int:
    """Look, report, and tell by the exit code whether there are errors: 1, or 0."""
    findings, summary = findings_of(config)
    shown = None if config.verbose else SHOWN
    print(as_text(findings, summary, shown), end="")
    if config.json:
        about = {"wassily": __version__, "folder": config.folder, "holdout": config.holdout_dir}
        atomic.write_text(Path(config.json), as_json(findings, summary, about))
    return int(any(finding.gravity == "error" for finding in findings))


def findings_of(config: DataCheckConfig) -> tuple[list[Finding], dict[str, object]]:
    """What is found, and the summary by name. Raises UserError for an unknown tokenizer."""
    quiet_libraries()
    prior = names.resolve(config.pretrained_prior_model_name_or_path, "prior")
    findings, parts = parts_of(config)
    for part in parts:
        look_through(part, config.resolution)
    summary: dict[str, object] = {}
    if parts:
        findings += [*broken(parts), *alike(parts, Path(config.folder))]
        summary |= of_pictures(parts, config, findings)
        if not config.no_captions:
            summary |= of_captions(parts, prior, config, findings)
    return findings, summary


# ---------------------------------------------------------------- reading


def parts_of(config: DataCheckConfig) -> tuple[list[Finding], list[Part]]:
    """The parts to look through, and what is wrong with their metadata."""
    faults: list[str] = []

    def fault(error: UserError) -> None:
        faults.append(str(error))

    caption = None if config.no_captions else config.caption_column
    parts: list[Part] = []
    for split, folder, column in (
        ("", config.folder, caption),
        (HOLDOUT, config.holdout_dir, None),
    ):
        if folder is None:
            continue
        try:
            sources = _sources(folder, config, column, fault)
        except UserError as error:
            fault(error)
            continue
        for name, source in sources.items():
            trained = not split and (name == "train" or len(sources) == 1)
            parts.append(Part(split or name, source, trained))
    if parts and not any(part.trained for part in parts):
        names = ", ".join(part.split for part in parts if part.split != HOLDOUT)
        faults.append(f"{config.folder}: no 'train' split, which a training reads (only: {names})")
    roots = {part.source.root: part.source.remarks for part in parts}
    found = [
        Finding("warning", remark.kind, f"{root}: {remark.message}", remark.items)
        for root, remarks in roots.items()
        for remark in remarks
    ]
    if faults:
        message = f"metadata or captions are wrong in {counted(len(faults), 'place')}"
        found.insert(0, Finding("error", "metadata", message, faults))
    return found, parts


def _sources(
    folder: str, config: DataCheckConfig, caption: str | None, fault: Fault
) -> dict[str, datasets.Pictures]:
    if datasets.is_data_set(Path(folder)):
        columns = (config.image_column, caption)
        return datasets.read_splits(folder, *columns, config.cache_dir, fault)
    return {"train": datasets.read_folder(folder, config.image_column, caption, fault)}


def look_through(part: Part, side: int) -> None:
    """Open every picture of a part once, in several threads, and keep its look.

    `side` is the resolution of the training, at which sharpness is judged.
    """
    source = part.source
    part.looks = np.zeros(len(source), LOOK)

    def look_at(index: int) -> str | None:
        record = source[index]
        try:
            part.looks[index] = look(record.image, side)
        except images.BadPicture as error:
            return f"{record.name}: {error}"
        return None

    with (
        progress(f"reading {part.split}", len(source), unit="picture") as bar,
        ThreadPoolExecutor(READERS) as pool,
    ):
        for start in range(0, len(source), CHUNK):
            for reason in pool.map(look_at, range(start, min(start + CHUNK, len(source)))):
                bar.advance()
                if reason:
                    part.broken.append(reason)


def look(image: str | bytes, side: int) -> tuple[object, ...]:
    """What is kept of one picture, in the order of LOOK. Raises BadPicture."""
    content = image if isinstance(image, bytes) else images.file_bytes(image)
    picture = images.open_rgb(content)
    grey = images.small_pixels(picture, duplicates.GREY_SIDE, "L")
    return (
        True,
        np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), np.uint64),
        duplicates.difference_hash(grey),
        images.small_pixels(picture, duplicates.THUMB_SIDE),
        picture.size,
        images.sharpness(picture, side),
    )


# ---------------------------------------------------------------- pictures


def broken(parts: list[Part]) -> Iterator[Finding]:
    """Pictures that cannot be read."""
    bad = [reason for part in parts for reason in part.broken]
    if bad:
        message = f"{counted(len(bad), 'picture')} cannot be read"
        yield Finding("error", "broken", message, bad)


def _trained(parts: list[Part]) -> Iterator[tuple[datasets.Pictures, int, np.void]]:
    """Source, index and look of each whole picture that a training would read."""
    for part in parts:
        if part.trained:
            for index in np.flatnonzero(part.looks["whole"]):
                yield part.source, int(index), part.looks[index]


def of_pictures(
    parts: list[Part], config: DataCheckConfig, findings: list[Finding]
) -> dict[str, object]:
    """Sizes, sharpness, shapes and steps of the pictures that a training would read."""
    side, total = config.resolution, sum(len(p.looks) for p in parts if p.trained)
    looks = np.concatenate([np.zeros(0, LOOK), *(p.looks for p in parts if p.trained)])
    looks = looks[looks["whole"]]
    edges = looks["size"].min(axis=1)
    kept = edges / np.maximum(1, looks["size"].max(axis=1))
    size = "{size[0]} x {size[1]}"

    def find(gravity: Gravity, kind: str, message: str, which: np.ndarray, words: str) -> None:
        if count := int(which.sum()):
            items = _named(parts, which, words)
            findings.append(Finding(gravity, kind, f"{counted(count, 'picture')} {message}", items))

    small, tiny = edges < side, edges < side / 2
    soft = looks["sharpness"] < BLURRED
    at = f"at --resolution {side}"
    find("warning", "tiny", f"below {side // 2} pixels: enlarged more than twice {at}", tiny, size)
    blurred = "blurred or enlarged: no more in them than in half the size"
    find("warning", "blurred", blurred, soft, f"{size}, sharpness {{sharpness:.2f}}")
    find("note", "small", f"below {side} pixels: enlarged {at}", small & ~tiny, size)
    cut = "lose more than half to the square in the middle"
    find("note", "cropped", cut, kept < 0.5, size)
    batch = config.train_batch_size * config.gradient_accumulation_steps
    if 0 < len(looks) < batch:
        message = f"{counted(len(looks), 'picture')} do not fill one global batch of {batch}"
        findings.append(Finding("warning", "batch", message))
    return {
        "pictures": total,
        "readable": len(looks),
        "judged_at": f"--resolution {side}",
        "shorter_edge": captions.spread(edges),
        "cropped_away": f"{1 - kept.mean():.1%}" if len(kept) else "0.0%",
        "sharpness": captions.spread(looks["sharpness"][~np.isnan(looks["sharpness"])]),
        "global_batch": batch,
        "steps_per_epoch": round(len(looks) / batch, 2),
        **in_buckets(looks["size"], side),
    }


def in_buckets(sizes: np.ndarray, side: int) -> dict[str, object]:
    """Where `--bucket` would put pictures of sizes (N, 2); nothing if the side does not fit."""
    if side % BUCKET_STEP or not len(sizes):
        return {}
    found = aspect_buckets.sorted_into(sizes, aspect_buckets.shapes(side, BUCKET_STEP))
    counts = np.bincount(found.of, minlength=len(found.shapes)).tolist()
    used = {f"{w} x {h}": n for (w, h), n in zip(found.shapes, counts, strict=True) if n}
    return {"with_bucket": used, "cropped_away_then": f"{1 - found.keeps:.1%}"}


def _named(parts: list[Part], which: np.ndarray, words: str) -> list[str]:
    """Name and some of the look of the chosen among the whole pictures of a training."""
    return [
        f"{source[index].name}: " + words.format(size=look["size"], sharpness=look["sharpness"])
        for (source, index, look), chosen in zip(_trained(parts), which, strict=True)
        if chosen
    ]


# ---------------------------------------------------------------- the same picture again


def alike(parts: list[Part], folder: Path) -> Iterator[Finding]:
    """Duplicates by the bytes of the file, near-duplicates by their look, and those that stand in
    two splits.
    """
    where = [(p, int(i)) for p in parts for i in np.flatnonzero(p.looks["whole"])]
    looks = np.concatenate([p.looks[p.looks["whole"]] for p in parts])
    if not len(looks):
        return
    _, first, same = np.unique(looks["content"], axis=0, return_index=True, return_inverse=True)
    same = first[same.ravel()]  # the index of the first with these bytes
    single = np.sort(first)
    near = single[duplicates.near(looks["hash"][single], looks["thumb"][single])]
    group = near[np.searchsorted(single, same)]

    def name(index: int) -> str:
        part, at = where[index]
        split = f" ({part.split})" if len(parts) > 1 else ""
        return part.source[at].name + split

    def split(index: int) -> str:
        part, at = where[index]
        return part.split if len(parts) > 1 else _split_of(part.source[at].name, folder)

    yield from _leaks(group, split, name)
    for kind, groups, adjective in (
        ("duplicates", duplicates.members(same), "the same file"),
        ("near_duplicates", _members_of_several(group, same), "nearly the same picture"),
    ):
        if groups:
            items = [" = ".join(map(name, g.tolist())) for g in groups]
            extra = sum(len(g) - 1 for g in groups)
            message = f"{counted(extra, 'picture')} too many: {adjective} several times"
            yield Finding("warning", kind, message, items)


def _members_of_several(group: np.ndarray, same: np.ndarray) -> list[np.ndarray]:
    """Groups of near-duplicates, each file of which stands once, without groups of one file."""
    once = np.flatnonzero(same == np.arange(len(same)))
    return [once[g] for g in duplicates.members(group[once])]


def _leaks(
    group: np.ndarray, split: Callable[[int], str], name: Callable[[int], str]
) -> Iterator[Finding]:
    """Pictures of which a near-duplicate stands in another split."""
    found = []
    for members in duplicates.members(group):
        if len({split(index) for index in members.tolist()}) > 1:
            found.append(" = ".join(map(name, members.tolist())))
    if found:
        message = f"{counted(len(found), 'picture')} in more than one split: a judgement would lie"
        yield Finding("warning", "leakage", message, found)


def _split_of(name: str, folder: Path) -> str:
    """The split that a file belongs to by the name of a folder above it, or nothing."""
    path = Path(name)
    inside = path.relative_to(folder).parts[:-1] if path.is_relative_to(folder) else ()
    return next((part.lower() for part in inside if part.lower() in SPLITS), "")


# ---------------------------------------------------------------- captions


def of_captions(
    parts: list[Part], prior: str, config: DataCheckConfig, findings: list[Finding]
) -> dict[str, object]:
    """How many captions, how long, in which scripts; which are cut, and which come again."""
    sources = [part.source for part in parts if part.trained]
    found = captions.count(one for source in sources for one in source.captions())
    repeated = found.repeated(REPEATED)
    if repeated:
        share = sum(n for _, n in repeated) / max(1, sum(found.texts.values()))
        texts = counted(len(repeated), "caption")
        message = f"{texts} used for {REPEATED} pictures or more, {share:.0%} of all"
        items = [f"{n} times: {text}" for text, n in repeated]
        findings.append(Finding("warning" if share > 0.5 else "note", "repeated", message, items))
    other = {s: n for s, n in found.scripts.items() if s not in ("latin", captions.NO_LETTERS)}
    if other and public_name(prior, "prior") != "mini":  # which learnt from two scripts
        message = "scripts of which a text encoder that learnt from English knows little"
        findings.append(Finding("note", "script", message, [f"{s}: {n}" for s, n in other.items()]))
    return found.summary() | cut(sources, prior, config, findings)


def cut(
    sources: list[datasets.Pictures], prior: str, config: DataCheckConfig, findings: list[Finding]
) -> dict[str, object]:
    """Captions longer than the text encoder reads, if the prior's tokenizer can be had."""
    try:
        # Where there are no files, transformers gives an empty tokenizer and no error.
        files("tokenizer", prior, config.cache_dir)
        tokenizer = load("tokenizer", prior, cache_dir=config.cache_dir)
    except UserError as error:
        message = f"cut captions were not counted: {error}"
        findings.append(Finding("note", "cut_not_counted", message))
        return {}
    limit, items, lengths = tokenizer.model_max_length, [], []
    for source in sources:
        whose = [i for i, texts in enumerate(source.captions()) for t in texts if _is_text(t)]
        texts = (t for texts in source.captions() for t in texts if _is_text(t))
        for index, length in zip(whose, captions.token_counts(texts, tokenizer), strict=True):
            lengths.append(length)
            if length > limit:
                items.append(f"{source[index].name}: {length} tokens")
    if items:
        message = f"{counted(len(items), 'caption')} cut at {limit} tokens"
        findings.append(Finding("warning", "cut", message, items))
    return {"tokens": captions.spread(lengths)}


def _is_text(caption: object) -> bool:
    return isinstance(caption, str) and bool(caption.strip())
