"""Measures `mini` by the judge: python -m tools.mini.measure --work DIR [--assemble]."""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from tools.mini import movq, nets
from wassily.files import output_folder
from wassily.generation import pipelines, sample
from wassily.mini import judge, world
from wassily.models import pipeline_folder
from wassily.models.parts import PARTS, load_network

SEED = 77


@dataclass(frozen=True)
class Settings:
    """How the pictures of the measurement are drawn."""

    prior_guidance: float = 2.0
    guidance: float = 2.5
    steps: int = 25
    prior_steps: int = 25
    batch: int = 64

    def drawing(self):
        """The same for wassily.generation.sample."""
        return sample.Drawing(
            steps=self.steps,
            prior_steps=self.prior_steps,
            guidance_scale=self.guidance,
            prior_guidance_scale=self.prior_guidance,
            batch_size=self.batch,
            scheduler="stock",
        )


def assemble(work, networks=None):
    """Writes work/mini/{prior,decoder}: stock pipeline folders in fp16; returns work/mini.

    `networks` maps "prior" and "unet" to folders other than those of work/parts.
    """
    out, places = Path(work) / "mini", {r: Path(work) / "parts" / r for r in PARTS}
    places |= {role: Path(folder) for role, folder in (networks or {}).items()}
    schedulers = {"prior_scheduler": nets.prior_scheduler(), "scheduler": nets.decoder_scheduler()}
    parts = {
        role: schedulers.get(role) or part.kind.from_pretrained(places[role])
        for role, part in PARTS.items()
    }
    for home, build in (
        ("prior", pipelines.prior_pipeline),
        ("decoder", pipelines.decoder_pipeline),
    ):
        pipeline = build("", torch.float16, None, **parts).to(torch.float16)
        pipeline_folder.export(_made(out / home), pipeline.save_pretrained, "")
    return out


def newest_averages(work):
    """Folders of the networks in training as their averages are now: {role: folder}."""
    folders = {}
    for role in ("prior", "unet"):
        found = output_folder.checkpoints_in(Path(work) / role)
        if found:
            step, folder = found[-1]
            net = load_network(folder / role, role)
            net.load_state_dict(load_file(folder / "ema.safetensors"), strict=False)
            folders[role] = Path(work) / "averages" / role
            net.save_pretrained(folders[role])
            print(f"{role} at step {step}", flush=True)
    return folders


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def load(folder):
    """The two stock pipelines of a folder that `assemble` wrote, in fp32."""
    prior = pipelines.prior_pipeline(str(Path(folder) / "prior"), torch.float32, None)
    decoder = pipelines.decoder_pipeline(str(Path(folder) / "decoder"), torch.float32, None)
    return prior, decoder


def draw(pipelines, prompts, settings, seed=0):
    """A picture of each prompt, with seeds counted from `seed`."""
    jobs = [(prompt, seed + i) for i, prompt in enumerate(prompts)]
    return sample.draw(*pipelines, jobs, settings.drawing(), torch.device("cpu"))


def draw_true(pipelines, scenes, settings, seed=0):
    """The same from the true image embeddings of the scenes: what the decoder alone can do."""
    prior, decoder = pipelines
    pixels = prior.image_processor([world.draw(s) for s in scenes], return_tensors="pt")
    with torch.no_grad():
        embeds = prior.image_encoder(pixels.pixel_values).image_embeds
    pictures = []
    for i in range(0, len(scenes), settings.batch):
        chunk = embeds[i : i + settings.batch]
        pictures += decoder(
            image_embeds=chunk,
            negative_image_embeds=prior.get_zero_embed(len(chunk)),
            height=world.SIZE,
            width=world.SIZE,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=torch.Generator().manual_seed(seed + i),
        ).images
    return pictures


def report(pictures, scenes):
    """Hits of each attribute, the shape's also by size and by shape: {name: [rate, +-, n]}."""
    verdicts = [judge.judge(p) for p in pictures]
    pairs = list(zip(verdicts, scenes, strict=True))
    hits = {a: [getattr(v, a) == getattr(s, a) for v, s in pairs] for a in judge.JUDGED}
    for name, of in (("size", world.SIZES), ("shape", world.SHAPES)):
        for value in of:
            chosen = [
                h for h, s in zip(hits["shape"], scenes, strict=True) if getattr(s, name) == value
            ]
            hits[f"shape, {value}"] = chosen
    return {name: spread(hit) for name, hit in hits.items() if hit}


def spread(hits):
    """Rate, half of its 95 % Wilson interval, and n."""
    n, p, z = len(hits), float(np.mean(hits)), 1.96
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return [round(p, 3), round(half, 3), n]


def check_judge(work, n=2000, seed=21):
    """The judge on n real pictures of each kind, and on the same after the MoVQ's round trip."""
    net = PARTS["movq"].kind.from_pretrained(f"{work}/parts/movq").eval()
    for kind in world.KINDS:
        scenes = world.scenes(seed, n, "all", kind)
        pictures = np.stack([np.asarray(world.draw(s)) for s in scenes])
        back = movq.round_trip(net, pictures).astype(np.uint8)
        for name, stack in (("real", pictures), ("round trip", back)):
            scores = judge.score([Image.fromarray(p) for p in stack], scenes)
            print(json.dumps({"judge": kind, "pictures": name, "n": n, **scores}), flush=True)
        print(json.dumps({"PSNR": kind, "dB": round(movq.psnr(net, pictures), 2)}), flush=True)


def sheet(pictures, columns=16, zoom=3):
    """The pictures side by side."""
    side, rows = world.SIZE + 2, -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * side, rows * side), (90, 90, 90))
    for i, picture in enumerate(pictures):
        whole.paste(picture, (i % columns * side + 1, i // columns * side + 1))
    return whole.resize((whole.width * zoom, whole.height * zoom), Image.Resampling.NEAREST)


def main():
    """Prints reports as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", default="runs/mini")
    parser.add_argument("--assemble", action="store_true")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--running", action="store_true", help="take the newest checkpoints")
    parser.add_argument("--true", action="store_true", help="also from true image embeddings")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prior_guidance", type=float, default=Settings.prior_guidance)
    parser.add_argument("--guidance", type=float, default=Settings.guidance)
    parser.add_argument("--judge", action="store_true", help="measure the judge and the MoVQ only")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.judge:
        return check_judge(args.work, max(2000, args.n))
    running = newest_averages(args.work) if args.running else None
    folder = Path(args.work) / "mini"
    if args.assemble or args.running:
        folder = assemble(args.work, running)
    pipelines = load(folder)
    settings = Settings(prior_guidance=args.prior_guidance, guidance=args.guidance)
    for language in ("en", "ar"):
        pairs = world.prompts(SEED, args.n, language=language)
        began = time.time()
        pictures = draw(pipelines, [p for p, _ in pairs], settings)
        seconds = round(time.time() - began, 1)
        result = report(pictures, [s for _, s in pairs])
        print(json.dumps({"language": language, "seconds": seconds, **result}), flush=True)
        sheet(pictures[:128]).save(Path(args.work) / f"sheet_{language}.png")
    if args.true:
        scenes = [s for _, s in pairs]
        pictures = draw_true(pipelines, scenes, settings)
        print(json.dumps({"language": "true embeddings", **report(pictures, scenes)}), flush=True)
        sheet(pictures[:128]).save(Path(args.work) / "sheet_true.png")


if __name__ == "__main__":
    main()
