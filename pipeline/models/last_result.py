"""The latest result of a long computation, for the next job on the same networks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class LastResult:
    """The latest result of a long computation on latents, found by a digest of its inputs.

    It takes the memory of one video's latents: 64 KB a frame at 512x512.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._key = ""
        self._result: Tensor | None = None

    def get(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return the result for this key, computing it unless it was the latest."""
        if self._result is None or key != self._key:
            self._result = None  # frees its memory while the next one is computed
            self._result = compute()
            self._key = key
        return self._result

    def has(self, key: str) -> bool:
        """Return whether the result for this key is stored."""
        return self._result is not None and key == self._key
