"""The two networks that the project's own loop trains, as small as `mini` needs them."""

import torch
from diffusers import DDPMScheduler, PriorTransformer, UnCLIPScheduler, UNet2DConditionModel
from torch import nn

from tools.mini import vocabulary
from tools.mini.clip import WIDTH

LATENT_SIDE = 8


def prior(embeds):
    """PriorTransformer whose clip_mean and clip_std whiten the image embeddings (N, D)."""
    net = PriorTransformer(
        num_attention_heads=4,
        attention_head_dim=32,
        num_layers=4,
        embedding_dim=WIDTH,
        num_embeddings=vocabulary.CONTEXT,
        additional_embeddings=4,
    )
    net.clip_mean = nn.Parameter(embeds.mean(0, keepdim=True))
    net.clip_std = nn.Parameter(embeds.std(0, keepdim=True))
    return net


def decoder(channels=(96, 128), layers=1):
    """UNet on latents of 8 x 8 x 4, conditioned on the image embedding alone."""
    net = UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=4,
        out_channels=8,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        block_out_channels=channels,
        layers_per_block=layers,
        attention_head_dim=32,
        norm_num_groups=16,
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=64,
        addition_embed_type="image",
        resnet_time_scale_shift="scale_shift",
    )
    quiet_variance(net)
    return net


@torch.no_grad()
def quiet_variance(net):
    """Rows of conv_out for the variance: weight 0, bias -1, so `learned_range` is `fixed_small`."""
    net.conv_out.weight[4:] = 0
    net.conv_out.bias[4:] = -1


def prior_scheduler():
    """The stock prior's sampler."""
    return UnCLIPScheduler(
        variance_type="fixed_small_log",
        prediction_type="sample",
        num_train_timesteps=1000,
        clip_sample=True,
        clip_sample_range=5.0,
    )


def decoder_scheduler():
    """The stock decoder's noise schedule."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        prediction_type="epsilon",
        variance_type="learned_range",
    )
