"""Networks of random weights for the tests."""

from __future__ import annotations

import diffusers
import transformers

from wassily.mini.untrained import Tiny


def test_tiny_models_draw_and_tell_texts_apart(tiny: Tiny) -> None:
    """What every other test stands on: stock classes find one another through the card, and the
    end-of-text mark is the tokenizer's.
    """
    pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(tiny.decoder)
    assert isinstance(pipeline, diffusers.KandinskyV22CombinedPipeline)
    tokenizer, encoder = pipeline.prior_tokenizer, pipeline.prior_text_encoder
    assert isinstance(tokenizer, transformers.CLIPTokenizer)
    assert encoder.config.eos_token_id == tokenizer.eos_token_id
    ids = tokenizer(["a cat", "قطة"], padding="max_length", return_tensors="pt").input_ids
    assert tokenizer.unk_token_id not in ids[1][1:5]
    embeds = encoder(ids).text_embeds
    assert (embeds[0] - embeds[1]).abs().max() > 1e-3
