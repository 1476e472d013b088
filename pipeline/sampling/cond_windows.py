"""Context windows over a batch that holds the video once for each conditioning.

Hosts with samplers of their own batch prompts like that: [conditionings * frames, ...], the frames
of one conditioning after those of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..models.ops.feature_bank import FeatureBank
from ..models.ops.window_memory import RowMemory, WindowMemory
from .windows import ContextOptions, Window, context_windows, window_weights


@dataclass(frozen=True)
class WindowRows:
    """The rows of a batch that belong to a window, for every conditioning."""

    window: Window
    num_frames: int
    """Frames of the video."""
    conditionings: int
    """How often the batch holds the video."""
    windows: int = 1
    """How many windows the video is cut into."""
    memory: RowMemory | None = None
    """What the window sees of other ones; None without."""

    @property
    def is_whole(self) -> bool:
        """True if the window is the whole video in order."""
        return self.window == list(range(self.num_frames))

    @property
    def indices(self) -> list[int]:
        """Indices of the rows: [0, 1, 4, 5] for the window [0, 1] of 4 frames, twice in a batch."""
        starts = range(0, self.conditionings * self.num_frames, self.num_frames)
        return [start + frame for start in starts for frame in self.window]

    def of_batch(self, value: Any) -> Any:
        """Return the window's rows of a tensor [conditionings * num_frames, ...].

        Anything else, such as a single row for the whole batch, is returned as it is.
        """
        return self._rows(value, self.conditionings * self.num_frames, self.indices)

    def of_frames(self, value: Any) -> Any:
        """Return the window's rows of a tensor [num_frames, ...]; see `of_batch`."""
        return self._rows(value, self.num_frames, self.window)

    def _rows(self, value: Any, length: int, indices: list[int]) -> Any:
        if self.is_whole or not isinstance(value, Tensor) or value.dim() == 0:
            return value
        return value[indices] if len(value) == length else value


def predict_by_window(
    predict: Callable[[WindowRows], Tensor],
    sample: Tensor,
    *,
    conditionings: int,
    options: ContextOptions,
    step: int,
    remembered: Sequence[bool] | None = None,
) -> Tensor:
    """Return the predictions of all windows, averaged where they overlap.

    Args:
        predict: Returns the prediction for the rows of a window, [conditionings * window, ...].
        sample: [conditionings * frames, 4, height, width], for the shape and the device.
        conditionings: How often the batch holds the video.
        options: Length and overlap of the windows, and how they are blended.
        step: The sampling step, by which uniform windows shift.
        remembered: With a memory of other windows: for each conditioning, whether it keeps and
            sees it.

    Returns:
        [conditionings * frames, 4, height, width]; float32 if there are several windows.
    """
    num_frames = len(sample) // conditionings
    windows = context_windows(num_frames, options, step=step)
    each_rows = [WindowRows(window, num_frames, conditionings, len(windows)) for window in windows]
    if remembered is not None:
        each_rows = _with_memory(each_rows, remembered, options)
    if len(each_rows) == 1 and each_rows[0].is_whole:
        return predict(each_rows[0])
    total: Tensor | None = None
    counts = torch.zeros(num_frames, 1, 1, 1, device=sample.device)
    for rows in each_rows:
        noise = predict(rows).float()
        if rows.memory is not None and isinstance(rows.memory.memory, FeatureBank):
            rows.memory.memory.end_window()
        noise = noise.view(conditionings, len(rows.window), *noise.shape[1:])
        if total is None:
            total = noise.new_zeros(conditionings, num_frames, *noise.shape[2:])
        weights = window_weights(rows.window, num_frames, options).to(sample.device)
        weights = weights.view(-1, 1, 1, 1)
        # If a wide stride brings a frame into a window twice, its last row counts.
        last_row = {frame: row for row, frame in enumerate(rows.window)}
        frames, of_window = list(last_row), list(last_row.values())
        total[:, frames] += (noise * weights)[:, of_window]
        counts[frames] += weights[of_window]
    assert total is not None
    return (total / counts).flatten(0, 1)


def _with_memory(
    each_rows: list[WindowRows], remembered: Sequence[bool], options: ContextOptions
) -> list[WindowRows]:
    """Return the windows with a memory of the first one, or of all before."""
    memory = FeatureBank() if options.memory == "FeatureBank" else WindowMemory()
    prompts = [number if keeps else None for number, keeps in enumerate(remembered)]
    return [
        replace(
            rows, memory=RowMemory(memory, prompts, len(rows.window), is_kept=rows is each_rows[0])
        )
        for rows in each_rows
    ]
