"""A whole video, frame after frame."""

from __future__ import annotations

import weakref
from fractions import Fraction

import numpy as np
import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.restore.stream import restore_frames
from animatediff_v2v.pipeline.video.source_frame import SourceFrame

SIZE = 16


def still(here, _there):
    """Find no motion, at once."""
    return here.new_zeros(len(here), 2, *here.shape[-2:])


def source(kept, *, times=None, size=(SIZE, SIZE)):
    times = times or [Fraction(index, 10) for index in range(len(kept))]
    for count, seconds in zip(kept, times, strict=True):
        yield SourceFrame(seconds, np.full((*size, 3), 100, np.uint8), count)


def grey(*values):
    return [torch.full((SIZE, SIZE, 3), value) for value in values]


def brightness(frames):
    return [round(float(frame.picture.mean()), 3) for frame in frames]


@pytest.mark.parametrize(
    ("kept", "values", "wanted"),
    [
        ([1], [0.5], [0.5]),
        ([1, 1, 1], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]),
        ([1, 0, 1], [0.2, 0.4], [0.2, 0.3, 0.4]),
        ([1, 0, 0, 0, 1], [0.2, 0.6], [0.2, 0.3, 0.4, 0.5, 0.6]),
        # Before the first and after the last kept frame, the nearest one.
        ([0, 0, 1, 0, 1, 0], [0.2, 0.4], [0.2, 0.2, 0.2, 0.3, 0.4, 0.4]),
        # A frame of which two were made is shown once; what follows goes on from the second.
        ([2, 0, 1], [0.2, 0.3, 0.4], [0.2, 0.35, 0.4]),
    ],
)
def test_still_frames_are_blended_by_distance(kept, values, wanted):
    made = list(restore_frames(source(kept), grey(*values), find_flow=still))
    assert brightness(made) == pytest.approx(wanted, abs=2e-3)
    assert [each.seconds for each in made] == [Fraction(i, 10) for i in range(len(kept))]


def test_distance_goes_by_time_and_not_by_number():
    times = [Fraction(0), Fraction(1, 10), Fraction(4, 10)]
    made = list(restore_frames(source([1, 0, 1], times=times), grey(0.2, 0.6), find_flow=still))
    assert brightness(made) == pytest.approx([0.2, 0.3, 0.6], abs=2e-3)
    assert [each.seconds for each in made] == times


def test_kept_frames_stay_equal_to_the_bit():
    restyled = [torch.rand(SIZE, SIZE, 3) for _ in range(3)]
    made = list(restore_frames(source([1, 0, 1, 0, 1]), restyled))
    for one, other in zip(made[::2], restyled, strict=True):
        assert torch.equal(one.picture, other)
        assert not one.untrusted.any()


def test_a_source_of_another_size_is_scaled():
    made = list(restore_frames(source([1, 0, 1], size=(40, 40)), grey(0.2, 0.4)))
    assert [each.picture.shape for each in made] == [(SIZE, SIZE, 3)] * 3


@pytest.mark.parametrize(
    ("kept", "values", "sentence"),
    [
        ([1, 0, 1], [0.1], "There are 1 restyled frames, and more were kept of the source"),
        ([1, 0], [0.1, 0.2], "There are more restyled frames than the 1 that were kept"),
        ([0, 0], [], "None of the source's 2 frames is kept"),
        ([], [0.1], "There are more restyled frames than the 0 that were kept"),
    ],
)
def test_other_counts_are_refused(kept, values, sentence):
    with pytest.raises(AnimateDiffV2VError, match=sentence):
        list(restore_frames(source(kept), grey(*values), find_flow=still))


@pytest.mark.parametrize(
    ("size", "sizes", "sentence"),
    [
        ((16, 16), [(16, 16), (8, 8)], "Restyled frames are 16x16 and 8x8 pixels"),
        ((16, 16), [(16, 24), (16, 24)], "source's frames are 16x16 pixels .* ones 24x16"),
        # Rounding to multiples of 8 is no other aspect ratio.
        ((270, 480), [(136, 240), (136, 240)], None),
    ],
)
def test_other_sizes_are_refused(size, sizes, sentence):
    made = [torch.full((*each, 3), 0.5) for each in sizes]
    restored = restore_frames(source([1, 0, 1], size=size), made, find_flow=still)
    if sentence is None:
        assert {tuple(each.picture.shape) for each in restored} == {(136, 240, 3)}
        return
    with pytest.raises(AnimateDiffV2VError, match=sentence):
        list(restored)


def test_memory_does_not_grow_with_the_video():
    alive, most = 0, 0

    def counted():
        nonlocal alive, most
        for frame in source([1, 0, 0, 0] * 25):
            alive += 1
            most = max(most, alive)
            weakref.finalize(frame.picture, gone)
            yield frame

    def gone():
        nonlocal alive
        alive -= 1

    restyled = (torch.full((SIZE, SIZE, 3), 0.5) for _ in range(25))
    assert sum(1 for _ in restore_frames(counted(), restyled, find_flow=still)) == 100
    assert most <= 8
