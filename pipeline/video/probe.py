"""What a clip is: its size, rate, length and kind, found without decoding more than one frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from ..choices import checked_path
from ..errors import AnimateDiffV2VError
from .container import check_picture_size, demuxed, open_container, video_stream
from .info import Timing, VideoInfo, rate_readings, timing_from_times
from .pictures import is_pictures, probe_pictures
from .selection import HIGHEST_RATE

# Up to this size every packet's time stamp is read, which takes a fraction of a second and
# gives exact counts; for larger files the header is believed.
SCANNED_BYTES = 256 * 2**20
# Bare streams have no times at all.
BARE_STREAMS = {"h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu"}


def probe_video(path: str | Path) -> VideoInfo:
    """Tell what a clip is.

    Raises AnimateDiffV2VError when the file is missing, is no video, or shows no picture.
    """
    path = checked_path("path", path)
    try:
        pictures = is_pictures(path)
    except OSError as error:  # a name that is too long, or a folder that may not be entered
        raise AnimateDiffV2VError(f"{path} cannot be read: {error.strerror}.") from error
    if pictures:
        return probe_pictures(path)
    with open_container(path) as container:
        stream = video_stream(container, path=path)
        found = _scan(container, stream, whole=path.stat().st_size <= SCANNED_BYTES)
        frame = found.first_frame or _any_frame(path)
        check_picture_size(width=frame.width, height=frame.height, path=path)
        timing = _timing(container, stream, found)
        return _info(container, stream, frame, timing=timing, path=path)


@dataclass
class _Found:
    """What going through a file's packets brought up.

    times: the frames' time stamps in seconds; packet_count: frames, with or without one.
    whole: whether all of the file was gone through.
    """

    whole: bool
    first_frame: Any = None
    times: list[Fraction] = field(default_factory=list)
    packet_count: int = 0
    last_duration: Fraction = Fraction(0)


def _scan(container: InputContainer, stream: VideoStream, *, whole: bool) -> _Found:
    """Decode the first key frame, and read the time stamps of the whole file if asked to."""
    found, latest = _Found(whole=whole), None
    for packet in demuxed(container, stream):
        if found.first_frame is None and packet.is_keyframe:
            found.first_frame = _decoded_alone(stream, packet)
        if found.first_frame is not None and not whole:
            break
        if packet.is_discard:
            continue
        found.packet_count += 1
        if packet.pts is None:
            continue
        found.times.append(packet.pts * packet.time_base)
        if latest is None or packet.pts > latest:
            latest = packet.pts
            found.last_duration = (packet.duration or 0) * packet.time_base
    found.times.sort()
    return found


def _decoded_alone(stream: VideoStream, packet: Any) -> Any:
    """Decode one packet without waiting for those after it; None when that does not work."""
    decoder = stream.codec_context
    try:
        frames = [*decoder.decode(packet), *decoder.decode(None)]
    except av.error.FFmpegError:
        frames = []
    decoder.flush_buffers()
    return frames[0] if frames else None


def _any_frame(path: Path) -> Any:
    """Decode from the start until a frame comes out, as streams without key frames need it."""
    with open_container(path) as container:
        stream = video_stream(container, path=path)
        for packet in chain(demuxed(container, stream), (None,)):
            try:
                frames = stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                continue
            if frames:
                return frames[0]
    raise AnimateDiffV2VError(
        f"{path} holds no picture that can be decoded; it is cut off or damaged."
    )


def _info(
    container: InputContainer, stream: VideoStream, frame: Any, *, timing: Timing, path: Path
) -> VideoInfo:
    rotation = round(getattr(frame, "rotation", 0) / 90) * 90 % 360
    aspect = stream.sample_aspect_ratio or Fraction(1)
    aspect = aspect if Fraction(1, 10) < aspect < 10 else Fraction(1)
    shown = (max(1, round(frame.width * aspect)), frame.height)
    width, height = shown if rotation in {0, 180} else shown[::-1]
    return VideoInfo(
        path=path,
        container=container.format.name,
        codec=stream.codec_context.name,
        pixel_format=frame.format.name,
        width=width,
        height=height,
        stored_width=frame.width,
        stored_height=frame.height,
        pixel_aspect=aspect,
        rotation_degrees=rotation,
        frame_rate=timing.frame_rate,
        variable_frame_rate=timing.variable,
        frame_count=timing.frame_count,
        duration_seconds=float(timing.duration),
        start_seconds=_start(timing, frame, stream),
        last_frame_seconds=timing.last_frame,
        has_time_stamps=has_time_stamps(container, stream),
        has_audio=bool(container.streams.audio),
        has_alpha=format_has_alpha(frame.format) or bool(alpha_decoder(stream)),
        colour_transfer=int(stream.codec_context.color_trc or 0),
    )


def _start(timing: Timing, frame: Any, stream: VideoStream) -> Fraction:
    if timing.start is not None:
        return timing.start
    return (
        frame.pts * stream.time_base if frame.pts is not None and stream.time_base else Fraction(0)
    )


def format_has_alpha(pixel_format: Any) -> bool:
    """Whether a PyAV pixel format has an alpha channel (a palette may)."""
    return any(component.is_alpha for component in pixel_format.components) or (
        pixel_format.name == "pal8"
    )


def has_time_stamps(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the frames' times can be believed; AVI has them only for frames stored in order."""
    reordered = bool(getattr(stream.codec_context, "has_b_frames", False))
    return container.format.name not in BARE_STREAMS | ({"avi"} if reordered else set())


def alpha_decoder(stream: VideoStream) -> str | None:
    """Name the decoder that a VP8 or VP9 stream with alpha needs: ffmpeg's own leaves it out."""
    if (stream.metadata.get("alpha_mode") or stream.metadata.get("ALPHA_MODE")) != "1":
        return None
    return {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.codec.canonical_name)


def _timing(container: InputContainer, stream: VideoStream, found: _Found) -> Timing:
    if not found.whole:
        return _timing_from_header(container, stream, count=stream.frames or None)
    complete = found.packet_count and len(found.times) == found.packet_count
    if not (complete and has_time_stamps(container, stream)):
        return _timing_from_header(container, stream, count=found.packet_count or None)
    return timing_from_times(
        found.times,
        rates=[rate for rate in (stream.base_rate, stream.average_rate) if rate],
        last_frame=found.last_duration,
        tick=stream.time_base or Fraction(0),
    )


def _timing_from_header(
    container: InputContainer, stream: VideoStream, *, count: int | None
) -> Timing:
    base, mean = stream.base_rate, stream.average_rate
    rate = mean or base or stream.guessed_rate or Fraction(25)
    rate = rate_readings(rate)[0] if 0 < rate <= HIGHEST_RATE else Fraction(25)
    variable = bool(base and mean and abs(base / mean - 1) > Fraction(1, 1000))
    variable = variable and has_time_stamps(container, stream)
    duration = Fraction(0)
    if stream.duration and stream.time_base:
        duration = stream.duration * stream.time_base
    elif count:
        duration = count / rate
    elif container.duration:
        duration = Fraction(container.duration, av.time_base)
    return Timing(
        frame_rate=rate,
        variable=variable,
        frame_count=count,
        duration=duration,
        start=None,
        last_frame=1 / rate,
    )
