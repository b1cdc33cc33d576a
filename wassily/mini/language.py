"""The sentences of the little world, in English and Arabic, with their agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from wassily.mini.scene import Scene


@dataclass(frozen=True)
class Noun:
    """An Arabic noun: singular, plural, and whether it is feminine."""

    one: str
    many: str
    feminine: bool


NOUNS = {
    "circle": Noun("دائرة", "دوائر", True),
    "square": Noun("مربع", "مربعات", False),
    "triangle": Noun("مثلث", "مثلثات", False),
    "star": Noun("نجمة", "نجوم", True),
    "cross": Noun("صليب", "صلبان", False),
    "ring": Noun("حلقة", "حلقات", True),
    "zorb": Noun("زورب", "زوربات", False),
}
# Masculine and feminine; the colours of the form af'al change within the word, the others take ة.
ADJECTIVES = {
    "red": ("أحمر", "حمراء"),
    "yellow": ("أصفر", "صفراء"),
    "green": ("أخضر", "خضراء"),
    "blue": ("أزرق", "زرقاء"),
    "black": ("أسود", "سوداء"),
    "white": ("أبيض", "بيضاء"),
    "orange": ("برتقالي", "برتقالية"),
    "purple": ("بنفسجي", "بنفسجية"),
    "pink": ("وردي", "وردية"),
    "brown": ("بني", "بنية"),
    "grey": ("رمادي", "رمادية"),
    "turquoise": ("فيروزي", "فيروزية"),
    "small": ("صغير", "صغيرة"),
    "medium": ("متوسط", "متوسطة"),
    "large": ("كبير", "كبيرة"),
    "striped": ("مخطط", "مخططة"),
    "inked": ("محبر", "محبرة"),
}
ENGLISH = (
    "{thing} on a {background} background",
    "{thing} on {background}",
    "a picture of {thing} on a {background} background",
    "a drawing of {thing} on {background}",
    "{background} background with {thing}",
)
# Each frame leaves the noun in the nominative, so that a dual ends in ان everywhere.
ARABIC = (
    "{thing} على خلفية {background}",
    "{thing} فوق خلفية {background}",
    "صورة فيها {thing} على خلفية {background}",
    "رسم فيه {thing} على خلفية {background}",
    "خلفية {background} عليها {thing}",
)
NUMBERS = {2: "two", 3: "three"}
PLURALS = {"cross": "crosses"}


def sentence(
    scene: Scene, rng: np.random.Generator, language: str = "en", plain: bool = False
) -> str:
    """A sentence for the scene in "en" or "ar"; plain asks for the first, commonest frame."""
    frames, thing, background = {
        "en": (ENGLISH, english_thing, scene.background),
        "ar": (ARABIC, arabic_thing, ADJECTIVES[scene.background][1]),
    }[language]
    frame = frames[0 if plain or rng.random() < 0.4 else rng.integers(1, len(frames))]
    text = frame.format(thing=thing(scene), background=background)
    return text.replace("on a orange", "on an orange")


def english_thing(scene: Scene) -> str:
    """The noun phrase: "a large red circle", "two small striped blue crosses"."""
    said = [w for w in (scene.style, scene.size, scene.fill) if w not in ("flat", "plain")]
    phrase = " ".join([*said, scene.colour])
    if scene.count > 1:
        plural = PLURALS.get(scene.shape, scene.shape + "s")
        return f"{NUMBERS[scene.count]} {phrase} {plural}"
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase} {scene.shape}"


def arabic_thing(scene: Scene) -> str:
    """The noun phrase: noun, colour, size, fill, style, agreeing in gender and number."""
    noun = NOUNS[scene.shape]
    said = (scene.colour, scene.size, scene.fill, scene.style)
    chosen = [ADJECTIVES[w] for w in said if w not in ("flat", "plain")]
    if scene.count == 1:
        return " ".join([noun.one, *(a[noun.feminine] for a in chosen)])
    if scene.count == 2:
        return " ".join([dual(noun.one), *(dual(a[noun.feminine]) for a in chosen)])
    # Three to ten are counted against the gender of the noun; the plural of things that are not
    # persons takes the feminine singular.
    three = "ثلاث" if noun.feminine else "ثلاثة"
    return " ".join([three, noun.many, *(a[1] for a in chosen)])


def dual(word: str) -> str:
    """The Arabic nominative dual of a noun or adjective."""
    if word.endswith("اء"):
        return word[:-1] + "وان"
    if word.endswith("ة"):
        return word[:-1] + "تان"
    return word + "ان"
