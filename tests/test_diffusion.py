"""The maths against diffusers' scheduler and against values derived by hand."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from wassily import diffusion

SCHEDULES = {
    "prior": DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample"),
    "decoder": DDPMScheduler(beta_schedule="linear", beta_start=0.00085, beta_end=0.012),
}
EVERY_T = torch.arange(1000)


def _data(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("shape", [(1000, 3), (1000, 2, 2, 3)])
def test_add_noise_and_target_are_the_schedulers(name: str, shape: tuple[int, ...]) -> None:
    """At every one of the 1000 timesteps, for vectors and for latents."""
    schedule = SCHEDULES[name]
    x0, noise = _data(*shape)
    alpha_bar = schedule.alphas_cumprod[EVERY_T]
    torch.testing.assert_close(
        diffusion.add_noise(x0, noise, alpha_bar), schedule.add_noise(x0, noise, EVERY_T)
    )
    torch.testing.assert_close(
        diffusion.target("v_prediction", x0, noise, alpha_bar),
        schedule.get_velocity(x0, noise, EVERY_T),
    )
    assert diffusion.target("epsilon", x0, noise, alpha_bar) is noise
    assert diffusion.target("sample", x0, noise, alpha_bar) is x0


def test_v_gives_back_x0_and_noise() -> None:
    """x_0 = sqrt(a) x_t - sqrt(1 - a) v and noise = sqrt(1 - a) x_t + sqrt(a) v, by rotation."""
    x0, noise = _data(5, 4)
    a = torch.tensor([0.01, 0.2, 0.5, 0.9, 0.999])
    x_t, v = diffusion.add_noise(x0, noise, a), diffusion.target("v_prediction", x0, noise, a)
    cos, sin = a.sqrt()[:, None], (1 - a).sqrt()[:, None]
    torch.testing.assert_close(cos * x_t - sin * v, x0)
    torch.testing.assert_close(sin * x_t + cos * v, noise)


@pytest.mark.parametrize("name", SCHEDULES)
def test_snr_is_diffusers(name: str) -> None:
    """The guide's scripts take it from `compute_snr`."""
    schedule = SCHEDULES[name]
    ours = diffusion.snr(schedule.alphas_cumprod[EVERY_T])
    torch.testing.assert_close(ours, compute_snr(schedule, EVERY_T), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        # snr = 0, 1, 4, 5, 20 with gamma = 5
        ("sample", [0.0, 1.0, 4.0, 5.0, 5.0]),  # min(snr, 5)
        ("epsilon", [1.0, 1.0, 1.0, 1.0, 0.25]),  # min(snr, 5) / snr, and its limit 1 at 0
        ("v_prediction", [0.0, 1 / 2, 4 / 5, 5 / 6, 5 / 21]),  # min(snr, 5) / (snr + 1)
    ],
)
def test_min_snr_by_hand(prediction: str, expected: list[float]) -> None:
    """Also finite at snr = 0, which a schedule with zero terminal SNR has."""
    weights = diffusion.min_snr_weight(prediction, torch.tensor([0.0, 1.0, 4.0, 5.0, 20.0]), 5.0)
    torch.testing.assert_close(weights, torch.tensor(expected))


@pytest.mark.parametrize("name", SCHEDULES)
def test_min_snr_makes_all_predictions_one_loss(name: str) -> None:
    """An error e in x_0 is an error e sqrt(snr) in the noise and e sqrt(snr + 1) in v (section 3.4
    of the paper), so the weighted losses must agree: w_x = snr w_eps = (snr + 1) w_v.
    """
    ratio = diffusion.snr(SCHEDULES[name].alphas_cumprod).double()
    by_x0 = diffusion.min_snr_weight("sample", ratio, 5.0)
    torch.testing.assert_close(ratio * diffusion.min_snr_weight("epsilon", ratio, 5.0), by_x0)
    by_v = (ratio + 1) * diffusion.min_snr_weight("v_prediction", ratio, 5.0)
    torch.testing.assert_close(by_v, by_x0)


def test_squared_error_is_mse_per_example_in_fp32() -> None:
    """1e4 squared overflows fp16; the mean over examples is F.mse_loss."""
    a, b = _data(3, 4, 5)
    ours = diffusion.squared_error(a, b)
    assert ours.shape == (3,)
    torch.testing.assert_close(ours.mean(), torch.nn.functional.mse_loss(a, b))
    large = torch.full((1, 2), 1e4, dtype=torch.float16)
    torch.testing.assert_close(diffusion.squared_error(large, -large), torch.tensor([4e8]))


@pytest.mark.parametrize("prediction", ["flow", "v", ""])
def test_unknown_prediction_is_refused(prediction: str) -> None:
    """Never a silent default."""
    one = torch.ones(1)
    with pytest.raises(ValueError, match="prediction type"):
        diffusion.target(prediction, one, one, one)
    with pytest.raises(ValueError, match="prediction type"):
        diffusion.min_snr_weight(prediction, one, 5.0)
