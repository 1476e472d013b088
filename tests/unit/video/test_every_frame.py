"""All frames of the time that kept ones span, and which these are."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.video import FrameSelection, VideoReader, probe_video
from animatediff_v2v.pipeline.video.every_frame import EveryFrameReader

from .test_reader import variable_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory, clips):
    path = tmp_path_factory.mktemp("every") / "clip.mp4"
    return clips.numbered_clip(path, frames=200, rate=Fraction(25))


def every(path, clips, **selection):
    with EveryFrameReader(path, selection=FrameSelection(**selection)) as reader:
        return [(clips.read_number(f.picture), f.kept, f.seconds) for f in reader.frames()]


@pytest.mark.parametrize(
    ("selection", "frames", "kept"),
    [
        ({}, range(200), range(200)),
        ({"select_every_nth_frame": 4}, range(200), range(0, 200, 4)),
        ({"select_every_nth_frame": 150}, range(200), (0, 150)),
        (
            {"select_every_nth_frame": 3, "skip_first_frames": 7},
            range(7, 200),
            range(7, 200, 3),
        ),
        # Frames are sought after 4 seconds.
        (
            {"select_every_nth_frame": 3, "skip_first_frames": 120},
            range(120, 200),
            range(120, 200, 3),
        ),
        ({"select_every_nth_frame": 4, "frame_load_cap": 5}, range(20), range(0, 20, 4)),
        ({"skip_first_frames": 2, "frame_load_cap": 3}, range(2, 5), (2, 3, 4)),
        (
            {"select_every_nth_frame": 5, "start_time_seconds": 1, "duration_seconds": 2},
            range(25, 75),
            range(25, 75, 5),
        ),
        ({"force_rate": 5}, range(200), range(0, 200, 5)),
        (
            {"force_rate": 5, "select_every_nth_frame": 2, "frame_load_cap": 3},
            range(30),
            (0, 10, 20),
        ),
    ],
)
def test_all_frames_of_a_span(clip, clips, selection, frames, kept):
    found = every(clip, clips, **selection)
    assert [number for number, _, _ in found] == list(frames)
    assert [number for number, count, _ in found if count] == list(kept)
    assert [seconds for _, _, seconds in found] == [Fraction(n, 25) for n in frames]


@pytest.mark.parametrize(
    "selection",
    [
        {"select_every_nth_frame": 3},
        {"force_rate": 10},
        {"force_rate": 60, "select_every_nth_frame": 4},
        {"select_every_nth_frame": 2, "start_time_seconds": 0.7, "duration_seconds": 1},
    ],
)
def test_a_variable_rate_keeps_its_times(tmp_path, clips, selection):
    gaps = np.random.default_rng(5).choice([0.016, 0.033, 0.05, 0.1], size=39)
    times = np.concatenate([[0], np.cumsum(gaps)])
    path = variable_clip(tmp_path / "clip.mp4", times, clips)
    assert probe_video(path).variable_frame_rate
    found = every(path, clips, **selection)
    with VideoReader(path, selection=FrameSelection(**selection)) as reader:
        kept = [clips.read_number(frame) for frame in reader]
    assert [number for number, count, _ in found for _ in range(count)] == kept
    numbers = [number for number, _, _ in found]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert [float(s) for _, _, s in found] == pytest.approx(list(times[numbers]), abs=2e-3)


def test_nothing_selected_is_refused(clip):
    with pytest.raises(AnimateDiffV2VError, match=r"No frame of .* is selected"):
        EveryFrameReader(clip, selection=FrameSelection(skip_first_frames=500))
