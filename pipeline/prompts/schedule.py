"""Prompts that change over the frames, as text: a prompt for each keyframe."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from ..errors import AnimateDiffV2VError
from .schedule_text import Entry, ScheduleReader
from .weights import check_prompt

if TYPE_CHECKING:
    from torch import Tensor

    from .track import PromptTrack

# Later than any frame.
BEYOND = 10**10
_EXAMPLE = "24: a fox in winter"


@dataclass(frozen=True)
class PromptSchedule:
    """The text of a schedule, which is parsed when the number of frames is known.

    Attributes:
        text: the keyframes; see parse_schedule.
        pre_text: put before every prompt with a space between, as in FizzNodes.
        app_text: put after every prompt with a space between.
    """

    text: str
    pre_text: str = ""
    app_text: str = ""

    def __post_init__(self) -> None:
        """Check the syntax; raise AnimateDiffV2VError, quoting the line, if it is wrong."""
        for name, text in (("pre_text", self.pre_text), ("app_text", self.app_text)):
            _check_value(text, where=name)
        _read(self.text, kind="prompt", example=_EXAMPLE)

    def keyframes(self, num_frames: int) -> dict[int, str]:
        """Return the complete prompt of each keyframe, in ascending order of frames."""
        prompts = parse_schedule(self.text, num_frames=num_frames)
        return {
            frame: _joined(" ", (self.pre_text, prompt, self.app_text))
            for frame, prompt in prompts.items()
        }


def parse_schedule(
    text: str, *, num_frames: int | None = None, kind: str = "prompt", example: str = _EXAMPLE
) -> dict[int, str]:
    r"""Parse keyframes, in ascending order of their frames.

    >>> parse_schedule("0: a fox in spring\n24: a fox in winter")
    {0: 'a fox in spring', 24: 'a fox in winter'}

    This accepts the formats of FizzNodes, AnimateDiff-Evolved and Automatic1111's extension: JSON
    with or without its brackets, `frame = "prompt"`, one line for each keyframe with or without
    quotes; commas at the ends, and `//` and `#` comments; prompts of several lines in quotes; lines
    without a frame before the first and after the last keyframe, which are joined to every prompt
    by commas. For frames, see frame_index.

    Args:
        text: the schedule.
        num_frames: of the video, for frames that are relative to it.
        kind: the kind of value of a keyframe, for error messages.
        example: an example of a line, for error messages.

    Raises:
        AnimateDiffV2VError: quotes the line that cannot be parsed.
    """
    entries = _read(text, kind=kind, example=example)
    if num_frames is None:
        relative = next((entry for entry in entries if entry.frames.is_relative), None)
        if relative is not None:
            raise AnimateDiffV2VError(
                f"Line {relative.line} of the {kind} schedule names a frame relative to the length "
                "of the video, which is not known here: use frame numbers."
            )
    keyframes = _keyframes(entries, num_frames or 1, kind)
    return dict(sorted(keyframes.items()))


def _read(text: str, *, kind: str, example: str) -> list[Entry]:
    found = ScheduleReader(text, kind=kind, example=example).read()
    if not found.entries:
        line = next(iter(found.head), "")
        begin = f"The {kind} schedule is empty"
        if line:
            begin = f"Line 1 of the {kind} schedule is {line!r}, and no line names a frame"
        raise AnimateDiffV2VError(
            f"{begin}; write `frame: {kind}`, for example `{example}`, the first for frame 0."
        )
    head, tail = ", ".join(found.head), ", ".join(found.tail)
    entries = []
    for entry in found.entries:
        value = entry.value
        if kind == "prompt":
            value = _joined(", ", (head, value, tail)) if head or tail else value
            _check_value(value, where=f"Line {entry.line} of the prompt schedule")
        entries.append(Entry(entry.frames, value, entry.line))
    return entries


def _joined(by: str, parts: Iterable[str]) -> str:
    stripped = (part.strip().strip(",").strip() if by != " " else part.strip() for part in parts)
    return by.join(part for part in stripped if part)


def _check_value(value: str, *, where: str) -> None:
    if "--neg" in value:
        raise AnimateDiffV2VError(
            f"{where} holds --neg, which this node does not take: write what the video should not "
            "show into the sampler's negative prompt."
        )
    if re.search(r"`[^`]*`", value):
        raise AnimateDiffV2VError(
            f"{where} holds an expression between backticks, which is not calculated here: write "
            "its values as keyframes, for example `0: (snow:0.5)` and `24: (snow:1.2)`."
        )
    check_prompt(value, name=where)


def _keyframes(entries: list[Entry], num_frames: int, kind: str) -> dict[int, str]:
    """Return the value of each named frame, and of the last frame of each held range."""
    starts: dict[int, Entry] = {}
    for entry in entries:
        start = _frame(entry, num_frames, kind)
        if start in starts:
            raise AnimateDiffV2VError(
                f"Line {entry.line} of the {kind} schedule names frame {start} a second time."
            )
        starts[start] = entry
    ordered = sorted(starts.items())
    keyframes = {start: entry.value for start, entry in ordered}
    for (start, entry), (following, _) in pairwise([*ordered, (BEYOND, ordered[-1][1])]):
        last = _last_held(entry, num_frames)
        if last is not None:
            before_next = min(last, following - 1)
            if start < before_next < BEYOND - 1:
                keyframes[before_next] = entry.value
    return keyframes


def _frame(entry: Entry, num_frames: int, kind: str) -> int:
    try:
        return entry.frames.start.frame(num_frames)
    except (ValueError, ArithmeticError):
        raise AnimateDiffV2VError(
            f"Line {entry.line} of the {kind} schedule names frame {entry.frames.start.text}, "
            f"which a video of {num_frames} frames does not have."
        ) from None


def _last_held(entry: Entry, num_frames: int) -> int | None:
    """Return the last frame up to which a value is held; None if it is not held."""
    frames = entry.frames
    if not frames.holds:
        return None
    if frames.end is None:
        return BEYOND
    return frames.end.frame(num_frames) - (0 if frames.includes_end else 1)


def encode_schedule(keyframes: dict[int, str], encode: Callable[[str], Tensor]) -> PromptTrack:
    """Encode each keyframe's prompt with a text encoder's `encode`, aligned to one length."""
    import torch  # noqa: PLC0415 - not needed for keyframes as text

    from .track import PromptTrack  # noqa: PLC0415

    encoded = [encode(prompt) for prompt in keyframes.values()]
    tokens = math.lcm(*(encoding.shape[1] for encoding in encoded))
    aligned = [encoding.repeat(1, tokens // encoding.shape[1], 1) for encoding in encoded]
    return PromptTrack(torch.cat(aligned), tuple(keyframes))
