"""The frames that a keyframe of a schedule names: `12`, `-1`, `0.5`, `0-8`, `0:12`, `max_f/2`.

The forms are those of AnimateDiff-Evolved's Prompt Scheduling and of FizzNodes.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

INDEX = r"-?\d{1,9}(?:\.\d{1,9})?"
EXPRESSION = r"[-+*/().\d ]{0,40}?\bmax(?:_f|_frames)?\b[-+*/().\d ]{0,40}"
LONGEST = 100
"""Characters of a frame; Python's parser runs out of memory with thousands of signs."""
_DASHED = re.compile(r"(\d{1,9})\s*[-–—]\s*(\d{1,9})")
_COLON = re.compile(rf"({INDEX})\s*[:：]\s*({INDEX})?")
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True)
class FrameIndex:
    """One frame, as written in a schedule."""

    text: str

    @property
    def is_relative(self) -> bool:
        """True if it depends on the number of frames."""
        return not self.text.isdecimal()

    def frame(self, num_frames: int) -> int:
        """Return the index of the frame, 0 or more, in a video of `num_frames`.

        -1 is the last frame; 0.5 halfway, 1.0 the last; max_f (also max_frames, max) the number of
        frames.

        Raises:
            ValueError: for anything else, and for frames before the first.
        """
        if self.text.isdecimal():
            return int(self.text)
        if re.fullmatch(r"-\d+", self.text):
            return max(0, num_frames + int(self.text))
        if re.fullmatch(r"\d+\.\d+", self.text):
            return _of_share(float(self.text), num_frames)
        frame = int(_value(ast.parse(self.text.strip(), mode="eval").body, num_frames))
        if frame < 0:
            raise ValueError(self.text)
        return frame


@dataclass(frozen=True)
class Frames:
    """The frames of one keyframe: from `start` on, up to `end` if `holds`."""

    start: FrameIndex
    end: FrameIndex | None = None
    includes_end: bool = False
    holds: bool = False
    """True if the prompt stays the same until `end`, or until the next keyframe."""

    @property
    def is_relative(self) -> bool:
        """True if they depend on the number of frames."""
        return self.start.is_relative or (self.end is not None and self.end.is_relative)


def parse_frames(text: str) -> Frames | None:
    """Parse the text before the prompt; return None if it names no frames.

    `0-8` holds frames 0 to 8; `0:12` holds 0 to 11 and `16:` from 16 to the next keyframe, as in
    AnimateDiff-Evolved.
    """
    text = text.strip()
    if len(text) > LONGEST:
        return None
    if match := _DASHED.fullmatch(text):
        frames = Frames(FrameIndex(match[1]), FrameIndex(match[2]), includes_end=True, holds=True)
    elif match := _COLON.fullmatch(text):
        end = FrameIndex(match[2]) if match[2] else None
        frames = Frames(FrameIndex(match[1]), end, holds=True)
    else:
        frames = Frames(FrameIndex(text))
    try:
        for index in filter(None, (frames.start, frames.end)):
            index.frame(100)
    except (ValueError, SyntaxError, ArithmeticError, RecursionError):
        return None
    return frames


def _of_share(share: float, num_frames: int) -> int:
    if share > 1:
        raise ValueError(share)
    return num_frames - 1 if share == 1 else int(share * num_frames)


def _value(node: ast.expr, num_frames: int) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id="max_f" | "max_frames" | "max"):
            return num_frames
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, num_frames)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            result: float = _OPERATORS[type(op)](
                _value(left, num_frames), _value(right, num_frames)
            )
            return result
    raise ValueError(ast.unparse(node))
