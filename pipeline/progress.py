"""Progress reports of a running job, and the check that stops it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from .errors import Cancelled

if TYPE_CHECKING:
    from torch import Tensor

Phase = Literal["decode", "encode", "sample", "decode_latents", "write"]


@dataclass(frozen=True)
class Progress:
    """A report of a job's progress."""

    phase: Phase
    fraction: float
    """Of the whole job's expected time, 0 to 1, never falling."""
    message: str
    """The current activity in words: "sampling step 3 of 25"."""
    preview: Tensor | None = None
    """While sampling, after each step: the denoised latents so far, [frames, 4, height / 8, width /
    8], float32, scaled as the UNet sees them. They may lie on the UNet's device."""
    is_warning: bool = False
    """True when the message is a warning, which is logged as well."""


class PhaseScale:
    """A scale from 0 to 1 for all phases of a job.

    A phase's share is proportional to its arithmetic per frame, in TFLOP at 512x512: encoding 1.1,
    a pass of the UNet with motion modules 1.1, decoding 2.5.
    """

    def __init__(self, *, passes: int) -> None:
        """Set the scale for a number of passes of each frame through the UNet."""
        encoded, sampled = 1.1, 1.1 + 1.1 * passes
        whole = sampled + 2.5
        self._spans: dict[Phase, tuple[float, float]] = {
            "decode": (0.0, 0.0),
            "encode": (0.0, encoded / whole),
            "sample": (encoded / whole, sampled / whole),
            "decode_latents": (sampled / whole, 1.0),
            "write": (1.0, 1.0),
        }

    def at(self, phase: Phase, share: float) -> float:
        """Return the position on the scale when `share`, 0..1, of a phase is done."""
        start, end = self._spans[phase]
        return start + share * (end - start)


ReportProgress = Callable[[Progress], None]
# Asked between passes of the networks: True stops the job with `Cancelled`. It may also raise.
IsCancelled = Callable[[], bool]


def never() -> bool:
    """Return False: the default callback, of a job that is not cancelled."""
    return False


def silent(_progress: Progress) -> None:
    """Do nothing: the default callback, for progress that is not shown."""


def numbered(progress: ReportProgress, part: str, number: int, count: int) -> ReportProgress:
    """Return a callback that names the part of the job: "sampling step 3 of 25, pass 2 of 2".

    Args:
        progress: Receives the reports. Those with a warning or without a message stay as they are.
        part: What is repeated, such as "pass".
        number: Which one it is, from 1.
        count: How many there are.
    """

    def report(step: Progress) -> None:
        if step.message and not step.is_warning:
            step = replace(step, message=f"{step.message}, {part} {number} of {count}")
        progress(step)

    return report


def stop_if(is_cancelled: IsCancelled) -> None:
    """Raise Cancelled if the job's cancel callback returns True."""
    if is_cancelled():
        raise Cancelled("The job was cancelled.")
