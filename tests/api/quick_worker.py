"""A worker without networks, which starts at once, for tests of everything else.

Its video has one brightness, which depends on the seed, so that a test can tell whose it is.
"""

from __future__ import annotations

import sys
import time
from fractions import Fraction
from types import ModuleType

import numpy as np
from animatediff_v2v.api.queue import worker
from animatediff_v2v.pipeline.progress import stop_if
from animatediff_v2v.pipeline.video import VideoWriter

SIZE = 16
SECONDS_PER_STEP = 0.02


def brightness(seed):
    """Return one of several levels that stay distinct in a compressed video."""
    return 16 + seed % 27 * 8


class Renderer:
    def __init__(self, options):
        """Accept any arguments."""

    def render(self, job, output, *, on_message, is_cancelled):
        picture = np.full((1, SIZE, SIZE, 3), brightness(job.seed), np.uint8)
        with VideoWriter(
            output, width=SIZE, height=SIZE, frame_rate=Fraction(8), overwrite=True
        ) as writer:
            for step in range(job.steps):
                stop_if(is_cancelled)
                on_message(f"sampling step {step + 1} of {job.steps}")
                time.sleep(SECONDS_PER_STEP)
                writer.write(picture)
        return {"total": SECONDS_PER_STEP * job.steps}


if __name__ == "__main__":
    quick = ModuleType("animatediff_v2v.api.queue.rendering")
    quick.Renderer = Renderer
    sys.modules[quick.__name__] = quick
    sys.exit(worker.main())
