"""The sound of a span is the sound of that span."""

import av
import numpy as np
import pytest
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.video import Audio, AudioSpan, read_audio

RATE = 48000
H264 = ("-c:v", "libx264", "-preset", "ultrafast")
AAC = ("-c:a", "aac", "-b:a", "192k")
SECONDS = 4


def click_track(channels, seconds=SECONDS):
    """A burst of tone every half second, each higher than the one before."""
    time = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (300 + 200 * np.floor(time * 2)) * time) * 0.4
    track = np.where(time % 0.5 < 0.1, tone, 0).astype("<f4")
    return np.repeat(track[:, None], channels, axis=1)


def clip_with_sound(path, clips, *, channels=2, sound_seconds=SECONDS, output=AAC, tracks=1):
    raw = path.with_suffix(".f32")
    raw.write_bytes(click_track(channels, sound_seconds).tobytes())
    sound = ["-f", "f32le", "-ar", RATE, "-ac", channels, "-i", raw]
    maps = [word for track in range(tracks) for word in ("-map", "1:a")]
    options = (*H264, "-map", "0:v", *maps, *output)
    clips.numbered_clip(path, frames=25 * SECONDS, sound=sound, output=options)
    raw.unlink()
    return path


def lag_seconds(heard, wanted):
    """By how much `heard` is late, from the peak of the correlation."""
    size = 2 * len(wanted)
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(wanted, size))
    peak = int(np.argmax(np.fft.irfft(spectrum)))
    return (peak if peak < len(wanted) else peak - size) / RATE


SOUNDS = {
    "aac.mp4": AAC,
    "aac.mov": AAC,
    "aac.mkv": AAC,
    "aac.ts": AAC,
    "mp3.mp4": ("-c:a", "libmp3lame"),
    "pcm.avi": ("-c:a", "pcm_s16le"),
    "opus.mkv": ("-c:a", "libopus"),
    "pcm.mov": ("-c:a", "pcm_s16le"),
    "flac.mkv": ("-c:a", "flac"),
    "ac3.mkv": ("-c:a", "ac3"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_every_span_is_in_sync(tmp_path, clips, name):
    path = clip_with_sound(tmp_path / name, clips, output=SOUNDS[name])
    whole = click_track(1)[:, 0]
    for start, duration in [(0, 4), (0, 1), (0.44, 1.5), (1.96, 1.0), (3.04, 0.96)]:
        audio = read_audio(path, start_seconds=start, duration_seconds=duration)
        assert audio.sample_rate == RATE
        assert audio.waveform.shape == (2, round(duration * RATE))
        wanted = whole[round(start * RATE) : round((start + duration) * RATE)]
        assert abs(lag_seconds(audio.waveform[0], wanted)) <= 0.02


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels(tmp_path, clips, channels):
    path = clip_with_sound(tmp_path / "a.mp4", clips, channels=channels)
    audio = read_audio(path, start_seconds=0.5, duration_seconds=1)
    assert audio.waveform.shape == (channels, RATE)
    assert audio.waveform.dtype == np.float32
    assert np.abs(audio.waveform[0]).max() > 0.2


def test_sound_that_ends_early_is_followed_by_silence(tmp_path, clips):
    path = clip_with_sound(tmp_path / "a.mp4", clips, sound_seconds=1)
    audio = read_audio(path, start_seconds=0, duration_seconds=4)
    assert audio.waveform.shape == (2, 4 * RATE)
    assert np.abs(audio.waveform[:, : RATE // 10]).max() > 0.2
    assert np.abs(audio.waveform[:, RATE + 5000 :]).max() == 0
    after = read_audio(path, start_seconds=2, duration_seconds=1)
    assert np.abs(after.waveform).max() == 0


def test_sound_that_goes_on_after_the_picture_is_left_out(tmp_path, clips):
    path = clip_with_sound(tmp_path / "a.mp4", clips, sound_seconds=6)
    audio = read_audio(path, start_seconds=3.5, duration_seconds=0.5)
    wanted = click_track(1)[round(3.5 * RATE) :, 0]
    assert audio.waveform.shape == (2, RATE // 2)
    assert abs(lag_seconds(audio.waveform[0], wanted)) <= 0.02


def test_a_delayed_picture_takes_the_sound_of_its_own_time(tmp_path, clips):
    whole = clip_with_sound(tmp_path / "whole.mkv", clips, output=("-c:a", "pcm_s16le"))
    path = tmp_path / "delayed.mkv"
    inputs = ["-itsoffset", "1", "-i", whole, "-i", whole]
    clips.ffmpeg(*inputs, "-map", "0:v", "-map", "1:a", "-c", "copy", path)
    audio = read_audio(path, start_seconds=0, duration_seconds=1.5)
    wanted = click_track(1)[RATE : RATE * 5 // 2, 0]
    assert abs(lag_seconds(audio.waveform[0], wanted)) <= 0.02


def test_of_several_tracks_the_default_one_is_heard(tmp_path, clips):
    options = (*AAC, "-filter:a:0", "volume=0", "-disposition:a:0", "0")
    options += ("-disposition:a:1", "default")
    path = clip_with_sound(tmp_path / "a.mkv", clips, output=options, tracks=2)
    assert np.abs(read_audio(path, start_seconds=0, duration_seconds=1).waveform).max() > 0.2


def test_a_silent_clip_has_no_audio(tmp_path, clips):
    path = clips.numbered_clip(tmp_path / "a.mp4", frames=5)
    assert read_audio(path, start_seconds=0, duration_seconds=1) is None


@pytest.mark.parametrize("name", ["folder", "clip.webp"])
def test_pictures_have_no_audio(tmp_path, clips, name):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    else:
        clips.numbered_clip(path, frames=3, output=("-pix_fmt", "bgra", "-c:v", "libwebp_anim"))
    assert read_audio(path, start_seconds=0, duration_seconds=1) is None


def test_a_damaged_track_is_logged_and_does_not_end_the_run(tmp_path, clips, caplog):
    path = clip_with_sound(tmp_path / "a.mp4", clips)
    data, noise = bytearray(path.read_bytes()), np.random.default_rng(0)
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            if packet.size:
                data[packet.pos : packet.pos + packet.size] = noise.bytes(packet.size)
    path.write_bytes(data)
    audio = read_audio(path, start_seconds=0, duration_seconds=2)
    assert audio is None or audio.waveform.shape == (2, 2 * RATE)
    assert "damaged" in caplog.text


@pytest.mark.parametrize(
    ("waveform", "sample_rate", "said"),
    [
        (np.zeros(5, np.float32), 48000, "channels, samples"),
        (np.zeros((2, 5), np.float64), 48000, "float32"),
        (np.zeros((0, 5), np.float32), 48000, "channels, samples"),
        (np.zeros((2, 5), np.float32), 0, "sample_rate is 0"),
    ],
)
def test_audio_checks_itself(waveform, sample_rate, said):
    with pytest.raises(AnimateDiffV2VError, match=said):
        Audio(waveform, sample_rate)


@pytest.mark.parametrize("span", [(-1, 1), (0, -1), (float("nan"), 1)])
def test_audio_span_checks_itself(span):
    with pytest.raises(AnimateDiffV2VError, match="seconds of 0 or more"):
        AudioSpan("clip.mp4", *span)


def test_a_missing_file_is_said():
    with pytest.raises(AnimateDiffV2VError, match="There is no file"):
        read_audio("missing.mp4", start_seconds=0, duration_seconds=1)
