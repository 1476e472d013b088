"""Strengths of LoRAs and motion modules in the rows of a pass."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .frame_masks import FrameMask


@dataclass(frozen=True, eq=False)
class RowStrength:
    """A strength of motion modules in each row of a pass."""

    numbers: Tensor
    """[rows], float32, on the CPU."""
    mask: FrameMask | None = None
    """Multiplies the numbers in each pixel."""
    frames: Sequence[int] = ()
    """The frame that each row shows, for the mask."""
    _of_size: dict[Any, Tensor] = field(default_factory=dict)

    def at(self, features: Tensor) -> Tensor:
        """Return the strength, [rows, 1, 1, 1] or, with a mask, [rows, 1, height, width].

        Args:
            features: [rows, channels, height, width], whose device and dtype it has.
        """
        height, width = features.shape[2:] if self.mask else (1, 1)
        key = (height, width, features.dtype)
        if key not in self._of_size:
            strength = self.numbers.view(-1, 1, 1, 1)
            if self.mask is not None:
                strength = strength * self.mask.of(self.frames, height, width)
            self._of_size[key] = strength.to(features)
        return self._of_size[key]


@dataclass(frozen=True)
class PassStrengths:
    """Strengths in each row of a pass; None is 1 in all rows."""

    loras: Tensor | None = None
    """[LoRAs, rows], float32, on the CPU, for those of `MotionUNet.lora_curves`."""
    motion_scale: RowStrength | None = None
    """None if the motion scale is a number and has no mask."""
    motion_effect: RowStrength | None = None
    """The share of the motion modules' change of features that is used."""


FULL_STRENGTH = PassStrengths()


class KeyScales:
    """The motion scale in the rows of the pass that a network runs, separate for each thread.

    The motion modules of a network share it.
    """

    def __init__(self) -> None:
        """Begin outside of any pass."""
        self._of_thread = threading.local()

    def __deepcopy__(self, _memo: dict[int, Any]) -> KeyScales:
        """Return new ones: a copied network runs passes of its own."""
        return KeyScales()

    def at(self, features: Tensor) -> Tensor:
        """Return the scales of features [rows, channels, height, width]: [rows, 1 or pixels]."""
        scale: RowStrength | None = getattr(self._of_thread, "scale", None)
        if scale is None:
            raise RuntimeError("A motion module whose scale varies runs outside of a pass.")
        return scale.at(features).flatten(1)

    @contextmanager
    def using(self, scale: RowStrength) -> Iterator[None]:
        """Use this scale while the context is open."""
        before = getattr(self._of_thread, "scale", None)
        self._of_thread.scale = scale
        try:
            yield
        finally:
            self._of_thread.scale = before


def of_pixels(scales: Tensor | None, part: slice) -> Tensor | None:
    """Return the scales of some pixels, of those that KeyScales.at returned."""
    return scales if scales is None or scales.shape[1] == 1 else scales[:, part]
