"""What argparse finds wrong, as sentences that say what would do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Sequence

_NUMBERS = {"int": "a whole number", "float": "a number"}
_SENTENCES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), worded)
    for pattern, worded in (
        (
            r"argument (.+?): invalid (int|float) value: (.*)",
            lambda found: f"{found[1]} is {found[3]}; it must be {_NUMBERS[found[2]]}.",
        ),
        (
            r"argument (.+?): invalid choice: (.*) \(choose from (.*)\)",
            lambda found: f"{found[1]} is {found[2]}; it can be {_unquoted(found[3])}.",
        ),
        (
            r"argument (.+?): expected (?:one|at least one) argument",
            lambda found: f"{found[1]} has no value; give one behind it.",
        ),
        (
            r"argument (.+?): ignored explicit argument (.*)",
            lambda found: f"{found[1]} takes no value, but is given {found[2]}; leave that out.",
        ),
        (
            r"ambiguous option: (.+?) could match (.*)",
            lambda found: f"{found[1]} could be {found[2]}; write the option out.",
        ),
        (
            r"the following arguments are required: (.*)",
            lambda found: f"{found[1]} must be given.",
        ),
    )
)


def in_a_sentence(message: str) -> str:
    """Word a message of argparse as a sentence; one that is not known stays as it is."""
    for pattern, worded in _SENTENCES:
        found = pattern.fullmatch(message)
        if found:
            return worded(found)
    return message if message.endswith(".") else f"{message}."


def unknown_arguments(given: Sequence[str], *, options: Collection[str]) -> str:
    """Say what is no option, and which one it may have been meant to be."""
    names = [each.partition("=")[0] for each in given if each.startswith("-")]
    if not names:
        return f"{' '.join(map(repr, given))} is too much; put quotes around a text with spaces."
    near = difflib.get_close_matches(names[0], options, n=1)
    return f"There is no option {names[0]}" + (f"; {near[0]} is one." if near else ".")


def _unquoted(choices: str) -> str:
    return choices.replace("'", "")
