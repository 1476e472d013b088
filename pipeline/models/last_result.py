"""A long computation's latest result, for the next job on the same networks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class LastResult:
    """Remembers the latest result of a long computation on a clip, by its content.

    It takes the memory of one clip's latents: 64 KB a frame at 512x512.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._key = ""
        self._clip: Tensor | None = None

    def get(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """Give the clip of this key, computing it unless it was the latest."""
        if self._clip is None or key != self._key:
            self._clip = None  # its memory is free while the next one is made
            self._clip = compute()
            self._key = key
        return self._clip

    def has(self, key: str) -> bool:
        """Whether the clip of this key needs no computing."""
        return self._clip is not None and key == self._key
