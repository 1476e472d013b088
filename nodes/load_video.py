"""A video file in: exactly the selected frames, and the sound of exactly their time."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..pipeline import AnimateDiffV2VError, FrameSelection
from ..pipeline.video import VideoReader, read_audio
from . import host
from .fingerprint import file_fingerprint
from .sockets import CATEGORY, VideoInfoSocket

logger = logging.getLogger(__name__)

NTH_TOOLTIP = (
    "Keep every nth frame: 2 halves the frames, the work and the frame rate. The duration stays."
)


class LoadVideo(io.ComfyNode):
    """Frames, sound and figures of a clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_LoadVideo",
            display_name="Load Video (every nth frame)",
            category=CATEGORY,
            description="Read the frames of a video that you select, exactly by their time "
            "stamps, with the sound of the same time span.",
            search_aliases=["import video", "video upload", "vhs load video", "select every nth"],
            inputs=_inputs(),
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls,
        *,
        video: str,
        select_every_nth_frame: int,
        skip_first_frames: int,
        frame_load_cap: int,
        force_rate: float,
        width: int,
        height: int,
    ) -> io.NodeOutput:
        """Read the clip."""
        path = host.input_path(video)
        selection = FrameSelection(
            select_every_nth_frame=select_every_nth_frame,
            skip_first_frames=skip_first_frames,
            frame_load_cap=frame_load_cap,
            force_rate=force_rate,
        )
        with VideoReader(path, selection=selection, width=width, height=height) as reader:
            images = read_images(reader)
        return io.NodeOutput(
            images, audio_of(reader), float(reader.frame_rate), len(images), video_info(reader)
        )

    @classmethod
    def validate_inputs(
        cls,
        video: str | None,
        skip_first_frames: int | None = 0,
        force_rate: float | None = 0,
    ) -> bool | str:
        """Refuse a missing or unreadable file, and a selection that keeps no frame."""
        return check_video(video, skip_first_frames=skip_first_frames, force_rate=force_rate)

    @classmethod
    def fingerprint_inputs(cls, video: str | None, **_others: object) -> str | None:
        """Read again when the file has changed."""
        return None if video is None else file_fingerprint(host.input_path(video))


def _inputs() -> list[io.Input]:
    return [
        video_input(),
        nth_input(),
        io.Int.Input(
            "skip_first_frames",
            default=0,
            min=0,
            max=1_000_000,
            tooltip="Frames to leave out at the beginning, counted after force_rate and before "
            "every nth is taken.",
        ),
        io.Int.Input(
            "frame_load_cap",
            default=0,
            min=0,
            max=1_000_000,
            tooltip="The most frames to keep; 0 keeps all. Each takes 3 MB of memory at 512x512.",
        ),
        io.Float.Input(
            "force_rate",
            default=0.0,
            min=0.0,
            max=240.0,
            step=0.01,
            tooltip="Frames per second to put the clip on first, by repeating or leaving out "
            "frames; the duration stays. 0 keeps the clip's own rate.",
        ),
        *(_size_input(name) for name in ("width", "height")),
    ]


def video_input() -> io.Input:
    """The combo of uploaded videos."""
    return io.Combo.Input(
        "video",
        options=host.input_videos(),
        upload=io.UploadType.video,
        tooltip="A video in ComfyUI's input folder. Drop a file on the node, or use its button.",
    )


def nth_input() -> io.Input:
    """How many frames are left out between two that are kept."""
    return io.Int.Input("select_every_nth_frame", default=2, min=1, max=1000, tooltip=NTH_TOOLTIP)


def _size_input(name: str) -> io.Input:
    return io.Int.Input(
        name,
        default=0,
        min=0,
        max=8192,
        step=8,
        tooltip=f"Pixels; the {name} comes out as a multiple of 8, what does not fit is cut off. "
        "0 keeps the clip's own aspect; if both are 0 a clip longer than 768 comes at 768.",
    )


def _outputs() -> list[io.Output]:
    return [
        io.Image.Output(display_name="frames", tooltip="The kept frames."),
        io.Audio.Output(
            display_name="audio",
            tooltip="The sound of the time that the kept frames span; nothing for a silent clip.",
        ),
        io.Float.Output(
            display_name="fps", tooltip="Frames per second of the kept frames, for Encode Video."
        ),
        io.Int.Output(display_name="frame_count", tooltip="How many frames were kept."),
        VideoInfoSocket.Output(
            display_name="video_info",
            tooltip="Rates, counts, seconds and pixels of the file and of what was loaded.",
        ),
    ]


def check_video(
    video: str | None, *, skip_first_frames: int | None = 0, force_rate: float | None = 0
) -> bool | str:
    """Give True if a selection of this file has frames, else the sentence for the user.

    None is a value that is not known before the graph runs.
    """
    if video is None:
        return True
    try:
        path = host.input_path(video)
        selection = FrameSelection(
            skip_first_frames=skip_first_frames or 0, force_rate=force_rate or 0
        )
        VideoReader(path, selection=selection).close()
    except AnimateDiffV2VError as error:
        return str(error)
    return True


def read_images(reader: VideoReader) -> Tensor:
    """Read a clip into float32 [frames, height, width, 3], 0..1, allocated once."""
    # 8-bit frames take a quarter of the result: they may wait where their number is not known.
    frames = iter(reader) if reader.expected_frame_count else list(reader)
    count = reader.expected_frame_count or reader.frame_count
    images = torch.empty(count, reader.height, reader.width, 3)
    report = host.NodeProgress()
    for index, frame in enumerate(frames):
        host.raise_if_interrupted()
        torch.div(torch.from_numpy(frame), 255, out=images[index])
        report.share((index + 1) / count)
    return images[: reader.frame_count].to(host.result_device())


def audio_of(reader: VideoReader) -> dict[str, Any] | None:
    """The sound of the frames that were read, as ComfyUI's AUDIO; None for a silent clip."""
    start, duration = reader.time_span
    audio = read_audio(reader.info.path, start_seconds=start, duration_seconds=duration)
    if audio is None:
        return None
    waveform = torch.from_numpy(audio.waveform).unsqueeze(0)
    return {"waveform": waveform, "sample_rate": audio.sample_rate}


def video_info(reader: VideoReader) -> dict[str, float | int]:
    """Describe the file and what was loaded, under the names that other packs read."""
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


def source_size(path: Path, selection: FrameSelection) -> tuple[int, int]:
    """Width and height of the frames that a reader would give."""
    with VideoReader(path, selection=selection) as reader:
        return reader.width, reader.height
