"""The sound of a span is the sound of that span."""

from fractions import Fraction

import av
import numpy as np
import pytest
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.video import Audio, AudioSpan, VideoWriter, probe_video, read_audio

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
    """Return the delay of `heard`, from the peak of the correlation."""
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


def spread(channels):
    """Return a filter that copies one channel to as many, without a layout that has a name."""
    copies = "|".join(f"c{index}=c0" for index in range(channels))
    return ("-af", f"pan={channels}c|{copies}")


LAYOUTS = {
    "7.1.flac.mkv": (8, ("-c:a", "flac")),
    "7.1.opus.mkv": (8, ("-c:a", "libopus", "-b:a", "512k")),
    "7.1.pcm.mov": (8, ("-c:a", "pcm_s16le")),
    "6.1.flac.mkv": (7, ("-c:a", "flac")),
    "16.pcm.mov": (16, ("-c:a", "pcm_s24le")),
    "16.pcm.mkv": (16, ("-c:a", "pcm_f32le")),
    "64.pcm.mov": (64, ("-c:a", "pcm_s16le")),
    "pan 7.pcm.mov": (7, (*spread(7), "-c:a", "pcm_s16le")),
    "pan 8.pcm.mov": (8, (*spread(8), "-c:a", "pcm_f32le")),
    "pan 12.pcm.avi": (12, (*spread(12), "-c:a", "pcm_s16le")),
    "pan 16.pcm.mkv": (16, (*spread(16), "-c:a", "pcm_s16le")),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_many_channels_are_heard_in_sync(tmp_path, clips, name):
    channels, output = LAYOUTS[name]
    path = clip_with_sound(tmp_path / name, clips, channels=channels, output=output)
    audio = read_audio(path, start_seconds=1.48, duration_seconds=1)
    assert audio.waveform.shape == (channels, RATE)
    wanted = click_track(1)[round(1.48 * RATE) : round(2.48 * RATE), 0]
    for heard in audio.waveform:
        # The low-frequency channel of Opus lets little of a tone through.
        assert abs(lag_seconds(heard, wanted)) <= 0.02
        assert "opus" in name or np.abs(heard).max() > 0.2


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 96000, 192000])
def test_sample_rates(tmp_path, clips, rate):
    output = ("-ar", rate, "-c:a", "pcm_s16le")
    path = clip_with_sound(tmp_path / "a.mov", clips, channels=1, output=output)
    audio = read_audio(path, start_seconds=1.5, duration_seconds=0.5)
    assert (audio.sample_rate, audio.waveform.shape) == (rate, (1, rate // 2))
    assert np.abs(audio.waveform[0, : rate // 10]).max() > 0.2
    assert np.abs(audio.waveform[0, rate * 3 // 20 : rate * 9 // 20]).max() < 0.01


def test_sound_that_starts_late_follows_silence(tmp_path, clips):
    whole = clip_with_sound(tmp_path / "whole.mkv", clips, output=("-c:a", "pcm_s16le"))
    path = tmp_path / "late.mkv"
    inputs = ["-i", whole, "-itsoffset", "1", "-i", whole]
    clips.ffmpeg(*inputs, "-map", "0:v", "-map", "1:a", "-c", "copy", path)
    audio = read_audio(path, start_seconds=0, duration_seconds=2)
    assert np.abs(audio.waveform[:, : RATE - 100]).max() == 0
    assert abs(lag_seconds(audio.waveform[0, RATE:], click_track(1)[:RATE, 0])) <= 0.002


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


def test_a_track_that_cannot_be_decoded_is_said_before_the_first_frame(tmp_path, clips, caplog):
    path = clip_with_sound(tmp_path / "a.mkv", clips, output=("-c:a", "flac"))
    path.write_bytes(path.read_bytes().replace(b"fLaC", b"fLaX").replace(b"A_FLAC", b"A_FLAX"))
    span = AudioSpan(path, 0, 1)
    writer = VideoWriter(
        tmp_path / "out.mp4", width=64, height=64, frame_rate=Fraction(8), audio=span
    )
    assert "cannot be decoded and is left out" in caplog.text
    with writer:
        writer.write(np.zeros((8, 64, 64, 3), np.uint8))
    assert not probe_video(tmp_path / "out.mp4").has_audio


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
