"""Probing of videos: size, rate, duration and type, by decoding at most one frame."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from ..choices import checked_path
from ..errors import AnimateDiffV2VError
from .container import ByteRange, check_picture_size, demuxed, open_container, video_stream
from .cropping import container_cropping
from .geometry import NO_CROPPING
from .info import Timing, VideoInfo, joined_info, rate_readings, timing_from_times
from .joined import JOINABLE, joined_parts, without_wild_times
from .orientation import frame_orientation
from .pictures import is_pictures, probe_pictures
from .selection import HIGHEST_RATE

logger = logging.getLogger(__name__)

# Up to this size, the time stamps of all packets are read, which takes a fraction of a second and
# gives exact counts. For larger files, the header is used, corrected by the end of the file.
SCANNED_BYTES = 256 * 2**20
END_SECONDS = 2
# Raw streams have no time stamps.
BARE_STREAMS = {"h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu"}


def probe_video(path: str | Path) -> VideoInfo:
    """Return the properties of a video.

    Raises:
        AnimateDiffV2VError: when the file is missing, is not a video, or has no picture.
    """
    path = checked_path("path", path)
    try:
        pictures = is_pictures(path)
    except OSError as error:  # a name that is too long, or a folder without permission
        raise AnimateDiffV2VError(f"{path} cannot be read: {error.strerror}.") from error
    if pictures:
        return probe_pictures(path)
    with open_container(path) as container:
        is_joinable = container.format.name in JOINABLE
    ranges = joined_parts(path) if is_joinable else []
    if len(ranges) < 2:
        return _probe(path)
    parts = []
    for byte_range in ranges:
        try:
            parts.append(_probe(path, byte_range=byte_range))
        except AnimateDiffV2VError:
            logger.warning("A part of %s has no readable picture and is left out.", path)
    return joined_info(parts) if parts else _probe(path)


def check_is_video(path: str | Path) -> None:
    """Raise AnimateDiffV2VError unless ffmpeg knows a file as a video; pictures are not opened."""
    path = checked_path("path", path)
    if not is_pictures(path):
        with open_container(path):
            pass


def _probe(path: Path, *, byte_range: ByteRange | None = None) -> VideoInfo:
    with open_container(path, byte_range=byte_range) as container:
        stream = video_stream(container, path=path)
        # Without time stamps, frames can only be counted.
        whole = path.stat().st_size <= SCANNED_BYTES or not has_time_stamps(container, stream)
        found = _scan(container, stream, whole=whole)
        frame = found.first_frame if whole else None
        frame = frame or _any_frame(path, byte_range)
        check_picture_size(width=frame.width, height=frame.height, path=path)
        timing = _timing(container, stream, found)
        if not whole:
            timing = _timing_by_end(container, stream, timing, start=_start(timing, frame, stream))
        info = _info(container, stream, frame, timing=timing, path=path)
        return replace(info, byte_range=byte_range)


@dataclass
class _Found:
    """The result of scanning the packets of a file.

    Attributes:
        times: the time stamps of the frames in seconds.
        packet_count: the number of frames, with or without time stamp.
        decoding_times: the decoding times in seconds.
        whole: True if the whole file was scanned.
    """

    whole: bool
    first_frame: Any = None
    times: list[Fraction] = field(default_factory=list)
    decoding_times: list[Fraction] = field(default_factory=list)
    packet_count: int = 0
    last_duration: Fraction = Fraction(0)


def _scan(container: InputContainer, stream: VideoStream, *, whole: bool) -> _Found:
    """Decode the first key frame, and if `whole`, read the time stamps of the whole file."""
    found, latest = _Found(whole=whole), None
    for packet in demuxed(container, stream):
        if found.first_frame is None and packet.is_keyframe:
            found.first_frame = _decoded_alone(stream, packet)
        if found.first_frame is not None and not whole:
            break
        if packet.is_discard:
            continue
        found.packet_count += 1
        if packet.dts is not None:
            found.decoding_times.append(packet.dts * packet.time_base)
        if packet.pts is None:
            continue
        found.times.append(packet.pts * packet.time_base)
        if latest is None or packet.pts > latest:
            latest = packet.pts
            found.last_duration = (packet.duration or 0) * packet.time_base
    found.times.sort()
    found.decoding_times.sort()
    if container.format.name in JOINABLE:
        tame = without_wild_times(found.times)
        found.packet_count -= len(found.times) - len(tame)
        found.times = tame
    return found


def _decoded_alone(stream: VideoStream, packet: Any) -> Any:
    """Decode one packet without the following ones; return None if that fails."""
    decoder = stream.codec_context
    try:
        frames = [*decoder.decode(packet), *decoder.decode(None)]
    except av.error.FFmpegError:
        frames = []
    decoder.flush_buffers()
    return frames[0] if frames else None


def _any_frame(path: Path, byte_range: ByteRange | None) -> Any:
    """Decode from the start until the first frame, for streams without key frames."""
    with open_container(path, byte_range=byte_range) as container:
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
    orientation, name = frame_orientation(frame), container.format.name
    left, top, right, bottom = container_cropping(path, container=name, index=stream.index)
    stored = (frame.width - left - right, frame.height - top - bottom)
    is_cropped = min(stored) > 0
    stored = stored if is_cropped else (frame.width, frame.height)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    aspect = aspect if Fraction(1, 10) < aspect < 10 else Fraction(1)
    shown = (max(1, round(stored[0] * aspect)), stored[1])
    width, height = shown[::-1] if orientation.is_sideways else shown
    return VideoInfo(
        path=path,
        container=name,
        codec=stream.codec_context.name,
        pixel_format=frame.format.name,
        width=width,
        height=height,
        stored_width=frame.width,
        stored_height=frame.height,
        pixel_aspect=aspect,
        orientation=orientation,
        cropping=(left, top, right, bottom) if is_cropped else NO_CROPPING,
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
    """Return whether a PyAV pixel format can have alpha, directly or in a palette."""
    return any(component.is_alpha for component in pixel_format.components) or (
        pixel_format.name == "pal8"
    )


def has_time_stamps(container: InputContainer, stream: VideoStream) -> bool:
    """Return whether time stamps are reliable; in AVI, only if frames are stored in order."""
    reordered = bool(getattr(stream.codec_context, "has_b_frames", False))
    return container.format.name not in BARE_STREAMS | ({"avi"} if reordered else set())


def alpha_decoder(stream: VideoStream) -> str | None:
    """Return the decoder for a VP8 or VP9 stream with alpha, which ffmpeg's own ignores."""
    if (stream.metadata.get("alpha_mode") or stream.metadata.get("ALPHA_MODE")) != "1":
        return None
    return {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.codec.canonical_name)


def _timing(container: InputContainer, stream: VideoStream, found: _Found) -> Timing:
    if not found.whole:
        return _timing_from_header(container, stream, count=stream.frames or None)
    complete = found.packet_count and len(found.times) == found.packet_count
    rates = [rate for rate in (stream.base_rate, stream.average_rate) if rate]
    if not (complete and has_time_stamps(container, stream)):
        timing = _timing_from_header(container, stream, count=found.packet_count or None)
        if container.format.name != "avi" or len(found.decoding_times) != found.packet_count:
            return timing
        # AVI numbers frames in stored order; the distances in display order are the same.
        evenly = timing_from_times(
            found.decoding_times,
            rates=rates,
            last_frame=Fraction(0),
            tick=stream.time_base or Fraction(0),
        )
        return timing if evenly.variable else replace(evenly, start=timing.start)
    return timing_from_times(
        found.times,
        rates=rates,
        last_frame=found.last_duration,
        tick=stream.time_base or Fraction(0),
    )


def _timing_by_end(
    container: InputContainer, stream: VideoStream, timing: Timing, *, start: Fraction
) -> Timing:
    """Correct the header's timing by the last frames of the file, which it may not include."""
    assert stream.time_base is not None
    near_end = start + timing.duration - END_SECONDS
    try:
        container.seek(int(near_end / stream.time_base), stream=stream, backward=True)
    except av.error.FFmpegError:
        container.seek(0, backward=True)
    end = start
    for packet in demuxed(container, stream):
        if packet.pts is not None and not packet.is_discard:
            length = (packet.duration or 0) * packet.time_base or timing.last_frame
            end = max(end, packet.pts * packet.time_base + length)
    if end == start:
        return timing
    duration = end - start
    if timing.variable:
        return replace(timing, frame_count=None, duration=duration, start=start)
    count = max(1, round(duration * timing.frame_rate))
    return Timing.constant(frame_rate=timing.frame_rate, frame_count=count, start=start)


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
