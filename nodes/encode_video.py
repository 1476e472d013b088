"""Writes frames to a video file and plays it in the node."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import InputImpl, io, ui
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..pipeline import video as videos
from ..pipeline.ranges import CRF, FRAME_RATE, LOOP_COUNT
from ..pipeline.video import FORMATS, OutputFormat, exact_rate
from . import host
from .checks import CheckedNode, Problem, problem_of
from .contact_sheet import contact_sheet as sheet_of
from .contact_sheet import sheet_path
from .inputs import prefix_input
from .sockets import CATEGORY
from .wording import naming_inputs

# Number of frames that are converted to 8 bits at once.
FRAMES_PER_CHUNK = 16
# -1 in the widget: the format's usual value.
CRF_OF_FORMAT = CRF.low
# Formats that browsers can play, or show as an animated picture.
SHOWN_BY_BROWSERS = ("mp4-h264", "mp4-av1", "webm-vp9", "gif", "webp")


class EncodeVideo(CheckedNode):
    """Writes frames and sound into one file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_EncodeVideo",
            display_name="Encode Video",
            category=CATEGORY,
            description="Write frames and sound into a video file with correct colours, and play "
            "it in the node. The file contains the graph: drop it on ComfyUI to get it back.",
            search_aliases=[
                "save video",
                "video combine",
                "export mp4",
                "gif",
                "webm",
                "prores",
                "animatediff",
                "vhs",
                "create video",
                "save gif",
            ],
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=_inputs(),
            outputs=[
                io.Video.Output(
                    display_name="video", tooltip="The written file, for other video nodes."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        *,
        images: Tensor,
        fps: float,
        filename_prefix: str,
        format: str,
        crf: int,
        pingpong: bool,
        loop_count: int,
        save_output: bool,
        audio: dict[str, Any] | None = None,
        hardware_encoder: bool = False,
        contact_sheet: bool = False,
    ) -> io.NodeOutput:
        """Write the file, and a preview if browsers cannot play it."""
        form = FORMATS[format]
        height, width = images.shape[1:3]
        target = host.output_file(
            filename_prefix, form.extension, width=width, height=height, save=save_output
        )
        metadata = host.workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        write = partial(
            write_video, images, fps=fps, audio=audio, pingpong=pingpong, loop_count=loop_count
        )
        quality = None if crf == CRF_OF_FORMAT else crf
        write(target.path, form, crf=quality, metadata=metadata, hardware=hardware_encoder)
        if form.name == "gif" and metadata:
            write_cover(images[0], target.path.with_suffix(".png"), metadata)
        if contact_sheet:
            write_cover(sheet_of(images), sheet_path(target.path), metadata)
        files = [target]
        if format not in SHOWN_BY_BROWSERS:
            preview = host.output_file("preview", ".mp4", width=width, height=height, save=False)
            write(preview.path, FORMATS["mp4-h264"])
            # A folder of pictures is not a file that the frontend could show or VIDEO could hold.
            files = [preview, target] if form.extension else [preview]
        video = files[-1].path
        result = shown(files, form, path=target.path)
        return io.NodeOutput(InputImpl.VideoFromFile(str(video)), ui=result)

    @classmethod
    def find_problem(
        cls, _node_id: str, *, format: str | None = None, crf: int | None = None
    ) -> Problem | None:
        """Find a quality that the format does not have."""
        # ComfyUI refuses other formats.
        if format is None or format not in FORMATS or crf in (None, CRF_OF_FORMAT):
            return None
        found = problem_of(lambda: FORMATS[format].checked_crf(crf), "crf")
        usual = f" {CRF_OF_FORMAT} takes the format's usual quality."
        return found and Problem(found.input_name, found.sentence + usual)


def _inputs() -> list[io.Input]:
    return [
        io.Image.Input("images", tooltip="The frames, in order."),
        io.Float.Input(
            "fps",
            default=12.0,
            min=FRAME_RATE.low,
            max=FRAME_RATE.high,
            step=0.01,
            tooltip="Frames per second. Connect the fps of Load Video to keep the speed.",
        ),
        prefix_input(),
        io.Combo.Input(
            "format",
            options=list(FORMATS),
            default="mp4-h264",
            tooltip="Container and codec. mp4-h264 plays everywhere; mp4-h265 and mp4-av1 are "
            "smaller and slower; mov-prores and mkv-ffv1 are for editing; gif and webp have no "
            "sound; png writes a folder of pictures, and the video output is then its preview.",
        ),
        io.Int.Input(
            "crf",
            default=CRF_OF_FORMAT,
            min=CRF.low,
            max=CRF.high,
            tooltip="Quality: 0 is best and largest. -1 takes the format's usual value (19 for "
            "mp4-h264, 24 for webm-vp9). gif, mov-prores and mkv-ffv1 have no such setting.",
        ),
        *_playing_inputs(),
        io.Boolean.Input(
            "save_output",
            default=True,
            tooltip="Write into ComfyUI's output folder; if off, into the temporary one, which "
            "ComfyUI empties when it starts.",
        ),
        io.Audio.Input(
            "audio",
            optional=True,
            tooltip="Sound for the file; cut to the duration of the frames, or padded with "
            "silence.",
        ),
        io.Boolean.Input(
            "hardware_encoder",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Encode on the graphics card (NVENC, VideoToolbox, QSV) if that works; if not, "
            "on the processor, and the log says so. Faster, but larger files at the same quality.",
        ),
        io.Boolean.Input(
            "contact_sheet",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Also write a PNG beside the video, with up to 16 of its frames in rows and "
            "with the graph.",
        ),
    ]


def _playing_inputs() -> list[io.Input]:
    return [
        io.Boolean.Input(
            "pingpong",
            default=False,
            tooltip="Play the frames forwards and then backwards, without the two at the ends.",
        ),
        io.Int.Input(
            "loop_count",
            default=0,
            min=LOOP_COUNT.low,
            max=LOOP_COUNT.high,
            tooltip="How often the video is repeated. This makes files longer, except gif and "
            "webp, which repeat forever at 0.",
        ),
    ]


@naming_inputs(frame_rate="fps")
def write_video(
    images: Tensor,
    path: Path,
    form: OutputFormat,
    *,
    fps: float,
    audio: dict[str, Any] | None,
    pingpong: bool,
    loop_count: int,
    crf: int | None = None,
    metadata: dict[str, str] | None = None,
    hardware: bool = False,
) -> None:
    """Write IMAGE frames [n, height, width, 3 or 4], float 0..1, and AUDIO into a file."""
    count, height, width, _ = images.shape
    report = host.NodeProgress()
    with videos.VideoWriter(
        path,
        width=width,
        height=height,
        frame_rate=exact_rate(fps, name="fps"),
        format=form.name,
        crf=crf,
        audio=_audio(audio),
        pingpong=pingpong,
        loop_count=loop_count,
        metadata=metadata,
        hardware=hardware,
    ) as writer:
        for chunk in torch.split(images, FRAMES_PER_CHUNK):
            host.raise_if_interrupted()
            eight_bit = (chunk.clamp(0, 1) * 255).round().to(torch.uint8)
            writer.write(eight_bit.cpu().numpy())
            report.share(writer.frame_count / count)


def write_cover(image: Tensor, path: Path, metadata: dict[str, str]) -> None:
    """Write a picture [height, width, 3 or 4] with the graph, for a format that cannot hold it."""
    eight_bit = (image[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    texts = PngInfo()
    for key, text in metadata.items():
        texts.add_text(key, text)
    Image.fromarray(eight_bit).save(path, pnginfo=texts)


def _audio(audio: dict[str, Any] | None) -> videos.Audio | None:
    if audio is None:
        return None
    waveform = audio["waveform"][0].float().cpu().contiguous().numpy()
    return videos.Audio(waveform, int(audio["sample_rate"]))


def shown(files: list[host.OutputFile], form: OutputFormat, *, path: Path) -> dict[str, Any]:
    """Return what the frontend shows of a result: a player or an animated picture; and its path."""
    results = [
        ui.SavedResult(
            file.path.name,
            file.subfolder,
            io.FolderType.temp if file.is_temporary else io.FolderType.output,
        )
        for file in files
    ]
    # The frontend puts animated pictures into a video player, which cannot play a gif.
    if form.name == "gif":
        preview: Any = ui.SavedImages(results, is_animated=False)
    else:
        preview = ui.PreviewVideo(results)
    return {**preview.as_dict(), "paths": [str(path)]}
