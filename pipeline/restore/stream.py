"""All frames of a video, restored one after another from the kept ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AnimateDiffV2VError
from ..video.source_frame import SourceFrame
from .between import FindFlow, Neighbour, restored
from .flow import dense_flow

# Sides of pictures are rounded to multiples of 8, which changes the aspect ratio a little.
ASPECT_TOLERANCE = 0.05


class Restored(NamedTuple):
    """A frame of the result."""

    seconds: Fraction
    picture: Tensor
    """Float [height, width, 3], 0..1, on the device of the restyled frames."""
    untrusted: Tensor
    """[height, width]: 1 where its motion was not trusted; 0 for a kept frame."""


class _Kept(NamedTuple):
    seconds: Fraction
    frame: Neighbour


def restore_frames(
    source: Iterable[SourceFrame],
    restyled: Iterable[Tensor],
    *,
    find_flow: FindFlow = dense_flow,
) -> Iterator[Restored]:
    """Yield a restyled frame for each frame of the source, at its time.

    Kept frames come as they are. Memory depends on the frames between two kept ones, not on the
    length of the video.

    Args:
        source: All frames, each with the number of restyled frames that were made of it. Another
            size than that of the restyled frames is scaled to it.
        restyled: Float [height, width, 3] each, 0..1.
        find_flow: Measures motion, as `dense_flow`.

    Raises:
        AnimateDiffV2VError: there are fewer or more restyled frames than kept ones, none is kept,
            their sizes differ, or the source has another aspect ratio.
    """
    results, made = iter(restyled), 0
    before: _Kept | None = None
    waiting: list[SourceFrame] = []
    for frame in source:
        if not frame.kept:
            waiting.append(frame)
            continue
        pictures = list(islice(results, frame.kept))
        made += len(pictures)
        if len(pictures) < frame.kept:
            raise AnimateDiffV2VError(
                f"There are {made} restyled frames, and more were kept of the source: give the "
                "frames that were made of these source frames."
            )
        after = _kept(frame, pictures[0])
        if before is not None:
            _check_sizes(before, after)
        yield from _between(waiting, before, after, find_flow)
        yield Restored(frame.seconds, pictures[0], torch.zeros_like(pictures[0][..., 0]))
        before, waiting = _kept(frame, pictures[-1]), []
    if waiting and before is None:
        raise AnimateDiffV2VError(
            f"None of the source's {len(waiting)} frames is kept: say which of them restyled "
            "frames were made of."
        )
    yield from _between(waiting, before, None, find_flow)
    if next(results, None) is not None:
        raise AnimateDiffV2VError(
            f"There are more restyled frames than the {made} that were kept of the source: give "
            "the frames that were made of these source frames."
        )


def _kept(frame: SourceFrame, picture: Tensor) -> _Kept:
    restyled = picture.movedim(-1, 0)[None].float()
    return _Kept(frame.seconds, Neighbour(_source_picture(frame, like=restyled), restyled))


def is_other_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two sizes (height, width) differ by more than rounding in their shape."""
    return abs(one[1] * other[0] / (one[0] * other[1]) - 1) > ASPECT_TOLERANCE


def _check_sizes(before: _Kept, after: _Kept) -> None:
    """Raise AnimateDiffV2VError for restyled frames of different sizes."""
    one, other = (tuple(each.frame.restyled.shape[:1:-1]) for each in (before, after))
    if one != other:
        raise AnimateDiffV2VError(
            f"Restyled frames are {one[0]}x{one[1]} and {other[0]}x{other[1]} pixels: give frames "
            "of one size."
        )


def _between(
    frames: Iterable[SourceFrame],
    before: _Kept | None,
    after: _Kept | None,
    find_flow: FindFlow,
) -> Iterator[Restored]:
    known = [each for each in (before, after) if each is not None]
    for frame in frames:
        position = 0.0
        if before is not None and after is not None:
            passed = frame.seconds - before.seconds
            position = float(passed / (after.seconds - before.seconds))
        picture, untrusted = restored(
            _source_picture(frame, like=known[0].frame.restyled),
            before and before.frame,
            after and after.frame,
            position=position,
            find_flow=find_flow,
        )
        yield Restored(frame.seconds, picture[0].movedim(0, -1), untrusted[0, 0])


def _source_picture(frame: SourceFrame, *, like: Tensor) -> Tensor:
    """Return a frame of the source as float [1, 3, height, width], 0..1, sized as `like`."""
    (height, width), (made_height, made_width) = frame.picture.shape[:2], like.shape[-2:]
    if is_other_aspect((height, width), (made_height, made_width)):
        raise AnimateDiffV2VError(
            f"The source's frames are {width}x{height} pixels and the restyled ones "
            f"{made_width}x{made_height}, which is another aspect ratio: give frames that were "
            "made of these."
        )
    picture = torch.from_numpy(frame.picture).to(like.device).movedim(-1, 0)[None].float() / 255
    if picture.shape[-2:] == like.shape[-2:]:
        return picture
    return F.interpolate(picture, like.shape[-2:], mode="bilinear", antialias=True)
