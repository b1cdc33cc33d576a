"""The maths of the two diffusion processes: pure functions of tensors, each with its equation.

Everywhere `alpha_bar` is the cumulative product of (1 - beta) at the timesteps of a batch, shape
(B,), in (0, 1); it is broadcast over the other axes of the data here and nowhere else.
"""

import math

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

    min(snr, gamma) for x_0, divided by snr for the noise and by (snr + 1) for v.
    """
    if prediction == "sample":
        return ratio.clamp(max=gamma)
    if prediction == "epsilon":
        # min(snr, gamma) / snr, written so that it stays finite at snr = 0 (zero terminal SNR).
        return (gamma / ratio).clamp(max=1.0)
    if prediction == "v_prediction":
        return ratio.clamp(max=gamma) / (ratio + 1)
    raise ValueError(f"prediction type {prediction!r} is none of {', '.join(PREDICTIONS)}")


def squared_error(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean square over all axes but the first, in fp32: (B, ...) -> (B,)."""
    # An fp16 square overflows above 255.
    return torch.square(predicted.float() - wanted.float()).flatten(1).mean(1)


# ---------------------------------------------------------------- a learned variance
# Timesteps count from 0 here and from 1 in the papers: alpha_bar_{t-1} is 1 at t = 0.


def betas(alpha_bars: Tensor) -> Tensor:
    """beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}, shape (T,) (2006.11239, section 2)."""
    return 1 - alpha_bars / _before(alpha_bars)


def posterior_variances(alpha_bars: Tensor) -> Tensor:
    """beta~_t = (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) beta_t, shape (T,); 0 at t = 0.

    The variance of q(x_{t-1} | x_t, x_0) (DDPM, eq. 7; arXiv 2102.09672, eq. 10).
    """
    return (1 - _before(alpha_bars)) / (1 - alpha_bars) * betas(alpha_bars)


def posterior_mean(x0: Tensor, noisy: Tensor, alpha_bars: Tensor, t: Tensor) -> Tensor:
    """The mean of q(x_{t-1} | x_t, x_0) (DDPM, eq. 7; arXiv 2102.09672, eq. 11), like x_0.

    sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t) x_0
    + sqrt(1 - beta_t) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) x_t
    """
    a, before, beta = (
        expand(of[t], x0) for of in (alpha_bars, _before(alpha_bars), betas(alpha_bars))
    )
    of_x0, of_noisy = before.sqrt() * beta, (1 - beta).sqrt() * (1 - before)
    return (of_x0 * x0 + of_noisy * noisy) / (1 - a)


def predicted_x0(prediction: str, output: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """The x_0 that a network's output stands for: `add_noise` and `target` solved for it.

    Raises ValueError for a prediction type outside `PREDICTIONS`.
    """
    a = expand(alpha_bar, noisy)
    if prediction == "epsilon":
        return (noisy - (1 - a).sqrt() * output) / a.sqrt()
    if prediction == "sample":
        return output
    if prediction == "v_prediction":
        return a.sqrt() * noisy - (1 - a).sqrt() * output
    raise ValueError(f"prediction type {prediction!r} is none of {', '.join(PREDICTIONS)}")


def learned_range(output: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """log Sigma = v log beta + (1 - v) log beta~ (arXiv 2102.09672, eq. 15), like `output`.

    `least` and `most` are beta~ and beta, (B,), above 0.
    """
    # The network gives 2 v - 1, as the stock schedulers read it.
    v = (output + 1) / 2
    return v * expand(most, output).log() + (1 - v) * expand(least, output).log()


def gaussian_kl(mean: Tensor, log_variance: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(mean2, variance2)) of each value, in nats; the four broadcast."""
    apart = torch.square(mean - mean2) * torch.exp(-log_variance2)
    ratio = log_variance - log_variance2
    return (apart + torch.exp(ratio) - ratio - 1) / 2


def variance_loss(
    prediction: str, output: Tensor, x0: Tensor, noisy: Tensor, alpha_bars: Tensor, t: Tensor
) -> Tensor:
    """T times L_t of the variational bound in bits per dimension, fp32, (B, ...) -> (B,).

    output (B, 2C, ...) of which the second half gives the variance; x_0 and noisy (B, C, ...);
    alpha_bars (T,), t (B,). L_t = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), so that the mean
    over uniform t estimates the bound of all T steps (arXiv 2102.09672, eqs. 4 and 6). At t = 0 it
    is 0.
    """
    output, x0, noisy = output.float(), x0.float(), noisy.float()
    mean_half, variance_half = output.chunk(2, dim=1)
    s = t.clamp(min=1)  # in place of t = 0, where beta~ has no logarithm
    least, most = posterior_variances(alpha_bars)[s], betas(alpha_bars)[s]
    # Detached, so that the term moves the variance half alone (section 3.1).
    guess = predicted_x0(prediction, mean_half.detach(), noisy, alpha_bars[s])
    kl = gaussian_kl(
        posterior_mean(x0, noisy, alpha_bars, s),
        expand(least, x0).log(),
        posterior_mean(guess, noisy, alpha_bars, s),
        learned_range(variance_half, least, most),
    )
    # At t = 0 the paper has the likelihood of 8-bit pixels (eq. 5), and latents are no such bins;
    # q has no variance there, and no sampler reads p's: the last step adds no noise.
    return (t > 0) * len(alpha_bars) * kl.flatten(1).mean(1) / math.log(2)


def _before(alpha_bars: Tensor) -> Tensor:
    """alpha_bar_{t-1}, shape (T,)."""
    return torch.cat([torch.ones_like(alpha_bars[:1]), alpha_bars[:-1]])
