"""The bar of the running node, the picture in it, and the button that stops it."""

from __future__ import annotations

import comfy.model_management as memory
import comfy.utils

from ...pipeline import Progress
from .previews import Previews
from .queue import say

PROGRESS_UNITS = 1000


def raise_if_interrupted() -> bool:
    """The pipeline's cancel callback: raises ComfyUI's own interrupt, which ends the prompt."""
    memory.throw_exception_if_processing_interrupted()
    return False


class NodeProgress:
    """The pipeline's progress callback: the bar of the running node, and a preview in it."""

    def __init__(self) -> None:
        """Begin at nothing done."""
        self._bar = comfy.utils.ProgressBar(PROGRESS_UNITS)
        self._previews = Previews()

    def __call__(self, progress: Progress) -> None:
        """Show how far the job is."""
        preview = None if progress.preview is None else self._previews.of(progress.preview)
        done = round(progress.fraction * PROGRESS_UNITS)
        self._bar.update_absolute(done, PROGRESS_UNITS, preview)
        say(progress.message)

    def share(self, fraction: float) -> None:
        """Show that this share, 0 to 1, of a node without phases is done."""
        self._bar.update_absolute(round(fraction * PROGRESS_UNITS), PROGRESS_UNITS)
