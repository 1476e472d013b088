"""Thumbnails are the frames that reading would keep."""

from fractions import Fraction

import pytest
from animatediff_v2v.pipeline.video import FrameSelection, VideoReader, thumbnails

SHORT_GOP = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-g", "20")


@pytest.fixture(scope="module")
def clip(tmp_path_factory, clips):
    """400 frames, 16 s, so that some thumbnails are found by seeking and some by decoding on."""
    path = tmp_path_factory.mktemp("clips") / "long.mp4"
    return clips.numbered_clip(path, frames=400, output=SHORT_GOP)


def numbers(reader, clips, **options):
    return [clips.read_number(picture) for _, picture in thumbnails(reader, height=64, **options)]


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        ({}, 400),
        ({"select_every_nth_frame": 3}, 134),
        ({"select_every_nth_frame": 7, "skip_first_frames": 11, "frame_load_cap": 5}, 5),
        ({"force_rate": 10, "skip_first_frames": 3}, 157),
        ({"start_time_seconds": 7.4, "duration_seconds": 1}, 25),
        ({"skip_first_frames": 399}, 1),
        ({"force_rate": 60, "frame_load_cap": 3}, 3),
    ],
)
def test_they_are_kept_frames_spread_evenly(clip, clips, selection, kept):
    with VideoReader(clip, selection=FrameSelection(**selection), width=192, height=64) as reader:
        shown = numbers(reader, clips)
        all_numbers = [clips.read_number(frame) for frame in reader]
    assert len(all_numbers) == kept
    count = min(8, kept)
    assert shown == [all_numbers[i * kept // count] for i in range(count)]


def test_seconds_are_those_of_the_clip(clip):
    selection = FrameSelection(start_time_seconds=2, select_every_nth_frame=5, frame_load_cap=4)
    with VideoReader(clip, selection=selection) as reader:
        seconds = [each for each, _ in thumbnails(reader)]
    assert seconds == [2 + Fraction(i, 5) for i in range(4)]


@pytest.mark.parametrize(
    ("size", "shape"), [((640, 64), (32, 128, 3)), ((64, 640), (32, 3, 3)), ((0, 0), (32, 96, 3))]
)
def test_shape_follows_the_frames(clip, size, shape):
    with VideoReader(clip, width=size[0], height=size[1]) as reader:
        assert {picture.shape for _, picture in thumbnails(reader, height=32)} == {shape}


def test_unknown_length_gives_the_first_frames(clip, clips, monkeypatch):
    with VideoReader(clip, selection=FrameSelection(select_every_nth_frame=2)) as reader:
        monkeypatch.setattr(reader, "expected_frame_count", None)
        assert numbers(reader, clips, most=3) == [0, 2, 4]


def test_a_clip_that_ends_early_gives_its_last_frame(clip, clips, tmp_path):
    cut = tmp_path / "cut.mkv"
    clips.ffmpeg("-i", clip, "-c", "copy", "-f", "matroska", cut)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with VideoReader(cut) as reader:
        shown = numbers(reader, clips)
    assert len(shown) == 8 and shown == sorted(shown)


def test_picture_folders_and_alpha(tmp_path, clips):
    source = tmp_path / "n.mp4"
    clips.numbered_clip(source, frames=20)
    folder = tmp_path / "pictures"
    folder.mkdir()
    clips.ffmpeg("-i", source, "-pix_fmt", "rgba", folder / "%d.png")
    with VideoReader(folder, selection=FrameSelection(select_every_nth_frame=4)) as reader:
        assert reader.info.has_alpha
        assert numbers(reader, clips) == [0, 4, 8, 12, 16]
