"""The checks of a request's video: readable, and within the limits of the settings."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from ...pipeline import AnimateDiffV2VError
from ...pipeline.curve import check_frames
from ...pipeline.video.info import VideoInfo
from ...pipeline.video.pictures import read_picture
from ...pipeline.video.probe import probe_video
from ...pipeline.video.selection import FrameSelection, exact_rate, grid_count
from ..queue.executor import without_folders
from ..settings import Settings
from ..wire.problems import Detail, RequestRefused, refused, unprocessable
from ..wire.schemas import AnimateDiffV2VInput, FastInput, RestyleInput

SUPPORTED_FORMATS = ["mp4", "mov", "webm", "mkv", "avi", "gif"]
# For the endpoints without a strength.
DENOISE = 0.7


def check_video(path: Path, asked: RestyleInput, settings: Settings) -> None:
    """Check that a video can be read and is within the limits; raises RequestRefused."""
    try:
        info = probe_video(path)
    except AnimateDiffV2VError as error:
        reason = without_folders(str(error), [path.parent])
        raise refused(
            "video_url",
            f"The file is not a readable video: {reason}",
            "unsupported_video_format",
            supported_formats=SUPPORTED_FORMATS,
        ) from error
    longest, largest = settings.max_video_seconds, settings.max_video_pixels
    if info.duration_seconds > longest:
        raise refused(
            "video_url",
            f"The video is {info.duration_seconds:.1f} seconds long; the limit is {longest:g}",
            "video_duration_too_long",
            max_duration=longest,
            provided_duration=info.duration_seconds,
        )
    if info.stored_width * info.stored_height > largest:
        raise refused(
            "video_url",
            f"The video has {info.stored_width}x{info.stored_height} pixels; "
            f"the limit is {largest} in total",
            "file_too_large",
            max_size=largest,
        )
    _check_length(info, asked, settings)
    _check_keyframes(info, asked)
    _check_curves(info, asked)


def selection(asked: RestyleInput) -> dict[str, Any]:
    """Return the fields of ApiJob that say which frames are kept, and how much is denoised."""
    if isinstance(asked, FastInput):
        return {
            "denoise": asked.strength,
            "force_rate": asked.fps,
            "duration_seconds": asked.first_n_seconds,
        }
    assert isinstance(asked, AnimateDiffV2VInput)
    return {"denoise": DENOISE, "select_every_nth_frame": asked.select_every_nth_frame}


def _check_length(info: VideoInfo, asked: RestyleInput, settings: Settings) -> None:
    """Check the limits on frames and seconds of one request."""
    most, longest = settings.max_frames, settings.max_seconds
    if most is None and longest is None:
        return
    frames = _frame_selection(asked)
    span = frames.span_seconds(info.duration)
    if span is None:
        raise refused(
            "video_url",
            "The duration of the video is unknown until it is decoded, and this server limits the "
            "length of requests: convert it to mp4",
            "unsupported_video_format",
            supported_formats=SUPPORTED_FORMATS,
        )
    if longest is not None and span > longest:
        raise refused(
            "video_url",
            f"The request restyles {float(span):.1f} seconds of video; the limit is {longest:g}",
            "video_duration_too_long",
            max_duration=longest,
            provided_duration=float(span),
        )
    count = _frame_count(info, frames, span)
    if most is not None and count > most:
        raise refused(
            "video_url",
            f"The request makes {count} frames; the limit is {most}: send a shorter video, or "
            f"{_fewer(asked)}",
            "video_duration_too_long",
            max_frames=most,
            provided_frames=count,
        )


def _frame_count(info: VideoInfo, frames: FrameSelection, span: Fraction) -> int:
    rate = frames.grid_rate(info.frame_rate)
    return frames.kept_count(grid_count(span, source_rate=info.frame_rate, rate=rate))


def _check_keyframes(info: VideoInfo, asked: RestyleInput) -> None:
    """Check that the video will have the frames of the keyframes, as far as its length is known."""
    numbers = [each.frame for each in asked.keyframes]
    twice = next((each for each in numbers if numbers.count(each) > 1), None)
    if twice is not None:
        sentence = f"Two keyframes are at frame {twice}: give each one a frame of its own"
        raise refused("keyframes", sentence, "value_error")
    frames = _frame_selection(asked)
    span = frames.span_seconds(info.duration)
    if span is None:
        return
    # What a file says of its length may be a frame short.
    count = _frame_count(info, frames, span)
    outside = [each for each in numbers if not -count - 1 <= each <= count]
    if outside:
        raise refused(
            "keyframes",
            f"A keyframe is at frame {outside[0]}, and the video has {count} frames: frames go "
            f"from 0 to {count - 1}, and -1 is the last one",
            "value_error",
        )


def _check_curves(info: VideoInfo, asked: RestyleInput) -> None:
    """Check that curves name no frame beyond the video, if its length is known."""
    frames = _frame_selection(asked)
    span = frames.span_seconds(info.duration)
    if span is None or info.duration is None:
        return
    count = _frame_count(info, frames, span)
    for loc, strength in asked.strengths:
        try:
            check_frames(strength, count)
        except AnimateDiffV2VError as error:
            detail = Detail(["body", *loc], str(error), "value_error", {}, str(strength))
            raise RequestRefused(unprocessable(detail)) from error


def check_keyframe(path: Path, index: int) -> None:
    """Check that the picture of a keyframe can be read; raises RequestRefused."""
    try:
        read_picture(path)
    except AnimateDiffV2VError as error:
        reason = without_folders(str(error), [path.parent])
        loc: list[str | int] = ["body", "keyframes", index, "image_url"]
        raise RequestRefused(unprocessable(Detail(loc, reason, "image_load_error", {}))) from error


def _frame_selection(asked: RestyleInput) -> FrameSelection:
    wanted = selection(asked)
    return FrameSelection(
        select_every_nth_frame=wanted.get("select_every_nth_frame", 1),
        force_rate=exact_rate(wanted.get("force_rate", 0)),
        duration_seconds=wanted.get("duration_seconds", 0),
    )


def _fewer(asked: RestyleInput) -> str:
    return "fewer fps" if isinstance(asked, FastInput) else "a higher select_every_nth_frame"
