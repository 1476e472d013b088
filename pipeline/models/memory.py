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


def in_shrinking_chunks(
    run: Callable[[Sequence[Row]], Tensor], rows: Sequence[Row], *, size: int, what: str
) -> Iterator[Tensor]:
    """Give `run(part)` for consecutive parts of `rows`, at most `size` rows each.

    When a part does not fit into the device's memory it is halved and tried again, and later parts
    stay that small. Raises AnimateDiffV2VError when a single row does not fit.

    what: the rows by name, for the log.
    """
    start = 0
    while start < len(rows):
        part = rows[start : start + size]
        try:
            result = run(part)
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise AnimateDiffV2VError(
                    f"The device has too little memory for one of the {what}: use a smaller width "
                    "and height or a shorter context window, or free memory."
                ) from error
            size = max(1, min(size, len(part)) // 2)
            logger.warning("The device's memory ran out: going on with %d %s a time.", size, what)
        else:
            start += len(part)
            yield result
            continue
        # Outside of the except block, where the failed pass's tensors are no longer referenced.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
