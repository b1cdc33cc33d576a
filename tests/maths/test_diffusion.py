"""The maths against diffusers' scheduler and against values derived by hand."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from wassily.maths import diffusion

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


# ---------------------------------------------------------------- a learned variance

# Of two steps, by hand: beta = 0.2, 0.5; beta~_1 = (1 - 0.8) / (1 - 0.4) 0.5 = 1/6.
TWO = torch.tensor([0.8, 0.4])


@pytest.mark.parametrize("name", SCHEDULES)
def test_variances_are_the_schedulers(name: str) -> None:
    """`_get_variance` at each of the 1000 timesteps: beta~ is its fixed_small, beta its
    fixed_large, and eq. 15 its learned_range, for outputs in and beyond [-1, 1].
    """
    schedule = SCHEDULES[name]
    least = diffusion.posterior_variances(schedule.alphas_cumprod)
    most = diffusion.betas(schedule.alphas_cumprod)
    output = torch.linspace(-1.5, 1.5, 7)
    assert least[0] == 0
    for t in range(1000):
        fixed = [schedule._get_variance(t, variance_type=f"fixed_{k}") for k in ("small", "large")]
        torch.testing.assert_close(torch.stack([least[t], most[t]]), torch.stack(fixed))
        if t > 0:
            learned = schedule._get_variance(t, output, "learned_range")
            ours = diffusion.learned_range(output[None], least[t, None], most[t, None])
            torch.testing.assert_close(ours[0], learned)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("prediction", diffusion.PREDICTIONS)
def test_the_mean_is_that_of_the_schedulers_step(name: str, prediction: str) -> None:
    """x_{t-1} of `step` less the noise that it adds, which the same generator gives again."""
    config = SCHEDULES[name].config
    schedule = DDPMScheduler.from_config(config, prediction_type=prediction, clip_sample=False)
    noisy, output = _data(1, 4)
    for t in (0, 1, 2, 300, 998):
        generator = torch.Generator().manual_seed(t)
        stepped = schedule.step(output, t, noisy, generator=generator).prev_sample
        added = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(t))
        stepped = stepped - added * schedule._get_variance(t).sqrt() * (t > 0)
        where, alpha_bars = torch.tensor([t]), schedule.alphas_cumprod
        x0 = diffusion.predicted_x0(prediction, output, noisy, alpha_bars[where])
        mean = diffusion.posterior_mean(x0, noisy, alpha_bars, where)
        torch.testing.assert_close(mean, stepped, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", diffusion.PREDICTIONS)
def test_the_target_stands_for_x0(prediction: str) -> None:
    """`predicted_x0` undoes `target`."""
    x0, noise = _data(5, 4)
    a = torch.tensor([0.01, 0.2, 0.5, 0.9, 0.999])
    noisy, wanted = diffusion.add_noise(x0, noise, a), diffusion.target(prediction, x0, noise, a)
    torch.testing.assert_close(diffusion.predicted_x0(prediction, wanted, noisy, a), x0)


def test_kl_is_torchs() -> None:
    """Of two normals, from their means and log variances; 0 for the same."""
    mean, other = _data(20)
    log_variance, log_other = _data(20)[1], _data(20)[0] / 3
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(mean, (log_variance / 2).exp()), normal(other, (log_other / 2).exp())
    )
    torch.testing.assert_close(
        diffusion.gaussian_kl(mean, log_variance, other, log_other), expected
    )
    assert (diffusion.gaussian_kl(mean, log_other, mean, log_other) == 0).all()


@pytest.mark.parametrize(
    ("variance_half", "error", "nats"),
    [
        # p's variance is q's 1/6, and its mean is right
        (-1.0, 0.0, 0.0),
        # it is beta = 1/2: (1/3 - log(1/3) - 1) / 2
        (1.0, 0.0, (math.log(3) - 2 / 3) / 2),
        # half-way it is (1/2 1/6)^(1/2): the ratio is 3^(-1/2)
        (0.0, 0.0, (3**-0.5 + math.log(3) / 2 - 1) / 2),
        # the noise is wrong by 0.3, so x_0 by (0.6/0.4)^(1/2) 0.3 and the mean by
        # 0.8^(1/2) 0.5 / 0.6 of that, whose square is 0.075; over 2 p's variance
        (1.0, 0.3, (math.log(3) - 2 / 3) / 2 + 0.075),
        (-1.0, 0.3, 0.075 * 3),
    ],
)
def test_variance_loss_by_hand(variance_half: float, error: float, nats: float) -> None:
    """T = 2 times the KL at t = 1 in bits; nothing at t = 0; whatever x_0 and the noise are."""
    x0, noise = _data(2, 3, 2, 2)
    t = torch.tensor([1, 0])
    noisy = diffusion.add_noise(x0, noise, TWO[t])
    output = torch.cat([noise + error, torch.full_like(noise, variance_half)], 1)
    loss = diffusion.variance_loss("epsilon", output, x0, noisy, TWO, t)
    expected = torch.tensor([2 * nats / math.log(2), 0.0])
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("prediction", diffusion.PREDICTIONS)
def test_variance_loss_is_the_mean_kl_of_the_schedulers_normals(name: str, prediction: str) -> None:
    """At timesteps all over a real schedule, against torch's KL of the scheduler's two normals; and
    it moves the variance half alone, at every timestep but 0.
    """
    schedule = SCHEDULES[name]
    alpha_bars, t = schedule.alphas_cumprod, torch.tensor([0, 1, 30, 400, 900])
    x0, noise = _data(5, 2, 3, 3)
    noisy = diffusion.add_noise(x0, noise, alpha_bars[t])
    wanted = diffusion.target(prediction, x0, noise, alpha_bars[t])
    error, variance_half = _data(5, 2, 3, 3)
    output = torch.cat([wanted + 0.1 * error, variance_half], 1).requires_grad_(True)
    loss = diffusion.variance_loss(prediction, output, x0, noisy, alpha_bars, t)
    assert loss[0] == 0
    for i in range(1, 5):
        one, mean = slice(i, i + 1), output[i : i + 1, :2].detach()
        guess = diffusion.predicted_x0(prediction, mean, noisy[one], alpha_bars[t[one]])
        q, p = (
            diffusion.posterior_mean(x, noisy[one], alpha_bars, t[one]) for x in (x0[one], guess)
        )
        small = schedule._get_variance(int(t[i]), variance_type="fixed_small")
        learned = schedule._get_variance(int(t[i]), variance_half[one], "learned_range")
        of_q = torch.distributions.Normal(q, small.sqrt().expand_as(q))
        of_p = torch.distributions.Normal(p, (learned / 2).exp())
        kl = torch.distributions.kl_divergence(of_q, of_p).mean()
        torch.testing.assert_close(loss[i], 1000 * kl / math.log(2), rtol=1e-3, atol=1e-4)
    loss.sum().backward()
    assert output.grad is not None
    assert (output.grad[:, :2] == 0).all()
    assert (output.grad[0] == 0).all()
    assert (output.grad[1:, 2:] != 0).any(3).all()


def test_variance_loss_is_least_at_the_best_variance() -> None:
    """The KL's minimum over p's variance is q's plus the square of the means' distance, here with
    an error of 0.3 as above: 1/6 + 0.075, between beta~ and beta; there the gradient is 0.
    """
    x0, noise = _data(1, 1, 2, 2)
    t = torch.tensor([1])
    noisy = diffusion.add_noise(x0, noise, TWO[t])
    v = math.log((1 / 6 + 0.075) * 6) / math.log(3)
    half = torch.full_like(noise, 2 * v - 1).requires_grad_(True)
    output = torch.cat([noise + 0.3, half], 1)
    diffusion.variance_loss("epsilon", output, x0, noisy, TWO, t).sum().backward()
    torch.testing.assert_close(half.grad, torch.zeros_like(half), atol=1e-5, rtol=0)


def test_variance_loss_computes_in_fp32() -> None:
    """Also from a network that gave half precision; the value is that of the rounded output."""
    x0, noise = _data(1, 1, 2, 2)
    t = torch.tensor([999])
    alpha_bars = SCHEDULES["decoder"].alphas_cumprod
    noisy = diffusion.add_noise(x0, noise, alpha_bars[t])
    rough = torch.cat([noise, noise], 1).bfloat16()
    loss = diffusion.variance_loss("epsilon", rough, x0, noisy, alpha_bars, t)
    assert loss.dtype == torch.float32
    exact = diffusion.variance_loss("epsilon", rough.float(), x0, noisy, alpha_bars, t)
    assert torch.equal(loss, exact)


@pytest.mark.parametrize("prediction", ["flow", "v", ""])
def test_unknown_prediction_is_refused(prediction: str) -> None:
    """Never a silent default."""
    one = torch.ones(1)
    with pytest.raises(ValueError, match="prediction type"):
        diffusion.target(prediction, one, one, one)
    with pytest.raises(ValueError, match="prediction type"):
        diffusion.min_snr_weight(prediction, one, 5.0)
    with pytest.raises(ValueError, match="prediction type"):
        diffusion.predicted_x0(prediction, one, one, one)
