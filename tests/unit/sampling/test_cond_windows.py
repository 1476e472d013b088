"""Windows over a batch that holds the video once for each conditioning."""

import pytest
import torch
from animatediff_v2v.pipeline.sampling import ContextOptions
from animatediff_v2v.pipeline.sampling.cond_windows import WindowRows, predict_by_window
from animatediff_v2v.pipeline.sampling.windows import context_windows, window_weights

FRAMES = 7
STATIC = ContextOptions(length=4, overlap=2)
OPTIONS = {
    "static": STATIC,
    "flat": ContextOptions(length=4, overlap=1, fuse="flat"),
    "overlap-linear": ContextOptions(length=4, overlap=2, fuse="overlap-linear"),
    "uniform": ContextOptions(length=4, overlap=2, stride=2, schedule="standard_uniform"),
    "looped": ContextOptions(length=4, overlap=2, schedule="looped_uniform", closed_loop=True),
    "batched": ContextOptions(length=4, overlap=0, schedule="batched"),
    "one window": ContextOptions(length=16, overlap=4),
}


def rows_of(window, frames=FRAMES, conditionings=2):
    return WindowRows(window, frames, conditionings)


def test_rows_are_those_of_every_conditioning():
    rows = WindowRows([0, 1], num_frames=4, conditionings=3)
    assert rows.indices == [0, 1, 4, 5, 8, 9]
    assert rows.of_batch(torch.arange(12)).tolist() == rows.indices
    assert rows.of_frames(torch.arange(4)).tolist() == [0, 1]


@pytest.mark.parametrize(
    "value", [torch.zeros(1, 3), torch.zeros(5), torch.tensor(2.0), None, "text"], ids=str
)
def test_what_has_no_row_for_each_frame_is_left(value):
    rows = rows_of([2, 3])
    assert rows.of_batch(value) is value
    assert rows.of_frames(value) is value


@pytest.mark.parametrize(
    ("window", "is_whole"),
    [([0, 1, 2], True), ([1, 2, 0], False), ([0, 1], False), ([0, 1, 1], False)],
    ids=str,
)
def test_only_all_frames_in_order_are_the_whole(window, is_whole):
    rows = rows_of(window, frames=3, conditionings=1)
    assert rows.is_whole == is_whole
    frames = torch.arange(3)
    assert (rows.of_batch(frames) is frames) == is_whole


@pytest.mark.parametrize("conditionings", [1, 2, 3])
@pytest.mark.parametrize("name", OPTIONS)
def test_predictions_are_averaged_by_weight(name, conditionings):
    """Each frame of each conditioning gets the weighted mean of what its windows predict."""
    options, step = OPTIONS[name], 1
    sample = torch.randn(
        conditionings * FRAMES, 4, 2, 2, generator=torch.Generator().manual_seed(1)
    )
    asked = []

    def predict(rows):
        asked.append(rows)
        # What is predicted depends on the window.
        return rows.of_batch(sample) + 10 * rows.window[0]

    found = predict_by_window(
        predict, sample, conditionings=conditionings, options=options, step=step
    )
    windows = context_windows(FRAMES, options, step=step)
    assert [rows.window for rows in asked] == windows
    shift = []
    for frame in range(FRAMES):
        # A frame that is in a window twice counts with its last row.
        inside = [
            (window[0], float(weights[len(window) - 1 - window[::-1].index(frame)]))
            for window in windows
            for weights in [window_weights(window, FRAMES, options)]
            if frame in window
        ]
        shift.append(sum(10 * f * w for f, w in inside) / sum(w for _, w in inside))
    expected = sample + torch.tensor(shift * conditionings).view(-1, 1, 1, 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_half_precision_is_averaged_in_single():
    sample = torch.full((2 * FRAMES, 4, 1, 1), 1.001, dtype=torch.float16)
    found = predict_by_window(
        lambda rows: rows.of_batch(sample), sample, conditionings=2, options=STATIC, step=0
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, sample.float())
