"""Control frames without a network: edges, brightness, and blurred pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..choices import check_types, checked
from ..errors import AnimateDiffV2VError
from ..ranges import CANNY_THRESHOLD, TILE_FACTOR

Preprocessor = Literal["canny", "luminance", "tile"]
Frame = NDArray[np.uint8]
Sizes = NDArray[np.int16]

# tan(22.5°) and tan(67.5°): between them, an edge is diagonal.
_FLAT, _STEEP = np.tan(np.pi / 8), np.tan(3 * np.pi / 8)


@dataclass(frozen=True, kw_only=True)
class ControlFrameOptions:
    """Options for making control frames of frames."""

    preprocessor: Preprocessor = "canny"
    """canny: white edges on black. luminance: brightness without colour. tile: the picture without
    its details."""
    low_threshold: float = 100
    """canny: the change of brightness at which an edge continues, 0 to 2040."""
    high_threshold: float = 200
    """canny: the change of brightness at which an edge starts, 0 to 2040."""
    tile_factor: int = 8
    """tile: how many times smaller the picture is made before it is enlarged again."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_types(self)
        checked("preprocessor", self.preprocessor, Preprocessor)
        CANNY_THRESHOLD.check("low_threshold", self.low_threshold)
        CANNY_THRESHOLD.check("high_threshold", self.high_threshold)
        if self.low_threshold > self.high_threshold:
            raise AnimateDiffV2VError(
                f"low_threshold is {self.low_threshold:g} and high_threshold "
                f"{self.high_threshold:g}; the low one must not be above the high one."
            )
        TILE_FACTOR.check("tile_factor", self.tile_factor)

    def of(self, frame: Frame) -> Frame:
        """Return the control frame of a frame, both [height, width, 3]."""
        make: dict[Preprocessor, Callable[[Frame], Frame]] = {
            "canny": lambda frame: _grey(
                canny(frame, low=self.low_threshold, high=self.high_threshold)
            ),
            "luminance": lambda frame: _grey(luminance(frame)),
            "tile": lambda frame: tile(frame, factor=self.tile_factor),
        }
        return make[self.preprocessor](frame)


def canny(frame: Frame, *, low: float, high: float) -> Frame:
    """Find edges (Canny 1986); return [height, width], 255 at edges and 0 elsewhere.

    This equals OpenCV's Canny with its defaults, which ControlNet Canny was trained on: Sobel
    gradients of 3x3 pixels without smoothing, with the magnitude |dx| + |dy| of the channel where
    it is largest.
    """
    from scipy import ndimage  # noqa: PLC0415 - slow to load, and not needed for settings

    across, down = _strongest_gradient(frame)
    size = np.abs(across) + np.abs(down)
    edge = (size > np.floor(low)) & _is_ridge(size, across, down)
    # Keep weak edges that are connected to a strong one, also diagonally.
    parts, count = ndimage.label(edge, structure=np.ones((3, 3)))
    kept = np.zeros(count + 1, dtype=bool)
    kept[parts[edge & (size > np.floor(high))]] = True
    edges: Frame = kept[parts].astype(np.uint8) * np.uint8(255)
    return edges


def _strongest_gradient(frame: Frame) -> tuple[Sizes, Sizes]:
    # Channels first: numpy is several times faster on contiguous planes.
    planes = np.ascontiguousarray(np.moveaxis(frame, -1, 0)).astype(np.int16)
    pixels = np.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="edge")
    wide = pixels[:, :, 2:] - pixels[:, :, :-2]
    across = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    tall = pixels[:, 2:] - pixels[:, :-2]
    down = tall[:, :, :-2] + 2 * tall[:, :, 1:-1] + tall[:, :, 2:]
    size = np.abs(across) + np.abs(down)
    best_across, best_down, best = across[0], down[0], size[0]
    for channel in range(1, len(planes)):
        larger = size[channel] > best
        best_across = np.where(larger, across[channel], best_across)
        best_down = np.where(larger, down[channel], best_down)
        best = np.where(larger, size[channel], best)
    return best_across, best_down


def _is_ridge(size: Sizes, across: Sizes, down: Sizes) -> NDArray[np.bool_]:
    """Return where the gradient is larger than at both neighbours in its direction."""
    height, width = size.shape
    padded = np.pad(size, 1)

    def at(y: int, x: int) -> Sizes:
        return padded[1 + y : 1 + y + height, 1 + x : 1 + x + width]

    x, y = np.abs(across), np.abs(down)
    # Of two equal neighbours, the left or upper one is the edge.
    level = (size > at(0, -1)) & (size >= at(0, 1))
    upright = (size > at(-1, 0)) & (size >= at(1, 0))
    falling = (size > at(-1, -1)) & (size > at(1, 1))
    rising = (size > at(-1, 1)) & (size > at(1, -1))
    diagonal = np.where((across ^ down) < 0, rising, falling)
    return np.where(y < x * _FLAT, level, np.where(y > x * _STEEP, upright, diagonal))


def luminance(frame: Frame) -> Frame:
    """Return the brightness, [height, width], with BT.601 weights, as Pillow's mode "L"."""
    return np.asarray(Image.fromarray(frame).convert("L"))


def tile(frame: Frame, *, factor: int) -> Frame:
    """Make a picture `factor` times smaller and enlarge it again, [height, width, 3]."""
    height, width = frame.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    picture = Image.fromarray(frame).resize(small, Image.Resampling.BOX)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def _grey(levels: Frame) -> Frame:
    return np.repeat(levels[..., np.newaxis], 3, axis=-1)
