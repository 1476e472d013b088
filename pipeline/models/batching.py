"""How much goes through the networks at a time, and less when a device's memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import AnimateDiffV2VError

logger = logging.getLogger(__name__)

Row = TypeVar("Row")

# Passes of the UNet on an accelerator: a window with and without the prompt.
PASSES_AT_ONCE = 2
# Latent pixels of a window. On a CPU each pass casts and packs all weights, which takes as long as
# a fifth of so many pixels do: up to here both prompts go together. Larger passes gain nothing.
SMALL_PASS = 8 * 32 * 32
# Tokens that go through a transformer at a time on a CPU. What is in between then stays in the
# caches, and below the 32 MiB from which malloc takes each tensor anew from the system.
TOKENS_AT_ONCE = 2048


@dataclass(frozen=True)
class MemoryBound:
    """Where a job's networks work, and how much of that device's memory they may take."""

    device: torch.device
    max_bytes: int


@dataclass(frozen=True)
class ChunkSizes:
    """How much goes through the UNet at a time; the result is the same, but for rounding."""

    passes: int
    """Windows, each with one of the prompts."""
    tokens: int | None
    """Pixels of frames in a transformer, at least one frame in those over the pixels of a frame
    and one pixel of all frames in those over time; None is all."""

    @staticmethod
    def default(device: torch.device, *, pixels: int) -> ChunkSizes:
        """What is fast on a device.

        pixels: of a window's latents, over all its frames.
        """
        together = device.type != "cpu" or pixels <= SMALL_PASS
        return ChunkSizes(
            passes=PASSES_AT_ONCE if together else 1, tokens=default_chunk_tokens(device)
        )


def default_chunk_tokens(device: torch.device) -> int | None:
    """How many tokens go through a transformer at a time where that is fast; None is all."""
    return TOKENS_AT_ONCE if device.type == "cpu" else None


class ShrinkingBatch:
    """Runs work in parts that are as large as the device's memory allows.

    A part that does not fit is halved and tried again, and everything after it stays that small.
    """

    def __init__(self, what: str) -> None:
        """Begin with parts as large as is asked for.

        what: the rows by name, for the log: "frames of the VAE".
        """
        self._size: int | None = None
        self._what = what

    def run(
        self,
        run: Callable[[Sequence[Row]], Tensor],
        rows: Sequence[Row],
        at_most: int,
    ) -> Iterator[Tensor]:
        """Give `run(part)` for consecutive parts of `rows`.

        at_most: rows of a part, fewer where so many did not fit before.
        Raises AnimateDiffV2VError when a single row does not fit.
        """
        start = 0
        while start < len(rows):
            part = rows[start : start + min(at_most, self._size or at_most)]
            result = self._attempt(run, part)
            if result is not None:
                start += len(part)
                yield result
            elif torch.cuda.is_available():
                # Here, and not where it failed: there the failed pass's tensors were still held.
                torch.cuda.empty_cache()

    def _attempt(
        self, run: Callable[[Sequence[Row]], Tensor], part: Sequence[Row]
    ) -> Tensor | None:
        try:
            return run(part)
        except torch.OutOfMemoryError as error:
            if len(part) == 1:
                raise AnimateDiffV2VError(
                    f"The device has too little memory for one of the {self._what}: use a smaller "
                    "width and height or a shorter context window, or free memory."
                ) from error
            self._size = len(part) // 2
            logger.warning(
                "The device's memory ran out: going on with %d %s at a time.",
                self._size, self._what,
            )  # fmt: skip
            return None
