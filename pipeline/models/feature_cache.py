"""Deep features of the UNet, kept from one call of the sampler to the next.

DeepCache (Ma et al. 2023, arXiv 2312.00858): from step to step the features deep in the UNet change
little. So only every few calls all layers run; between them the outermost ones do, on the deep
features of the latest whole call. Here each context window keeps its own, once with the prompt and
once with the negative one, and a window's sides are reused both or not at all: guidance multiplies
what differs between them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# Layers on the way up that run in every pass, with the skip connections that they take: the last of
# all, which takes the UNet's first convolution, and the one before it, which takes the first layer.
OUTERMOST_LAYERS = 2
# Of main memory: 23 windows of 16 frames at 512x512. Windows beyond it run whole.
MAX_BYTES = 2_000_000_000
# Whatever the network computes in: rounding is far below what reuse changes.
KEPT_DTYPE = torch.float16

# The frames of a window, and whether the pass is one of the negative prompt.
PassKey = tuple[tuple[int, ...], bool]


class DeepFeatures:
    """What the outermost layers of one pass take from all the others: given, or to be found."""

    def __init__(self, features: Tensor | None = None) -> None:
        """Take features [rows, channels, height, width] to reuse; None lets the pass find them."""
        self.features = features
        self.are_given = features is not None

    def in_place_of(self, features: Tensor) -> Tensor:
        """Give the features to reuse; or these, which are kept."""
        if self.are_given and self.features is not None:
            return self.features
        self.features = features
        return features


class FeatureCache:
    """The deep features of a job's passes; it belongs to one job and ends with it."""

    def __init__(self, *, interval: int = 1, max_bytes: int = MAX_BYTES) -> None:
        """Let every `interval`-th call run whole; 1 lets all, and keeps nothing.

        max_bytes: of main memory that is taken at most.
        """
        self._interval, self._max_bytes = interval, max_bytes
        self._kept: dict[PassKey, Tensor] = {}
        self._calls, self._step, self._bytes = 0, 0, 0
        self._has_warned = False

    def begin_call(self, step: int) -> int:
        """Begin a call of the sampler; give the step whose context windows it shall use.

        Some schedules of windows move from step to step: a call that reuses features sees the
        windows that they were made in.
        """
        if self._calls % self._interval == 0:
            self._kept.clear()
            self._step, self._bytes = step, 0
        self._calls += 1
        return self._step

    def holds(self, keys: Sequence[PassKey]) -> bool:
        """Whether all these passes, the sides of one window, can reuse features in this call."""
        return bool(self._kept) and all(key in self._kept for key in keys)

    def for_passes(
        self, keys: Sequence[PassKey], *, like: Tensor, are_whole: bool
    ) -> DeepFeatures | None:
        """What passes that go through the UNet together shall do about their deep features.

        like: where reused features shall be, and in which dtype.
        are_whole: all layers run; else `holds` must be true of the keys.
        None where features are neither reused nor kept.
        """
        if self._interval == 1:
            return None
        if are_whole:
            return DeepFeatures()
        return DeepFeatures(torch.cat([self._kept[key] for key in keys]).to(like))

    def keep(self, keys: Sequence[PassKey], deep: DeepFeatures | None) -> None:
        """Keep what these passes have found, as long as there is room for it."""
        if deep is None or deep.are_given or deep.features is None:
            return
        for key, features in zip(keys, deep.features.chunk(len(keys)), strict=True):
            if self._has_room(key, features.numel() * KEPT_DTYPE.itemsize):
                # A copy in any case: a view would hold the features of all the passes.
                self._kept[key] = features.to("cpu", KEPT_DTYPE, copy=True)

    def _has_room(self, key: PassKey, size: int) -> bool:
        """Whether there is room, on the negative prompt's side for what the other side has."""
        window, is_negative = key
        if key in self._kept or (is_negative and (window, False) in self._kept):
            return True
        if self._bytes + 2 * size <= self._max_bytes:
            self._bytes += 2 * size
            return True
        if not self._has_warned:
            logger.warning(
                "The clip has more context windows than the deep features of %.1f GB: the others "
                "are computed whole in every step.", self._max_bytes / 1e9,
            )  # fmt: skip
            self._has_warned = True
        return False
