"""Values of the command's options that carry more than one thing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from .errors import AnimateDiffV2VError
from .files import LoraEntry, find_lora
from .request import ControlFile
from .sampling import Span
from .video import Preprocessor


def lora_entry(text: str) -> LoraEntry:
    """Read FILE[:SCALE], the file being a path, an address or a name that is already here.

    Raises AnimateDiffV2VError when there is no such file; says what would fetch it.
    """
    reference, scale = split_scale(text)
    path = find_lora(reference, folders=())
    return LoraEntry(path, model_strength=scale, clip_strength=scale)


def split_scale(text: str) -> tuple[str, float]:
    """Read FILE[:SCALE]; a colon within a path or an address, as in C:\\loras, is none."""
    reference, scale = _split_number(text)
    return reference, 1.0 if scale is None else scale


def _split_number(text: str) -> tuple[str, float | None]:
    reference, colon, number = text.rpartition(":")
    if colon and reference:
        try:
            return reference, float(number)
        except ValueError:
            return text, None
    return text, None


def interval(text: str) -> tuple[float, float]:
    """Read START:END.

    Raises AnimateDiffV2VError when it is no such thing.
    """
    start, colon, end = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(start), float(end)
    except ValueError:
        raise AnimateDiffV2VError(
            f"--guidance-interval is {text!r}; it must be two shares of the noise schedule, for "
            "example 0:0.8."
        ) from None


def control_files(controls: Sequence[str], sources: Sequence[str]) -> tuple[ControlFile, ...]:
    """Read the values of --control, FILE[:STRENGTH[:START[:END]]], and of --control-source.

    Raises AnimateDiffV2VError when their numbers do not match, or a value is out of range.
    """
    if len(sources) < 2:
        sources = [*(sources or ["canny"])] * len(controls)
    if len(sources) != len(controls):
        raise AnimateDiffV2VError(
            f"--control-source is given {len(sources)} times and --control {len(controls)} times; "
            "give one source for all ControlNets, or one for each."
        )
    return tuple(map(_control_file, controls, sources))


def _control_file(text: str, source: str) -> ControlFile:
    reference = text
    numbers: list[float] = []
    while len(numbers) < 3:
        shorter, number = _split_number(reference)
        if number is None:
            break
        reference, numbers = shorter, [number, *numbers]
    strength, start, end = numbers + [1.0, 0.0, 1.0][len(numbers) :]
    return ControlFile(
        network=Path(reference),
        source=cast(Preprocessor, source) if source in get_args(Preprocessor) else Path(source),
        strength=strength,
        span=Span(start, end),
    )
