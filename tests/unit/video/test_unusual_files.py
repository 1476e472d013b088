"""Clips as phones, editors and recorders make them: every frame, colour and click is right."""

import re
import struct
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from animatediff_v2v.pipeline.video import FrameSelection, VideoReader, hdr, probe_video, read_audio
from animatediff_v2v.pipeline.video import probe as probe_module
from animatediff_v2v.pipeline.video.orientation import Orientation, matrix_orientation


@pytest.fixture(scope="module")
def base(tmp_path_factory, clips):
    """A clip of 90 cards with B-frames and clicks."""
    return clips.card_clip(tmp_path_factory.mktemp("base") / "base.mp4")


def assert_right(path, clips, *, numbers, sound=True):
    """Read a clip of cards whole; return its reader."""
    with VideoReader(path) as reader:
        frames = list(reader)
    assert [clips.card_number(frame) for frame in frames] == numbers
    assert reader.expected_frame_count in {len(numbers), None}
    assert reader.frame_rate == 30
    assert max(clips.patch_error(frame) for frame in frames[::20]) <= 3
    if sound:
        seconds = len(numbers) / 30
        audio = read_audio(path, start_seconds=0, duration_seconds=seconds)
        heard = clips.click_seconds(audio.waveform, audio.sample_rate)
        assert heard == pytest.approx(np.arange(0.25, seconds, 0.5), abs=0.003)
    return reader


def box(data, *names):
    """Find a box of an MP4 file by the names of the boxes around it: (position, size)."""
    begin, end = 0, len(data)
    for name in names:
        position = begin
        while data[position + 4 : position + 8] != name.encode():
            position += struct.unpack_from(">I", data, position)[0]
            assert position < end, name
        end = position + struct.unpack_from(">I", data, position)[0]
        # Sample descriptions hold a count first, and an entry's own fields before its boxes.
        begin = position + {"stsd": 16, "avc1": 86}.get(name, 8)
    return position, end - position


TRACK = ("moov", "trak")
ENTRY = (*TRACK, "mdia", "minf", "stbl", "stsd", "avc1")


def with_matrix(path, target, matrix):
    data = bytearray(path.read_bytes())
    position, _ = box(data, *TRACK, "tkhd")
    struct.pack_into(">9i", data, position + 48, *matrix)
    target.write_bytes(data)
    return target


def with_box(path, target, payload):
    """Add a box to the video's sample description, which stands behind the frames."""
    data = bytearray(path.read_bytes())
    for depth in range(1, len(ENTRY) + 1):
        position, size = box(data, *ENTRY[:depth])
        struct.pack_into(">I", data, position, size + len(payload))
        end = position + size
    data[end:end] = payload
    target.write_bytes(data)
    return target


def as_ffmpeg(path):
    """Decode the first frame as ffmpeg shows it: uint8 [bytes]."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-frames:v", "1"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8)


ONE = 1 << 16
MATRICES = [
    (a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    for a, b, c, d in [
        (1, 0, 0, 1),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (-1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, 1, -1, 0),
        (0, -1, 1, 0),
        (0, -1, -1, 0),
        (0, 2, -2, 0),
        (1, 0, 0, 0),
    ]
] + [(0,) * 9]


@pytest.mark.parametrize("matrix", MATRICES)
def test_display_matrices_do_what_ffmpeg_does(tmp_path, clips, matrix):
    flat = tmp_path / "flat.mp4"
    output = ("-c:v", "libx264", "-crf", "1", "-pix_fmt", "yuv444p", "-an")
    clips.card_clip(flat, output, frames=2)
    path = with_matrix(flat, tmp_path / "turned.mp4", matrix)
    with VideoReader(path) as reader:
        frame = next(iter(reader))
    shown = as_ffmpeg(path)
    assert frame.size == shown.size
    assert np.abs(frame.astype(int) - shown.reshape(frame.shape)).max() <= 6


def test_a_matrix_of_zeros_turns_nothing():
    assert matrix_orientation((0,) * 9) == Orientation()


def clean_aperture(width, height, x=0, y=0):
    """Make the box; x and y are the offsets of its middle, in pixels."""
    numbers = (width, 1, height, 1, x, 1, y, 1)
    return struct.pack(">I4s8i", 40, b"clap", *numbers)


@pytest.mark.parametrize(("offset", "corner"), [((0, 0), (40, 30)), ((24, -10), (64, 20))])
def test_the_clean_aperture_is_shown(tmp_path, clips, base, offset, corner):
    left, top = corner
    path = with_box(base, tmp_path / "clap.mp4", clean_aperture(240, 180, *offset))
    info = probe_video(path)
    assert (info.width, info.height) == (240, 180)
    with VideoReader(path, width=240, height=184, fit="stretch") as reader:
        frame = next(iter(reader)).astype(int)
    cut = clips.card(0)[top : top + 180, left : left + 240].astype(int)
    for x in range(10, 240, 10):
        around = cut[90, max(0, x - 6) : x + 7]
        assert np.ptp(around, axis=0).any() or np.abs(frame[92, x] - cut[90, x]).max() <= 4
    assert as_ffmpeg(path).size == 240 * 180 * 3


@pytest.fixture(scope="module")
def trimmed(base, tmp_path_factory, clips):
    """The base without its first 1.5 seconds, not encoded again: frames are left out by a list."""
    path = tmp_path_factory.mktemp("trimmed") / "trimmed.mp4"
    clips.ffmpeg("-ss", "1.5", "-i", base, "-c", "copy", path)
    assert b"elst" in path.read_bytes()
    return path


def padded(path, target):
    """Add a free box of 300 MB, which takes no room on the disk."""
    target.write_bytes(path.read_bytes())
    with target.open("ab") as file:
        file.write(struct.pack(">I4s", 300 * 2**20, b"free"))
        file.truncate(file.tell() - 8 + 300 * 2**20)
    return target


@pytest.mark.parametrize("large", [False, True])
def test_a_trimmed_clip_begins_where_it_was_cut(tmp_path, clips, trimmed, large):
    path = padded(trimmed, tmp_path / "large.mp4") if large else trimmed
    assert_right(path, clips, numbers=list(range(45, 90)))


@pytest.mark.parametrize("name", ["mvhd", "mdhd", "tkhd"])
@pytest.mark.parametrize("claimed", [0.2, 50])
def test_a_header_that_lies_about_the_end_cuts_nothing(tmp_path, clips, base, name, claimed):
    data = bytearray(base.read_bytes())
    around = {"mvhd": ("moov",), "tkhd": TRACK, "mdhd": (*TRACK, "mdia")}[name]
    position, _ = box(data, *around, name)
    at = position + (28 if name == "tkhd" else 24)
    ticks = struct.unpack_from(">I", data, at)[0]
    struct.pack_into(">I", data, at, round(ticks * claimed))
    (tmp_path / "lies.mp4").write_bytes(data)
    path = padded(tmp_path / "lies.mp4", tmp_path / "large.mp4")
    for each in (tmp_path / "lies.mp4", path):
        assert_right(each, clips, numbers=list(range(90)))


def test_a_matroska_header_that_lies_about_the_end_cuts_nothing(tmp_path, clips, monkeypatch):
    path = clips.card_clip(tmp_path / "a.mkv", (*clips.CARD_H264, "-c:a", "flac"))
    data = path.read_bytes()
    assert data.count(struct.pack(">d", 3000.0)) == 1
    path.write_bytes(data.replace(struct.pack(">d", 3000.0), struct.pack(">d", 700.0)))
    assert_right(path, clips, numbers=list(range(90)))
    monkeypatch.setattr(probe_module, "SCANNED_BYTES", 0)
    assert_right(path, clips, numbers=list(range(90)))


@pytest.mark.parametrize(
    "output",
    [
        ("-c:v", "libx264", "-bf", "3"),
        ("-c:v", "libx264", "-bf", "3", "-enc_time_base", "1:60"),
        ("-c:v", "libx264", "-bf", "2", "-enc_time_base", "1:600"),
        ("-c:v", "libx264", "-bf", "0", "-enc_time_base", "1:60"),
        ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2"),
        ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2", "-enc_time_base", "1:60"),
    ],
)
def test_b_frames_in_avi_play_at_their_rate(tmp_path, clips, output):
    path = clips.card_clip(tmp_path / "a.avi", (*output, "-crf", "8", "-c:a", "pcm_s16le"))
    reader = assert_right(path, clips, numbers=list(range(90)))
    assert (reader.info.frame_count, reader.info.duration) == (90, 3)


JOINABLE = {
    "ts": ("-c:a", "aac"),
    "m2ts": ("-c:a", "ac3"),
    "mpg": ("-c:v", "mpeg2video", "-q:v", "2", "-g", "15", "-bf", "2", "-c:a", "mp2"),
    "vob": ("-c:v", "mpeg2video", "-q:v", "2", "-g", "15", "-bf", "2", "-c:a", "ac3"),
}
# The clock begins again at 95443.7 s.
LATE = ("-output_ts_offset", "95442.2")


@pytest.mark.parametrize("suffix", JOINABLE)
def test_a_joined_stream_is_its_parts_one_after_another(tmp_path, clips, suffix):
    output = (*clips.CARD_H264, *JOINABLE[suffix])
    part = clips.card_clip(tmp_path / f"part.{suffix}", output)
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(part.read_bytes() * 3)
    reader = assert_right(path, clips, numbers=list(range(90)) * 3)
    assert (reader.info.frame_count, reader.info.duration) == (270, 9)
    selection = FrameSelection(start_time_seconds=2.5, duration_seconds=1)
    with VideoReader(path, selection=selection) as reader:
        numbers = [clips.card_number(frame) for frame in reader]
    assert numbers == [*range(75, 90), *range(15)]
    audio = read_audio(path, start_seconds=2.5, duration_seconds=1)
    heard = clips.click_seconds(audio.waveform, audio.sample_rate)
    assert heard == pytest.approx([0.25, 0.75], abs=0.003)


@pytest.mark.parametrize(
    "second",
    [
        LATE,
        ("-output_ts_offset", "5000"),
        ("-s", "160x120", "-ac", "2", "-ar", "44100"),
        ("-an",),
        ("-c:v", "libx265", "-x265-params", "log-level=error", "-c:a", "mp2"),
        ("-mpegts_start_pid", "0x500", "-output_ts_offset", "50"),
    ],
)
@pytest.mark.parametrize("first", [(), LATE])
def test_parts_of_a_joined_stream_may_differ(tmp_path, clips, first, second):
    parts = [
        clips.card_clip(tmp_path / f"{k}.ts", (*clips.CARD_H264, "-c:a", "aac", *output))
        for k, output in enumerate([first, second])
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    reader = assert_right(path, clips, numbers=[*range(90)] * 2, sound="-an" not in second)
    assert (reader.info.frame_count, reader.info.duration) == (180, 6)


@pytest.mark.parametrize("offset", ["95440.9", "95442.2", "95443.5"])
def test_a_clock_that_begins_again_is_no_end(tmp_path, clips, offset):
    output = (*clips.CARD_H264, "-c:a", "aac", "-output_ts_offset", offset)
    path = clips.card_clip(tmp_path / "a.ts", output)
    assert_right(path, clips, numbers=list(range(90)))


@pytest.mark.parametrize("which", [40, 89])
def test_a_wild_time_in_a_stream_is_no_part(tmp_path, clips, which):
    path = clips.card_clip(tmp_path / "a.ts", (*clips.CARD_H264, "-c:a", "aac"))
    data = bytearray(path.read_bytes())
    position = [found.start() for found in re.finditer(b"\0\0\1\xe0", data)][which]
    data[position + 10] ^= 0x40
    path.write_bytes(data)
    assert not probe_video(path).parts
    with VideoReader(path) as reader:
        numbers = [clips.card_number(frame) for frame in reader]
    assert len(numbers) in {89, 90}
    assert numbers[:30] == list(range(30))
    assert numbers[-1] >= 88


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize("second", [("-disposition:v:1", "default"), ()])
def test_the_track_that_ffmpeg_plays_is_taken(tmp_path, clips, base, suffix, second):
    path = tmp_path / f"two.{suffix}"
    small = ["-map", "0:v", "-map", "0:v", "-s:v:0", "160x120", "-an", *clips.CARD_H264]
    first = ("-disposition:v:0", "0" if second else "default")
    clips.ffmpeg("-i", base, *small, "-filter:v:1", "negate", *first, *second, path)
    with VideoReader(path) as reader:
        frame = next(iter(reader))
    shown = as_ffmpeg(path)
    assert frame.size == shown.size
    assert np.abs(frame.astype(int) - shown.reshape(frame.shape)).mean() < 3


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
@pytest.mark.parametrize("limits", ["limited", "full"])
def test_hdr_colours_are_the_same_at_every_size(tmp_path, clips, transfer, limits):
    path = tmp_path / "hdr.mp4"
    filters = f"scale=out_color_matrix=bt2020:out_range={limits},format=yuv420p10le,setparams="
    filters += f"range={limits}:colorspace=bt2020nc:color_primaries=bt2020:color_trc={transfer}"
    codec = ("-c:v", "libx265", "-x265-params", "log-level=error", "-crf", "4", "-an")
    clips.card_clip(path, ("-vf", filters, "-pix_fmt", "yuv420p10le", *codec), frames=2)
    wanted = np.array([(colour,) for colour in clips.PATCHES], np.uint16) * 257
    wanted = hdr.tone_map(wanted, transfer=getattr(hdr, HDR[transfer])).astype(int)[:, 0]
    for asked in (320, 160, 640, 0):
        with VideoReader(path, width=asked) as reader:
            frame = next(iter(reader)).astype(int)
        height, width = frame.shape[:2]
        seen = [frame[height // 2, width * (2 * k + 1) // 10] for k in range(5)]
        assert np.abs(np.array(seen) - wanted).max() <= 6


HDR = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
