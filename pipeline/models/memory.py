"""What to do when a device's memory runs out: less at a time, and say so once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import AnimateDiffV2VError

logger = logging.getLogger(__name__)

Row = TypeVar("Row")


class ShrinkingBatch:
    """Runs work in parts that are as large as the device's memory allows.

    A part that does not fit is halved and tried again, and everything after it stays that small.
    """

    def __init__(self, size: int, *, what: str) -> None:
        """Begin with parts of `size` rows.

        what: the rows by name, for the log: "frames of the VAE".
        """
        self._size = size
        self._what = what

    def run(self, run: Callable[[Sequence[Row]], Tensor], rows: Sequence[Row]) -> Iterator[Tensor]:
        """Give `run(part)` for consecutive parts of `rows`.

        Raises AnimateDiffV2VError when a single row does not fit.
        """
        start = 0
        while start < len(rows):
            part = rows[start : start + self._size]
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
