r"""Weights in a prompt: `(more of this:1.3)`, `(this)`, `((and this))`.

The grammar is ComfyUI's: round brackets multiply by 1.1, a number after the last colon replaces the
weight, `\(` and `\)` are brackets in the text, and square brackets have no meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import AnimateDiffV2VError
from ..ranges import PROMPT_WEIGHT

BRACKET_WEIGHT = 1.1
# Private-use characters that replace escaped brackets while the text is parsed.
_ESCAPED = {"\\(": "\ue000", "\\)": "\ue001"}


@dataclass(frozen=True)
class WeightedText:
    """A part of a prompt and its weight; 1 is neutral."""

    text: str
    weight: float


def parse_weights(prompt: str) -> list[WeightedText]:
    """Split a prompt at its brackets.

    >>> parse_weights("a (red:1.2) fox")
    [WeightedText(text='a ', weight=1.0), WeightedText(text='red', weight=1.2),
     WeightedText(text=' fox', weight=1.0)]
    """
    for escape, stand_in in _ESCAPED.items():
        prompt = prompt.replace(escape, stand_in)
    return [WeightedText(_unescape(text), weight) for text, weight in _parse(prompt, 1.0)]


def check_prompt(prompt: str, *, name: str = "prompt") -> None:
    """Check that the weights in `prompt` are valid numbers.

    Args:
        prompt: the prompt.
        name: its name, for error messages.

    Raises:
        AnimateDiffV2VError: if a weight is not finite or out of range.
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
    """Split `prompt` in one pass: parts are pairs of indices, and none is read twice."""
    brackets = _Brackets(prompt)
    parts: list[tuple[str, float]] = []
    # Innermost brackets last. A stack instead of recursion, since nesting can be arbitrarily deep.
    waiting = [(0, len(prompt), weight)]
    while waiting:
        start, end, weight = waiting.pop()
        opened = brackets.next_opened[start]
        if opened >= end:
            if start < end:
                parts.append((prompt[start:end], weight))
            continue
        if start < opened:
            parts.append((prompt[start:opened], weight))
        piece_end = min(brackets.closed[opened] + 1, end)
        waiting.append((piece_end, end, weight))
        if piece_end - opened >= 2 and prompt[piece_end - 1] == ")":
            inner_end, inner_weight = brackets.weigh(opened + 1, piece_end - 1, weight)
            waiting.append((opened + 1, inner_end, inner_weight))
        else:
            parts.append((prompt[opened:piece_end], weight))
    return parts


class _Brackets:
    """The positions of the brackets of a text; the text's length means that there is none.

    Attributes:
        next_opened: for each index, the next "(" that is in no other bracket opened since that
            index. In "a(b(c))(d" it is 1 for index 0, 3 for index 2, and 7 for index 7.
        closed: for each "(", the ")" that closes it.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self.closed = [len(text)] * len(text)
        opened: list[int] = []
        depth, depths = 0, []
        self._last_bracket, self._last_colon = [-1], [-1]  # before each index
        for index, character in enumerate(text):
            depths.append(depth)
            if character == "(":
                opened.append(index)
                depth += 1
            elif character == ")":
                if opened:
                    self.closed[opened.pop()] = index
                depth -= 1
            self._last_bracket.append(index if character in "()" else self._last_bracket[-1])
            self._last_colon.append(index if character == ":" else self._last_colon[-1])
        self.next_opened = [len(text)] * (len(text) + 1)
        next_at_depth: dict[int, int] = {}
        for index in reversed(range(len(text))):
            if text[index] == "(":
                next_at_depth[depths[index]] = index
            self.next_opened[index] = next_at_depth.get(depths[index], len(text))

    def weigh(self, start: int, end: int, outer_weight: float) -> tuple[int, float]:
        """Return the end of the text between brackets at `start` to `end`, and its weight."""
        colon = self._last_colon[end]
        if colon > start and self._last_bracket[end] < colon:
            try:
                return colon, float(self._text[colon + 1 : end])
            except ValueError:
                pass  # the colon belongs to the text
        return end, outer_weight * BRACKET_WEIGHT
