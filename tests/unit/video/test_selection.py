"""The selected frames: tables, and properties that hold for every clip."""

from fractions import Fraction

import pytest
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.video import FrameSelection, exact_rate
from animatediff_v2v.pipeline.video.selection import grid_count, nearest_on_grid
from hypothesis import given
from hypothesis import strategies as st

rates = st.sampled_from(
    [
        *(Fraction(whole) for whole in (8, 10, 25, 30, 48, 60, 120)),
        *(Fraction(whole * 1000, 1001) for whole in (24, 30, 60)),
    ]
)


@pytest.mark.parametrize(
    ("frames", "nth", "skip", "cap", "kept"),
    [
        (10, 1, 0, 0, 10),
        (10, 2, 0, 0, 5),
        (11, 2, 0, 0, 6),
        (10, 3, 0, 0, 4),
        (10, 3, 1, 0, 3),
        (10, 3, 2, 0, 3),
        (10, 1, 10, 0, 0),
        (10, 1, 11, 0, 0),
        (10, 1, 9, 0, 1),
        (10, 2, 3, 2, 2),
        (10, 2, 3, 99, 4),
        (0, 1, 0, 0, 0),
        (1, 7, 0, 0, 1),
    ],
)
def test_kept_count(frames, nth, skip, cap, kept):
    selection = FrameSelection(
        select_every_nth_frame=nth, skip_first_frames=skip, frame_load_cap=cap
    )
    assert selection.kept_count(frames) == kept


@given(st.integers(0, 200), st.integers(1, 20), st.integers(0, 220), st.integers(0, 50))
def test_kept_count_is_what_slicing_keeps(frames, nth, skip, cap):
    selection = FrameSelection(
        select_every_nth_frame=nth, skip_first_frames=skip, frame_load_cap=cap
    )
    sliced = list(range(frames))[skip::nth]
    assert selection.kept_count(frames) == len(sliced[:cap] if cap else sliced)
    assert [i for i in range(frames) if selection.is_kept(i)] == sliced


@pytest.mark.parametrize(
    ("frames", "source", "rate", "count"),
    [
        (10, 30, 30, 10),
        (10, 30, 15, 5),
        (11, 30, 15, 6),
        (10, 30, 10, 4),
        (10, 30, 60, 20),
        (10, 30, 120, 40),
        (1, 30, 8, 1),
        (240, 24, 30, 300),
        (24, 8, 24, 72),
    ],
)
def test_grid_count(frames, source, rate, count):
    span = Fraction(frames, source)
    assert grid_count(span, source_rate=Fraction(source), rate=Fraction(rate)) == count


@given(st.integers(1, 60), rates, rates, st.one_of(st.none(), st.just("span")))
def test_grid_keeps_duration_and_time(frames, source, rate, span):
    timed = [(i / source, i / source) for i in range(frames)]
    chosen = list(
        nearest_on_grid(timed, rate=rate, source_rate=source, span_seconds=span and frames / source)
    )
    assert len(chosen) == grid_count(frames / source, source_rate=source, rate=rate)
    assert abs(len(chosen) / rate - frames / source) < 1 / rate
    for index, seconds in enumerate(chosen):
        assert abs(seconds - index / rate) <= 1 / (2 * source) or seconds == timed[-1][0]


@given(st.integers(1, 60), rates, st.integers(1, 6))
def test_a_divided_rate_keeps_every_nth(frames, source, nth):
    timed = [(i / source, i) for i in range(frames)]
    chosen = list(nearest_on_grid(timed, rate=source / nth, source_rate=source))
    assert chosen == list(range(frames))[::nth]


@given(st.integers(2, 60), st.sampled_from([Fraction(24), Fraction(30000, 1001), Fraction(25)]))
def test_rounded_time_stamps_change_nothing(frames, source):
    timed = [(Fraction(round(i / source * 1000), 1000), i) for i in range(frames)]
    assert list(nearest_on_grid(timed, rate=source, source_rate=source)) == list(range(frames))


def test_variable_rate_goes_by_the_nearest_time_stamp():
    timed = [(Fraction(0), "a"), (Fraction(1, 10), "b"), (Fraction(2, 10), "c")]
    timed.append((Fraction(9, 10), "d"))
    chosen = nearest_on_grid(
        timed, rate=Fraction(4), source_rate=Fraction(4), last_frame_seconds=Fraction(1, 10)
    )
    assert list(chosen) == ["a", "c", "c", "d"]


@pytest.mark.parametrize(
    ("given_rate", "exact"),
    [
        (29.97, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        ("59.94", Fraction(60000, 1001)),
        (119.88, Fraction(120000, 1001)),
        ("30000/1001", Fraction(30000, 1001)),
        (Fraction(2997, 100), Fraction(2997, 100)),
        (12.5, Fraction(25, 2)),
        (24, Fraction(24)),
        (0, Fraction(0)),
        (30.0, Fraction(30)),
        (8.008, Fraction(1001, 125)),
    ],
)
def test_exact_rate(given_rate, exact):
    assert exact_rate(given_rate) == exact


@pytest.mark.parametrize(
    "wrong",
    [
        {"select_every_nth_frame": 0},
        {"select_every_nth_frame": 1.5},
        {"select_every_nth_frame": True},
        {"skip_first_frames": -1},
        {"frame_load_cap": -3},
        {"force_rate": -1},
        {"force_rate": "fast"},
        {"force_rate": "1/0"},
        {"force_rate": float("nan")},
        {"force_rate": float("inf")},
        {"start_time_seconds": -0.1},
        {"start_time_seconds": float("nan")},
        {"duration_seconds": float("inf")},
    ],
)
def test_wrong_values_are_named_with_a_remedy(wrong):
    with pytest.raises(AnimateDiffV2VError, match=next(iter(wrong))) as caught:
        FrameSelection(**wrong)
    assert "give" in str(caught.value) or "it must be " in str(caught.value)


def test_output_rate():
    selection = FrameSelection(select_every_nth_frame=2)
    assert selection.output_rate(Fraction(30000, 1001)) == Fraction(15000, 1001)
    forced = FrameSelection(select_every_nth_frame=2, force_rate=24)
    assert forced.output_rate(Fraction(30000, 1001)) == 12
