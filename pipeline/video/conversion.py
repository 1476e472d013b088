"""Conversion of a decoded frame to RGB of a given size: crop, scale, colour, rotation, bars.

All of it happens in integers, and stored pixels are scaled before they are converted, so there is
never an RGB picture of full size.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from .geometry import NO_CROPPING, Cropping, Fit, plan_geometry
from .hdr import HDR_TRANSFERS, tone_map
from .orientation import Orientation

# Values of AVColorSpace and AVColorRange (libavutil/pixfmt.h).
_MATRICES = {
    1: "bt709",
    4: "fcc",
    5: "bt601",
    6: "bt601",
    7: "smpte240m",
    9: "bt2020",
    10: "bt2020",
}
_FULL_RANGE = 2


def source_matrix(*, colour_space: int, width: int, height: int) -> str:
    """Return the YCbCr matrix of a frame: its tag, or BT.709 for untagged HD and BT.601 for SD.

    HD means at least 1280 wide or more than 576 high, as in most players.
    """
    untagged = "bt709" if width >= 1280 or height > 576 else "bt601"
    return _MATRICES.get(colour_space, untagged)


class FrameConverter:
    """Turns decoded frames into uint8 RGB (or RGBA) arrays of one size."""

    def __init__(
        self,
        *,
        size: tuple[int, int],
        fit: Fit,
        orientation: Orientation,
        cropping: Cropping,
        pixel_aspect: Fraction,
        with_alpha: bool,
        colour_transfer: int,
    ) -> None:
        """Convert to `size` (width, height) as displayed, after the rotation.

        Args:
            size: width and height of the output.
            orientation: the rotation and mirroring of the frames.
            pixel_aspect: the width of a stored pixel divided by its height.
            fit: see output_size.
            with_alpha: convert to RGBA.
            cropping: pixels to remove from every frame first, if it is large enough.
            colour_transfer: PQ and HLG are tone-mapped to SDR, without alpha.
        """
        self._size, self._fit = size, fit
        self._orientation, self._cropping = orientation, cropping
        self._pixel_aspect = pixel_aspect
        self._transfer = colour_transfer
        self._is_hdr = colour_transfer in HDR_TRANSFERS and not with_alpha
        # libswscale converts to rgb48le incorrectly unless it scales.
        flat = "gbrp16le" if self._is_hdr else "rgb24"
        self._pixel_format = "rgba" if with_alpha else flat
        self._graph: Graph | None = None
        self._graph_key: tuple[Any, ...] = ()

    def convert(self, frame: Any) -> NDArray[np.uint8]:
        """Return uint8 [height, width, 3], or 4 with alpha."""
        key = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if self._graph is None or key != self._graph_key:
            self._graph, self._graph_key = self._build(frame), key
        frame.pts = None
        self._graph.push(frame)
        picture: NDArray[Any] = self._graph.pull().to_ndarray()
        if self._is_hdr:
            picture = tone_map(picture, transfer=self._transfer)
        return self._with_bars(np.ascontiguousarray(self._orientation.apply(picture)))

    def _build(self, frame: Any) -> Graph:
        sideways = self._orientation.is_sideways
        left, top, right, bottom = self._cropping
        stored = (frame.width - left - right, frame.height - top - bottom)
        is_cropped = self._cropping != NO_CROPPING and min(stored) > 0
        if not is_cropped:
            stored = (frame.width, frame.height)
        plan = plan_geometry(
            source=_swapped(stored, sideways),
            pixel_aspect=1 / self._pixel_aspect if sideways else self._pixel_aspect,
            size=self._size,
            fit=self._fit,
        )
        crop = _swapped((plan.crop_width, plan.crop_height), sideways)
        scaled = _swapped((plan.scaled_width, plan.scaled_height), sideways)
        graph = Graph()
        nodes = [
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=Fraction(1, 1000),
            )
        ]
        if is_cropped:
            nodes.append(graph.add("crop", f"{stored[0]}:{stored[1]}:{left}:{top}"))
        if crop != stored:
            nodes.append(graph.add("crop", f"{crop[0]}:{crop[1]}"))
        nodes.append(graph.add("scale", self._scale_options(frame, crop, scaled)))
        nodes.append(graph.add("format", self._pixel_format))
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes)
        graph.configure()
        return graph

    def _scale_options(self, frame: Any, crop: tuple[int, int], scaled: tuple[int, int]) -> str:
        # Area averaging is the fastest antialiasing; enlarging needs a smooth kernel.
        shrinks = scaled[0] <= crop[0] and scaled[1] <= crop[1]
        kernel = "area" if shrinks else "lanczos"
        full = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
        matrix = (
            "bt2020"
            if self._is_hdr
            else source_matrix(
                colour_space=int(frame.colorspace), width=frame.width, height=frame.height
            )
        )
        return (
            f"{scaled[0]}:{scaled[1]}:flags={kernel}+accurate_rnd+full_chroma_int"
            f":in_color_matrix={matrix}:in_range={'full' if full else 'limited'}:out_range=full"
        )

    def _with_bars(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        width, height = self._size
        if picture.shape[:2] == (height, width):
            return picture
        framed = np.zeros((height, width, picture.shape[2]), dtype=np.uint8)
        top = (height - picture.shape[0]) // 2
        left = (width - picture.shape[1]) // 2
        framed[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        return framed


def _swapped(size: tuple[int, int], sideways: bool) -> tuple[int, int]:
    return size[::-1] if sideways else size
