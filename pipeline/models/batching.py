"""Sizes of the chunks that go through the networks, and smaller ones when memory runs out."""

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

# Passes of the UNet on an accelerator: a window with the prompt and with the negative one.
PASSES_AT_ONCE = 2
# Latent pixels of a window up to which a CPU takes both prompts in one pass. Each pass casts and
# packs all weights, which takes as long as computing a fifth of this many pixels; larger ones gain
# nothing from one pass.
SMALL_PASS = 8 * 32 * 32
# Tokens that go through a transformer at a time on a CPU. Intermediate tensors then fit the caches,
# and stay below the 32 MiB from which malloc maps fresh memory for each one.
TOKENS_AT_ONCE = 2048


@dataclass(frozen=True)
class MemoryBound:
    """The device that a job's networks compute on, and a limit on its memory."""

    device: torch.device
    max_bytes: int


@dataclass(frozen=True)
class ChunkSizes:
    """Sizes of the chunks that go through the UNet; results differ by rounding only."""

    passes: int
    """Passes at a time: a window with one of the prompts each."""
    tokens: int | None
    """Tokens in a transformer at a time, but at least one whole frame in spatial and one pixel of
    all frames in temporal ones; None is all."""

    @staticmethod
    def default(device: torch.device, *, pixels: int) -> ChunkSizes:
        """Return the fastest sizes for a device.

        Args:
            device: The device of the UNet.
            pixels: Latent pixels of a window, over all its frames.
        """
        together = device.type != "cpu" or pixels <= SMALL_PASS
        return ChunkSizes(
            passes=PASSES_AT_ONCE if together else 1, tokens=default_chunk_tokens(device)
        )


def default_chunk_tokens(device: torch.device) -> int | None:
    """Return the fastest number of tokens to put through a transformer at a time; None is all."""
    return TOKENS_AT_ONCE if device.type == "cpu" else None


class ShrinkingBatch:
    """Runs work in parts as large as the device's memory allows.

    A part that does not fit is halved and tried again, and all later parts stay that small.
    """

    def __init__(self, what: str) -> None:
        """Start with parts of the requested size.

        Args:
            what: The rows by name, for the log: "frames of the VAE".
        """
        self._size: int | None = None
        self._what = what

    def run(
        self,
        run: Callable[[Sequence[Row]], Tensor],
        rows: Sequence[Row],
        at_most: int,
    ) -> Iterator[Tensor]:
        """Yield `run(part)` for consecutive parts of `rows`.

        Args:
            run: Computes the result of some of the rows.
            rows: All rows.
            at_most: Rows of a part; fewer if that many did not fit before.

        Raises:
            AnimateDiffV2VError: a single row does not fit.
        """
        start = 0
        while start < len(rows):
            part = rows[start : start + min(at_most, self._size or at_most)]
            result = self._attempt(run, part)
            if result is not None:
                start += len(part)
                yield result
            elif torch.cuda.is_available():
                # Not in _attempt, where the exception still holds the tensors of the failed pass.
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
                "The device's memory ran out: continuing with %d %s at a time.",
                self._size, self._what,
            )  # fmt: skip
            return None
