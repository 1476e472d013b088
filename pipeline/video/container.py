"""Opening of video files with PyAV, with clear messages for those that cannot be opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from ..errors import AnimateDiffV2VError

# 8192 x 4352: an 8K picture in the largest layout in use. A header that claims more would make
# the decoder allocate gigabytes before it decodes the first picture.
LARGEST_PICTURE_PIXELS = 8192 * 4352

# Only real video containers: otherwise ffmpeg would also render text as a terminal picture, and
# follow playlists to other files and hosts.
CONTAINERS = (
    "mov,mp4,matroska,webm,avi,gif,apng,mpegts,mpeg,mpegvideo,flv,asf,ogg,ivf,mxf,nut,dv,"
    "yuv4mpegpipe,h264,hevc,mjpeg,obu,m4v,rm"
)
# Local files, and parts of them.
PROTOCOLS = "file,subfile"

# The first byte of a part of a file, and the byte after its last one.
ByteRange = tuple[int, int]

_PYAV = int(av.__version__.split(".", maxsplit=1)[0])
# Up to 17.0, PyAV crashes on FLV when it is given options for streams.
_STREAM_OPTIONS = {"max_pixels": str(LARGEST_PICTURE_PIXELS)} if _PYAV >= 18 else {}
# Otherwise PyAV before 19.0 refuses files whose metadata is not valid text.
_METADATA_OPTIONS: dict[str, Any] = {"metadata_errors": "replace"} if _PYAV < 19 else {}


def check_file(path: Path) -> None:
    """Raise AnimateDiffV2VError unless `path` is a readable, non-empty file."""
    if not path.exists():
        raise AnimateDiffV2VError(f"There is no file {path}; check the name and the folder.")
    if not path.is_file():
        raise AnimateDiffV2VError(f"{path} is not a file; give a video file.")
    if path.stat().st_size == 0:
        raise AnimateDiffV2VError(f"{path} is empty (0 bytes); copy or download it again.")
    if not os.access(path, os.R_OK):
        raise AnimateDiffV2VError(f"{path} may not be read; change its permissions.")


def open_container(
    path: Path, *, byte_range: ByteRange | None = None, is_parsed: bool = True
) -> InputContainer:
    """Open a media file, or a part of it; raise AnimateDiffV2VError if that fails.

    Args:
        path: the file.
        byte_range: the part of the file; None for all of it.
        is_parsed: False for packets as they are in the file, which need not be one frame each.
    """
    check_file(path)
    limits = {"format_whitelist": CONTAINERS, "protocol_whitelist": PROTOCOLS}
    if not is_parsed:
        limits["fflags"] = "+noparse"
    try:
        container: InputContainer = av.open(
            source_url(path, byte_range),
            **_METADATA_OPTIONS,
            options=_STREAM_OPTIONS,
            container_options=limits,
        )
    except (av.error.FFmpegError, ValueError) as error:
        raise AnimateDiffV2VError(
            f"{path} cannot be read as a video ({_reason(error)}): it is damaged, cut off, or"
            " not a video; give an mp4, mov, mkv, webm, avi, gif or"
            " webp file."
        ) from error
    return container


def source_url(path: Path, byte_range: ByteRange | None) -> str:
    """Return ffmpeg's URL of a file or a part of it (ffmpeg-protocols.html#subfile)."""
    if byte_range is None:
        return f"file:{path}"
    return f"subfile,,start,{byte_range[0]},end,{byte_range[1]},,:file:{path}"


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.rstrip(".").lower() if text else type(error).__name__


def video_stream(container: InputContainer, *, path: Path) -> VideoStream:
    """Return the video stream of a file, ignoring cover art, and check its size.

    Raises:
        AnimateDiffV2VError: if there is none, or one larger than LARGEST_PICTURE_PIXELS.
    """
    cover = av.stream.Disposition.attached_pic
    streams = [each for each in container.streams.video if not each.disposition & cover]
    if not streams:
        what = "only sound" if container.streams.audio else "no picture"
        raise AnimateDiffV2VError(f"{path} holds {what}; give a file with video in it.")
    known = [each for each in streams if each.codec_context is not None]
    if not known:
        raise AnimateDiffV2VError(
            f"{path} holds a kind of video that this PyAV cannot decode; convert it to mp4 (H.264)."
        )
    stream = max(known, key=_prominence)
    width, height = stream.codec_context.width, stream.codec_context.height
    check_picture_size(width=width, height=height, path=path)
    # A stream may change its size later.
    stream.codec_context.options = {"max_pixels": str(LARGEST_PICTURE_PIXELS)}
    return stream


def _prominence(stream: VideoStream) -> int:
    """Rank a video track as ffmpeg does: by pixels, plus five million for the default track."""
    context = stream.codec_context
    is_default = bool(stream.disposition & av.stream.Disposition.default)
    return context.width * context.height + 5_000_000 * is_default


def check_picture_size(*, width: int, height: int, path: Path) -> None:
    """Raise AnimateDiffV2VError if a picture is larger than 8K, or its size is unknown."""
    if width * height > LARGEST_PICTURE_PIXELS:
        raise AnimateDiffV2VError(
            f"{path} says that its pictures have {width}x{height} pixels; at most"
            f" {LARGEST_PICTURE_PIXELS} (8192x4352) are read, so scale it down first."
        )
    if width <= 0 or height <= 0:
        raise AnimateDiffV2VError(
            f"{path} does not say how large its pictures are, or they have more than"
            f" {LARGEST_PICTURE_PIXELS} pixels (8192x4352); it is damaged or too large."
        )


def demuxed(container: InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet[Any]]:
    """Yield the packets of some streams until the file ends, even if it is truncated."""
    packets, is_avi = container.demux(*streams), container.format.name == "avi"
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        if packet.size:
            if is_avi:
                # AVI only stores decoding times; presentation times are guessed by ffmpeg.
                packet.pts = packet.dts
            yield packet
