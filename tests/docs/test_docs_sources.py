"""What three pages say of the sources: messages, functions of equations, flags of other scripts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pages
import pytest

from wassily.config.training import DecoderConfig, PriorConfig

PACKAGE = pages.ROOT / "wassily"


# ---------------------------------------------------------------- troubleshooting.md


def _pieces(node: ast.expr) -> tuple[str | None, ...]:
    """A text of the sources in pieces; None stands for what is put in when it is said."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return tuple(
        part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else None
        for part in parts
    )


def _texts() -> set[tuple[str | None, ...]]:
    """Those with enough words of their own to be known again."""
    nodes = (
        node for file in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(pages.read(file)))
    )
    found = {_pieces(node) for node in nodes if isinstance(node, (ast.JoinedStr, ast.Constant))}
    return {text for text in found if len(re.findall("[a-z]", "".join(filter(None, text)))) > 10}


TEXTS = _texts()


def _told(message: str) -> bool:
    """Whether some text of the sources may become the message; `...` stands for more of it."""
    start, dots, _ = message.partition("...")
    for text in TEXTS:
        if dots and (text[0] or "").startswith(start):
            return True
        if all(piece is None or piece in message for piece in text):
            pattern = "".join(".*" if piece is None else re.escape(piece) for piece in text)
            if re.fullmatch(pattern, message, re.S):
                return True
    return False


def _messages(page: Path) -> list[str]:
    """The first cell of each row of the tables of messages, without its backticks."""
    found = []
    for line in pages.prose(page).splitlines():
        cell = re.match(r"\| (``(.+?)``|`([^`]+)`) \| .* \| .* \|$", line)
        if cell:
            found.append((cell[2] or cell[3]).strip())
    return found


@pytest.mark.parametrize("message", _messages(pages.DOCS / "troubleshooting.md"))
def test_a_message_is_one_of_the_sources(message: str) -> None:
    assert _told(message)


def test_a_message_that_nobody_says_is_noticed() -> None:
    assert not _told("--rank does nothing with --lora: add it")
    assert not _told("nothing was said by anyone here: leave it out")


def test_the_messages_are_many_and_the_same_in_arabic() -> None:
    english = _messages(pages.DOCS / "troubleshooting.md")
    assert len(english) > 45
    assert english == _messages(pages.ARABIC / "troubleshooting.md")


# ---------------------------------------------------------------- pages that name the code


@pytest.mark.parametrize("folder", [pages.DOCS, pages.ARABIC], ids=["en", "ar"])
@pytest.mark.parametrize("page", ["how-it-works.md", "dev/architecture.md"])
def test_files_and_functions_that_a_page_names_are_there(folder: Path, page: str) -> None:
    """Every path in backticks exists, and has at its top level the name that follows it."""
    text = pages.read(folder / page)
    named = re.findall(r"`(wassily/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 20
    for file, name in named:
        source = ast.parse(pages.read(pages.ROOT / file))
        assert name in {getattr(node, "name", None) for node in source.body}, f"{file}: no {name}"
    for file in re.findall(r"`((?:wassily|tests|tools|docs)/[\w./-]*)`", text):
        assert (pages.ROOT / file).exists(), file


# ---------------------------------------------------------------- how-it-works.md


def test_papers_are_those_of_the_code() -> None:
    """Each paper that the page names stands in the sources, but for those of the stock parts."""
    stock = {"2204.06125", "2207.12598", "2208.12242"}
    code = "".join(pages.read(file) for file in PACKAGE.rglob("*.py"))
    named = set(
        re.findall(r"arxiv\.org/abs/([\d.]+\d)", pages.read(pages.DOCS / "how-it-works.md"))
    )
    assert named - stock <= set(re.findall(r"\d{4}\.\d{5}", code))


# ---------------------------------------------------------------- moving.md

# What the guide's two scripts take, prior and decoder, as their `parse_args` has it.
SCRIPTS = """
pretrained_decoder_model_name_or_path pretrained_prior_model_name_or_path dataset_name
dataset_config_name train_data_dir image_column caption_column max_train_samples validation_prompts
output_dir cache_dir seed resolution train_batch_size num_train_epochs max_train_steps
gradient_accumulation_steps gradient_checkpointing learning_rate lr_scheduler lr_warmup_steps
snr_gamma use_8bit_adam allow_tf32 use_ema dataloader_num_workers adam_beta1 adam_beta2
adam_weight_decay adam_epsilon max_grad_norm push_to_hub hub_token hub_model_id logging_dir
mixed_precision report_to local_rank checkpointing_steps checkpoints_total_limit
resume_from_checkpoint enable_xformers_memory_efficient_attention validation_epochs
tracker_project_name
""".split()
LORA_SCRIPTS = ["rank", "validation_prompt", "num_validation_images"]


def _rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the table below the heading with that anchor."""
    text = re.split(r"^#+ ", pages.prose(page), flags=re.M)[pages.slugs(page).index(heading) + 1]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("folder", [pages.DOCS, pages.ARABIC], ids=["en", "ar"])
def test_every_flag_of_the_scripts_has_a_row(folder: Path) -> None:
    page = folder / "moving.md"
    assert [row[0] for row in _rows(page, "flag-by-flag")] == [f"`--{name}`" for name in SCRIPTS]
    assert [row[0] for row in _rows(page, "the-lora-scripts")] == [
        f"`--{name}`" for name in LORA_SCRIPTS
    ]


@pytest.mark.parametrize("folder", [pages.DOCS, pages.ARABIC], ids=["en", "ar"])
def test_what_stands_for_it_exists_and_has_that_default(folder: Path) -> None:
    """A default in the table is the config's, of the network that has the flag."""
    configs = PriorConfig(train_data_dir="tests"), DecoderConfig(train_data_dir="tests")
    fields = vars(configs[1]) | vars(configs[0])
    for _, ours, default, _ in _rows(folder / "moving.md", "flag-by-flag"):
        name = ours.strip("`").removeprefix("--")
        assert name in fields, ours
        value = None if name == "train_data_dir" else fields[name]
        plain = "" if value is None or value is False or value == () else value
        assert default.strip("`") == (f"{plain:g}" if isinstance(plain, float) else str(plain)), (
            name
        )


def test_the_guides_commands_use_nothing_else() -> None:
    import test_guide_commands

    for command in test_guide_commands.COMMANDS.values():
        for flag in re.findall(r"--(\w+)=?", command):
            assert flag in SCRIPTS, flag
