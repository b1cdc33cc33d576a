"""`wassily generate`: prompts to PNGs that carry what drew them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch

from wassily import adapt, draws, models, pictures, sample
from wassily.commands import GenerateConfig
from wassily.errors import UserError
from wassily.runtime import DTYPES, Progress, has_accelerator, process_state, quiet_libraries

NAMES = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}


def generate(config: GenerateConfig) -> None:
    """Draw every prompt `num_images` times into `out`."""
    prompts = all_prompts(config)
    jobs_seed = draws.fresh_seed() if config.seed is None else config.seed
    jobs = [(prompt, jobs_seed + k) for prompt in prompts for k in range(config.num_images)]
    for name, home in ((config.prior, "prior"), (config.decoder, "decoder")):
        models.locate(name, home)  # a wrong folder is found before the output folder is made
    given_adapters(config)
    files = output_files(config, prompts)
    quiet_libraries()
    prior, decoder, device = load_pipelines(config)
    for line in rounded_sizes(config, sample.rounded_to(decoder)):
        print(line)
    drawing = sample.Drawing(
        config.steps,
        config.prior_steps,
        config.guidance_scale,
        config.prior_guidance_scale,
        config.negative_prompt,
        config.height,
        config.width,
        config.batch_size,
    )
    bar = Progress("drawing", len(jobs), unit="picture")
    drawn = sample.draw(prior, decoder, jobs, drawing, device, bar.advance)
    bar.close()
    for (prompt, seed), picture, file in zip(jobs, drawn, files, strict=True):
        pictures.save_png(picture, file, notes(config, prompt, seed))
        print(f"{file}  (seed {seed})")
    if config.grid:
        path = grid_file(config, len(drawn))
        rows = [drawn[i : i + config.num_images] for i in range(0, len(drawn), config.num_images)]
        headings = [f"seed {jobs_seed + k}" for k in range(config.num_images)]
        pictures.save_png(pictures.sheet(rows, headings, prompts), path, {})
        print(path)


def all_prompts(config: GenerateConfig) -> list[str]:
    """The prompts of the command line, then those of the file. Raises UserError."""
    prompts = list(config.prompts)
    if config.prompts_file is not None:
        try:
            text = Path(config.prompts_file).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--prompts_file {config.prompts_file}: {error}") from None
        prompts += [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise UserError(f"--prompts_file {config.prompts_file}: no prompt in it")
    if not all(prompt.strip() for prompt in prompts):
        raise UserError("a prompt is empty")
    return prompts


def output_files(config: GenerateConfig, prompts: list[str]) -> list[Path]:
    """Where each picture goes: the one file asked for, or numbered files in a folder."""
    out = Path(config.out)
    count = len(prompts) * config.num_images
    _check_writable(out)
    if out.suffix.lower() == ".png" and count == 1:
        return [out]
    if out.suffix.lower() == ".png":
        if not config.grid:
            raise UserError(
                f"--out {out}: {count} pictures do not fit one file; name a folder, or add --grid "
                "for a sheet of them"
            )
        out = out.with_suffix("")
        _check_writable(out)
    used = [int(m[1]) for p in out.glob("*.png") if (m := re.match(r"(\d+)-", p.name))]
    first = max(used, default=-1) + 1
    return [
        out / f"{first + i:03d}-{slug(prompts[i // config.num_images])}.png" for i in range(count)
    ]


def _check_writable(out: Path) -> None:
    """Raise UserError if pictures cannot be put there: known before anything is drawn."""
    single = out.suffix.lower() == ".png"
    if single and out.is_dir():
        raise UserError(f"--out {out}: a folder; name a .png file, or a folder without .png")
    folder = out.parent if single else out
    if out.suffix.lower() in pictures.SUFFIXES and not single:
        raise UserError(
            f"--out {out}: pictures are saved as PNG; name {out.with_suffix('.png')}, or a folder"
        )
    if out.is_file() and not single:
        raise UserError(f"--out {out}: a file; name a folder or a .png")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror or error}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"--out {out}: no permission to write there")


def grid_file(config: GenerateConfig, count: int) -> Path:
    """The sheet's name: inside a folder, beside the file of one picture, or the file itself."""
    out = Path(config.out)
    if out.suffix.lower() != ".png":
        return out / "sheet.png"
    return out if count > 1 else out.with_name(f"{out.stem}-sheet.png")


def rounded_sizes(config: GenerateConfig, multiple: int) -> list[str]:
    """A line for each side that the pipeline rounds up to a multiple of so many pixels."""
    return [
        f"--{name} {side}: no multiple of {multiple}; drawn at {-side // multiple * -multiple}"
        for name in ("height", "width")
        if (side := getattr(config, name)) is not None and side % multiple
    ]


def slug(prompt: str) -> str:
    """A prompt as a short file name; letters of any script stay."""
    return re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:40].strip("-") or "picture"


def notes(config: GenerateConfig, prompt: str, seed: int) -> dict[str, Any]:
    """What the PNG tells about itself."""
    adapters = {
        name: value
        for name in ("prior_lora", "decoder_lora")
        if (value := getattr(config, name)) is not None
    }
    if config.lora_scale != 1:
        adapters["lora_scale"] = config.lora_scale
    return {
        "prompt": prompt,
        "negative_prompt": config.negative_prompt or "",
        "seed": seed,
        "prior": config.prior,
        "decoder": config.decoder,
        "steps": config.steps,
        "prior_steps": config.prior_steps,
        "guidance_scale": config.guidance_scale,
        "prior_guidance_scale": config.prior_guidance_scale,
        **adapters,
    }


def given_adapters(config: GenerateConfig) -> dict[str, list[Path]]:
    """The files of --prior_lora and --decoder_lora, by home. Raises UserError for what is none."""
    found: dict[str, list[Path]] = {"prior": [], "decoder": []}
    for home, name in (("prior", config.prior_lora), ("decoder", config.decoder_lora)):
        if name is not None:
            found[home].append(models.adapter_file(name, home, config.cache_dir))
    theirs = [models.locate(config.prior, "prior"), models.locate(config.decoder, "decoder")]
    if config.lora_scale != 1 and not any([*found.values(), *(t.adapter for t in theirs)]):
        raise UserError(
            "--lora_scale does nothing without an adapter: add --prior_lora or --decoder_lora"
        )
    return found


def load_pipelines(config: GenerateConfig) -> tuple[Any, Any, torch.device]:
    """Both pipelines, and the device to draw on. Raises UserError for a wrong folder."""
    prior, decoder = models.locate(config.prior, "prior"), models.locate(config.decoder, "decoder")
    device = process_state().device
    accelerated = has_accelerator()
    dtype = torch.float16 if accelerated else torch.float32
    if config.dtype != "auto":
        dtype = DTYPES[NAMES[config.dtype]]
    if dtype == torch.float16 and not accelerated:
        print("fp16 needs an accelerator and there is none: drawing in fp32")
        dtype = torch.float32
    more = given_adapters(config)
    pipelines = []
    for home, found, make in (
        ("prior", prior, sample.prior_pipeline),
        ("decoder", decoder, sample.decoder_pipeline),
    ):
        role = models.TRAINED[home]
        given = {}
        if found.network or found.adapter or more[home]:
            net = adapt.drawable(found, home, more[home], config.lora_scale, config.cache_dir)
            given[role] = net.to(dtype)
        pipelines.append(make(found.repository, dtype, config.cache_dir, **given))
    if config.offload and accelerated:
        for pipeline in pipelines:
            pipeline.enable_model_cpu_offload()
    elif config.offload:
        print("--offload: there is no accelerator to take the networks off")
    check_widths(config, *pipelines)
    return pipelines[0], pipelines[1], device


def check_widths(config: GenerateConfig, prior: Any, decoder: Any) -> None:
    """Raise UserError if the decoder does not read embeddings as wide as the prior makes them."""
    made, read = prior.prior.config.embedding_dim, decoder.unet.config.encoder_hid_dim
    if read not in (None, made):
        raise UserError(
            f"--prior {config.prior} makes embeddings of {made} values, --decoder {config.decoder} "
            f"reads {read}: they are not of one model; name a pair that is"
        )
