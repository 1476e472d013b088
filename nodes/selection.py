"""The inputs and outputs shared by the nodes that read a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..pipeline import AnimateDiffV2VError, FrameSelection
from ..pipeline import video as videos
from ..pipeline.ranges import FRAMES
from ..pipeline.video import Fit, exact_rate
from . import host
from .checks import Problem
from .inputs import (
    _seconds_input,
    duration_input,
    frame_cap_input,
    nth_input,
    rate_input,
    size_input,
)
from .sockets import VideoInfoSocket
from .wording import naming_inputs

# The library's names of settings whose inputs have other names.
SELECTION_INPUTS = {"start_time_seconds": "start_time", "duration_seconds": "duration"}


def selection_inputs() -> list[io.Input]:
    """Return the inputs of a selection, in the order in which saved graphs store their values."""
    return [
        nth_input(),
        io.Int.Input(
            "skip_first_frames",
            default=0,
            min=FRAMES.low,
            max=FRAMES.high,
            tooltip="Frames to skip at the beginning, counted after force_rate and before every "
            "nth frame is taken.",
        ),
        frame_cap_input(
            "Maximum number of frames to keep; 0 keeps all. Each takes 3 MB of memory at 512x512."
        ),
        rate_input(),
        *(size_input(name, otherwise="fit decides") for name in ("width", "height")),
        *_later_inputs(),
    ]


def _later_inputs() -> list[io.Input]:
    """Return advanced inputs, which graphs saved by earlier versions do not have."""
    return [
        _seconds_input(
            "start_time",
            "Seconds to skip at the beginning of the video, before anything is counted.",
        ),
        duration_input(),
        io.Combo.Input(
            "fit",
            options=["crop", "pad", "stretch"],
            default="crop",
            optional=True,
            advanced=True,
            tooltip="What to do if width and height have a different aspect ratio than the video: "
            "crop cuts out the middle, pad adds black bars, stretch distorts.",
        ),
    ]


def selection_outputs() -> list[io.Output]:
    """Return the outputs, in the order of `read_selection`."""
    return [
        io.Image.Output(display_name="frames", tooltip="The kept frames."),
        io.Audio.Output(
            display_name="audio",
            tooltip="The sound for the time span of the kept frames; nothing if the video has no "
            "sound.",
        ),
        io.Float.Output(
            display_name="fps", tooltip="Frames per second of the kept frames, for Encode Video."
        ),
        io.Int.Output(display_name="frame_count", tooltip="Number of frames that were kept."),
        VideoInfoSocket.Output(
            display_name="video_info",
            tooltip="Frame rates, frame counts, durations and sizes of the file and of what was "
            "loaded.",
        ),
        io.Mask.Output(
            display_name="mask",
            tooltip="Transparency of each kept frame: 1 is transparent, 0 is opaque, as in Load "
            "Image. All 0 if the video has no transparency.",
        ),
    ]


@naming_inputs(**SELECTION_INPUTS)
def open_reader(
    path: Path,
    *,
    select_every_nth_frame: int = 1,
    skip_first_frames: int = 0,
    frame_load_cap: int = 0,
    force_rate: float = 0,
    width: int = 0,
    height: int = 0,
    start_time: float = 0,
    duration: float = 0,
    fit: Fit = "crop",
) -> videos.VideoReader:
    """Open a video with the values of the inputs; raise AnimateDiffV2VError if that fails."""
    selection = FrameSelection(
        select_every_nth_frame=select_every_nth_frame,
        skip_first_frames=skip_first_frames,
        frame_load_cap=frame_load_cap,
        force_rate=exact_rate(force_rate, name="force_rate"),
        start_time_seconds=start_time,
        duration_seconds=duration,
    )
    return videos.VideoReader(path, selection=selection, width=width, height=height, fit=fit)


@naming_inputs(**SELECTION_INPUTS)
def read_selection(path: Path, **settings: Any) -> io.NodeOutput:
    """Read a video with the values of the inputs; see selection_outputs."""
    with open_reader(path, **settings) as reader:
        images, masks = read_frames(reader)
    return io.NodeOutput(
        images, audio_of(reader), float(reader.frame_rate), len(images), video_info(reader), masks
    )


def read_frames(reader: videos.VideoReader) -> tuple[Tensor, Tensor]:
    """Read frames, float32 [frames, height, width, 3], 0..1, allocated once, and their masks.

    The masks are float32 [frames, height, width], 1 where a frame is transparent. Without alpha
    they are an expanded view of a single mask, which takes almost no memory.
    """
    # If their number is unknown, collect the 8-bit frames first: they take a quarter of the result.
    pairs = ((frame, reader.alpha) for frame in reader)
    frames = pairs if reader.expected_frame_count else list(pairs)
    count = reader.expected_frame_count or reader.frame_count
    shape = (count, reader.height, reader.width)
    images, masks = torch.empty(*shape, 3), torch.zeros(1, *shape[1:]).expand(shape)
    if reader.info.has_alpha:
        masks = torch.empty(shape)
    report = host.NodeProgress()
    for index, (frame, alpha) in enumerate(frames):
        host.raise_if_interrupted()
        torch.div(torch.from_numpy(frame), 255, out=images[index])
        if alpha is not None:
            torch.div(torch.from_numpy(255 - alpha), 255, out=masks[index])
        report.share((index + 1) / count)
    kept = reader.frame_count
    return host.as_result(images[:kept]), host.as_result(masks[:kept])


def audio_of(reader: videos.VideoReader) -> dict[str, Any] | None:
    """Return the sound of the frames that were read, as AUDIO; None if the video has none."""
    start, duration = reader.time_span
    audio = videos.read_audio(reader.info.path, start_seconds=start, duration_seconds=duration)
    if audio is None:
        return None
    waveform = torch.from_numpy(audio.waveform).unsqueeze(0)
    return {"waveform": waveform, "sample_rate": audio.sample_rate}


def video_info(reader: videos.VideoReader) -> dict[str, float | int]:
    """Return properties of the file and of the loaded frames, under the names other packs use."""
    info = reader.info
    source_count = info.frame_count or round(info.duration_seconds * info.frame_rate)
    return {
        "source_fps": float(info.frame_rate),
        "source_frame_count": source_count,
        "source_duration": info.duration_seconds,
        "source_width": info.width,
        "source_height": info.height,
        "loaded_fps": float(reader.frame_rate),
        "loaded_frame_count": reader.frame_count,
        "loaded_duration": float(reader.frame_count / reader.frame_rate),
        "loaded_width": reader.width,
        "loaded_height": reader.height,
    }


def selection_problem(video: str | None, **settings: Any) -> Problem | None:
    """Return the input because of which no frame of an uploaded file can be read, or None.

    Values that are not known before the graph runs are None.
    """
    if video is None:
        return None
    known = {name: value for name, value in settings.items() if value is not None}
    sentence = _refusal(video, known)
    if sentence is None:
        return None
    for name in known:
        others = {each: value for each, value in known.items() if each != name}
        if _refusal(video, others) is None:
            return Problem(name, sentence)
    return Problem("video", sentence)


def _refusal(video: str, settings: dict[str, Any]) -> str | None:
    try:
        open_reader(host.input_path(video), **settings).close()
    except AnimateDiffV2VError as error:
        return str(error)
    return None
