"""How data.tar.xz was made, with the code of commit 57f1af8: `python make.py CHECKOUT`.

Three short runs on models of random weights: each leaves checkpoint-4 of 7 steps, its export, the
cache that all share, and the losses and weights that resuming gave there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WORK = Path("/tmp/wassily-57f1af8")
if __name__ == "__main__":
    sys.path[:0] = [sys.argv[1], f"{sys.argv[1]}/tests"]

import torch  # noqa: E402
from e2e import NETWORK, losses, tensors, train  # noqa: E402
from helpers import write_folder  # noqa: E402

SAME: dict[str, Any] = {
    "max_train_steps": 7,
    "checkpointing_steps": 4,
    "logging_steps": 1,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 3,
    "condition_dropout": 0.3,
    "use_ema": True,
    "ema_sigma_rel": 0.1,
    "snr_gamma": 5.0,
}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "prior": ("prior", {"train_batch_size": 2}),
    "decoder": ("decoder", {"gradient_accumulation_steps": 2, "random_flip": True}),
    "adapter": ("decoder", {"lora": True, "rank": 2, "train_batch_size": 2, "use_dora": False}),
}


def place() -> str:
    """A digest of what the last bits of a result depend on: PyTorch and the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    named = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    text = "\n".join([torch.__version__, torch.backends.cpu.get_cpu_capability(), *named])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest(folder: Path) -> str:
    """SHA-256 of all tensors below a folder, by file and name."""
    state = hashlib.sha256()
    for name, value in sorted(tensors(folder).items()):
        state.update(name.encode() + value.contiguous().numpy().tobytes())
    return state.hexdigest()


def _coarse(net: torch.nn.Module) -> None:
    """Weights in steps of 1/16, so that they compress."""
    with torch.no_grad():
        for value in net.parameters():
            value.copy_((value * 16).round() / 16)


def _models(out: Path) -> Any:
    """`untrained.make` with a smaller decoder, of coarse weights but for the trained networks."""
    import diffusers

    from wassily.mini import untrained

    def unet(*_: Any, **__: Any) -> Any:
        return diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=8,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            block_out_channels=(4, 8),
            layers_per_block=1,
            norm_num_groups=2,
            cross_attention_dim=4,
            attention_head_dim=4,
            encoder_hid_dim=untrained.EMBEDDING,
            encoder_hid_dim_type="image_proj",
            addition_embed_type="image",
            resnet_time_scale_shift="scale_shift",
        )

    for name in ("movq", "text_encoder", "image_encoder"):
        usual = getattr(untrained, name)

        def made(*given: Any, usual: Any = usual) -> Any:
            net = usual(*given)
            _coarse(net)
            return net

        setattr(untrained, name, made)
    untrained.unet = unet
    return untrained.make(out)


def main() -> None:
    """Write data.tar.xz and expected.json beside this file."""
    shutil.rmtree(WORK, ignore_errors=True)
    torch.set_num_threads(1)
    models = _models(WORK / "models")
    pics = write_folder(WORK / "pics", [f"pattern {n}" for n in range(5)])
    expected: dict[str, Any] = {"place": place()}
    for name, (role, flags) in RUNS.items():
        given = SAME | flags | {"cache_dir": WORK / "cache"}
        train(role, WORK / "export" / name, models, pics, **given)
        run = WORK / "runs" / name
        run.mkdir(parents=True)
        shutil.copytree(WORK / "export" / name / "checkpoint-4", run / "checkpoint-4")
        shutil.copyfile(WORK / "export" / name / "run.toml", run / "run.toml")
        again = WORK / "again" / name
        shutil.copytree(run, again)
        train(role, again, models, pics, **given, resume_from_checkpoint="latest")
        expected[name] = {
            "losses": [row for row in losses(again) if row[0] > 4],
            "sha256": digest(again / "checkpoint-7"),
            "network": digest(again / "checkpoint-7" / NETWORK[role]) if name != "adapter" else "",
        }
        for folder in (WORK / "export" / name).glob("checkpoint-*"):
            shutil.rmtree(folder)
    shutil.rmtree(WORK / "again")
    shutil.rmtree(WORK / "models" / "words")
    shutil.rmtree(WORK / "cache" / "wassily" / "files")  # known by their paths: of no use elsewhere
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", "utf-8")
    with tarfile.open(HERE / "data.tar.xz", "w:xz", preset=9) as file:
        for part in sorted(WORK.iterdir()):
            file.add(part, part.name)


if __name__ == "__main__":
    main()
