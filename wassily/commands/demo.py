"""`wassily demo`: teach the bundled model one new thing; show what it learnt and what it kept."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import torch

from wassily.config.commands import DemoConfig
from wassily.config.training import DecoderConfig, PriorConfig, TrainConfig
from wassily.data import images, png, sheets
from wassily.errors import UserError
from wassily.generation import sample
from wassily.generation.pipelines import decoder_pipeline, prior_pipeline
from wassily.mini import judge, scene, world
from wassily.models.names import GUIDANCE, resolve
from wassily.runtime.accelerator import quiet_libraries
from wassily.runtime.progress import Progress
from wassily.training import run

STEPS, PRIOR_STEPS = 25, 25
DECODER_GUIDANCE, PRIOR_GUIDANCE = GUIDANCE["decoder"], GUIDANCE["prior"]
TRAINING = {"prior": 200, "decoder": 300}  # optimizer steps
SHOWN = 3  # prompts of each kind on the sheet
PROMPT_SEED = 12
MARK = ".wassily-demo"  # in a folder whose contents a demo may replace

Job = tuple[str, scene.Scene]  # a prompt and the scene it asks for


def demo(config: DemoConfig) -> None:
    """Write pictures, fine-tune prior and decoder on them, draw before and after, score both."""
    if config.write_data:
        folder = made_room("write_data", Path(config.write_data))
        world.write(folder, config.thing, config.pictures, config.seed)
        print(f"{config.pictures} captioned pictures are in {folder}")
        return
    quiet_libraries()
    root = made_room("output_dir", Path(config.output_dir), MARK)
    (root / MARK).touch()
    shutil.rmtree(root / "pictures", ignore_errors=True)
    folder = world.write(root / "pictures", config.thing, config.pictures, config.seed)
    print(f"{config.pictures} captioned pictures of something new, {config.thing!r}: {folder}")
    jobs = {
        "new": world.prompts(PROMPT_SEED, config.judged, "all", config.thing),
        "old": world.prompts(PROMPT_SEED, config.judged, "held_out"),
    }
    before = drawn_with("before", "mini", "mini", jobs, config)
    commands = [train_config(config, kind, folder, root) for kind in ("prior", "decoder")]
    for command in commands:
        print(f"\n$ {command_line(command)}", flush=True)
        shutil.rmtree(command.output_dir, ignore_errors=True)
        run.train(command)
    after = drawn_with("after", commands[0].output_dir, commands[1].output_dir, jobs, config)
    report(config, root, jobs, before, after)


def made_room(flag: str, folder: Path, mark: str | None = None) -> Path:
    """The folder, made; UserError if it cannot be, or holds what is not of a demo (its `mark`)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise UserError(f"--{flag} {folder}: {error.strerror or error}") from None
    if held and mark not in held:
        raise UserError(f"--{flag} {folder}: holds {held[0]} already; name a new or empty folder")
    return folder


def train_config(config: DemoConfig, kind: str, folder: Path, root: Path) -> TrainConfig:
    """The recommended fine-tuning of one network."""
    make = {"prior": PriorConfig, "decoder": DecoderConfig}[kind]
    asked = {"prior": config.prior_steps, "decoder": config.decoder_steps}
    steps = asked[kind] or TRAINING[kind]
    return make(
        pretrained_prior_model_name_or_path="mini",
        pretrained_decoder_model_name_or_path="mini",
        train_data_dir=str(folder),
        output_dir=str(root / kind),
        resolution=world.SIZE,
        train_batch_size=16,
        max_train_steps=steps,
        learning_rate=config.learning_rate,
        report_to="none",
        seed=config.seed,
    )


def command_line(config: TrainConfig) -> str:
    """The words that make this config: what differs from the defaults."""
    default = type(config)(train_data_dir=config.train_data_dir)
    words = ["wassily", "train", config.role, "--train_data_dir", str(config.train_data_dir)]
    for name, value in vars(config).items():
        if value != getattr(default, name):
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def drawn_with(
    label: str, prior: str, decoder: str, jobs: dict[str, list[Job]], config: DemoConfig
) -> dict[str, list[images.Picture]]:
    """The pictures of all prompts by one pair of networks, at the same seeds each time."""
    device, dtype = torch.device("cpu"), torch.float32
    pipelines = (
        prior_pipeline(resolve(prior, "prior"), dtype, None),
        decoder_pipeline(resolve(decoder, "decoder"), dtype, None),
    )
    drawing = sample.Drawing(
        STEPS, PRIOR_STEPS, DECODER_GUIDANCE, PRIOR_GUIDANCE, batch_size=16, scheduler="stock"
    )
    prompts = [(p, 1000 + i) for kind in jobs for i, (p, _) in enumerate(jobs[kind])]
    bar = Progress(f"drawing {label}", len(prompts), unit="picture")
    drawn = sample.draw(*pipelines, prompts, drawing, device, bar.advance)
    bar.close()
    found, start = {}, 0
    for kind, asked in jobs.items():
        found[kind] = drawn[start : start + len(asked)]
        start += len(asked)
    return found


def fully_correct(drawn: list[images.Picture], jobs: list[Job], names: tuple[str, ...]) -> float:
    """Share of pictures in which every named attribute is what the prompt asks for, in percent."""
    verdicts = [judge.judge(picture) for picture in drawn]
    right = [
        all(getattr(verdict, name) == getattr(scene, name) for name in names)
        for verdict, (_, scene) in zip(verdicts, jobs, strict=True)
    ]
    return 100 * sum(right) / len(right)


def report(
    config: DemoConfig,
    root: Path,
    jobs: dict[str, list[Job]],
    before: dict[str, list[images.Picture]],
    after: dict[str, list[images.Picture]],
) -> None:
    """Write the sheet; print the scores and what to type next."""
    rows, labels = [], []
    for kind in jobs:
        for i in range(min(SHOWN, len(jobs[kind]))):
            rows.append([before[kind][i], after[kind][i]])
            labels.append(jobs[kind][i][0])
    title = f"mini, fine-tuned on {config.pictures} pictures: {config.thing}"
    sheet = root / "sheet.png"
    png.save_png(sheets.sheet(rows, ["before", "after"], labels, title), sheet, {})
    new = ("style",) if config.thing == "inked" else ("shape",)
    old = ("shape", "colour", "background", "count", "style")
    print(f"\nof {config.judged} pictures each      before   after")
    for kind, words, names in (
        ("new", f"learnt: {new[0]} as asked", new),
        ("old", "kept: wholly right", old),
    ):
        scores = [fully_correct(drawn[kind], jobs[kind], names) for drawn in (before, after)]
        print(f"  {words:24s} {scores[0]:5.1f} %  {scores[1]:5.1f} %")
    print(f"\nbefore and after: {sheet}")
    prompt = jobs["new"][0][0]
    print("next, for example:")
    line = ["wassily", "generate", prompt]
    line += ["--prior", f"{root}/prior", "--decoder", f"{root}/decoder"]
    line += ["--guidance_scale", str(DECODER_GUIDANCE)]
    line += ["--prior_guidance_scale", str(PRIOR_GUIDANCE)]
    print(f"  {shlex.join(line)}")
    print("  wassily train prior --help")
