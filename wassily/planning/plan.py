"""What a training would take, before any weight is loaded: `wassily plan`, and what rests on it."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wassily.config import launch_checks, presets
from wassily.config.training import DecoderPlan, PriorPlan, TrainConfig
from wassily.errors import UserError
from wassily.models import adapters, kinds, names, parts
from wassily.models.trainable import make_trainable
from wassily.planning import blank_batches, memory
from wassily.planning.memory import Kinds
from wassily.runtime.accelerator import DTYPES, Runtime
from wassily.training_data import extra_sources, holdout, training_set

GB = 1e9
CAPTION = 18  # tokens of a usual caption
MOMENTS = {
    "encoding": "while pictures and captions are encoded",
    "step": "in a forward and backward pass, at its fullest",
    "update": "when the optimizer moves the weights",
}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by kind at each moment of a run, of what is trained, and of one encoded example."""

    moments: dict[str, Kinds]
    checkpoint: int
    example: int

    def peak_at(self, moment: str) -> int:
        """All of a moment, with what a GPU takes besides."""
        tensors = self.moments[moment].total()
        return tensors + memory.overhead(tensors)

    @property
    def peak(self) -> int:
        """The fullest moment."""
        return max(self.peak_at(moment) for moment in self.moments)


def precision_of(config: TrainConfig) -> str:
    """The precision that a run of this config would have on a GPU."""
    wanted = config.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    return wanted if wanted in DTYPES else "no"


def estimate(
    config: TrainConfig, repositories: dict[str, str], precision: str, fused: bool = False
) -> MemoryEstimate:
    """The memory of a training; `fused` runs the micro-batches of a step as one.

    Raises UserError for a model that is not there.
    """
    net = _network(config, repositories, precision)

    def load(role: str, repository: str, cache_dir: str | None = None) -> object:
        if role == parts.TRAINED[config.role]:
            return memory.placed(net)
        return parts.skeleton(role, repository, cache_dir=cache_dir)

    with memory.fake():
        trainable = make_trainable(config, repositories, load)
        trained = list(adapters.trained_parameters(trainable.net).values())
        encoders = _encoders(config, repositories, DTYPES[precision])
        standing = Kinds({"weights": memory.bytes_of(trainable.net.parameters())})
        standing["optimizer state"] = blank_batches.state_bytes(config, trained)
        standing["EMA"] = 4 * sum(p.numel() for p in trained) if config.use_ema else 0
        batch, _ = cut(config, fused)
        batch += sum(extra_sources.counted(ratio, batch) for ratio in extra_sources.ratios(config))
        trainable.objective.train()
        kept = blank_batches.checkpoint_bytes(config, trainable.net, trained)
        passed = memory.step(
            trainable.objective,
            *blank_batches.blank_batch(config, trainable, batch),
            reduced=precision != "no",
            held=config.gradient_accumulation_steps > 1 and not fused,
            release=config.gradient_release,
        )
    frozen = Kinds({"encoders": encoders["encoders"]}) if config.live else Kinds()
    updated = Kinds({} if config.gradient_release else {"gradients": memory.bytes_of(trained)})
    moments = {"step": standing + passed + frozen, "update": standing + updated + frozen}
    if not config.live:
        moments = {"encoding": encoders, **moments}
    size = DTYPES[precision].itemsize
    example = blank_batches.bytes_per_example(config, trainable, CAPTION, size)
    return MemoryEstimate(moments, kept, 0 if config.live else example)


def _network(config: TrainConfig, repositories: dict[str, str], precision: str) -> nn.Module:
    """The network in training, its adapter in it, in shapes alone."""
    role, dtype = parts.TRAINED[config.role], adapters.DTYPES[config.weights_dtype]
    with torch.device("meta"):
        net: nn.Module = parts.skeleton(role, repositories[config.role], dtype, config.cache_dir)
        adapters.chosen_adaptation(config).attach(net, DTYPES[precision], 0)
    return net


def _encoders(config: TrainConfig, repositories: dict[str, str], dtype: torch.dtype) -> Kinds:
    load = functools.partial(parts.skeleton, dtype=dtype, cache_dir=config.cache_dir)
    most = Kinds()
    for together in blank_batches.blank_passes(config, repositories, load):
        kinds = Kinds()
        for network, run in together:
            kinds["encoders"] += memory.bytes_of(network.parameters())
            kinds["workspace"] = max(kinds["workspace"], memory.forward(network, run))
        most = max(most, kinds, key=Kinds.total)
    return most


# ---------------------------------------------------------------- choices


def at_most(config: TrainConfig, repositories: dict[str, str]) -> int:
    """Bytes that a step with its micro-batches as one stays below, from a forward pass alone.

    A multiple of what `estimate` says, in a tenth of its time: enough where memory is plenty.
    """
    net = _network(config, repositories, "no")  # fp32 is the most; nothing casts on "meta"

    def load(role: str, repository: str, cache_dir: str | None = None) -> object:
        trained = role == parts.TRAINED[config.role]
        return net if trained else parts.skeleton(role, repository, cache_dir=cache_dir)

    with torch.device("meta"):
        trainable = make_trainable(config, repositories, load)
        count = config.train_batch_size * config.gradient_accumulation_steps
        count += sum(extra_sources.counted(ratio, count) for ratio in extra_sources.ratios(config))
        return memory.bound(
            trainable.objective.to("meta"), *blank_batches.blank_batch(config, trainable, count)
        )


def fits_fused(
    config: TrainConfig, repositories: dict[str, str], precision: str, free: int | None
) -> tuple[bool, str]:
    """Whether a step's micro-batches are run as one batch, with `free` bytes to be had, and why."""
    if config.gradient_accumulation_steps == 1:
        return False, "there is one"
    if config.fuse_accumulation != "auto":
        wish = config.fuse_accumulation
        return wish == "on", f"--fuse_accumulation {wish}"
    if free is None:
        return False, "free memory is not known"
    if not config.live and (most := at_most(config, repositories)) <= free:
        return True, f"as one batch they take less than {most / GB:.1f} of {free / GB:.1f} GB"
    peak = estimate(config, repositories, precision, True).peak
    sizes = f"{peak / GB:.1f} of {free / GB:.1f} GB"
    return peak <= free, f"as one batch they would take about {sizes}"


def fused(
    config: TrainConfig, repositories: dict[str, str], runtime: Runtime, before: bool | None
) -> bool:
    """`fits_fused` for a run on this device, told in a line; `before` is what its checkpoint did.

    It changes the last bits of a result, so that a run which goes on does as it did.
    """
    if config.gradient_accumulation_steps == 1:
        return False
    if before is not None and config.fuse_accumulation == "auto":
        chosen, why = before, "as before"
    else:
        chosen, why = runtime.shared(
            lambda: fits_fused(config, repositories, runtime.precision, _free(runtime))
        )
    how = "as one batch" if chosen else "one after the other"
    runtime.say(f"{config.gradient_accumulation_steps} micro-batches a step, {how} ({why})")
    return bool(chosen)


def cut(config: TrainConfig, fused: bool) -> tuple[int, int]:
    """Size and number of the micro-batches of a step on one process."""
    size, count = config.train_batch_size, config.gradient_accumulation_steps
    return (size * count, 1) if fused else (size, count)


def _free(runtime: Runtime) -> int | None:
    """Bytes that this process can have on its device; None where that is not known."""
    if runtime.device.type == "cuda":
        return int(torch.cuda.mem_get_info(runtime.device)[0])
    free = memory.available() if runtime.device.type == "cpu" else None
    return None if free is None else free // int(os.environ.get("LOCAL_WORLD_SIZE", runtime.world))


@dataclass(frozen=True)
class FittingFlags:
    """Flags that differ from a config's, and what the training takes with them."""

    flags: dict[str, Any]
    peak: int


def smaller(config: TrainConfig, repositories: dict[str, str], most: float) -> FittingFlags | None:
    """The least of the presets' changes that keeps a training within `most` bytes."""
    accumulation = config.train_batch_size * config.gradient_accumulation_steps
    one = {"train_batch_size": 1, "gradient_accumulation_steps": accumulation}
    known = presets.known(config.role, config.lora)
    fitting = [values for name, values in known.items() if presets.size(name) * GB <= most]
    for batch in ({}, one) if config.train_batch_size > 1 else ({},):
        for values in fitting or list(known.values())[-1:]:
            flags = {k: v for k, v in (values | batch).items() if getattr(config, k) != v}
            try:
                other = dataclasses.replace(config, **flags)
            except UserError:  # a contradiction to what else is set
                continue
            peak = estimate(other, repositories, precision_of(other)).peak
            if flags and peak <= most:
                return FittingFlags(flags, peak)
    return None


def words(flags: Mapping[str, object]) -> str:
    """Flags as one types them."""
    typed = [f"--{k}" if v is True else f"--{k} {v}" for k, v in flags.items()]
    return " ".join(typed)


def remedy(config: TrainConfig, repositories: dict[str, str], precision: str, fused: bool) -> str:
    """What to say when memory ran out: the estimate, and the flags for less."""
    peak = estimate(config, repositories, precision, fused).peak
    head = f"out of memory: the estimate was {peak / GB:.1f} GB; "
    if fused:
        return f"{head}add --fuse_accumulation off"
    found = smaller(config, repositories, 0.95 * peak)
    if found is None:
        return f"{head}no preset takes less: a smaller --resolution does, or a larger GPU"
    return f"{head}with {words(found.flags)} it is {found.peak / GB:.1f} GB"


# ---------------------------------------------------------------- the command


def plan(config: PriorPlan | DecoderPlan) -> None:
    """Print what the training would take. Raises UserError."""
    repositories = names.repositories(
        config.pretrained_prior_model_name_or_path, config.pretrained_decoder_model_name_or_path
    )
    if kinds.reads_decoder(config):
        kinds.check_plain(repositories["decoder"], config.cache_dir)
    most = _memory(config)
    precision = precision_of(config)
    launch_checks.check_launch(config, precision, 1)
    whole, _ = fits_fused(config, repositories, precision, most)
    found = estimate(config, repositories, precision, whole)
    for line in [*_memory_lines(config, found, precision, whole), ""]:
        print(line)
    print(_verdict(config, repositories, found, most))
    for line in _run_lines(config, found):
        print(line)


def _memory(config: PriorPlan | DecoderPlan) -> int | None:
    if config.gpu_memory is not None:
        return int(config.gpu_memory * GB)
    return int(torch.cuda.mem_get_info()[1]) if torch.cuda.is_available() else None


def _memory_lines(
    config: TrainConfig, found: MemoryEstimate, precision: str, fused: bool
) -> list[str]:
    size, count = cut(config, fused)
    lines = [
        f"the {config.role}, {count} micro-batch(es) of {size}, precision {precision}",
        "an estimate from the shapes of all tensors, in GB (10^9 bytes):",
        "",
    ]
    kinds = list(dict.fromkeys(kind for moment in found.moments.values() for kind in moment))
    rows = [["", *found.moments]]
    for kind in kinds:
        rows.append([kind, *(_gb(moment[kind]) for moment in found.moments.values())])
    besides = [memory.overhead(moment.total()) for moment in found.moments.values()]
    rows.append(["context, gaps (assumed)", *map(_gb, besides)])
    rows.append(["together", *(_gb(found.peak_at(name)) for name in found.moments)])
    lines += [f"  {row[0]:24s}" + "".join(f"{cell:>10s}" for cell in row[1:]) for row in rows]
    return [*lines, "", *(f"  {name}: {MOMENTS[name]}" for name in found.moments)]


def _gb(size: int) -> str:
    return f"{size / GB:.2f}" if size else "-"


def _verdict(
    config: TrainConfig, repositories: dict[str, str], found: MemoryEstimate, most: int | None
) -> str:
    peak = f"{found.peak / GB:.1f} GB"
    if most is None:
        return f"memory: {peak}; --gpu_memory 12 tells whether that fits 12 GB (no GPU here)"
    if found.peak <= most:
        return f"memory: {peak} fits {most / GB:.1f} GB"
    choice = smaller(config, repositories, most)
    if choice is None:
        return f"memory: {peak} does not fit {most / GB:.1f} GB, nor does any preset"
    return (
        f"memory: {peak} does not fit {most / GB:.1f} GB; "
        f"{choice.peak / GB:.1f} GB with: {words(choice.flags)}"
    )


def _run_lines(config: PriorPlan | DecoderPlan, found: MemoryEstimate) -> list[str]:
    """Disk, steps and time: as far as the pictures are known."""
    count = _pictures(config)
    batch = config.train_batch_size * config.gradient_accumulation_steps
    steps = config.max_train_steps
    lines = []
    if count is None:
        lines.append("pictures: none named; --train_data_dir FOLDER or --pictures N tells more")
        lines.append(f"disk: encodings {found.example / 1e3:.0f} kB a picture")
    else:
        held = holdout.about(count, config.holdout)
        learnt, shown = count - held, f", about {held} of them held out" if held else ""
        steps = steps or -(-config.num_train_epochs * learnt // batch)
        lines.append(
            f"pictures: {count}{shown}, global batch {batch} on one process: {steps} steps = "
            f"{steps * batch / learnt:.1f} epochs"
        )
        twice = 2 if config.random_flip else 1
        encoded = count + (config.num_class_images if config.with_prior_preservation else 0)
        lines.append(f"disk: encodings {twice * encoded * found.example / GB:.2f} GB")
    lines[-1] += f", {_kept(config, steps)}{found.checkpoint / GB:.2f} GB a checkpoint"
    if steps and config.pictures_per_second:
        hours = steps * batch / config.pictures_per_second / 3600
        lines.append(
            f"time: {hours:.1f} h for {steps} steps at {config.pictures_per_second:g} pictures/s"
        )
    else:
        lines.append("time: a run shows its pictures/s; --pictures_per_second N works with that")
    return lines


def _kept(config: TrainConfig, steps: int | None) -> str:
    """How many checkpoints lie on the disk at once: one more is written before the oldest goes."""
    limit = config.checkpoints_total_limit
    if steps is None:
        return f"{limit + 1} checkpoints, " if limit else "all checkpoints are kept, "
    made = -(-steps // config.checkpointing_steps)
    return f"{min(made, limit + 1) if limit else made} checkpoint(s), "


def _pictures(config: PriorPlan | DecoderPlan) -> int | None:
    """How many pictures there are; a data set on the hub is not downloaded for that."""
    count = config.pictures
    named = config.dataset_name
    folder = config.train_data_dir or config.instance_data_dir
    local = folder or (named and Path(named).is_dir())
    if count is None and local and not config.streaming:
        count = len(training_set.open_images(config))
    if count is None or config.max_train_samples is None:
        return count
    return min(count, config.max_train_samples)
