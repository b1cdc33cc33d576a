"""The prior's forward pass without the padding: the stock module's weights, fewer tokens.

A masked text position gets no attention weight, and only the last token's output is read, so the
tail of padding can be left out altogether: keep text positions 0..L-1 (L the longest caption of the
batch) and the last four rows of the positional embedding for the four extra tokens. The result is
that of `PriorTransformer.forward` up to rounding, for about a quarter of the work on usual
captions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from diffusers import PriorTransformer

MASKED = -10000.0  # the stock module's value for "do not look here"
EVEN = 16  # tokens


def _tokens(
    net: PriorTransformer, noisy: Tensor, t: Tensor, text: Tensor, states: Tensor
) -> Tensor:
    """All tokens before the positional embedding, in the stock order, shape (B, L + 4, width)."""
    # `time_proj` has no weights, and gives fp32 whatever the network is in.
    moment = net.time_embedding(net.time_proj(t).to(net.dtype))
    if net.embedding_proj_norm is not None:
        text = net.embedding_proj_norm(text)
    if net.encoder_hidden_states_proj is not None:
        states = net.encoder_hidden_states_proj(states)
    extra = [net.embedding_proj(text), moment, net.proj_in(noisy)]
    tokens = [states, *[token[:, None] for token in extra]]
    tokens.append(net.prd_embedding.to(states.dtype).expand(len(noisy), -1, -1))
    return torch.cat(tokens, dim=1)


def _attention_mask(net: PriorTransformer, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Causal and padding mask added, shape (B * heads, L + 4, L + 4)."""
    length = mask.shape[1] + net.additional_embeddings
    padding = (1 - mask.to(dtype)) * MASKED
    padding = pad(padding, (0, net.additional_embeddings))
    # The corner of a causal mask is the causal mask of fewer tokens.
    causal = net.causal_attention_mask[:, :length, :length]
    both = (padding[:, None, :] + causal).to(dtype)
    # The stock attention has batch and heads in one axis.
    return both.repeat_interleave(net.config.num_attention_heads, dim=0)


def predict(
    net: PriorTransformer,
    noisy: Tensor,
    t: Tensor,
    text_embeds: Tensor,
    text_states: Tensor,
    mask: Tensor,
    *,
    recompute: Callable[..., Tensor] | None = None,
) -> Tensor:
    """The predicted (whitened) image embedding, shape (B, D).

    noisy (B, D); t (B,) integers in [0, 1000); text_embeds (B, D); text_states (B, N, D) and mask
    (B, N) with every row's True values first; N may be cut to the longest caption of the batch.
    `recompute` calls a block so that its inner values are computed again in the backward pass.
    """
    length = mask.shape[1]
    hidden = _tokens(net, noisy, t, text_embeds, text_states)
    extra = hidden.shape[1] - length
    positions = net.positional_embedding.to(hidden.dtype)
    # The last rows belong to the extra tokens, however long the text is.
    hidden = hidden + torch.cat([positions[:, :length], positions[:, -extra:]], dim=1)
    attention = _attention_mask(net, mask, hidden.dtype)
    if net.norm_in is not None:
        hidden = net.norm_in(hidden)
    for block in net.transformer_blocks:
        if recompute:
            hidden = recompute(block, hidden, attention)
        else:
            hidden = block(hidden, attention_mask=attention)
    # The last token is the one whose output is the prediction.
    return net.proj_to_clip_embeddings(net.norm_out(hidden)[:, -1])


def evened(batch: Mapping[str, Tensor], most: int) -> dict[str, Tensor]:
    """A batch with its texts padded to a multiple of 16 tokens, or to `most`: fewer shapes, the
    same result.
    """
    found, length = dict(batch), batch["text_mask"].shape[1]
    # Not beyond the positions that the network has.
    more = min(-length % EVEN, most - length)
    found["text_states"] = pad(batch["text_states"], (0, 0, 0, more))
    found["text_mask"] = pad(batch["text_mask"], (0, more))
    return found
