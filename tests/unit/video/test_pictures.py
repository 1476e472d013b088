"""Folders of pictures: every kind of grey and colour, and what else lies in such folders."""

from fractions import Fraction

import numpy as np
import pytest
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.video import VideoReader, probe_video
from animatediff_v2v.pipeline.video.pictures import PictureSource, probe_pictures, read_picture
from PIL import ExifTags, Image, ImageOps

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


def gradient(mode, *, width=48, height=32):
    """A picture without symmetry, in one of Pillow's modes."""
    ramp = np.arange(width * height, dtype=np.uint8).reshape(height, width)
    image = Image.fromarray(np.stack([ramp, ramp[::-1], ramp.T.reshape(ramp.shape)], axis=-1))
    if mode == "RGBA":
        image.putalpha(Image.fromarray(ramp))
    return image.convert(mode)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "jpg"), ("RGB", "jpg"), ("CMYK", "jpg"), ("P", "png"), ("RGBA", "png"), ("I;16", "png")],
)
def test_pictures_are_turned_as_exif_says(tmp_path, mode, suffix, orientation):
    path = tmp_path / f"1.{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    if mode == "I;16":
        Image.fromarray(np.asarray(gradient("L")).astype("<u2") * 257).save(path, exif=exif)
        upright = ImageOps.exif_transpose(Image.open(path))
        expected = np.stack([np.asarray(upright) // 257] * 3, axis=-1)
    else:
        gradient(mode).save(path, exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    found = read_picture(path)
    assert found.dtype == np.uint8 and np.array_equal(found, expected)
    info = probe_video(tmp_path)
    assert (info.height, info.width) == expected.shape[:2]


def test_an_animated_picture_is_what_pillow_reads(tmp_path):
    path, durations = tmp_path / "clip.webp", [40, 120, 80]
    frames = [Image.fromarray(np.roll(np.asarray(gradient("RGB")), 5 * k)) for k in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, lossless=True)
    source = PictureSource(probe_pictures(path))
    times, found = zip(*source.frames(from_seconds=Fraction(0)), strict=True)
    assert times == (0, Fraction(40, 1000), Fraction(160, 1000))
    for frame, expected in zip(found, frames, strict=True):
        assert np.array_equal(frame.to_ndarray(), np.asarray(expected))
    assert source.info.duration_seconds == 0.24


def test_an_animated_picture_with_damaged_exif_is_read(tmp_path):
    exif = b"Exif\0\0no TIFF header"
    frames = [gradient("RGB"), gradient("RGB").rotate(180)]
    frames[0].save(tmp_path / "1.webp", save_all=True, append_images=frames[1:], exif=exif)
    assert probe_video(tmp_path / "1.webp").frame_count == 2


def test_a_picture_without_its_palette_is_refused(tmp_path):
    gradient("P").save(tmp_path / "1.png")
    whole = (tmp_path / "1.png").read_bytes()
    start = whole.index(b"PLTE") - 4
    length = int.from_bytes(whole[start : start + 4], "big")
    (tmp_path / "1.png").write_bytes(whole[:start] + whole[start + 12 + length :])
    with pytest.raises(AnimateDiffV2VError, match="cannot be read as a picture"):
        read_picture(tmp_path / "1.png")


def test_names_that_mean_something_to_imageio_are_files(tmp_path):
    folder = tmp_path / "pictures.zip"
    folder.mkdir()
    gradient("RGB").save(folder / "<screen>.png")
    assert np.array_equal(read_picture(folder / "<screen>.png"), np.asarray(gradient("RGB")))


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
