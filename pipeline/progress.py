"""How a running job tells how far it is, and how it is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .errors import Cancelled

Phase = Literal["decode", "encode", "sample", "decode_latents", "write"]


@dataclass(frozen=True)
class Progress:
    """Where a job stands."""

    phase: Phase
    fraction: float
    """Of the whole job's expected time, 0 to 1, never falling."""
    message: str
    """What is being done, for a person: "sampling step 3 of 25"."""
    preview: Tensor | None = None
    """While sampling, after each step: the denoised latents so far, [frames, 4, height / 8, width /
    8], float32, on the CPU, scaled as the UNet sees them."""


ReportProgress = Callable[[Progress], None]
# Asked between passes of the networks: True stops the job with `Cancelled`. It may also raise.
IsCancelled = Callable[[], bool]


def never() -> bool:
    """The cancel callback of a job that nobody will cancel."""
    return False


def silent(_progress: Progress) -> None:
    """The progress callback of a job that nobody watches."""


def stop_if(is_cancelled: IsCancelled) -> None:
    """Raise Cancelled if the job's cancel callback says so."""
    if is_cancelled():
        raise Cancelled("The job was cancelled.")
