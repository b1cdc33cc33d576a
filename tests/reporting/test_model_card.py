"""The model card: its header is YAML that diffusers reads, and no text escapes from its place."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from wassily.config.training import DecoderConfig, PriorConfig
from wassily.models import parts
from wassily.reporting.model_card import (
    Facts,
    escaped,
    facts_of,
    model_card,
    prior_of,
    quoted,
)

NASTY = [
    'a "quoted" cat',
    "back\\slash \\n \\",
    "two\nlines\n---\nlicense: stolen\n---\n# title",
    "```python\nimport os\n```",
    "<script>alert(1)</script> <img src=x>",
    "![x](http://evil) [y](javascript:z) `code` **bold** | pipe | $x$ ~~s~~",
    "# heading",
    "- list: {a: b} & *anchor %x @y",
    "قطة حمراء 🧸 \u200f",
    "'; drop table",
    "{0} %s {{}}",
    "\u2028\u2029\u0085",
    "nul\x00 bell\x07 del\x7f",
]


def _facts(**values: Any) -> Facts:
    base: dict[str, Any] = {
        "name": "/home/me/runs/decoder",
        "role": "decoder",
        "base": "kandinsky-community/kandinsky-2-2-decoder",
        "prior": "kandinsky-community/kandinsky-2-2-prior",
        "decoder": "kandinsky-community/kandinsky-2-2-decoder",
        "data": "/home/me/secret pictures",
        "data_is_public": False,
        "steps": 10,
        "pictures": 7,
        "seed": 3,
        "has_samples": True,
    }
    return Facts(**(base | values))


def _card(folder: Path, prompts: tuple[str, ...] = ("a cat",), **values: Any) -> str:
    cls = PriorConfig if values.get("role") == "prior" else DecoderConfig
    config = cls(train_data_dir=str(folder), validation_prompts=prompts, hub_token=None)
    return model_card(config, _facts(**values), "fp16")


def _header(card: str) -> dict[str, Any]:
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def _code(card: str) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```$", card, re.M | re.S)
    assert len(blocks) == 1
    return blocks[0]


def test_header_of_a_decoder(tmp_path: Path) -> None:
    """The `prior` list is where diffusers looks; both parsers agree."""
    card = _card(tmp_path, data="me/pics", data_is_public=True)
    header = _header(card)
    assert header["prior"] == ["kandinsky-community/kandinsky-2-2-prior"]
    assert header["base_model"] == "kandinsky-community/kandinsky-2-2-decoder"
    assert header["datasets"] == ["me/pics"]
    assert header["library_name"] == "diffusers"
    assert "text-to-image" in header["tags"]
    assert ModelCard(card).data.to_dict()["prior"] == header["prior"]


def test_header_of_a_prior(tmp_path: Path) -> None:
    """It has no prior of its own."""
    header = _header(_card(tmp_path, role="prior", base="kandinsky-community/kandinsky-2-2-prior"))
    assert "prior" not in header
    assert header["base_model"] == "kandinsky-community/kandinsky-2-2-prior"


@pytest.mark.parametrize("lora", [{}, {"lora": True}], ids=["whole", "adapter"])
@pytest.mark.parametrize("role", ["prior", "decoder"])
def test_the_example_computes_in_what_the_model_needs(
    role: str, lora: dict[str, bool], tmp_path: Path
) -> None:
    """mini in fp32, which a CPU draws with; the released model in fp16, and how a CPU draws it."""
    cls = PriorConfig if role == "prior" else DecoderConfig
    config = cls(train_data_dir=str(tmp_path), **lora)
    for base, digits, hint in ((str(parts.MINI / role), "32", 0), ("me/large", "16", 1)):
        card = model_card(config, _facts(role=role, base=base), "no")
        assert set(re.findall(r"torch_dtype=torch\.float(\d+)", _code(card))) == {digits}
        assert card.count("On a CPU write `torch.float32`.") == hint


def test_local_things_stay_local(tmp_path: Path) -> None:
    """A local base is no hub name, and the folder of the pictures is nobody's business."""
    card = _card(tmp_path, base="/home/me/base", prior="/home/me/prior")
    header = _header(card)
    assert "base_model" not in header
    assert "datasets" not in header
    assert header["prior"] == ["/home/me/prior"]
    assert "secret pictures" not in card


@pytest.mark.parametrize("text", NASTY)
def test_any_prior_path_survives_yaml(text: str, tmp_path: Path) -> None:
    """It must be found again, whatever the folder is called."""
    header = _header(_card(tmp_path, prior=f"/models/{text}"))
    assert header["prior"] == [f"/models/{text}"]
    assert set(header) == {"license", "base_model", "prior", "library_name", "tags"}


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("role", ["prior", "decoder"])
def test_no_prompt_escapes(text: str, role: str, tmp_path: Path) -> None:
    """The header does not change, the code is Python whose prompt is the prompt, and outside of it
    a prompt is one line of text without markup.
    """
    plain, card = _card(tmp_path, role=role), _card(tmp_path, (text, "second"), role=role)
    assert _header(card) == _header(plain)
    tree = ast.parse(_code(card))
    strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    assert text in strings
    # As many headings, fences and rules as the card of a harmless prompt has.
    for pattern in (r"^#", r"^```", r"^---$", r"^\|"):
        assert len(re.findall(pattern, card, re.M)) == len(re.findall(pattern, plain, re.M))
    bullets = [line for line in card.split("\n") if line == f"- {escaped(text)}"]
    assert len(bullets) == 1
    assert not re.search(r"<(script|img)", card.replace(_code(card), ""))


ITEMS = ["1. one", "2) two", "- - -", "---", "+ x", "- [ ] task", "===", "* * *", ": x", "> x"]


@pytest.mark.parametrize("text", [*ITEMS, "    code", "\t# x", "[ ] x", "<!-- x", "10. ten"])
def test_finding_24_a_prompt_begins_no_list_and_no_rule(text: str, tmp_path: Path) -> None:
    """By a parser of CommonMark: the list of the samples has one paragraph of text an item."""
    from markdown_it import MarkdownIt

    card = _card(tmp_path, (text, "second"))
    body = card.split("---\n", 2)[2].partition("## Samples")[2].partition("## Use")[0]
    kinds, shown = [], []
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        kinds.append(token.type)
        shown += [token.content] if token.type == "inline" else []
    item = ["list_item_open", "paragraph_open", "inline", "paragraph_close", "list_item_close"]
    image = ["paragraph_open", "inline", "paragraph_close"]
    assert kinds == [*image, "bullet_list_open", *item, *item, "bullet_list_close"]
    inline = MarkdownIt("commonmark").parseInline(shown[1])[0].children or []
    assert {token.type for token in inline} <= {"text", "text_special"}
    assert "".join(token.content for token in inline) == " ".join(text.split())


HARD = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA1), 0x2028, 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF]))


@pytest.mark.parametrize("text", [HARD, *HARD[-40:], '"', "\\u0041", "\U0001fffe", "\ud800"])
def test_finding_24_any_letter_is_read_back(text: str, tmp_path: Path) -> None:
    """By PyYAML, by Python, and by our own reader of cards."""
    named = f"/models/a{text}b"
    card = _card(tmp_path, prior=named)
    assert _header(card)["prior"] == [named]
    assert ast.literal_eval(quoted(named)) == named
    (tmp_path / "README.md").write_text(card, "utf-8")
    assert prior_of(tmp_path) == named


@pytest.mark.parametrize("name", ["https://me:pw@host/x.tar?sig=1", "x/y/z", "../pics", "/a/b", ""])
def test_finding_04_a_card_names_no_address(name: str, tmp_path: Path) -> None:
    """Only owner/name of the hub is a data set that others can see."""
    for named, public in ((name, False), ("owner/some-name.v2", True)):
        config = DecoderConfig(
            dataset_name=named or None, train_data_dir=None if named else str(tmp_path)
        )
        facts = facts_of(
            config=config,
            repositories={"prior": "me/prior", "decoder": "me/decoder"},
            hub_repository="me/x",
            steps=1,
            pictures=1,
            seed=1,
            trained="",
            best="",
        )
        card = model_card(config, facts, "no")
        assert ("datasets" in _header(card)) is public
        assert (named in card) is (public or not named)


@pytest.mark.parametrize("text", NASTY)
def test_quoted_and_escaped(text: str) -> None:
    """`quoted` is a Python literal of the text on one line; `escaped` gives the words back when
    Markdown's backslashes and HTML's entities are undone.
    """
    import html

    assert ast.literal_eval(quoted(text)) == text
    assert "\n" not in quoted(text)
    shown = html.unescape(re.sub(r"\\(\W|_)", r"\1", escaped(text)))
    assert shown == " ".join(text.split())


def test_hyperparameters_and_samples(tmp_path: Path) -> None:
    """As they were; the picture is named only where there is one."""
    config = DecoderConfig(
        train_data_dir=str(tmp_path),
        learning_rate=3e-6,
        lr_scheduler="cosine",
        snr_gamma=5.0,
        use_ema=True,
        resolution=768,
        gradient_accumulation_steps=4,
        validation_prompts=("a cat",),
    )
    card = model_card(config, _facts(steps=15000, seed=42), "bf16")
    for cell in ("15000", "3e-06", "cosine", "| 5 |", "True", "768", "| 4 |", "bf16", "| 42 |"):
        assert cell in card
    assert "./samples.png" in card
    assert "samples.png" not in _card(tmp_path, (), has_samples=False)
    assert "decoder" in re.search(r"^# (.*)$", card, re.M)[1]  # type: ignore[index]


@pytest.mark.parametrize("role", ["prior", "decoder"])
def test_the_bundled_model_has_its_name_and_its_words(role: str, tmp_path: Path) -> None:
    """In the text; where diffusers reads, its folder stays."""
    from wassily.models.parts import MINI

    prior = str(MINI / "prior")
    card = _card(tmp_path, (), role=role, base=str(MINI / role), prior=prior, has_samples=False)
    assert "fine-tuned from **mini**" in card
    assert "a large red circle" in _code(card)
    assert "base_model" not in _header(card)
    assert _header(card).get("prior", [prior]) == [prior]


def test_no_token_in_a_card(tmp_path: Path) -> None:
    """It is public."""
    config = DecoderConfig(train_data_dir=str(tmp_path), push_to_hub=True, hub_token="hf_secret")
    assert "hf_secret" not in model_card(config, _facts(), "no")


@pytest.mark.parametrize("role", ["prior", "decoder"])
def test_the_code_runs_as_far_as_names_go(role: str, tmp_path: Path) -> None:
    """Every name it uses is imported or assigned before (the guide's own snippet has two that are
    not); it loads the folder of the card and, for a prior, the decoder beside it.
    """
    code = _code(_card(tmp_path, role=role, name="me/model", decoder="/d"))
    tree = ast.parse(code)
    known = {"open", "print"}
    for node in tree.body:
        for name in (n for n in ast.walk(node) if isinstance(n, ast.Name)):
            bound = isinstance(name.ctx, ast.Store) or name.id in known | {"k", "v"}
            assert bound or name.id in known, name.id
        if isinstance(node, ast.ImportFrom | ast.Import):
            known |= {a.asname or a.name for a in node.names}
        if isinstance(node, ast.Assign):
            known |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    assert '"me/model"' in code
    assert ('"/d"' in code) == (role == "prior")


def test_data_and_measures_in_numbers(tmp_path: Path) -> None:
    """What is zero or was not measured is not there; no measure, no table."""
    counts = {"pictures": 7, "duplicates": 0, "captions": 9, "cut_captions": 2, "held_out": 3}
    measured, before = {"loss": 0.5, "kept": 0.25}, {"loss": 0.75}
    card = _card(tmp_path, counts=counts, measured=measured, before=before)
    told = card.split("## Data\n\n")[1].split("\n")[0]
    assert told == (
        "7 pictures; 9 captions; 2 cut at the text encoder's length; "
        "3 more pictures held out to measure on."
    )
    table = card.split("## Measured\n\n")[1].split("\n\n")[0].splitlines()
    assert [line.split(" | ")[1:] for line in table[2:]] == [
        ["0.7500", "0.5000 |"],
        ["", "0.2500 |"],
    ]
    assert "## Measured" not in _card(tmp_path)


@pytest.mark.parametrize("role", ["prior", "decoder"])
@pytest.mark.parametrize("text", NASTY)
def test_the_arabic_part(role: str, text: str, tmp_path: Path) -> None:
    """Of the same numbers, from right to left, and nothing escapes there either."""
    card = _card(tmp_path, role=role, base=f"/models/{text}", steps=12, pictures=34)
    part = card.split("## بالعربية\n\n")[1]
    assert part.startswith('<div dir="rtl">\n\n') and part.count("</div>") == 1
    assert f"({role})" in part and "12" in part and "34" in part
    assert f"**{escaped(f'/models/{text}')}**" in part
