"""The losses of prior and decoder: `forward(batch, noise, t)` gives one an example, shape (B,).

An objective wraps the network in training and is itself the module that is prepared for many
processes (DDP and FSDP synchronise in the wrapped module's `forward`). It holds no frozen network:
a batch brings encodings. Nothing here is drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wassily.maths import diffusion, unpadded_prior

if TYPE_CHECKING:
    from diffusers import PriorTransformer, UNet2DConditionModel

Batch = dict[str, Tensor]  # fields of examples, each (B, ...)


class Objective(nn.Module):
    """The noise schedule and the Min-SNR weight that both objectives share."""

    alpha_bars: Tensor

    def __init__(
        self,
        net: nn.Module,
        alpha_bars: Tensor,
        prediction: str,
        snr_gamma: float | None = None,
    ):
        super().__init__()
        if prediction not in diffusion.PREDICTIONS:
            raise ValueError(f"unknown prediction type {prediction!r}")
        # Not saved with the weights: the schedule belongs to the repository.
        self.register_buffer("alpha_bars", alpha_bars.float(), persistent=False)
        self.net, self.prediction, self.snr_gamma = net, prediction, snr_gamma

    def output(
        self, batch: Mapping[str, Tensor], noise: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The noisy input of the network, and its answer."""
        raise NotImplementedError

    def min_snr_weighted(self, loss: Tensor, alpha_bar: Tensor) -> Tensor:
        """(B,) -> (B,): times the Min-SNR weight, where a gamma was given."""
        if self.snr_gamma is None:
            return loss
        ratio = diffusion.snr(alpha_bar)
        return loss * diffusion.min_snr_weight(self.prediction, ratio, self.snr_gamma)


def times_weight(loss: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """(B,) -> (B,): times the `weight` (B,) of each example, where the batch has one."""
    return loss * batch["weight"] if "weight" in batch else loss


def held_to_base(loss: Tensor, output: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """(B,) -> (B,): for the examples with `held` 1 the mean square of what the network gives to
    what its base gave, `base` (B, ...) like the output; the loss for the others.

    The distillation of arXiv 1606.09282, for a network that answers with numbers.
    """
    if "held" not in batch:
        return loss
    # In place of the loss, not times its weights: Min-SNR and the variance's weight are about noise
    # that is to be found.
    return torch.where(batch["held"] > 0, diffusion.squared_error(output, batch["base"]), loss)


class Prior(Objective):
    """Denoise a whitened CLIP image embedding given a text; the network predicts x_0.

    batch: `image_embeds` (B, D) raw, `text_embeds` (B, D), `text_states` (B, N, D), `text_mask` (B,
    N) bool. noise (B, D), t (B,) in [0, len(alpha_bars)).
    x_0 = (image_embeds - clip_mean) / clip_std, as the stock pipeline's `post_process_latents`
    undoes.
    """

    net: PriorTransformer

    def __init__(
        self,
        net: PriorTransformer,
        alpha_bars: Tensor,
        prediction: str = "sample",
        snr_gamma: float | None = None,
        recompute: Callable[..., Tensor] | None = None,
    ):
        super().__init__(net, alpha_bars, prediction, snr_gamma)
        self.recompute = recompute

    def forward(self, batch: Mapping[str, Tensor], noise: Tensor, t: Tensor) -> Tensor:
        """Loss per example, (B,)."""
        alpha_bar, x0 = self.alpha_bars[t], self.whitened(batch)
        _, predicted = self.output(batch, noise, t)
        wanted = diffusion.target(self.prediction, x0, noise, alpha_bar)
        loss = self.min_snr_weighted(diffusion.squared_error(predicted, wanted), alpha_bar)
        return times_weight(held_to_base(loss, predicted, batch), batch)

    def whitened(self, batch: Mapping[str, Tensor]) -> Tensor:
        """x_0, (B, D)."""
        mean, std = self.net.clip_mean.float(), self.net.clip_std.float()
        return (batch["image_embeds"].float() - mean) / std

    def output(
        self, batch: Mapping[str, Tensor], noise: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Noisy whitened embeddings, and what the network makes of them, both (B, D)."""
        noisy = diffusion.add_noise(self.whitened(batch), noise, self.alpha_bars[t])
        return noisy, unpadded_prior.predict(
            self.net,
            noisy,
            t,
            batch["text_embeds"].float(),
            batch["text_states"].float(),
            batch["text_mask"],
            recompute=self.recompute,
        )


class Decoder(Objective):
    """Denoise MoVQ latents given a CLIP image embedding.

    batch: `latents` (B, C, H/f, W/f) unquantised and unscaled, `image_embeds` (B, D) raw (not
    whitened). noise like the latents, t (B,). The network gives 2C channels: the first C predict,
    the others are the variance. `variance_weight` times `diffusion.variance_loss` makes the loss
    the hybrid one (arXiv 2102.09672, eq. 16); without it the variance half has no loss.
    """

    def __init__(
        self,
        net: UNet2DConditionModel,
        alpha_bars: Tensor,
        prediction: str = "epsilon",
        snr_gamma: float | None = None,
        variance_weight: float = 0.0,
    ):
        super().__init__(net, alpha_bars, prediction, snr_gamma)
        self.variance_weight = variance_weight

    def forward(self, batch: Mapping[str, Tensor], noise: Tensor, t: Tensor) -> Tensor:
        """Loss per example, (B,)."""
        latents = batch["latents"].float()
        alpha_bar = self.alpha_bars[t]
        noisy, output = self.output(batch, noise, t)
        predicted = output[:, : latents.shape[1]]
        wanted = diffusion.target(self.prediction, latents, noise, alpha_bar)
        loss = self.min_snr_weighted(diffusion.squared_error(predicted, wanted), alpha_bar)
        if self.variance_weight:
            # Beside the Min-SNR weight: that is of the loss on the mean.
            loss = loss + self.variance_weight * diffusion.variance_loss(
                self.prediction, output, latents, noisy, self.alpha_bars, t
            )
        return times_weight(held_to_base(loss, output, batch), batch)

    def output(
        self, batch: Mapping[str, Tensor], noise: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Noisy latents (B, C, ...), and all that the network makes of them, (B, 2C, ...)."""
        # Cached encodings may be half precision; the noise is added in fp32.
        noisy = diffusion.add_noise(batch["latents"].float(), noise, self.alpha_bars[t])
        condition = {"image_embeds": batch["image_embeds"].float()}
        return noisy, self.net(noisy, t, None, added_cond_kwargs=condition).sample
