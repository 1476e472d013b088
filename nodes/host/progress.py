"""The progress bar of the running node, its preview, and its cancel button."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import comfy.model_management as memory
import comfy.utils

from ...pipeline import Progress
from .previews import Previews
from .queue import say

if TYPE_CHECKING:
    from ...pipeline.models.vae import LatentCodec

PROGRESS_UNITS = 1000
Interrupted = memory.InterruptProcessingException


def raise_if_interrupted() -> bool:
    """Raise ComfyUI's interrupt, which ends the prompt; the pipeline's cancel callback."""
    memory.throw_exception_if_processing_interrupted()
    return False


def is_interrupted() -> bool:
    """Return whether the prompt is to end; raise_if_interrupted then ends it."""
    return bool(memory.processing_interrupted())


class NodeProgress:
    """The pipeline's progress callback: the bar of the running node, with a preview."""

    def __init__(
        self, codec: LatentCodec | None = None, *, on_line: Callable[[str], None] | None = None
    ) -> None:
        """Create the bar, at 0.

        Args:
            codec: That of the latents to preview.
            on_line: Called with what is being done: "Sampling step 3 of 8".
        """
        self._bar = comfy.utils.ProgressBar(PROGRESS_UNITS)
        self._previews, self._on_line = Previews(codec), on_line

    def __call__(self, progress: Progress) -> None:
        """Show the progress of the job."""
        preview = None if progress.preview is None else self._previews.of(progress.preview)
        done = round(progress.fraction * PROGRESS_UNITS)
        self._bar.update_absolute(done, PROGRESS_UNITS, preview)
        say(progress.message)
        if self._on_line and not progress.is_warning:  # warnings are shown as they are logged
            self._on_line(progress.message[:1].upper() + progress.message[1:])

    def share(self, fraction: float) -> None:
        """Show the progress, 0 to 1, of a node without phases."""
        self._bar.update_absolute(round(fraction * PROGRESS_UNITS), PROGRESS_UNITS)
