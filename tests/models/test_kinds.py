"""Networks that belong together, and the kinds of decoders."""

from __future__ import annotations

from typing import Any

import pytest

from wassily.config.training import DecoderConfig, PriorConfig
from wassily.errors import UserError
from wassily.mini.untrained import Tiny
from wassily.models import kinds, parts


@pytest.mark.parametrize(
    ("network", "kind"),
    [
        ({"in_channels": 4}, "plain"),
        ({"in_channels": 9}, "inpainting"),
        ({"in_channels": 8}, "hint"),
        ({"in_channels": 4, "addition_embed_type": "image_hint"}, "hint"),
    ],
)
def test_the_kind_of_a_decoder(network: dict[str, Any], kind: str) -> None:
    """By its input: latents, and beside them an image with its mask, or a control image."""
    assert kinds.decoder_kind(network) == kind


def test_widths_that_differ_are_refused(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prior's encoder makes what the decoder reads, or it is said which makes what."""
    repositories = {"prior": str(tiny.prior), "decoder": str(tiny.decoder)}
    kinds.check_widths(repositories)
    read = parts.load_config
    made = read("image_encoder", str(tiny.prior))["projection_dim"]

    def wider(role: str, *where: Any) -> dict[str, Any]:
        return read(role, *where) | ({"encoder_hid_dim": 2 * made} if role == "unet" else {})

    monkeypatch.setattr(parts, "load_config", wider)
    with pytest.raises(UserError, match=f"of {made} values.* reads {2 * made}"):
        kinds.check_widths(repositories)


def test_a_prior_looks_at_its_decoder_to_generate_alone() -> None:
    """A decoder's training always does."""
    assert kinds.reads_decoder(DecoderConfig(dataset_name="a/b"))
    assert not kinds.reads_decoder(PriorConfig(dataset_name="a/b"))
    assert kinds.reads_decoder(PriorConfig(dataset_name="a/b", validation_prompts=("a",)))
