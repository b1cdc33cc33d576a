"""The one exception that becomes one line and exit code 2 instead of a stack trace."""

import errno
import os
import re
from typing import Any

SHOWN = 10  # how many offenders a message lists before it counts the rest
# What a token of the hub looks like, and which variables hold a secret: of the hub, of trackers, of
# the stores that shards come from.
TOKEN = re.compile(r"(hf_|api_org_)[A-Za-z0-9]{16,}")
VARIABLES = re.compile(r"(TOKEN|API_KEY|SECRET|SECRET_ACCESS_KEY|PASSWORD)$")
# Of the CPU's allocator and of memory maps, of CUDA and Metal, of the libraries above them.
FULL_MEMORY = ("DefaultCPUAllocator", "annot allocate memory", "out of memory", "_ALLOC_FAILED")
LEAST = 8  # letters of a variable's value; a shorter one would be found in other words
# The end of a scheme, the user part, host and path, then query and fragment with what closes them.
# A password that is not encoded may hold "/", "?" and "#": the part after a colon that is no port.
ADDRESS = re.compile(
    r"://(?:[^\s/]{0,2000}@|[^\s/:]{0,2000}:\d*[^\s/\d]\S{0,2000}@)?"
    r"((?:(?!://)[^\s?#])*)(?:[?#]\S*?(?=['\"`:;,.)\]}]{0,8}(?:\s|$)))?"
)


class UserError(Exception):
    """Something the user can mend; the message names the file or flag, and the remedy.

    Secrets in it are masked: many a message repeats what was typed.
    """

    def __init__(self, message: str):
        super().__init__(masked(message))


class Stopped(BaseException):
    """A run that was told to stop, and did; the message says what is kept, `code` is for the shell:
    128 and the signal's number.

    Like KeyboardInterrupt it may come in the middle of anything: no `except Exception` is meant.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: a GPU's, or this machine's own.

    Told without torch, whose error is a RuntimeError of a name of its own.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    known = isinstance(error, (RuntimeError, OSError))
    return known and any(words in str(error) for words in FULL_MEMORY)


def masked(text: str, *secrets: str | None) -> str:
    """A text without these secrets, without the environment's, and without what looks like one:
    tokens, and the user, query and fragment of each address, which may let others in.
    """
    held = [value for name, value in os.environ.items() if VARIABLES.search(name)]
    for secret in [*filter(None, secrets), *(value for value in held if len(value) >= LEAST)]:
        text = text.replace(secret, "***")
    return ADDRESS.sub(r"://\1", TOKEN.sub(r"\1***", text))


def without_secrets(value: Any) -> Any:
    """A plain value of lists, tables and texts, each text as `masked` gives it back."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, (list, tuple)):
        return type(value)(without_secrets(one) for one in value)
    if isinstance(value, dict):
        return {masked(str(key)): without_secrets(one) for key, one in value.items()}
    return value


def printable(text: str) -> str:
    """A text on one line: line breaks, terminal codes and what else does not show, as escapes.

    A file name or a caption may hold any of them.
    """
    return "".join(c if c.isprintable() or c == "\u200c" else f"\\x{ord(c):02x}" for c in text)


def did_you_mean(name: str, known: list[str], mark: str = "") -> str:
    """The nearest known name as a hint ("; perhaps you meant ..."), or an empty string.

    `mark` is what names are written with, as the hyphens of a flag.
    """
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; perhaps you meant {mark + near[0]!r}" if near else ""


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
