"""Preprocessors without weights: canny against plain loops, luminance, tile, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.video import ControlFrameOptions
from animatediff_v2v.pipeline.video.control_frames import canny, luminance, tile
from hypothesis import given
from hypothesis import strategies as st


def gradients_by_loops(frame, y, x):
    """The Sobel gradient of the channel where it is largest; edges of the picture repeat."""
    height, width, channels = frame.shape

    def at(dy, dx, channel):
        row, column = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
        return int(frame[row, column, channel])

    found = []
    for channel in range(channels):
        weights = {-1: 1, 0: 2, 1: 1}
        across = sum(w * (at(o, 1, channel) - at(o, -1, channel)) for o, w in weights.items())
        down = sum(w * (at(1, o, channel) - at(-1, o, channel)) for o, w in weights.items())
        found.append((across, down))
    return max(found, key=lambda pair: abs(pair[0]) + abs(pair[1]))


def canny_by_loops(frame, low, high):
    height, width, _ = frame.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    gradient = {place: gradients_by_loops(frame, *place) for place in places}

    def size(y, x):
        across, down = gradient.get((y, x), (0, 0))
        return abs(across) + abs(down)

    ridge = set()
    for y, x in places:
        across, down = gradient[y, x]
        angle = math.degrees(math.atan2(abs(down), abs(across)))
        own = size(y, x)
        if angle < 22.5:
            largest = own > size(y, x - 1) and own >= size(y, x + 1)
        elif angle > 67.5:
            largest = own > size(y - 1, x) and own >= size(y + 1, x)
        else:
            side = 1 if across * down >= 0 else -1
            largest = own > size(y - 1, x - side) and own > size(y + 1, x + side)
        if largest and own > low:
            ridge.add((y, x))
    edges = {place for place in ridge if size(*place) > high}
    waiting = list(edges)
    while waiting:
        y, x = waiting.pop()
        around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
        new = (around & ridge) - edges
        edges |= new
        waiting += new
    expected = np.zeros((height, width), np.uint8)
    for place in edges:
        expected[place] = 255
    return expected


@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 10_000),
    levels=st.sampled_from([2, 6, 256]),
    low=st.integers(0, 300),
    extra=st.integers(0, 300),
)
def test_canny_equals_plain_loops(size, seed, levels, low, extra):
    rng = np.random.default_rng(seed)
    frame = (rng.integers(0, levels, (*size, 3)) * (255 // (levels - 1))).astype(np.uint8)
    found = canny(frame, low=low, high=low + extra)
    assert found.dtype == np.uint8
    assert np.array_equal(found, canny_by_loops(frame, low, low + extra))


def test_canny_draws_the_outline_of_a_box():
    frame = np.full((40, 60, 3), 20, np.uint8)
    frame[10:30, 15:45] = (200, 40, 40)
    edges = canny(frame, low=100, high=200) > 0
    rows, columns = np.nonzero(edges)
    assert set(rows.tolist()) >= {10, 20} and rows.min() >= 9 and rows.max() <= 30
    assert columns.min() >= 14 and columns.max() <= 45
    assert not edges[12:28, 18:42].any()
    assert not canny(np.full_like(frame, 90), low=0, high=0).any()


def test_weak_edges_stay_only_where_a_strong_one_begins():
    frame = np.zeros((20, 30, 3), np.uint8)
    frame[:, 10:] = np.linspace(30, 250, 20).astype(np.uint8)[:, None, None]
    assert canny(frame, low=100, high=600)[1:, 8:12].any(axis=1).all()
    assert not canny(frame, low=600, high=600)[:8].any()


def test_luminance_is_that_of_bt601():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    expected = (colours @ np.array([0.299, 0.587, 0.114])).round()
    assert np.abs(luminance(colours).astype(float) - expected).max() <= 1


def test_tile_keeps_colours_and_loses_detail():
    rng = np.random.default_rng(0)
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:, 48:] = 160
    noisy = np.clip(frame + rng.integers(0, 60, frame.shape), 0, 255).astype(np.uint8)
    blurred = tile(noisy, factor=8)
    assert blurred.shape == noisy.shape
    for half in (slice(4, 40), slice(56, 92)):
        assert blurred[:, half].std() < noisy[:, half].std() / 2
        assert abs(blurred[:, half].mean() - noisy[:, half].mean()) < 3
    assert np.array_equal(tile(noisy, factor=1), noisy)
    assert tile(noisy, factor=64).shape == noisy.shape


@pytest.mark.parametrize("preprocessor", ["canny", "luminance", "tile"])
def test_control_frames_are_pictures(preprocessor):
    frame = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    before = frame.copy()
    made = ControlFrameOptions(preprocessor=preprocessor).of(frame)
    assert (made.shape, made.dtype) == (frame.shape, np.uint8)
    assert np.array_equal(frame, before)
    if preprocessor != "tile":
        assert np.array_equal(made[..., 0], made[..., 2])


REFUSED = [
    ({"preprocessor": "depth"}, "preprocessor is 'depth'; it can be canny, luminance, tile."),
    ({"low_threshold": -1}, "low_threshold is -1; it must be from 0 to 2040."),
    ({"high_threshold": 3000}, "high_threshold is 3000; it must be from 0 to 2040."),
    ({"low_threshold": 300}, "low_threshold is 300 and high_threshold 200; the low one must not"),
    ({"tile_factor": 0}, "tile_factor is 0; it must be from 1 to 64."),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED)
def test_refused(values, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        ControlFrameOptions(**values)
    assert sentence in str(caught.value)
