"""Every output format, and every failure of writing."""

import logging
import os
import sys
import tempfile
import threading
import typing
from fractions import Fraction

import av
import numpy as np
import pytest
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.video import (
    FORMATS,
    Audio,
    AudioSpan,
    FormatName,
    FrameSelection,
    VideoReader,
    VideoWriter,
    probe_video,
    read_audio,
)
from animatediff_v2v.pipeline.video import writer as writer_module
from PIL import Image

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 150, 40)]
# The best quality, so that what is left of an error is the conversion's.
BEST = {"mp4-h264": 4, "mp4-h265": 2, "mp4-av1": 2, "webm-vp9": 2, "webp": 0}
# Ever higher tones: no two moments sound alike, and every codec keeps them.
CHIRP = np.sin(np.arange(44100) * np.linspace(0.01, 0.15, 44100)) * 0.3
SOUND = Audio(np.stack([CHIRP, -CHIRP]).astype(np.float32), 44100)


def stripes(count, *, alpha=False, width=96, height=64):
    """Six coloured stripes, the upper half grey and getting lighter, the lower half see-through."""
    frames = np.zeros((count, height, width, 4 if alpha else 3), np.uint8)
    stripe = width // len(COLOURS)
    for k, colour in enumerate(COLOURS):
        frames[:, height // 2 :, k * stripe : (k + 1) * stripe, :3] = colour
    frames[:, : height // 2, :, :3] = (np.arange(count) * 12)[:, None, None, None]
    if alpha:
        frames[..., 3] = np.where(np.arange(height) < height // 2, 255, 64)[None, :, None]
    return frames


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def write(path, frames, **options):
    rate = options.pop("frame_rate", Fraction(25))
    height, width = frames.shape[1:3]
    with VideoWriter(path, width=width, height=height, frame_rate=rate, **options) as writer:
        for start in range(0, len(frames), 4):
            writer.write(frames[start : start + 4])
    return writer


def read(path):
    with VideoReader(path) as reader:
        pairs = [(frame, reader.alpha) for frame in reader]
    alphas = None if pairs[0][1] is None else np.stack([alpha for _, alpha in pairs])
    return np.stack([frame for frame, _ in pairs]), alphas, reader.info


def inner_means(frames):
    """The mean colour inside each stripe of the lower half, [stripes, 3]."""
    height, width = frames.shape[1:3]
    stripe = width // len(COLOURS)
    lower = frames[:, height // 2 + 6 : height - 4]
    columns = [slice(k * stripe + 4, (k + 1) * stripe - 4) for k in range(len(COLOURS))]
    return np.stack([lower[:, :, column, :3].mean(axis=(0, 1, 2)) for column in columns])


def test_the_table_is_the_literal():
    assert tuple(FORMATS) == typing.get_args(FormatName)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_comes_back(tmp_path, name):
    form, frames = FORMATS[name], stripes(9)
    path = tmp_path / f"clip{form.extension}"
    writer = write(path, frames, format=name, crf=BEST.get(name), audio=SOUND)
    back, _, info = read(path)
    assert len(back) == writer.frame_count == info.frame_count == 9
    assert np.abs(inner_means(back) - inner_means(frames)).max() <= 2
    assert np.abs(back[:, 8:24].mean(axis=(1, 2, 3)) - np.arange(9) * 12).max() <= 2
    assert names(tmp_path) == [path.name]
    assert info.has_audio == (form.audio_encoder is not None)
    if name != "png":
        assert info.frame_rate == 25
        assert writer.file_size == path.stat().st_size
    if info.has_audio:
        with av.open(str(path)) as container:
            length = container.duration / 1e6
        assert length == pytest.approx(9 / 25, abs=0.02)


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.has_alpha])
def test_alpha_comes_back(tmp_path, name):
    path = tmp_path / f"clip{FORMATS[name].extension}"
    write(path, stripes(5, alpha=True), format=name, crf=BEST.get(name))
    _, alphas, info = read(path)
    assert info.has_alpha
    assert np.abs(alphas[:, :28].astype(int) - 255).max() <= 2
    seen = 0 if name == "gif" else 64
    assert np.abs(alphas[:, 36:].astype(int) - seen).max() <= 2


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.is_yuv])
def test_yuv_is_tagged_bt709_limited(tmp_path, clips, name):
    path = tmp_path / f"clip{FORMATS[name].extension}"
    write(path, stripes(3), format=name)
    assert "(tv, bt709" in clips.description(path)
    assert "unknown" not in clips.description(path)


@pytest.mark.parametrize(
    "name",
    [name for name, form in FORMATS.items() if form.holds_metadata and not form.add_metadata],
)
def test_metadata_comes_back(tmp_path, name):
    path = tmp_path / f"clip{FORMATS[name].extension}"
    texts = {"workflow": '{"a=b;#\\": "line\nbreak, ünïcode 影片"}', "prompt": "x" * 300_000}
    write(path, stripes(3), format=name, metadata=texts, audio=SOUND)
    with av.open(str(path)) as container:
        stored = {key.lower(): value for key, value in container.metadata.items()}
    assert {key: stored.get(key) for key in texts} == texts


@pytest.mark.parametrize("text", ["x" * 70_001, "", "ünïcode 影片"])
@pytest.mark.parametrize(("name", "count"), [("webp", 1), ("webp", 3), ("png", 3)])
@pytest.mark.parametrize("channels", [3, 4])
def test_pictures_hold_metadata_as_comfyui_reads_it(tmp_path, name, count, text, channels):
    frames = np.concatenate([stripes(count)] * 2, axis=3)[..., :channels]
    paths = [tmp_path / f"{each}{FORMATS[name].extension}" for each in ("with", "without")]
    for path, metadata in zip(paths, ({"workflow": "{}", "prompt": text}, None), strict=True):
        write(path, frames, format=name, metadata=metadata)
    files = [path if path.is_file() else path / "00001.png" for path in paths]
    with Image.open(files[0]) as picture, Image.open(files[1]) as plain:
        assert (picture.n_frames, picture.mode) == (plain.n_frames, plain.mode)
        for index in range(picture.n_frames):
            picture.seek(index)
            plain.seek(index)
            assert picture.tobytes() == plain.tobytes()
        if name == "png":
            assert picture.text == {"workflow": "{}", "prompt": text}
        else:
            stored = {value.encode("latin-1").decode() for value in picture.getexif().values()}
            assert stored == {"workflow:{}", f"prompt:{text}"}


def test_metadata_that_are_no_text_are_no_obstacle(tmp_path):
    path = tmp_path / "clip.mp4"
    write(path, stripes(3), metadata={"prompt": "ABCDEFGH"})
    path.write_bytes(path.read_bytes().replace(b"ABCDEFGH", b"\xff\xfeCDEF\xc3G"))
    frames, _, _ = read(path)
    assert len(frames) == 3


@pytest.mark.parametrize("name", ["mp4-h264", "gif", "webp", "mkv-ffv1"])
@pytest.mark.parametrize("size", [(95, 63), (96, 63), (33, 64)])
def test_odd_sizes(tmp_path, name, size):
    path = tmp_path / f"clip{FORMATS[name].extension}"
    frames = stripes(3, width=size[0], height=size[1])
    write(path, frames, format=name, crf=BEST.get(name))
    info = probe_video(path)
    multiple = FORMATS[name].size_multiple
    assert (info.width, info.height) == tuple(side + side % multiple for side in size)


@pytest.mark.parametrize(("count", "order"), [(1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3, 2, 1])])
@pytest.mark.parametrize("loops", [0, 2])
def test_pingpong_and_loops(tmp_path, clips, count, order, loops):
    frames = np.stack([clips.numbered_frame(i) for i in range(count)])
    path = tmp_path / "clip.mp4"
    writer = write(path, frames, pingpong=True, loop_count=loops, audio=SOUND)
    back, _, info = read(path)
    assert [clips.read_number(frame) for frame in back] == order * (1 + loops)
    assert writer.frame_count == info.frame_count == len(order) * (1 + loops)


def test_loops_repeat_the_sound(tmp_path):
    path = tmp_path / "clip.mp4"
    write(path, stripes(25), loop_count=2, audio=SOUND)
    heard = read_audio(path, start_seconds=0, duration_seconds=3).waveform[0]
    for again in (1, 2):
        part = heard[again * 44100 + 3000 : again * 44100 + 40000]
        assert np.corrcoef(heard[3000:40000], part)[0, 1] > 0.9


@pytest.mark.parametrize("name", ["gif", "webp"])
@pytest.mark.parametrize("loops", [0, 3])
def test_loops_are_left_to_the_player(tmp_path, name, loops):
    path = tmp_path / f"clip.{name}"
    write(path, stripes(4), format=name, loop_count=loops)
    data = path.read_bytes()
    at = data.index(b"NETSCAPE2.0") + 13 if name == "gif" else data.index(b"ANIM") + 12
    assert int.from_bytes(data[at : at + 2], "little") == loops


@pytest.mark.parametrize("layout", ["mono", "5.1"])
@pytest.mark.parametrize("name", ["mp4-h264", "webm-vp9", "mkv-ffv1", "mov-prores"])
def test_channels_are_kept(tmp_path, name, layout):
    channels = {"mono": 1, "5.1": 6}[layout]
    tones = np.sin(np.arange(24000)[None] * np.linspace(0.02, 0.1, channels)[:, None]) * 0.3
    path = tmp_path / f"clip{FORMATS[name].extension}"
    write(path, stripes(12), format=name, audio=Audio(tones.astype(np.float32), 48000))
    heard = read_audio(path, start_seconds=0, duration_seconds=0.48).waveform
    assert heard.shape == (channels, 23040)
    for index in set(range(channels)) - {3}:  # the bass channel loses higher tones
        assert np.corrcoef(heard[index, 2000:20000], tones[index, 2000:20000])[0, 1] > 0.9


@pytest.mark.parametrize("name", ["mp4-h264", "webm-vp9", "mkv-ffv1", "mov-prores"])
@pytest.mark.parametrize("channels", [3, 4, 7, 8, 9, 16])
def test_channels_that_a_format_cannot_hold_are_mixed_down(tmp_path, caplog, name, channels):
    tone = np.sin(np.arange(24000) * 0.05) * 0.3
    tones = np.zeros((channels, 24000), np.float32)
    tones[0::2] = tone
    path = tmp_path / f"clip{FORMATS[name].extension}"
    write(path, stripes(12), format=name, audio=Audio(tones, 48000))
    heard = read_audio(path, start_seconds=0, duration_seconds=0.48).waveform
    held = channels in FORMATS[name].audio_channels
    assert heard.shape == (channels if held else 2, 23040)
    assert np.corrcoef(heard[0, 2000:20000], tone[2000:20000])[0, 1] > 0.9
    assert np.abs(heard[1, 2000:20000]).max() < 0.05
    assert ("mixed down to stereo" in caplog.text) != held


def test_a_silent_clip_as_sound_source_is_no_error(tmp_path):
    write(tmp_path / "silent.mp4", stripes(4))
    write(tmp_path / "clip.mp4", stripes(4), audio=AudioSpan(tmp_path / "silent.mp4", 0, 1))
    assert not probe_video(tmp_path / "clip.mp4").has_audio


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"path": "clip.webm"}, "extension|end in .mp4"),
        ({"path": "missing/clip.mp4"}, "no folder"),
        ({"path": "folder.mp4"}, "is a folder"),
        ({"format": "wmv"}, "mp4-h264"),
        ({"crf": 52}, "0 .best. to 51"),
        ({"crf": -1}, "crf is -1"),
        ({"format": "gif", "path": "a.gif", "crf": 3}, "leave crf out"),
        ({"format": "gif", "path": "a.gif", "frame_rate": Fraction(60)}, "up to 50"),
        ({"format": "png", "path": "full"}, "exists already"),
        ({"width": 0}, "width is 0"),
        ({"height": 20000}, "height is 20000"),
        ({"frame_rate": Fraction(0)}, "frame_rate is 0"),
        ({"loop_count": -1}, "loop_count is -1"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_written(tmp_path, wrong, said):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "1.png").touch()
    before = names(tmp_path)
    options = {"path": "clip.mp4", "width": 96, "height": 64, "frame_rate": Fraction(8), **wrong}
    with pytest.raises(AnimateDiffV2VError, match=said):
        VideoWriter(tmp_path / options.pop("path"), **options)
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 64, 96, 3), np.float32),
        np.zeros((64, 96, 3), np.uint8),
        np.zeros((2, 96, 64, 3), np.uint8),
        np.zeros((2, 64, 96, 1), np.uint8),
        [1, 2],
    ],
)
def test_other_arrays_are_refused(tmp_path, frames):
    with (
        pytest.raises(AnimateDiffV2VError, match=r"give uint8 \[n, 64, 96, 3 or 4\]"),
        VideoWriter(tmp_path / "a.mp4", width=96, height=64, frame_rate=Fraction(8)) as writer,
    ):
        writer.write(frames)
    assert names(tmp_path) == []


def test_no_frame_is_an_error(tmp_path):
    with (
        pytest.raises(AnimateDiffV2VError, match="no frame was given"),
        VideoWriter(tmp_path / "a.mp4", width=96, height=64, frame_rate=Fraction(8)),
    ):
        pass
    assert names(tmp_path) == []


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(AnimateDiffV2VError, match="may not be written to"):
        VideoWriter(tmp_path / "a.mp4", width=96, height=64, frame_rate=Fraction(8))


def encoder_processes():
    """The encoder processes of this test run that are still alive (Linux)."""
    import subprocess

    shown = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True)
    mine = [line for line in shown.stdout.splitlines() if line.split()[0] == str(os.getpid())]
    return [line for line in mine if "rawvideo" in line]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("pingpong", [False, True])
def test_a_cancelled_job_leaves_nothing(tmp_path, error, pingpong):
    (tmp_path / "clip.mp4").write_bytes(b"an older file")
    with (
        pytest.raises(error),
        VideoWriter(
            tmp_path / "clip.mp4",
            width=96,
            height=64,
            frame_rate=Fraction(8),
            pingpong=pingpong,
            overwrite=True,
        ) as writer,
    ):
        writer.write(stripes(40))
        raise error
    assert names(tmp_path) == ["clip.mp4"]
    assert (tmp_path / "clip.mp4").read_bytes() == b"an older file"
    if sys.platform == "linux":
        assert encoder_processes() == []


def test_a_killed_encoder_is_an_error_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(AnimateDiffV2VError, match="was not written"),
        VideoWriter(tmp_path / "a.mp4", width=96, height=64, frame_rate=Fraction(8)) as writer,
    ):
        writer.write(stripes(4))
        writer._encoder._process.kill()
        for _ in range(200):
            writer.write(stripes(40))
    assert names(tmp_path) == []


def test_a_killed_encoder_is_noticed_at_the_end(tmp_path):
    with (
        pytest.raises(AnimateDiffV2VError, match="was not written"),
        VideoWriter(tmp_path / "a.mp4", width=96, height=64, frame_rate=Fraction(8)) as writer,
    ):
        writer.write(stripes(4))
        writer._encoder._process.kill()
        writer._encoder._process.wait()
    assert names(tmp_path) == []


def test_a_missing_encoder_is_said_and_not_shown(tmp_path, monkeypatch, capfd):
    import dataclasses

    broken = dataclasses.replace(FORMATS["mp4-h264"], encoder="libnonsense")
    monkeypatch.setattr(writer_module, "output_format", lambda name: broken)
    with pytest.raises(AnimateDiffV2VError, match="not got the encoder"):
        write(tmp_path / "a.mp4", stripes(400))
    assert capfd.readouterr() == ("", "")
    assert names(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full exists on Linux only")
def test_a_full_disk_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "encode_arguments", full_disk_arguments)
    with pytest.raises(AnimateDiffV2VError, match="the disk is full"):
        write(tmp_path / "a.mp4", stripes(400))
    assert names(tmp_path) == []


def full_disk_arguments(form, *, pictures, **_):
    return [*pictures.arguments("pipe:0"), "-f", "rawvideo", "/dev/full"]


@pytest.mark.parametrize("name", ["mp4-h264", "mp4-h265", "mp4-av1"])
def test_without_a_card_the_software_encoder_is_used(tmp_path, monkeypatch, caplog, name):
    from animatediff_v2v.pipeline.video import command

    monkeypatch.setattr(command, "encoder_opens", lambda encoder: False)
    caplog.set_level(logging.INFO)
    write(tmp_path / "a.mp4", stripes(4), format=name, hardware=True)
    assert FORMATS[name].encoder in caplog.text
    assert probe_video(tmp_path / "a.mp4").frame_count == 4


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("nvenc", ["-cq", "17"]),
        ("videotoolbox", ["-q:v", "67"]),
        ("qsv", ["-global_quality", "17"]),
    ],
)
def test_a_card_that_opens_is_used(monkeypatch, card, words):
    from animatediff_v2v.pipeline.video import command

    monkeypatch.setattr(command, "encoder_opens", lambda encoder: encoder.endswith(card))
    pictures = command.RawPictures(width=8, height=8, channels=3, frame_rate=Fraction(8))
    arguments = command.encode_arguments(
        FORMATS["mp4-h264"],
        pictures=pictures,
        crf=17,
        loop_count=0,
        has_metadata=False,
        hardware=True,
    )
    at = arguments.index("-c:v", 9)
    assert arguments[at + 1] == f"h264_{card}"
    assert words[1] == arguments[arguments.index(words[0]) + 1]
    assert "libx264" not in arguments


def test_what_really_opens_is_found_out():
    from animatediff_v2v.pipeline.video.command import encoder_opens

    assert encoder_opens("libx264")
    assert not encoder_opens("libnonsense")


def test_two_writers_at_once_do_not_meet(tmp_path, clips):
    def job(name, first):
        frames = np.stack([clips.numbered_frame(i) for i in range(first, first + 20)])
        write(tmp_path / name, frames)

    jobs = [threading.Thread(target=job, args=(f"{k}.mp4", k * 100)) for k in range(3)]
    for each in jobs:
        each.start()
    for each in jobs:
        each.join()
    for k in range(3):
        with VideoReader(tmp_path / f"{k}.mp4", selection=FrameSelection()) as reader:
            read_back = [clips.read_number(frame) for frame in reader]
        assert read_back == list(range(k * 100, k * 100 + 20))


def test_the_finished_file_replaces_an_older_one_where_it_may(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"older")
    with pytest.raises(AnimateDiffV2VError, match="exists already: choose another name, or set"):
        write(tmp_path / "clip.mp4", stripes(4))
    assert (tmp_path / "clip.mp4").read_bytes() == b"older"
    write(tmp_path / "clip.mp4", stripes(4), overwrite=True)
    assert probe_video(tmp_path / "clip.mp4").frame_count == 4
