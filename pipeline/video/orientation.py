"""The rotation and mirroring of a stored picture for display."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DISPLAY_MATRIX = "DISPLAYMATRIX"


@dataclass(frozen=True)
class Orientation:
    """A left-to-right mirror, followed by counter-clockwise quarter turns."""

    quarter_turns: int = 0
    is_mirrored: bool = False

    @property
    def is_sideways(self) -> bool:
        """True if width and height are swapped."""
        return self.quarter_turns % 2 == 1

    def apply(self, picture: NDArray[Any]) -> NDArray[Any]:
        """Return [height, width, channels] upright, as a view of the same memory."""
        if self.is_mirrored:
            picture = picture[:, ::-1]
        return np.rot90(picture, self.quarter_turns) if self.quarter_turns else picture


# By the number that EXIF gives it (CIPA DC-008, tag 274); 1 is upright.
EXIF_ORIENTATIONS = {
    2: Orientation(is_mirrored=True),
    3: Orientation(2),
    4: Orientation(2, is_mirrored=True),
    5: Orientation(1, is_mirrored=True),
    6: Orientation(3),
    7: Orientation(3, is_mirrored=True),
    8: Orientation(1),
}


def frame_orientation(frame: Any) -> Orientation:
    """Read the display matrix of a decoded frame, as ffmpeg's `-autorotate` does.

    A matrix that is not a quarter turn, such as one of zeros, has no effect.
    """
    for side_data in frame.side_data:
        if side_data.type.name == DISPLAY_MATRIX:
            return matrix_orientation(struct.unpack("=9i", bytes(side_data)[:36]))
    return Orientation()


def matrix_orientation(matrix: tuple[int, ...]) -> Orientation:
    """Return the orientation of a display matrix, nine numbers by row (libavutil/display.h)."""
    a, b, _, c, d = matrix[:5]
    if not (math.hypot(a, c) and math.hypot(b, d)):
        return Orientation()
    turns = math.degrees(math.atan2(b / math.hypot(b, d), a / math.hypot(a, c))) / 90
    quarters = -round(turns) % 4
    if abs(turns - round(turns)) > 1 / 90:
        return Orientation()
    if quarters % 2:
        # Without a mirror, the two numbers have opposite signs; a mirror reverses the rotation.
        is_mirrored = (c > 0) == (b > 0)
        return Orientation(-quarters % 4 if is_mirrored else quarters, is_mirrored)
    if quarters == 2:
        return Orientation(2) if d < 0 else Orientation(0, is_mirrored=True)
    return Orientation(2, is_mirrored=True) if d < 0 else Orientation()
