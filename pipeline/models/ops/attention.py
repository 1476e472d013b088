"""The fastest attention kernel of an NVIDIA card for each shape, found by a timed trial."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

logger = logging.getLogger(__name__)

# Another kernel than PyTorch's choice must be faster by this factor: noise of the clock would
# otherwise decide, and the same job could give other roundings in the next process.
_WORTHWHILE = 1.1
_ROUNDS = 5
_NAMES = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION")

# False while other threads attend as well.
_MAY_CHOOSE = ContextVar("may_choose", default=True)

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
Shape = tuple[object, ...]


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with the kernel of PyTorch's choice; [rows, heads, tokens, channels]."""
    return functional.scaled_dot_product_attention(query, key, value)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Leave the kernels of this thread to PyTorch: telling it which to use tells all threads."""
    token = _MAY_CHOOSE.set(False)
    try:
        yield
    finally:
        _MAY_CHOOSE.reset(token)


def candidates() -> dict[str, Attention]:
    """Return the kernels that this PyTorch can be told to use, by name."""
    from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: PLC0415 - for NVIDIA cards alone

    def with_backend(backend: Any) -> Attention:
        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return plain(query, key, value)

        return attend

    known = [getattr(SDPBackend, name, None) for name in _NAMES]
    return {
        name: with_backend(backend)
        for name, backend in zip(_NAMES, known, strict=True)
        if backend is not None
    }


class TimedAttention:
    """Attention with the fastest kernel for each shape, which is kept for the whole process."""

    def __init__(
        self,
        kernels: Callable[[], dict[str, Attention]] = candidates,
        seconds: Callable[[Attention, Tensor, Tensor, Tensor], float] | None = None,
    ) -> None:
        """Try nothing yet.

        Args:
            kernels: Returns the kernels to try beside PyTorch's choice.
            seconds: Returns the seconds of a call; None measures them.
        """
        self._kernels, self._seconds = kernels, seconds or seconds_of
        self._fastest: dict[Shape, Attention] = {}
        self._lock = threading.Lock()

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return softmax attention over [rows, heads, tokens, channels]."""
        if not _MAY_CHOOSE.get():
            return plain(query, key, value)
        shape = (query.device, query.dtype, tuple(query.shape), key.shape[-2])
        attend = self._fastest.get(shape)
        if attend is None:
            with self._lock:
                attend = self._fastest.setdefault(shape, self._choose(query, key, value))
        return attend(query, key, value)

    def _choose(self, query: Tensor, key: Tensor, value: Tensor) -> Attention:
        fastest: Attention = plain
        name = "PyTorch's choice"
        least = self._seconds(plain, query, key, value) / _WORTHWHILE
        for each, kernel in self._kernels().items():
            try:
                seconds = self._seconds(kernel, query, key, value)
            except RuntimeError:  # the kernel does not take this card, dtype or size
                continue
            if seconds < least:
                name, fastest, least = each, kernel, seconds
        logger.info("Attention over %s: %s.", list(query.shape), name)
        return fastest


@cache
def attention_on(device_type: str) -> Attention:
    """Return the attention of a type of device: the fastest by trial on NVIDIA cards."""
    return TimedAttention() if device_type == "cuda" and torch.version.hip is None else plain


def seconds_of(attend: Attention, query: Tensor, key: Tensor, value: Tensor) -> float:
    """Return the least seconds of a few calls on an NVIDIA card."""
    fastest = float("inf")
    for _ in range(_ROUNDS):
        torch.cuda.synchronize(query.device)
        begin = time.perf_counter()
        attend(query, key, value)
        torch.cuda.synchronize(query.device)
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest
