"""Output sizes, and the cropping and scaling that lead to them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from ..errors import AnimateDiffV2VError
from ..ranges import SIDE, SIZE_OF_0

Fit = Literal["crop", "pad", "stretch"]

# The VAE works on blocks of 8 x 8 pixels.
MULTIPLE = 8
# SD1.5 was trained at 512; far above 768 it repeats objects and takes long.
DEFAULT_LONG_SIDE = 768


# Pixels at the left, top, right and bottom.
Cropping = tuple[int, int, int, int]
NO_CROPPING: Cropping = (0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The cropping and scaling of a picture, in pixels as displayed (after rotation).

    Attributes:
        crop_width: width of the middle part of the source that is used.
        crop_height: height of the middle part of the source that is used.
        scaled_width: width that this part is scaled to.
        scaled_height: height that this part is scaled to.
        width: of the output; larger than the scaled width if there are black bars.
        height: of the output; larger than the scaled height if there are black bars.
    """

    crop_width: int
    crop_height: int
    scaled_width: int
    scaled_height: int
    width: int
    height: int


def plan_geometry(
    *, source: tuple[int, int], pixel_aspect: Fraction, size: tuple[int, int], fit: Fit
) -> Geometry:
    """Return the cropping and scaling for a source and an output size, both (width, height).

    Args:
        source: the size in stored pixels.
        pixel_aspect: the width of a stored pixel divided by its height, 1 for square pixels.
        size: the size of the output.
        fit: "crop", "pad" or "stretch".
    """
    (source_width, source_height), (width, height) = source, size
    aspect = source_width * pixel_aspect / source_height
    wanted = Fraction(width, height)
    crop_width, crop_height, scaled_width, scaled_height = source_width, source_height, *size
    if fit == "crop" and aspect > wanted:
        crop_width = max(1, round(source_width * wanted / aspect))
    elif fit == "crop":
        crop_height = max(1, round(source_height * aspect / wanted))
    elif fit == "pad" and aspect > wanted:
        scaled_height = max(1, round(width / aspect))
    elif fit == "pad":
        scaled_width = max(1, round(height * aspect))
    return Geometry(
        crop_width=crop_width,
        crop_height=crop_height,
        scaled_width=scaled_width,
        scaled_height=scaled_height,
        width=width,
        height=height,
    )


def output_size(*, source: tuple[int, int], width: int, height: int, fit: Fit) -> tuple[int, int]:
    """Return the output's width and height, multiples of 8.

    If one of width and height is 0, the aspect ratio is kept. If both are 0, a source whose longer
    side is above 768 is scaled down to that.

    Args:
        source: width and height of the source as displayed.
        width: the requested width; 0 for the source's.
        height: the requested height; 0 for the source's.
        fit: "crop", "pad" or "stretch".

    Raises:
        AnimateDiffV2VError: for a side below 0 or above 8192, and for an unknown `fit`.
    """
    if fit not in get_args(Fit):
        raise AnimateDiffV2VError(f"fit is {fit!r}; give one of {', '.join(get_args(Fit))}.")
    for name, value in (("width", width), ("height", height)):
        SIDE.check(name, value, hint=SIZE_OF_0)
    aspect = Fraction(*source)
    if width and height:
        return _multiple(width), _multiple(height)
    if width:
        return _multiple(width), _multiple(width / aspect)
    if height:
        return _multiple(height * aspect), _multiple(height)
    scale = min(Fraction(1), Fraction(DEFAULT_LONG_SIDE, max(source)))
    return _multiple(source[0] * scale), _multiple(source[1] * scale)


def _multiple(side: Fraction | int) -> int:
    return min(SIDE.high, max(MULTIPLE, round(Fraction(side) / MULTIPLE) * MULTIPLE))
