"""Weights in a prompt: `(more of this:1.3)`, `(this)`, `((and this))`.

The grammar is ComfyUI's: round brackets multiply by 1.1, a number after the last colon replaces the
weight, `\\(` and `\\)` are brackets in the text, and square brackets have no meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import AnimateDiffV2VError
from ..ranges import PROMPT_WEIGHT

BRACKET_WEIGHT = 1.1
# Private-use characters that stand for escaped brackets while the text is taken apart.
_ESCAPED = {"\\(": "\ue000", "\\)": "\ue001"}


@dataclass(frozen=True)
class WeightedText:
    """A stretch of a prompt and how strongly it counts; 1 is neutral."""

    text: str
    weight: float


def parse_weights(prompt: str) -> list[WeightedText]:
    """Take a prompt apart at its brackets.

    >>> parse_weights("a (red:1.2) fox")
    [WeightedText(text='a ', weight=1.0), WeightedText(text='red', weight=1.2),
     WeightedText(text=' fox', weight=1.0)]
    """
    for escape, stand_in in _ESCAPED.items():
        prompt = prompt.replace(escape, stand_in)
    return [WeightedText(_unescape(text), weight) for text, weight in _parse(prompt, 1.0)]


def check_prompt(prompt: str, *, name: str = "prompt") -> None:
    """Raise AnimateDiffV2VError if a weight in `prompt` is no number that a prompt can have.

    name: of the prompt, for the sentence.
    """
    for part in parse_weights(prompt):
        if not PROMPT_WEIGHT.low <= part.weight <= PROMPT_WEIGHT.high:
            raise AnimateDiffV2VError(
                f"{name}: the weight of {part.text.strip()!r} is {part.weight:g}; it must be from "
                f"{PROMPT_WEIGHT.low:g} to {PROMPT_WEIGHT.high:g}, 1.2 is usual. Where brackets "
                "are part of the text, write \\( and \\)."
            )


def _unescape(text: str) -> str:
    for escape, stand_in in _ESCAPED.items():
        text = text.replace(stand_in, escape[1])
    return text


def _parse(prompt: str, weight: float) -> list[tuple[str, float]]:
    parts: list[tuple[str, float]] = []
    # Innermost brackets last: a stack rather than recursion, since prompts can be any text.
    waiting = [(piece, weight) for piece in reversed(_split_at_brackets(prompt))]
    while waiting:
        piece, weight = waiting.pop()
        if len(piece) >= 2 and piece[0] == "(" and piece[-1] == ")":
            inner, inner_weight = _weight_of(piece[1:-1], weight)
            waiting += [(part, inner_weight) for part in reversed(_split_at_brackets(inner))]
        else:
            parts.append((piece, weight))
    return parts


def _weight_of(inner: str, outer_weight: float) -> tuple[str, float]:
    text, _, number = inner.rpartition(":")
    if text and _is_number(number):
        return text, float(number)
    return inner, outer_weight * BRACKET_WEIGHT


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _split_at_brackets(text: str) -> list[str]:
    """Split into outermost bracketed pieces, brackets kept, and what stands between them."""
    pieces: list[str] = []
    current, depth = "", 0
    for character in text:
        if character == "(" and depth == 0:
            pieces.append(current)
            current = ""
        depth += {"(": 1, ")": -1}.get(character, 0)
        current += character
        if character == ")" and depth == 0:
            pieces.append(current)
            current = ""
    return [piece for piece in [*pieces, current] if piece]
