"""Progress of sampling: the model's calls, counted."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from ..progress import IsCancelled, Progress, ReportProgress, stop_if
from .denoise import Denoise


def part(progress: ReportProgress, start: float, end: float) -> ReportProgress:
    """Return a callback that reports a part's progress as a range of the whole's."""
    return lambda step: progress(replace(step, fraction=start + step.fraction * (end - start)))


class CompilingNotice:
    """A progress callback that can add, at the latest position, that code is being compiled."""

    def __init__(self, progress: ReportProgress) -> None:
        """Pass all reports on to `progress`."""
        self._progress, self._latest = progress, Progress("sample", 0.0, "")

    def report(self, step: Progress) -> None:
        """Pass on a report."""
        self._latest = replace(step, preview=None)
        self._progress(step)

    def compiling(self) -> None:
        """Report that compiling begins."""
        self._progress(replace(self._latest, message="compiling, once"))


class CallCounter:
    """A counter of the model's calls, which reports them as progress."""

    def __init__(
        self,
        total: int | None,
        sigmas: Tensor,
        progress: ReportProgress,
        is_cancelled: IsCancelled,
        *,
        doing: str = "sampling",
    ) -> None:
        """Count the calls that a sampler makes.

        Args:
            total: How many it makes; None if it is not known before. Then the noise level tells
                how much is done, and calls are numbered instead of steps.
            sigmas: The noise levels [steps + 1].
            progress: Called with each report.
            is_cancelled: Asked before each call and each pass.
            doing: What is done, for the reports.
        """
        self._steps, self._total, self._done = len(sigmas) - 1, total, 0
        self._progress, self._is_cancelled, self._doing = progress, is_cancelled, doing
        self._first, self._last = float(sigmas[0]), float(sigmas[sigmas > 0][-1])
        self._fraction = 0.0

    def counted(self, model: Denoise) -> Denoise:
        """Return `model` with progress reports and checks for cancelling around each call."""

        def call(noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
            stop_if(self._is_cancelled)
            if self._total is None:
                self._fraction = max(self._fraction, self._travelled(float(sigma)))
            result = model(noisy, sigma, step)
            self._tell(1.0, result)
            self._done += 1
            return result

        return call

    def on_passes(self, share: float) -> None:
        """Stop if cancelled, and report that a share of the running call is done."""
        stop_if(self._is_cancelled)
        if share < 1:
            self._tell(share, None)

    def _tell(self, share: float, preview: Tensor | None) -> None:
        if self._total is None:
            message, fraction = f"{self._doing} call {self._done + 1}", self._fraction
        else:
            step = min(1 + self._done * self._steps // self._total, self._steps)
            message = f"{self._doing} step {step} of {self._steps}"
            fraction = min(1.0, (self._done + share) / self._total)
        self._progress(Progress("sample", fraction, message, preview))

    def _travelled(self, sigma: float) -> float:
        """Return how far the level lies between the first and the last one above 0."""
        if self._first == self._last:
            return 0.0
        share = math.log(self._first / sigma) / math.log(self._first / self._last)
        return min(max(share, 0.0), 1.0)
