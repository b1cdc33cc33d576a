"""The losses against the guide's formula, written out here with stock modules."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch.utils.checkpoint import checkpoint

from wassily.maths import diffusion
from wassily.maths.losses import Decoder, Prior
from wassily.mini import untrained as models
from wassily.models.adapters import trained_parameters
from wassily.models.parts import prior_alpha_bars

BATCH = 5


def _guide_loss(
    schedule: DDPMScheduler,
    predicted: torch.Tensor,
    target: torch.Tensor,
    t: torch.Tensor,
    snr_gamma: float | None,
) -> torch.Tensor:
    """The guide's scripts, line by line."""
    if snr_gamma is None:
        return F.mse_loss(predicted.float(), target.float(), reduction="mean")
    snr = compute_snr(schedule, t)
    weights = torch.stack([snr, snr_gamma * torch.ones_like(t)], dim=1).min(dim=1)[0]
    if schedule.config.prediction_type == "epsilon":
        weights = weights / snr
    elif schedule.config.prediction_type == "v_prediction":
        weights = weights / (snr + 1)
    loss = F.mse_loss(predicted.float(), target.float(), reduction="none")
    loss = loss.mean(dim=list(range(1, len(loss.shape)))) * weights
    return loss.mean()


def _prior_batch() -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    width = models.EMBEDDING
    mask = torch.arange(models.TOKENS)[None] < torch.tensor([4, 9, 2, 7, 9])[:, None]
    batch = {
        "image_embeds": torch.randn(BATCH, width),
        "text_embeds": torch.randn(BATCH, width),
        "text_states": torch.randn(BATCH, models.TOKENS, width),
        "text_mask": mask,
    }
    return batch, torch.randn(BATCH, width), torch.tensor([0, 30, 400, 700, 999])


def _decoder_batch() -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    torch.manual_seed(4)
    batch = {
        "latents": torch.randn(BATCH, 4, 8, 8),
        "image_embeds": torch.randn(BATCH, models.EMBEDDING),
    }
    return batch, torch.randn(BATCH, 4, 8, 8), torch.tensor([0, 30, 400, 700, 999])


def _cut(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    longest = int(batch["text_mask"].sum(1).max())
    return batch | {
        "text_states": batch["text_states"][:, :longest],
        "text_mask": batch["text_mask"][:, :longest],
    }


@pytest.mark.parametrize("snr_gamma", [None, 5.0, 1.0])
@pytest.mark.parametrize("recompute", [None, functools.partial(checkpoint, use_reentrant=False)])
def test_prior_equals_the_guide(snr_gamma: float | None, recompute: Any) -> None:
    """DDPMScheduler("squaredcos_cap_v2", "sample"); target (x - clip_mean) / clip_std."""
    torch.manual_seed(0)
    net = models.prior()
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    batch, noise, t = _prior_batch()
    x0 = (batch["image_embeds"] - net.clip_mean) / net.clip_std
    predicted = net(
        schedule.add_noise(x0, noise, t),
        timestep=t,
        proj_embedding=batch["text_embeds"],
        encoder_hidden_states=batch["text_states"],
        attention_mask=batch["text_mask"],
    ).predicted_image_embedding
    expected = _guide_loss(schedule, predicted, x0, t, snr_gamma)
    ours = Prior(net, prior_alpha_bars(), "sample", snr_gamma, recompute)
    losses = ours(_cut(batch), noise, t)
    assert losses.shape == (BATCH,)
    torch.testing.assert_close(losses.mean(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("snr_gamma", [None, 5.0, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_decoder_equals_the_guide(snr_gamma: float | None, prediction: str) -> None:
    """`unet(noisy, t, None, added_cond_kwargs).sample[:, :4]` on the repository's own schedule."""
    torch.manual_seed(0)
    net, schedule = models.unet(), models.decoder_scheduler(prediction)
    batch, noise, t = _decoder_batch()
    noisy = schedule.add_noise(batch["latents"], noise, t)
    condition = {"image_embeds": batch["image_embeds"]}
    predicted = net(noisy, t, None, added_cond_kwargs=condition).sample[:, :4]
    target = noise
    if prediction == "v_prediction":
        target = schedule.get_velocity(batch["latents"], noise, t)
    expected = _guide_loss(schedule, predicted, target, t, snr_gamma)
    ours = Decoder(net, schedule.alphas_cumprod, prediction, snr_gamma)
    losses = ours(batch, noise, t)
    assert losses.shape == (BATCH,)
    torch.testing.assert_close(losses.mean(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("snr_gamma", [None, 5.0])
def test_the_hybrid_loss(snr_gamma: float | None) -> None:
    """L_simple + lambda L_vlb (arXiv 2102.09672, eq. 16): Min-SNR weighs the first alone. Off it is
    the first to the bit, and the last layer's variance rows get no gradient; on, the rows of the
    noise half get the same gradient as before, so only the variance half has a new one.
    """
    torch.manual_seed(0)
    net, alpha_bars = models.unet(), models.decoder_scheduler().alphas_cumprod
    batch, noise, t = _decoder_batch()
    losses, gradients = [], []
    for weight in (0.0, 0.001):
        objective = Decoder(net, alpha_bars, "epsilon", snr_gamma, weight)
        losses.append(objective(batch, noise, t))
        net.zero_grad()
        losses[-1].sum().backward()
        gradients.append(net.conv_out.weight.grad.clone())
    simple = Decoder(net, alpha_bars, "epsilon", snr_gamma)(batch, noise, t)
    assert torch.equal(losses[0], simple)
    noisy, output = objective.output(batch, noise, t)
    bound = diffusion.variance_loss("epsilon", output, batch["latents"], noisy, alpha_bars, t)
    torch.testing.assert_close(losses[1], simple + 0.001 * bound)
    assert (losses[1] > losses[0])[1:].all()  # at t = 0 there is no term
    torch.testing.assert_close(gradients[1][:4], gradients[0][:4])
    assert (gradients[0][4:] == 0).all()
    assert (gradients[1][4:] != 0).all()


@pytest.mark.parametrize("role", ["prior", "decoder"])
def test_what_is_trained_gets_a_gradient_and_nothing_else_does(role: str) -> None:
    """Two processes stop at the second step if a listed parameter gets none; and the statistics
    must not move. Every gradient is somewhere different from zero, but for those that no loss can
    have: a variance half without a loss.
    """
    torch.manual_seed(0)
    if role == "prior":
        net = models.prior()
        objective: torch.nn.Module = Prior(net, prior_alpha_bars())
        batch, noise, t = _prior_batch()
        batch = _cut(batch)
    else:
        net = models.unet()
        objective = Decoder(net, models.decoder_scheduler().alphas_cumprod)
        batch, noise, t = _decoder_batch()
    net.requires_grad_(False)
    trained = trained_parameters(net)
    objective(batch, noise, t).mean().backward()
    for name, parameter in net.named_parameters():
        if name in ("clip_mean", "clip_std"):
            assert name not in trained
            assert parameter.grad is None, name
        else:
            assert trained[name] is parameter
            assert parameter.grad is not None, name
    dead = [name for name, p in trained.items() if not p.grad.abs().max() > 0]
    assert all("to_k.bias" in name or "add_k_proj.bias" in name for name in dead), dead


def test_losses_do_not_see_each_other() -> None:
    """Invariant: the loss of an example does not depend on its neighbours."""
    torch.manual_seed(0)
    objective = Decoder(
        models.unet().eval(), models.decoder_scheduler().alphas_cumprod, "epsilon", 5.0
    )
    batch, noise, t = _decoder_batch()
    together = objective(batch, noise, t)
    for i in range(BATCH):
        alone = objective(
            {k: v[i : i + 1] for k, v in batch.items()}, noise[i : i + 1], t[i : i + 1]
        )
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-5)


def test_the_schedule_is_no_part_of_the_weights() -> None:
    """It comes from the repository each time: a checkpoint holds the network alone."""
    objective = Decoder(models.unet(), models.decoder_scheduler().alphas_cumprod)
    assert all(name.startswith("net.") for name in objective.state_dict())


def test_unknown_prediction_is_refused() -> None:
    """Before the first step, not in it."""
    with pytest.raises(ValueError, match="flow"):
        Decoder(models.unet(), torch.ones(10), "flow")
