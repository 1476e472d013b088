"""Written videos are read back with the same frames, rate and sound."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.video import (
    Audio,
    AudioSpan,
    FrameSelection,
    VideoReader,
    VideoWriter,
    probe_video,
    read_audio,
)


def numbers(reader, clips):
    with reader:
        return [clips.read_number(frame) for frame in reader]


def write_numbered(path, clips, *, frames=12, rate=Fraction(25), **options):
    with VideoWriter(path, width=192, height=64, frame_rate=rate, **options) as writer:
        for i in range(0, frames, 5):
            chunk = [clips.numbered_frame(j) for j in range(i, min(frames, i + 5))]
            writer.write(np.stack(chunk))
    return writer


@pytest.mark.parametrize("rate", ["25", "24000/1001", "30000/1001", "60000/1001", "25/2"])
def test_exact_rate_and_count(tmp_path, clips, rate):
    writer = write_numbered(tmp_path / "a.mp4", clips, rate=Fraction(rate))
    info = probe_video(tmp_path / "a.mp4")
    assert info.frame_rate == Fraction(rate)
    assert info.frame_count == writer.frame_count == 12
    assert writer.file_size == (tmp_path / "a.mp4").stat().st_size
    assert numbers(VideoReader(tmp_path / "a.mp4"), clips) == list(range(12))


@pytest.mark.parametrize("force", [0, 8, 12.5, 50, 30])
@pytest.mark.parametrize("counts", [*itertools.product([1, 2, 3, 7], [0, 1, 5], [0, 1, 4])])
def test_the_right_frames_are_kept(tmp_path_factory, clips, force, counts):
    nth, skip, cap = counts
    path = tmp_path_factory.getbasetemp() / "numbered40.mp4"
    if not path.exists():
        clips.numbered_clip(path, frames=40)
    selection = FrameSelection(
        select_every_nth_frame=nth, skip_first_frames=skip, frame_load_cap=cap, force_rate=force
    )
    rate = Fraction(force) or Fraction(25)
    grid = [round_half_down(Fraction(25 * k) / rate) for k in range(200)]
    last = Fraction(40, 25) - Fraction(1, 2) / max(rate, 25)
    grid = [min(39, number) for k, number in enumerate(grid) if k / rate <= last]
    wanted = grid[skip::nth]
    wanted = wanted[:cap] if cap else wanted
    reader = VideoReader(path, selection=selection)
    assert reader.expected_frame_count == len(wanted)
    assert numbers(reader, clips) == wanted
    assert reader.frame_count == len(wanted)
    start, duration = reader.time_span
    assert start == pytest.approx(skip / rate)
    assert duration == pytest.approx(len(wanted) * nth / rate)


def round_half_down(value):
    return -((-value + Fraction(1, 2)) // 1)


@pytest.mark.parametrize("nothing", [{"skip_first_frames": 40}, {"start_time_seconds": 2}])
def test_nothing_selected_is_said_at_once(tmp_path, clips, nothing):
    path = clips.numbered_clip(tmp_path / "a.mp4", frames=40)
    with pytest.raises(AnimateDiffV2VError, match="No frame"):
        VideoReader(path, selection=FrameSelection(**nothing))


def tone(seconds, *, rate=48000, channels=2):
    """Noise with a level that tells where in time one is."""
    noise = np.random.default_rng(7).uniform(-0.5, 0.5, (channels, round(seconds * rate)))
    return Audio(noise.astype(np.float32), rate)


@pytest.mark.parametrize("seconds", [0.48, 0.2, 3.0])
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_sound_is_in_sync_and_as_long_as_the_picture(tmp_path, clips, seconds, kind):
    audio = tone(seconds)
    if kind == "file":
        write_numbered(tmp_path / "source.mp4", clips, frames=100, audio=tone(4))
        audio = AudioSpan(tmp_path / "source.mp4", 1.0, seconds)
        expected = tone(4).waveform[:, 48000 : 48000 + round(seconds * 48000)]
    else:
        expected = audio.waveform
    write_numbered(tmp_path / "a.mp4", clips, audio=audio)
    heard = read_audio(tmp_path / "a.mp4", start_seconds=0, duration_seconds=0.48)
    assert heard.waveform.shape == (2, 23040)
    count = min(expected.shape[1], 23040)
    a, b = expected[0, :count], heard.waveform[0, :count]
    correlation = np.fft.irfft(np.fft.rfft(a, 2 * count) * np.conj(np.fft.rfft(b, 2 * count)))
    lag = int(np.argmax(correlation))
    assert min(lag, 2 * count - lag) <= 0.02 * 48000
    assert np.abs(heard.waveform[:, count + 4000 :]).max(initial=0) < 0.05
