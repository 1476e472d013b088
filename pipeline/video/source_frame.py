"""A frame of a source video, with its time; imports nothing that takes long to load."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


@dataclass
class SourceFrame:
    """A frame of a video, kept or not."""

    seconds: Fraction
    """Its time in the video."""
    picture: NDArray[np.uint8]
    """[height, width, 3], as VideoReader yields it."""
    kept: int = 0
    """The number of kept frames that it is: more than 1 where it is shown for longer than they."""
