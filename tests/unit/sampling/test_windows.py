"""Context windows: AnimateDiff-Evolved's, and what must hold for any of them."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.sampling import ContextOptions
from animatediff_v2v.pipeline.sampling.windows import context_windows, window_weights
from hypothesis import assume, example, given
from hypothesis import strategies as st

GOLDEN = json.loads((Path(__file__).parent / "golden" / "windows.json").read_text("utf-8"))

SCHEDULES = ["standard_static", "standard_uniform", "looped_uniform", "batched"]
FUSES = ["pyramid", "flat", "overlap-linear"]


@pytest.mark.parametrize("case", GOLDEN["windows"])
def test_golden(case):
    schedule, *numbers = case.split()
    frames, length, overlap, stride, closed, step = map(int, numbers)
    options = ContextOptions(
        length=length, overlap=overlap, stride=stride, schedule=schedule, closed_loop=bool(closed)
    )
    expected = [
        [(first + distance * i) % frames for i in range(count)]
        for first, distance, count in GOLDEN["windows"][case]
    ]
    assert context_windows(frames, options, step=step) == expected


@st.composite
def options(draw, *, schedules=SCHEDULES, strides=(1, 4), max_length=24):
    length = draw(st.integers(1, max_length))
    return ContextOptions(
        length=length,
        overlap=draw(st.integers(0, length - 1)),
        stride=draw(st.integers(*strides)),
        schedule=draw(st.sampled_from(schedules)),
        fuse=draw(st.sampled_from(FUSES)),
        closed_loop=draw(st.booleans()),
    )


frame_counts = st.integers(1, 150)
steps = st.integers(0, 40)


def check(frames, given_options, step):
    windows = context_windows(frames, given_options, step=step)
    assert {frame for window in windows for frame in window} == set(range(frames))
    for window in windows:
        assert len(window) <= min(given_options.length, frames)
        if given_options.schedule != "batched":
            assert len(window) == min(given_options.length, frames)
        weights = window_weights(window, frames, given_options)
        assert weights.shape == (len(window),) and weights.dtype == torch.float32
        assert bool((weights > 0).all())
    return windows


@given(frame_counts, options(schedules=["standard_static", "batched"]), steps)
def test_every_frame_is_in_a_window(frames, given_options, step):
    windows = check(frames, given_options, step)
    assert all(len(set(window)) == len(window) for window in windows)
    assert windows == context_windows(frames, given_options, step=step + 1)


@given(
    frame_counts, options(schedules=["standard_uniform", "looped_uniform"], strides=(1, 1)), steps
)
def test_every_frame_is_in_a_uniform_window(frames, given_options, step):
    windows = check(frames, given_options, step)
    assert all(len(set(window)) == len(window) for window in windows)


@given(frame_counts, options(schedules=["looped_uniform"]), steps)
def test_every_frame_is_in_a_looped_window_of_any_stride(frames, given_options, step):
    check(frames, given_options, step)


@given(frame_counts, options(schedules=["standard_uniform"]), steps)
@example(24, ContextOptions(schedule="standard_uniform", stride=2), 0)
def test_every_frame_is_in_a_standard_window_of_any_stride(frames, given_options, step):
    windows = check(frames, given_options, step)
    assert all(window == sorted(set(window)) for window in windows)


@given(frame_counts, options(max_length=128), steps)
def test_a_clip_no_longer_than_a_window_is_one_window(frames, given_options, step):
    assume(frames <= given_options.length)
    assert context_windows(frames, given_options, step=step) == [list(range(frames))]


@given(st.integers(17, 150), options(schedules=["standard_uniform"], strides=(1, 1)), steps)
def test_standard_windows_do_not_run_over_the_end(frames, given_options, step):
    windows = context_windows(frames, given_options, step=step)
    assert all(window == list(range(window[0], window[-1] + 1)) for window in windows)


@given(st.integers(17, 150), st.integers(0, 15))
def test_static_neighbours_share_at_least_the_overlap(frames, overlap):
    windows = context_windows(frames, ContextOptions(overlap=overlap))
    shared = [len(set(a) & set(b)) for a, b in pairwise(windows)]
    assert all(count == overlap for count in shared[:-1])
    assert shared[-1] >= overlap


def test_uniform_seams_move_from_step_to_step():
    opts = ContextOptions(schedule="looped_uniform", closed_loop=True)
    starts = [context_windows(64, opts, step=step)[0][0] for step in range(8)]
    assert starts == [0, 32, 16, 48, 8, 40, 24, 56]


TINY = 1e-37  # AnimateDiff-Evolved's stand-in for zero
UP, DOWN = [TINY, 1 / 3, 2 / 3, 1], [1, 2 / 3, 1 / 3, TINY]
# Weights as AnimateDiff-Evolved's get_context_weights gives them.
WEIGHTS = [
    ("pyramid", range(8), 24, 4, [1, 2, 3, 4, 4, 3, 2, 1]),
    ("pyramid", range(5, 12), 24, 3, [1, 2, 3, 4, 3, 2, 1]),
    ("pyramid", range(1), 24, 0, [1]),
    ("flat", range(8), 24, 4, [1] * 8),
    ("overlap-linear", range(10), 24, 4, [1] * 6 + DOWN),
    ("overlap-linear", range(6, 16), 24, 4, [*UP, 1, 1, *DOWN]),
    ("overlap-linear", range(14, 24), 24, 4, UP + [1] * 6),
    ("overlap-linear", range(24), 24, 4, [1] * 24),
    ("overlap-linear", range(8, 16), 24, 0, [1] * 8),
    ("overlap-linear", range(8, 16), 24, 1, [TINY, *[1] * 6, TINY]),
    # A short last window of `batched`.
    ("overlap-linear", range(22, 24), 24, 4, [TINY, 1 / 3]),
]


@pytest.mark.parametrize(("fuse", "window", "frames", "overlap", "weights"), WEIGHTS)
def test_weights(fuse, window, frames, overlap, weights):
    opts = ContextOptions(length=max(len(window), overlap + 1), overlap=overlap, fuse=fuse)
    ours = window_weights(list(window), frames, opts)
    assert ours.tolist() == pytest.approx(weights, rel=1e-6, abs=0)


REFUSED = [
    ({"schedule": "uniform"}, "schedule is 'uniform'; it can be standard_static, standard_uniform"),
    ({"fuse": "relative"}, "fuse is 'relative'; it can be pyramid, flat, overlap-linear."),
    ({"length": 0}, "context length is 0; it must be from 1 to 128."),
    ({"length": 129}, "context length is 129; it must be from 1 to 128."),
    ({"stride": 0}, "context stride is 0; it must be from 1 to 32."),
    ({"stride": 33}, "context stride is 33; it must be from 1 to 32."),
    ({"overlap": -1}, "context overlap is -1; it must be from 0 to 15, less than the window's 16"),
    ({"overlap": 16}, "context overlap is 16; it must be from 0 to 15"),
    ({"length": 1}, "context overlap is 4; it must be from 0 to 0"),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED)
def test_refused(values, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        ContextOptions(**values)
    assert sentence in str(caught.value)
