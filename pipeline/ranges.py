"""Ranges of all numbers: settings of the library, options of the command, widgets of nodes.

Ranges are wide: numbers outside give no usable picture, overflow, or take forever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from .choices import checked_type, in_range

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Range(Generic[Number]):
    """Numbers from `low` to `high`, both included."""

    low: Number
    high: Number

    def check(self, name: str, value: float, *, hint: str = "", place: str = "") -> None:
        """Raise AnimateDiffV2VError, with value and range, unless `value` is a number in it.

        Args:
            name: The name of the setting.
            value: The value.
            hint: Appended to the error sentence, such as "7 is usual".
            place: Where the value stands, such as "frame 4" of a curve.
        """
        checked_type(name, value, type(self.low))
        in_range(name, value, self.low, self.high, hint=hint, place=place)


SHARE = Range(0.0, 1.0)

# Sampling.
STEPS = Range(1, 1000)
GUIDANCE_SCALE = Range(0.0, 100.0)
SEED = Range(0, 2**64 - 1)
# JSON and JavaScript represent integers up to here exactly, so random seeds stay below.
DRAWN_SEED = Range(0, 2**53 - 1)
CONTEXT_LENGTH = Range(1, 128)
CONTEXT_OVERLAP = Range(0, 127)
CONTEXT_STRIDE = Range(1, 32)
DEEP_CACHE_INTERVAL = Range(1, 10)
CONTROL_STRENGTH = Range(0.0, 10.0)
FREE_INIT_ITERATIONS = Range(1, 100)
FREE_INIT_ORDER = Range(1, 100)
STYLE_WEIGHT = Range(-5.0, 5.0)
PROMPT_WEIGHT = Range(-10.0, 10.0)

# Networks.
LORA_STRENGTH = Range(-10.0, 10.0)
MOTION_SCALE = Range(0.0, 10.0)
CLIP_SKIP = Range(1, 12)
MEMORY_GB = Range(1e-6, 1_000_000.0)

# Frames.
NTH_FRAME = Range(1, 1000)
FRAMES = Range(0, 1_000_000)
SOME_FRAMES = Range(1, 1_000_000)
SECONDS = Range(0.0, 1_000_000.0)
FORCED_FRAME_RATE = Range(0.0, 1000.0)
FRAME_RATE = Range(0.01, 1000.0)
SIDE = Range(0, 8192)
# How many times larger; 1 leaves the second pass out.
REFINE = Range(1.0, 2.0)
SIZE_OF_0 = "0 follows the video's size"
LOOP_COUNT = Range(0, 100)
# -1 in the widget means the format's default; the highest value depends on the format.
CRF = Range(-1, 100)
CANNY_THRESHOLD = Range(0.0, 2040.0)  # the largest gradient of 8 bits under a Sobel filter
TILE_FACTOR = Range(1, 64)
