"""The errors of argparse, reworded as sentences that say what is accepted."""

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
            r"argument (.+?): ((?:In the|The) curve .*)",
            lambda found: f"{found[1]}: {found[2]}",
        ),
        (r"argument (.+?): (is .*)", lambda found: f"{found[1]} {found[2]}"),
        (
            r"argument (.+?): invalid choice: (.*) \(choose from (.*)\)",
            lambda found: f"{found[1]} is {found[2]}; it can be {_unquoted(found[3])}.",
        ),
        (
            r"argument (.+?): expected (?:one|at least one) argument",
            lambda found: (
                f"{found[1]} needs a value; give one after it, "
                f"or {found[1]}=VALUE for one that begins with a minus."
            ),
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
    """Return a message of argparse as a sentence; unknown messages stay as they are."""
    for pattern, worded in _SENTENCES:
        found = pattern.fullmatch(message)
        if found:
            return worded(found)
    return message if message.endswith((".", "?")) else f"{message}."


def unknown_arguments(given: Sequence[str], *, options: Collection[str]) -> str:
    """Return the sentence for unknown arguments, with the most similar option."""
    names = [each.partition("=")[0] for each in given if each.startswith("-")]
    if not names:
        return f"Unexpected {' '.join(map(repr, given))}; put quotes around text with spaces."
    near = difflib.get_close_matches(names[0], options, n=1)
    return f"There is no option {names[0]}" + (f"; did you mean {near[0]}?" if near else ".")


def _unquoted(choices: str) -> str:
    return choices.replace("'", "")
