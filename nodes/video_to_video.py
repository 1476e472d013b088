"""The whole job in one node, streamed from file to file."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import InputImpl, io

from ..pipeline import video as videos
from . import host
from .checks import CheckedNode, Problem
from .encode_video import shown
from .fingerprint import file_fingerprint
from .inputs import guide_inputs, prefix_input, seed_input, steps_problem, video_input
from .job_inputs import FORMAT, JobInputs, frame_inputs, setting_inputs, speed_socket
from .loading import load_managed, model_fingerprints, named
from .model_checks import file_problem
from .selection import selection_problem
from .sockets import CATEGORY

FILENAME_PREFIX = "video/AnimateDiffV2V"


class VideoToVideo(CheckedNode):
    """Restyles a video file."""

    wider_than_widget = ("num_inference_steps",)

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_VideoToVideo",
            display_name="AnimateDiff Video to Video",
            category=CATEGORY,
            description="Restyle a whole video in one node. Frames are streamed from file to file, "
            "so longer videos do not need more memory.",
            search_aliases=[
                "animatediff",
                "vid2vid",
                "restyle video",
                "video style transfer",
                "vhs",
                "evolved",
                "v2v",
            ],
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=_inputs(),
            outputs=[
                io.Video.Output(display_name="video", tooltip="The restyled video, mp4."),
                io.Int.Output(display_name="seed", tooltip="The seed that was used."),
                io.String.Output(
                    display_name="timings",
                    tooltip="Seconds of each phase as JSON: decode, encode, sample, "
                    "decode_latents, write, total.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        *,
        video: str,
        filename_prefix: str = FILENAME_PREFIX,
        control: host.Chain | None = None,
        style: host.Chain | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        """Load the networks, restyle the video and write the result.

        `settings` are the values of setting_inputs, speed_socket and frame_inputs.
        """
        path, given = host.input_path(video), JobInputs(**settings)
        with host.warnings_on_node() as say:
            say("Loading the checkpoint…")
            from .frames import FrameSize, restyle_file  # noqa: PLC0415 - loads the networks

            with videos.VideoReader(
                path, selection=given.selection(), width=given.width, height=given.height
            ) as reader:
                size = FrameSize(reader.width, reader.height).times(given.refine)
            target = host.output_file(filename_prefix, FORMAT.extension, **size._asdict())
            metadata = host.workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo)
            request = given.request(path, target.path, metadata)
            model = load_managed(
                given.base_model,
                motion_module=given.motion_module,
                lora_stack=given.lora_stack or (),
                motion_lora_stack=given.motion_lora_stack or (),
                fp8_weights=request.sampling.speed.fp8_weights,
            )
            result = restyle_file(
                request,
                model,
                size=size,
                control=control or host.Chain(),
                style=style or host.Chain(),
                say=say,
            )
        timings = result.as_json()["timings"]
        return io.NodeOutput(
            InputImpl.VideoFromFile(str(result.path)),
            result.seed,
            json.dumps(timings),
            ui=shown([target], FORMAT, path=target.path) | {"timings": (timings,)},
        )

    @classmethod
    def find_problem(
        cls,
        _node_id: str,
        *,
        num_inference_steps: int | None = None,
        video: str | None = None,
        base_model: str | None = None,
        motion_module: str | None = None,
    ) -> Problem | None:
        """Find a wrong number of steps, and files that are missing or of the wrong kind."""
        return (
            selection_problem(video)
            or steps_problem("num_inference_steps", num_inference_steps)
            or file_problem(
                base_model=("checkpoints", base_model),
                motion_module=(host.MOTION_MODULES, named(motion_module)),
            )
        )

    @classmethod
    def fingerprint_inputs(
        cls, video: str | None, base_model: str | None, motion_module: str | None, **_others: object
    ) -> list[str]:
        """Run again when a file has changed."""
        models = model_fingerprints(base_model, motion_module=motion_module)
        source = [] if video is None else [file_fingerprint(host.input_path(video))]
        return [*source, *models]


def _inputs() -> list[io.Input]:
    return [
        video_input(),
        *setting_inputs(seed_input()),
        prefix_input(optional=True, advanced=True),
        speed_socket(),
        *guide_inputs(),
        *frame_inputs(),
    ]
