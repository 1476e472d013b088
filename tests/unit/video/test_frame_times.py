"""A file has each frame at its own time, with the sound and the metadata of any other."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from animatediff_v2v.pipeline.video import FORMATS, Audio, VideoWriter, probe_video

TIMES = [Fraction(milliseconds, 1000) for milliseconds in (0, 20, 120, 153, 400, 433, 500, 1000)]
LAST = Fraction(1, 10)
SOUND = Audio(np.sin(np.arange(96_000) / 20)[np.newaxis].astype(np.float32) * 0.3, 48_000)


def written(path, form, **options):
    with VideoWriter(
        path, width=64, height=64, frame_rate=1 / LAST, format=form, metadata={"prompt": "a fox"},
        **options,
    ) as writer:  # fmt: skip
        for index in range(len(TIMES)):
            writer.write(np.full((1, 64, 64, 3), 30 * index, np.uint8))
        writer.frame_times += TIMES
    return writer


def times_of(path):
    """Return the seconds of the frames as another reader sees them, and the end of the sound."""
    with av.open(str(path)) as container:
        assert container.metadata.get("prompt", container.metadata.get("PROMPT")) == "a fox"
        seconds = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        heard = [frame.samples / frame.rate for frame in container.decode(audio=0)]
    return seconds, sum(heard)


@pytest.mark.parametrize("form", [form for form in FORMATS.values() if form.has_time_stamps])
def test_each_frame_has_its_time(tmp_path, form):
    path = tmp_path / f"clip{form.extension}"
    written(path, form.name, audio=SOUND)
    seconds, heard = times_of(path)
    assert seconds == pytest.approx([float(each) for each in TIMES], abs=1e-3)
    assert heard == pytest.approx(float(TIMES[-1] + LAST), abs=0.05)
    info = probe_video(path)
    assert info.variable_frame_rate and info.frame_count == len(TIMES)


def test_frames_that_are_played_again_are_as_far_apart(tmp_path):
    path = tmp_path / "clip.mp4"
    writer = written(path, "mp4-h264", audio=SOUND, pingpong=True, loop_count=1)
    there = [float(each) for each in TIMES]
    once = there + [2 - each for each in there[-2:0:-1]]
    seconds, heard = times_of(path)
    # The first frame follows the second one, played backwards.
    assert seconds == pytest.approx(once + [2 + each for each in once], abs=1e-3)
    assert writer.frame_count == 2 * len(once)
    assert heard == pytest.approx(4 - 0.02 + 0.1, abs=0.05)
