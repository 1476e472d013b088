"""NaiveReuse: the first window's prediction, blended into all frames, over and over.

As AnimateDiff-Evolved has it, with its usual weight. For noise alone: it repeats what happens in
the first window, so it belongs at the beginning of the noise schedule.
"""

from __future__ import annotations

import torch
from torch import Tensor

# AnimateDiff-Evolved's weighted_mean.
WEIGHT = 0.95


def reused(denoised: Tensor, first: Tensor, window: list[int]) -> Tensor:
    """Blend each frame with one of the first window, repeated from there to both ends.

    With a first window of 3 frames that starts at frame 1, frames 1 to 6 of 7 are blended with its
    frames 0, 1, 2, 0, 1, 2, and frame 0, which comes after frame 6, with 0.

    Args:
        denoised: The prediction of clean latents, [frames, 4, height, width].
        first: That of the first window alone, [frames of the window, 4, height, width].
        window: The frames of the first window.
    """
    rows = (torch.arange(len(denoised)) - window[0]) % len(denoised) % len(window)
    return WEIGHT * first[rows.to(first.device)] + (1 - WEIGHT) * denoised
