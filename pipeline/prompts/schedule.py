"""Prompts that change along a clip, as text: a line for each keyframe, `frame: prompt`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import AnimateDiffV2VError

if TYPE_CHECKING:
    from torch import Tensor

    from .track import PromptTrack

_LINE = re.compile(r"""^\s*["']?(\d{1,9})["']?\s*:\s*(.*?)\s*$""", re.DOTALL)


def parse_schedule(
    text: str, *, kind: str = "prompt", example: str = "24: a fox in winter"
) -> dict[int, str]:
    """Read keyframes, in rising order of their frames.

    >>> parse_schedule("0: a fox in spring\\n24: a fox in winter")
    {0: 'a fox in spring', 24: 'a fox in winter'}

    Quotes around frame and prompt and a comma at the end are as welcome as none, since schedules
    are passed around in that form.

    kind, example: what a keyframe holds, and a line, for the sentences of errors.
    Raises AnimateDiffV2VError naming the line that is no keyframe.
    """
    keyframes: dict[int, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.match(line)
        if match is None:
            raise AnimateDiffV2VError(
                f"Line {number} of the {kind} schedule is {line.strip()!r}; "
                f"write `frame: {kind}`, for example `{example}`."
            )
        frame = int(match[1])
        if frame in keyframes:
            raise AnimateDiffV2VError(
                f"Line {number} of the {kind} schedule names frame {frame} a second time."
            )
        keyframes[frame] = _unquoted(match[2])
    if not keyframes:
        raise AnimateDiffV2VError(
            f"The {kind} schedule is empty; write lines of `frame: {kind}`, the first for frame 0."
        )
    return dict(sorted(keyframes.items()))


def _unquoted(prompt: str) -> str:
    quoted = re.fullmatch(r"""(["'])(.*)\1\s*,?""", prompt, re.DOTALL)
    return quoted[2] if quoted else prompt


def encode_schedule(keyframes: dict[int, str], encode: Callable[[str], Tensor]) -> PromptTrack:
    """Encode each keyframe's prompt with a text encoder's `encode`, aligned to one length."""
    import torch  # noqa: PLC0415 - keyframes as text need none

    from .track import PromptTrack  # noqa: PLC0415

    encoded = [encode(prompt) for prompt in keyframes.values()]
    tokens = math.lcm(*(encoding.shape[1] for encoding in encoded))
    aligned = [encoding.repeat(1, tokens // encoding.shape[1], 1) for encoding in encoded]
    return PromptTrack(torch.cat(aligned), tuple(keyframes))
