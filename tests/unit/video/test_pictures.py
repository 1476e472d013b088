"""Folders of pictures: every kind of grey and colour, and what else lies in such folders."""

import numpy as np
import pytest
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.video import VideoReader, probe_video
from PIL import Image

GREY = 112


def palette():
    image = Image.new("P", (64, 64), 1)
    image.putpalette([0, 0, 0, GREY, GREY, GREY])
    return image


def deep(kind, value):
    return Image.fromarray(np.full((64, 64), value, kind))


# name: a picture of one grey
PICTURES = {
    "grey 16 bit.png": lambda: deep("<u2", GREY * 257),
    "grey 16 bit.tif": lambda: deep("<u2", GREY * 257),
    "grey 16 bit, big-endian.tif": lambda: deep(">u2", GREY * 257),
    "grey 32 bit.tif": lambda: deep("<i4", GREY * 257),
    "float to 1.tif": lambda: deep("<f4", GREY / 255),
    "float to 255.tif": lambda: deep("<f4", GREY),
    "float to 65535.tif": lambda: deep("<f4", GREY * 257),
    "palette.png": palette,
    "cmyk.jpg": lambda: Image.new("CMYK", (64, 64), (255 - GREY,) * 3 + (0,)),
    "cmyk.tif": lambda: Image.new("CMYK", (64, 64), (255 - GREY,) * 3 + (0,)),
    "grey.webp": lambda: Image.new("L", (64, 64), GREY),
    "grey with alpha.png": lambda: Image.new("LA", (64, 64), (GREY, 255)),
}
# ffmpeg writes what Pillow cannot: (pixels, numbers a pixel, suffix)
DEEP_COLOURS = [
    ("rgb48le", 3, "png"),
    ("rgb48le", 3, "tif"),
    ("rgba64le", 4, "png"),
    ("ya16le", 2, "png"),
    ("gray16le", 1, "png"),
]


def only_frame(folder):
    with VideoReader(folder) as reader:
        (frame,) = reader
    return frame


@pytest.mark.parametrize("name", PICTURES)
def test_grey_is_this_grey(tmp_path, name):
    PICTURES[name]().save(tmp_path / name)
    assert np.abs(only_frame(tmp_path).astype(int) - GREY).max() <= 1


@pytest.mark.parametrize(("pixels", "count", "suffix"), DEEP_COLOURS)
def test_16_bit_colours(tmp_path, clips, pixels, count, suffix):
    data = np.full((64, 64, count), GREY * 257, "<u2").tobytes()
    source = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", "64x64", "-i", "-"]
    clips.ffmpeg(*source, "-frames:v", "1", tmp_path / f"1.{suffix}", data=data)
    assert np.abs(only_frame(tmp_path).astype(int) - GREY).max() <= 1


def test_black_and_white(tmp_path):
    Image.new("1", (64, 64), 1).save(tmp_path / "1.png")
    assert (only_frame(tmp_path) == 255).all()


def test_what_is_no_picture_is_passed_over(tmp_path):
    Image.new("RGB", (64, 64), (255, 0, 0)).save(tmp_path / "1.png")
    (tmp_path / "._1.png").write_bytes(b"\0\5\x16\7" + bytes(60))
    (tmp_path / ".DS_Store").write_bytes(bytes(60))
    (tmp_path / "Thumbs.db").write_bytes(bytes(60))
    (tmp_path / "2.png").mkdir()
    assert probe_video(tmp_path).frame_count == 1
    assert only_frame(tmp_path)[0, 0].tolist() == [255, 0, 0]


def test_a_folder_of_resource_forks_holds_no_picture(tmp_path):
    (tmp_path / "._1.png").write_bytes(bytes(60))
    with pytest.raises(AnimateDiffV2VError, match="holds no picture"):
        VideoReader(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", "link"])
def test_a_bad_picture_is_named_before_the_first_is_read(tmp_path, content):
    for number in range(12):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{number}.png")
    bad = tmp_path / "9.png"
    bad.unlink()
    if content == "link":
        bad.symlink_to(tmp_path / "gone.png")
    else:
        bad.write_bytes(content)
    with pytest.raises(AnimateDiffV2VError, match=r"9\.png"):
        VideoReader(tmp_path)


def test_a_picture_of_too_many_pixels_is_named_before_the_first_is_read(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "1.png")
    Image.new("1", (8193, 8192)).save(tmp_path / "2.png")
    with pytest.raises(AnimateDiffV2VError, match=r"2\.png"):
        VideoReader(tmp_path)
