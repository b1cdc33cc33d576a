"""The maths of the two diffusion processes: pure functions of tensors, each with its equation.

Everywhere `alpha_bar` is the cumulative product of (1 - beta) at the timesteps of a batch, shape
(B,), in (0, 1); it is broadcast over the other axes of the data here and nowhere else.
"""

import torch
from torch import Tensor

PREDICTIONS = ("epsilon", "sample", "v_prediction")


def expand(per_example: Tensor, like: Tensor) -> Tensor:
    """Shape (B,) -> (B, 1, ..., 1) with as many axes as `like`."""
    return per_example.reshape(-1, *[1] * (like.ndim - 1))


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise (DDPM, arXiv 2006.11239, eq. 4)."""
    a = expand(alpha_bar, x0)
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def target(prediction: str, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """What the network is asked for: the noise, x_0, or v.

    v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x_0 (arXiv 2202.00512, section 4).
    Raises ValueError for a prediction type outside `PREDICTIONS`.
    """
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return x0
    if prediction == "v_prediction":
        a = expand(alpha_bar, x0)
        return a.sqrt() * noise - (1 - a).sqrt() * x0
    raise ValueError(f"prediction type {prediction!r} is none of {', '.join(PREDICTIONS)}")


def snr(alpha_bar: Tensor) -> Tensor:
    """Signal-to-noise ratio alpha_bar / (1 - alpha_bar), shape (B,) (arXiv 2107.00630, eq. 2)."""
    return alpha_bar / (1 - alpha_bar)


def min_snr_weight(prediction: str, ratio: Tensor, gamma: float) -> Tensor:
    """Min-SNR-gamma loss weight, shape (B,) (arXiv 2303.09556, section 3.4 and its appendix).

    min(snr, gamma) for x_0, divided by snr for the noise and by (snr + 1) for v. For the noise it
    is written min(1, gamma / snr), which is the same and stays finite at snr = 0 (zero terminal
    SNR).
    """
    if prediction == "sample":
        return ratio.clamp(max=gamma)
    if prediction == "epsilon":
        return (gamma / ratio).clamp(max=1.0)
    if prediction == "v_prediction":
        return ratio.clamp(max=gamma) / (ratio + 1)
    raise ValueError(f"prediction type {prediction!r} is none of {', '.join(PREDICTIONS)}")


def squared_error(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean square over all axes but the first, in fp32: (B, ...) -> (B,)."""
    return torch.square(predicted.float() - wanted.float()).flatten(1).mean(1)
