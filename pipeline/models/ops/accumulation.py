"""Matrix products of float16 that sum up in float16: faster on consumer cards, less exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fp16_accumulation(*, on: bool = True) -> Iterator[bool]:
    """Let matrix products of float16 on NVIDIA cards sum up in float16 while the context is open.

    What a host has switched on, as ComfyUI does with `--fast`, stays on.

    Args:
        on: False changes nothing.

    Yields:
        True if sums are in float16; False with a PyTorch before 2.7, which cannot do it.
    """
    products = torch.backends.cuda.matmul
    if not hasattr(products, "allow_fp16_accumulation"):
        yield False
        return
    before: bool = products.allow_fp16_accumulation
    products.allow_fp16_accumulation = on or before
    try:
        yield on or before
    finally:
        products.allow_fp16_accumulation = before
