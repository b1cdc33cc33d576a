"""Writes the prompts of `--preserve builtin`: python tools/prompts.py; with --check it compares.

As many distinct ones as there are drawings: what is asked about twice tells less. Those of the
released model are a subject in a frame, for one list of each is shorter than two thousand lines by
hand; those of the bundled model describe scenes that it was trained on, in both languages.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from wassily.mini import world  # noqa: E402
from wassily.models import parts  # noqa: E402
from wassily.training_data import base_predictions, generic_prompts  # noqa: E402

SEED = 2022
SUBJECTS = """
a ballet dancer; a bamboo grove; a basket of apples; a bicycle leaning on a wall; a bowl of ramen;
a brass telescope; a bride in a garden; a butterfly on a flower; a ceramic teapot; a chef at work;
a child holding a balloon; a cup of coffee with foam; a desert with dunes; a desk lamp; an
astronaut; a farmer and his tractor; a field of sunflowers; a fire engine; a flock of seagulls; a
frozen lake; a glass of orange juice; a glass skyscraper; a golden retriever; a gothic cathedral;
a grand piano; a grey owl; a helicopter; a herd of elephants; a horse at full gallop; a hot-air
balloon; a parrot; a jar of honey; a knight in armour; a lighthouse; a loaf of bread on a board; a
pair of leather boots; a mosque with a blue dome; a narrow alley with lanterns; a pocket watch; a
polar bear; a red fox; a rocky coast at low tide; a sailing boat; a scientist with glasses; a
slice of chocolate cake; a snowy mountain; a stack of old books; a steam locomotive; a stone
bridge; a tabby cat; a tortoise; a street musician with a violin; a tropical fish; a vintage
motorcycle; a volcano; a windmill; a waterfall in a forest; a wooden cabin; a wooden chess set; a
yellow taxi; an old fisherman; a young woman with a red scarf; grilled vegetables on a plate; two
friends talking; a camel caravan; a market stall with spices; a river between green hills; a vase
with tulips; a violin on a chair; a dragon on a rock; a robot with round eyes; a train station
full of people; a boxer in the ring; a football match; a tall palm tree; a rose in a glass; a
jellyfish; a crocodile in a swamp; a beetle; a nurse in a corridor; an empty classroom; a library
with high shelves; a kitchen with copper pans; a bowl of olives; a plate of dates; a birthday cake
with candles; a bunch of grapes; a sliced melon; a spiral staircase; a ruined castle; a village
under snow; a harbour with cranes; a rice terrace; a canyon; an iceberg; a starry sky over a hill;
a rainbow over a field; a storm cloud; a coral reef; a crowd with umbrellas; a girl reading on a
bench; a boy with a kite; a grandmother knitting; a blacksmith; a potter at the wheel; a diver
with a torch; a cyclist on a mountain road; a judge; a family at the dinner table; a newborn baby;
a wolf in the woods; a peacock; a swan on a pond; a squirrel with a nut; a goat on a cliff; a cow
on a meadow; a rooster; a spider in its web; a whale; a penguin; a kangaroo; a giraffe by a tree;
a mechanical clock; an old radio; a typewriter; a camera; a pair of scissors; a ladder against a
wall; a suitcase with stickers; a telephone box; a tent; a satellite; a rocket on its pad; a
submarine; a tram in a wide street; a canoe on a river; a scooter
"""
FRAMES = """
a photo of {}; {}, pixel art; {}, 3d render; {}, watercolour; {}, oil painting; pencil sketch of {};
{}, black and white photograph; {}, flat vector illustration; {}, studio lighting, plain background;
{} at sunset, 35 mm photograph; {} in the rain at night; a child's drawing of {}; close-up of {};
{} in the style of a Japanese woodblock print; {} in fog, early morning; aerial view, {};
{}, soft light; a poster of {}; {}, ink on paper; {} seen from below; {} made of paper; {}, mosaic;
{} in bright daylight; an old postcard of {}
"""


def generic(count: int) -> list[str]:
    """So many subjects in a frame, drawn without replacement."""
    subjects, frames = (
        [" ".join(part.split()) for part in text.split(";")] for text in (SUBJECTS, FRAMES)
    )
    pairs = list(itertools.product(subjects, frames))
    chosen = np.random.default_rng(SEED).choice(len(pairs), count, replace=False)
    return [frame.format(subject) for subject, frame in (pairs[i] for i in chosen)]


def of_the_world(count: int) -> list[str]:
    """So many scenes of the bundled model's training, by turns in English and Arabic."""
    kinds = [_distinct(SEED + i, language, count // 2) for i, language in enumerate(("en", "ar"))]
    return [prompt for pair in zip(*kinds, strict=True) for prompt in pair]


def _distinct(seed: int, language: str, count: int) -> list[str]:
    found = world.prompts(seed, 10 * count, "train", language=language)
    return list(dict.fromkeys(prompt for prompt, _ in found))[:count]


def main(check: bool) -> int:
    """Write both lists, or tell whether they are as they would be written."""
    made = {
        generic_prompts.GENERIC / "preserve.txt": generic(base_predictions.DRAWINGS),
        parts.MINI / "prompts" / "preserve.txt": of_the_world(base_predictions.DRAWINGS),
    }
    texts = {path: "\n".join(lines) + "\n" for path, lines in made.items()}
    if check:
        return int(any(path.read_text("utf-8") != text for path, text in texts.items()))
    for path, text in texts.items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] == ["--check"]))
