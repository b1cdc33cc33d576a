"""Sentences of `mini`, in both languages."""

import numpy as np
import pytest

from wassily.mini import language as mini_language
from wassily.mini.scene import Scene


def sentence(language, **what):
    scene = Scene(**what)
    return mini_language.sentence(scene, np.random.default_rng(0), language, plain=True)


@pytest.mark.parametrize(
    ("language", "what", "wanted"),
    [
        ("en", ("circle", "red", "blue", "large"), "a large red circle on a blue background"),
        ("en", ("cross", "green", "pink", "small", 3), "three small green crosses on a pink"),
        ("en", ("star", "red", "grey", "large", 1, "plain", "inked"), "an inked large red star"),
        ("ar", ("circle", "red", "blue", "large"), "دائرة حمراء كبيرة على خلفية زرقاء"),
        ("ar", ("square", "red", "white", "large"), "مربع أحمر كبير على خلفية بيضاء"),
        ("ar", ("circle", "red", "black", "small", 2), "دائرتان حمراوان صغيرتان على"),
        ("ar", ("square", "pink", "blue", "medium", 2, "striped"), "مربعان ورديان متوسطان مخططان"),
        ("ar", ("square", "blue", "white", "small", 3), "ثلاثة مربعات زرقاء صغيرة"),
        ("ar", ("ring", "brown", "white", "small", 3), "ثلاث حلقات بنية صغيرة"),
        ("ar", ("zorb", "green", "white", "large"), "زورب أخضر كبير"),
        ("ar", ("star", "white", "blue", "large", 1, "plain", "inked"), "نجمة بيضاء كبيرة محبرة"),
    ],
)
def test_sentences_agree(language, what, wanted):
    names = ("shape", "colour", "background", "size", "count", "fill", "style")
    assert sentence(language, **dict(zip(names, what, strict=False))).startswith(wanted)
