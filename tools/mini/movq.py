"""Trains the MoVQ of `mini`: pictures of 32 x 32 to latents of 8 x 8 x 4 and back.

The pipelines apply no scaling factor, so once trained the latents are whitened inside the network's
own convolutions. The pipelines never quantise; the codebook is filled with k-means afterwards.
"""

import numpy as np
import torch
from diffusers import VQModel
from diffusers.models.attention_processor import SpatialNorm
from torch.nn import functional as F

from tools.mini import bank, stage

BATCH = 32
NOISE = 0.05  # on the latents in training, in their own standard deviations
DOODLES = 8
CODES = 64


def network():
    """The stock class with spatial norm; down by 4."""
    return VQModel(
        block_out_channels=(32, 32, 64),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
        layers_per_block=1,
        latent_channels=4,
        vq_embed_dim=4,
        num_vq_embeddings=CODES,
        norm_num_groups=8,
        norm_type="spatial",
    )


def pixels(pictures):
    """uint8 (B, H, W, 3) -> (B, 3, H, W) in [-1, 1]."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    return (x.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def decode(net, latents):
    """Latents (B, 4, h, w) -> pixels (B, 3, H, W), unquantised as the pipelines do."""
    return net.decode(latents, force_not_quantize=True).sample


def losses(net, data, rng):
    """Squared and absolute error of one batch through noisy latents."""
    x = batch_of(data, rng)
    z = net.encode(x).latents
    spread = z.detach().std((0, 2, 3), keepdim=True)
    y = decode(net, z + NOISE * spread * torch.randn_like(z))
    squared = F.mse_loss(y, x)
    # Keeps the latents near the unit ball, so that whitening changes little.
    size = (z.mean((0, 2, 3)) ** 2 + (z.std((0, 2, 3)) - 1) ** 2).mean()
    total = squared + 0.05 * F.l1_loss(y, x) + 0.01 * size
    return {"loss": total, "squared": squared, "size": size}


def batch_of(data, rng, doodles=DOODLES):
    """Pictures of the world and some doodles, (BATCH, 3, H, W) in [-1, 1]."""
    index = rng.integers(len(data.pictures), size=BATCH - doodles)
    return pixels(np.concatenate([data.pictures[index], bank.doodles(rng, doodles)[0]]))


def psnr(net, pictures):
    """Mean peak signal-to-noise ratio of a round trip, in dB, over uint8 (N, H, W, 3)."""
    errors = (round_trip(net, pictures) - pictures.astype(np.float32)) ** 2
    return float((10 * np.log10(255**2 / errors.mean((1, 2, 3)))).mean())


@torch.no_grad()
def round_trip(net, pictures, batch=100):
    """Pictures uint8 (N, H, W, 3) after encoding and decoding, rounded, float32."""
    back = [
        decode(net, net.encode(pixels(pictures[i : i + batch])).latents)
        for i in range(0, len(pictures), batch)
    ]
    back = (torch.cat(back).clamp(-1, 1) + 1) * 127.5
    return back.round().permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def encode(net, pictures, batch=100):
    """Latents (N, 4, 8, 8) float32 of uint8 pictures."""
    parts = range(0, len(pictures), batch)
    return torch.cat([net.encode(pixels(pictures[i : i + batch])).latents for i in parts])


@torch.no_grad()
def whiten(net, pictures):
    """Makes the latents of `pictures` white, by an affine map folded into the convolutions."""
    z = encode(net, pictures).transpose(0, 1).flatten(1).double()
    mean, (values, vectors) = z.mean(1), torch.linalg.eigh(z.cov())
    whitening = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    back = torch.linalg.inv(whitening)
    conv = net.quant_conv  # z' = A (z - mean)
    weight = conv.weight.double().flatten(1)
    conv.bias.copy_(whitening @ (conv.bias.double() - mean))
    conv.weight.copy_((whitening @ weight)[:, :, None, None])
    readers = [net.post_quant_conv]  # w z + b = w A^-1 z' + (b + w mean)
    for module in net.modules():
        if isinstance(module, SpatialNorm):
            readers += [module.conv_y, module.conv_b]
    for reader in readers:
        weight = reader.weight.double().flatten(1)
        reader.bias.copy_(reader.bias.double() + weight @ mean)
        reader.weight.copy_((weight @ back)[:, :, None, None])


@torch.no_grad()
def fill_codebook(net, pictures, rounds=20):
    """K-means of the latents into the codebook, which a quantising user would read."""
    z = encode(net, pictures).permute(0, 2, 3, 1).reshape(-1, 4)
    codes = z[torch.linspace(0, len(z) - 1, CODES).long()].clone()
    for _ in range(rounds):
        nearest = torch.cdist(z, codes).argmin(1)
        for k in range(CODES):
            if (nearest == k).any():
                codes[k] = z[nearest == k].mean(0)
    net.quantize.embedding.weight.copy_(codes)


def train(work, steps=4000, n=100_000):
    """Trains, or goes on; writes work/parts/movq."""
    data = bank.load(work, 1, n)
    torch.manual_seed(0)
    net = network().to(memory_format=torch.channels_last)
    freeze_codebook(net)
    minutes = stage.run(
        work, "movq", net, lambda step, rng: losses(net, data, rng), steps, rate=2e-3, warmup=200
    )
    whiten(net, data.pictures[:4000])
    fill_codebook(net, data.pictures[:1000])
    net.save_pretrained(f"{work}/parts/movq")
    held_out = bank.load(work, 2, 2000, "held_out")
    print(f"PSNR {psnr(net, held_out.pictures):.2f} dB")
    return minutes


def polish(work, steps=1200, n=80_000):
    """Trains the decoding half on, against fixed latents; others may be trained on them already.

    Half of it on doodles: what a user teaches later looks like nothing in the world.
    """
    data = bank.load(work, 4, n)  # the decoder's, drawn already
    net = VQModel.from_pretrained(f"{work}/parts/movq").to(memory_format=torch.channels_last)
    for frozen in (net.encoder, net.quant_conv, net.quantize):
        frozen.requires_grad_(False)

    def loss_of(step, rng):
        x = batch_of(data, rng, BATCH // 2)
        with torch.no_grad():
            z = net.encode(x).latents
        y = decode(net, z + NOISE * torch.randn_like(z))
        squared = F.mse_loss(y, x)
        return {"loss": squared + 0.05 * F.l1_loss(y, x), "squared": squared}

    minutes = stage.run(work, "polish", net, loss_of, steps, rate=1e-3)
    net.save_pretrained(f"{work}/parts/movq")
    return minutes


def freeze_codebook(net):
    """The codebook is not trained by gradients."""
    net.quantize.embedding.weight.requires_grad_(False)
