"""Deep features of the UNet, kept from one call of the sampler to the next.

DeepCache (Ma et al. 2023, arXiv 2312.00858): features deep in the UNet change little from step to
step. Therefore all layers run only in every n-th call; in the calls between, only the outermost
layers run, on deep features that are extrapolated from the latest two whole calls (TaylorSeer of
the first order; Liu et al. 2025, arXiv 2503.06923). Each context window has features of its own,
one set for the prompt and one for the negative prompt. Both sets are reused or neither, because
guidance multiplies the difference between them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# Layers on the way up that run in every pass: the last one, whose skip connection comes from the
# UNet's first convolution, and the one before it, whose skip comes from the first layer.
OUTERMOST_LAYERS = 2
# Main memory for 23 windows of 16 frames at 512x512. Further windows run whole.
MAX_BYTES = 4_000_000_000
# Those of the latest whole call and of the one before, for both prompts.
_COPIES = 4
# Whatever the UNet's dtype: rounding is far below the change that reuse makes.
KEPT_DTYPE = torch.float16

# The frames of a window, and True for the pass with the negative prompt.
PassKey = tuple[tuple[int, ...], bool]


class DeepFeatures:
    """Features that enter the outermost layers of a pass: reused ones, or a slot for new ones."""

    def __init__(self, features: Tensor | None = None) -> None:
        """Hold features [rows, channels, height, width] to reuse; None stores those of the pass."""
        self.features = features
        self.are_given = features is not None

    def in_place_of(self, features: Tensor) -> Tensor:
        """Return the features to reuse; if there are none, store `features` and return them."""
        if self.are_given and self.features is not None:
            return self.features
        self.features = features
        return features

    def leave_device(self) -> None:
        """Move new features to main memory."""
        if self.features is not None and not self.are_given:
            self.features = self.features.to("cpu", KEPT_DTYPE)


class FeatureCache:
    """The deep features of one job's passes."""

    def __init__(self, *, interval: int = 1, max_bytes: int = MAX_BYTES) -> None:
        """Start empty.

        Args:
            interval: All layers run in every `interval`-th call; 1 runs them always and stores
                nothing.
            max_bytes: Limit on the main memory taken.
        """
        self._interval, self._max_bytes = interval, max_bytes
        self._kept: dict[PassKey, Tensor] = {}
        self._before: dict[PassKey, Tensor] = {}
        self._timestep, self._timestep_before = 0.0, 0.0
        self._ahead = 0.0
        self._calls, self._step, self._bytes = 0, 0, 0
        self._has_warned = False

    def fresh(self, share: int) -> FeatureCache:
        """Return an empty cache of the same interval, with one of `share` parts of the memory."""
        return FeatureCache(interval=self._interval, max_bytes=self._max_bytes // share)

    def begin_call(self, step: int, timestep: float) -> int:
        """Begin a call of the sampler, and return the step whose context windows to use.

        Some context schedules move the windows from step to step. A call that reuses features must
        use the windows of the call that computed them.

        With whole calls at the time steps 900 and 800, features at 750 are those at 800, and half
        of their change from 900 to 800 in addition.
        """
        if self._calls % self._interval == 0:
            self._before, self._kept = self._kept, {}
            self._timestep_before, self._timestep = self._timestep, timestep
            self._step, self._bytes = step, 0
        change = self._timestep_before - self._timestep
        ahead = (self._timestep - timestep) / change if change else 0.0
        self._ahead = min(max(ahead, 0.0), 1.0)  # samplers can go back to earlier time steps
        self._calls += 1
        return self._step

    def holds(self, keys: Sequence[PassKey]) -> bool:
        """Return whether all these passes, both sides of a window, can reuse features now."""
        return bool(self._kept) and all(key in self._kept for key in keys)

    def for_passes(
        self, keys: Sequence[PassKey], *, like: Tensor, are_whole: bool
    ) -> DeepFeatures | None:
        """Return the deep features for passes that go through the UNet together.

        Args:
            keys: The passes.
            like: Reused features are moved to its device and dtype.
            are_whole: True when all layers run; otherwise `holds(keys)` must be true.

        Returns:
            None where features are neither reused nor stored.
        """
        if self._interval == 1:
            return None
        if are_whole:
            return DeepFeatures()
        return DeepFeatures(torch.cat([self._reused(key, like) for key in keys]))

    def _reused(self, key: PassKey, like: Tensor) -> Tensor:
        kept = self._kept[key].to(like)
        both = [(key[0], is_negative) for is_negative in (False, True)]
        if not all(each in self._before for each in both if each in self._kept):
            return kept  # guidance has begun: the change of one side alone would be multiplied
        return torch.lerp(self._before[key].to(like), kept, 1 + self._ahead)

    def keep(self, keys: Sequence[PassKey], deep: DeepFeatures | None) -> None:
        """Store the features of these passes while there is room."""
        if deep is None or deep.are_given or deep.features is None:
            return
        for key, features in zip(keys, deep.features.chunk(len(keys)), strict=True):
            if self._has_room(key, features.numel() * KEPT_DTYPE.itemsize):
                # Always a copy, because a view would hold the features of all passes.
                self._kept[key] = features.to("cpu", KEPT_DTYPE, copy=True)

    def _has_room(self, key: PassKey, size: int) -> bool:
        """Return whether there is room for a pass.

        Room is reserved for both sides of a window at once, so that the negative prompt's features
        fit whenever the prompt's do, and for those of the whole call before.
        """
        window, is_negative = key
        if key in self._kept or (is_negative and (window, False) in self._kept):
            return True
        if self._bytes + _COPIES * size <= self._max_bytes:
            self._bytes += _COPIES * size
            return True
        if not self._has_warned:
            logger.warning(
                "The video has more context windows than the deep features of %.1f GB: the others "
                "are computed whole in every step.", self._max_bytes / 1e9,
            )  # fmt: skip
            self._has_warned = True
        return False
