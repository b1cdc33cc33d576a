"""The one exception that becomes one line and exit code 2 instead of a stack trace."""

SHOWN = 10  # how many offenders a message lists before it counts the rest


class UserError(Exception):
    """Something the user can mend; the message names the file or flag, and the remedy."""


class Stopped(BaseException):
    """A run that was told to stop, and did; the message says what is kept, `code` is for the shell:
    128 and the signal's number.

    Like KeyboardInterrupt it may come in the middle of anything: no `except Exception` is meant.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


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
