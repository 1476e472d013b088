"""Strengths along the frames of a video or over the steps, as text."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from animatediff_v2v.pipeline.curve import (
    Curve,
    check_frames,
    check_strength,
    highest,
    values_of,
)
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.ranges import SHARE
from hypothesis import given
from hypothesis import strategies as st

VALUES = [
    ("0: 0.2, 4: 1.0", (0.2, 0.4, 0.6, 0.8, 1.0, 1.0)),
    ("2: 1, 4: 0", (1.0, 1.0, 1.0, 0.5, 0.0, 0.0)),
    ("0: 0, 4: 1 ease", (0.0, 0.15625, 0.5, 0.84375, 1.0, 1.0)),
    ("0: 0, 4: 1 EASE, 5: 0 linear", (0.0, 0.15625, 0.5, 0.84375, 1.0, 0.0)),
    ("0: 0.3, 3: 0.7 hold", (0.3, 0.3, 0.3, 0.7, 0.7, 0.7)),
    ("0: 1\n5: 0", (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)),
    ("0=0;-1=1", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    ("0: 0, 0.5: 1", (0.0, 1 / 3, 2 / 3, 1.0, 1.0, 1.0)),
    ("0: 0, max_f-1: 1,", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    ('{"0": 0, "5": 1}', (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    ("0:(0), 5:(1.0)", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    ("0: -1e-1", (-0.1,) * 6),
]


@pytest.mark.parametrize(("text", "expected"), VALUES)
def test_values_of_six_frames(text, expected):
    assert Curve(text).values(6) == pytest.approx(expected, abs=1e-9)


# At shares 0, 0.25, 0.5, 0.75 and 1 of the noise schedule.
OVER_STEPS = [
    ("0%: 0.2, 100%: 1.0", (0.2, 0.4, 0.6, 0.8, 1.0)),
    ("25%: 1, 75%: 0", (1.0, 1.0, 0.5, 0.0, 0.0)),
    ("0%: 0, 100%: 1 ease", (0.0, 0.15625, 0.5, 0.84375, 1.0)),
    ("0%: 0.3, 50%: 0.7 hold", (0.3, 0.3, 0.7, 0.7, 0.7)),
    ("50 %: 0.4", (0.4,) * 5),
    ("0%=0;100%=1", (0.0, 0.25, 0.5, 0.75, 1.0)),
    ("0.0%: 1\n12.5%: 0", (1.0, 0.0, 0.0, 0.0, 0.0)),
    ('{"0%": 0, "100%": 1}', (0.0, 0.25, 0.5, 0.75, 1.0)),
    ("0％：(0)，100％：(1.0)", (0.0, 0.25, 0.5, 0.75, 1.0)),
]


@pytest.mark.parametrize(("text", "expected"), OVER_STEPS)
def test_values_over_the_steps(text, expected):
    curve = Curve(text)
    assert curve.is_over_steps and curve.last_frame == 0
    assert [curve.at(share / 4) for share in range(5)] == pytest.approx(expected, abs=1e-9)


def test_a_share_is_the_number_that_was_written():
    held = Curve("0%: 0, 33.3%: 1 hold")
    assert (held.at(0.333), held.at(0.3329)) == (1.0, 0.0)
    # A noise level that is rounded to float32 still counts as that of the point.
    assert held.at(0.333 - 1e-7) == 1.0


def test_a_curve_is_along_the_frames_or_over_the_steps():
    along, over = Curve("0: 0, 5: 1"), Curve("0%: 0, 50%: 1")
    assert not along.is_over_steps
    with pytest.raises(AnimateDiffV2VError, match="places in the noise schedule, not frames"):
        over.values(6)
    with pytest.raises(AnimateDiffV2VError, match="frames, not places in the noise schedule"):
        along.at(0.5)
    for fits in (over, along, 0.4):
        check_frames(fits, 6)
    with pytest.raises(AnimateDiffV2VError, match="frame 5 is beyond the video"):
        check_frames(along, 5)


REFUSED = [
    ("-1%: 1", "-1% is outside of the noise schedule, which goes from 0% to 100%."),
    ("0%: 1, 100.5%: 0", "100.5% is outside of the noise schedule"),
    ("%: 1", "'%: 1' names no frame"),
    ("1e1%: 1", "'1e1%: 1' names no frame"),
    ("0-50%: 1", "'0-50%: 1' names no frame"),
    ("0%: x", "In the curve '0%: x', 'x' at 0% is not a number."),
    ("0%: 1 bounce", "the word after the number at 0% is 'bounce'; it can be linear, ease, hold."),
    (
        "0%: 1,2;\n100%: 0,5",
        "In the curve '0%: 1,2; 100%: 0,5', '2' stands alone; write `frame: number`, for example "
        "`0: 0.2, 24: 1.0`, or `percent: number`, for example `0%: 1, 100%: 0.2`. Commas separate "
        "points, and decimals have a point, as in 0.5.",
    ),
    ("0%: 7, 0,5: 2", "'0' stands alone"),
    ("0%: 7 100%: 2", "In the curve '0%: 7 100%: 2', a comma is missing before '100%: 2'."),
    ("0: 7 ease 8: 2", "a comma is missing before '8: 2'."),
    (
        "50%: 1, 12.5%: 0",
        "In the curve '50%: 1, 12.5%: 0', 12.5% comes after 50%; give each place once, in "
        "ascending order.",
    ),
    ("50%: 1, 50.0%: 0", "50.0% is the same as 50%; give each place once"),
    (
        "0: 1, 50%: 0",
        "In the curve '0: 1, 50%: 0', 50% is a place in the noise schedule and frame 0 is not; "
        "write all points in percent, or none.",
    ),
    ("0%: 1, -1: 0", "0% is a place in the noise schedule and frame -1 is not"),
    ("", "The curve is empty; write `frame: number`, for example `0: 0.2, 24: 1.0`."),
    (" , ", "The curve is empty"),
    ("{}", "The curve is empty"),
    ("fox", "In the curve 'fox', 'fox' names no frame; write `frame: number`"),
    ("0: 0.2, 1", "'1' stands alone"),
    ("a: 1", "'a: 1' names no frame"),
    ("0-8: 1", "'0-8: 1' names no frame"),
    ("-" * 9000 + "1: 1", "names no frame"),
    ("0: x", "In the curve '0: x', 'x' at frame 0 is not a number."),
    ("0: 1, 8:", "'' at frame 8 is not a number"),
    ("0: nan", "'nan' at frame 0 is not a number"),
    ("0: inf", "'inf' at frame 0 is not a number"),
    (
        "0: 1 bounce",
        "the word after the number at frame 0 is 'bounce'; it can be linear, ease, hold.",
    ),
    (
        "8: 1, 4: 0",
        "In the curve '8: 1, 4: 0', frame 4 comes after frame 8; give each frame once, in "
        "ascending order.",
    ),
    ("4: 1, 4: 0", "frame 4 is given twice; give each frame once, in ascending order."),
    ("50%: 1, 50%: 0", "50% is given twice; give each place once, in ascending order."),
    ("0: 0.2; 4 1.0", "'4 1.0' has no colon; write `frame: number`"),
]


@pytest.mark.parametrize(("text", "sentence"), REFUSED)
def test_what_is_no_curve_is_refused_at_once(text, sentence):
    with pytest.raises(AnimateDiffV2VError) as refused:
        Curve(text)
    assert sentence in str(refused.value)


BEYOND = [
    (
        "0: 0, 6: 1",
        "In the curve '0: 0, 6: 1', frame 6 is beyond the video, whose 6 frames are counted from 0 "
        "to 5; the last one can be written as -1.",
    ),
    ("0.5: 0, 2: 1", "frame 2 comes after frame 3"),
    ("0: 0, -20: 1", "frame -20 is the same as frame 0; give each frame once"),
    ("0: 0, max_f: 1", "frame max_f is beyond the video"),
    ("0: 0, 10/(max_f-6): 1", "frame 10/(max_f-6) is not in a video of 6 frames"),
]


@pytest.mark.parametrize(("text", "sentence"), BEYOND)
def test_frames_that_a_video_does_not_have_are_refused(text, sentence):
    curve = Curve(text)
    with pytest.raises(AnimateDiffV2VError) as refused:
        curve.values(6)
    assert sentence in str(refused.value)


def test_a_number_for_each_frame():
    curve = Curve.of_values([0.1, 0.5, 1 / 3])
    assert curve.values(3) == (0.1, 0.5, 1 / 3)
    assert curve.values(2) == (0.1, 0.5)
    assert curve.values(5) == (0.1, 0.5, 1 / 3, 1 / 3, 1 / 3)
    with pytest.raises(AnimateDiffV2VError, match="The curve is empty"):
        Curve.of_values([])


def test_a_number_or_a_curve():
    assert (highest(0.4), highest(Curve("0: 0.4, 2: 1"))) == (0.4, 1.0)
    assert values_of(0.4, 2) == (0.4, 0.4)
    assert values_of(Curve("0: 1, 1: 0"), 2) == (1.0, 0.0)
    check_strength(SHARE, "denoise", Curve("0: 0, 9: 1"))
    refused = {
        1.5: "denoise is 1.5; it must be from 0 to 1.",
        Curve("0: 0, 4: 1.5"): "denoise is 1.5 at frame 4; it must be from 0 to 1.",
        Curve("0: 0, -1: 2"): "denoise is 2 at frame -1; it must be from 0 to 1.",
        Curve("0%: -1, 50%: 0"): "denoise is -1 at 0%; it must be from 0 to 1.",
    }
    for wrong, sentence in refused.items():
        with pytest.raises(AnimateDiffV2VError) as caught:
            check_strength(SHARE, "denoise", wrong)
        assert str(caught.value) == sentence


def test_a_setting_may_take_no_curve_over_the_steps():
    over = Curve("0%: 0, 50%: 1")
    check_strength(SHARE, "motion_effect", over)
    with pytest.raises(AnimateDiffV2VError) as refused:
        check_strength(SHARE, "denoise", over, over_steps=False)
    assert str(refused.value) == (
        "denoise is the curve '0%: 0, 50%: 1', which changes from step to step, but is fixed "
        "before the first step: write frames in place of percent."
    )
    check_strength(SHARE, "denoise", Curve("0: 0, 5: 1"), over_steps=False)
    assert highest(over) == 1.0


def test_a_curve_stands_in_text_where_a_number_can():
    curve = Curve("\n0: 0.2,\n24: 1 ease\n")
    assert f"denoise {curve:g}" == "denoise 0: 0.2, 24: 1 ease"


EASINGS = st.sampled_from(["linear", "ease", "hold"])


def points_up_to(last):
    """Draw one to six points, (place, number), in order."""
    points = st.dictionaries(st.integers(0, last), st.floats(-10, 10), min_size=1, max_size=6)
    return points.map(lambda drawn: sorted(drawn.items()))


@given(points_up_to(200), EASINGS)
def test_values_stay_between_neighbouring_points(points, easing):
    frames, numbers = ([*each] for each in zip(*points, strict=True))
    text = ", ".join(f"{frame}: {number!r} {easing}" for frame, number in points)
    values = Curve(text).values(frames[-1] + 3)
    assert [values[frame] for frame in frames] == numbers
    assert values[: frames[0]] == (numbers[0],) * frames[0]
    assert values[frames[-1] :] == (numbers[-1],) * 3
    for (first, low), (last, high) in pairwise(points):
        between = values[first : last + 1]
        slack = 1e-9 * (1 + abs(low) + abs(high))
        assert min(low, high) - slack <= min(between) <= max(between) <= max(low, high) + slack
        steps = [after - before for before, after in pairwise(between)]
        assert all(step * math.copysign(1, high - low) >= -slack for step in steps)


@given(points_up_to(1000), EASINGS)
def test_over_steps_as_along_frames(points, easing):
    """A curve in tenths of a percent has the numbers of one with these frames."""
    frames = Curve(", ".join(f"{frame}: {number!r} {easing}" for frame, number in points))
    over = Curve(", ".join(f"{at / 10}%: {number!r} {easing}" for at, number in points))
    found = [over.at(frame / 1000) for frame in range(1001)]
    assert found == pytest.approx(frames.values(1001), abs=1e-9)


@given(st.text(max_size=40) | st.text(alphabet="0123456789.-%％: ,=ease", max_size=40))
def test_any_text_is_a_curve_or_refused_in_a_sentence(text):
    try:
        curve = Curve(text)
        values = [curve.at(0.5)] * 9 if curve.is_over_steps else curve.values(9)
    except AnimateDiffV2VError as refused:
        assert str(refused).endswith(".") and "\n" not in str(refused)
    else:
        assert len(values) == 9 and all(map(math.isfinite, values))
